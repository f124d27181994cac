//! What the command line says.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::sim::Sim;

const STACKS: &str = "\
Stacks are written base first, layers joined by '/', arguments after '=', options after ',':
  udp=127.0.0.1:0/frag=65536            large messages over UDP
  udp=[::1]:0,mtu=1452/quic             QUIC, to peers that prove who they are
  udp/p2pke/mbapp/mux=chat              a secure channel, asks, one channel among others
  mem/faulty,loss=0.1,seed=7/frag=9000  a bad network inside this process

Layers:
  mem[=REALM]           memory swarm; nodes of one process that name the same realm meet
  udp[=IP:PORT]         UDP; mtu=
  faulty                loss= dup= reorder= corrupt= (0 to 1), delay= jitter= (ms), rate= (bytes/s), seed=
  frag[=MTU]            messages longer than those below
  mux, mux16, mux32, mux64, muxv =CHANNEL
  allow=ID;ADDR;...     nobody else is heard or spoken to
  quic[=MTU]            messages and asks of up to 1 MiB over QUIC; addresses are ID@ADDR
  p2pke                 a secure channel over datagrams; addresses are ID@ADDR
  mbapp[=MTU]           asks over datagrams

Exit codes: 0 done, 1 failed, 2 used wrongly.";

/// Swarms from the command line.
#[derive(Debug, Parser)]
#[command(name = "p2putil", version, about = "Swarms from the command line", after_help = STACKS)]
pub(crate) struct Cli {
    /// Print one JSON object a line.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Send a file around a ring of nodes over several stacks, ask the next node, and show what became of it.
    Demo(Demo),
    /// Make a private key.
    Keygen(Keygen),
    /// Print who has a key.
    Id(Id),
    /// Print this node's addresses, then what it receives, until interrupted.
    Listen(Listen),
    /// Send one message.
    Tell(Tell),
    /// Send one request and print the response.
    Ask(Ask),
    /// Measure two nodes of a stack in this process.
    Bench(Bench),
    /// Check a stack against the laws of a swarm.
    Conformance(Conformance),
    /// Simulate an overlay of thousands of nodes.
    #[command(subcommand)]
    Sim(Sim),
    /// Print a script that completes commands and options in a shell.
    #[command(
        after_help = "Example:\n  p2putil completions bash > ~/.local/share/bash-completion/completions/p2putil"
    )]
    Completions {
        /// Which shell.
        shell: Shell,
    },
}

/// The demonstration.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  p2putil demo\n  p2putil demo --nodes 16 --file photo.jpg --verbose")]
pub(crate) struct Demo {
    /// Nodes in the ring.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(2..=64))]
    pub(crate) nodes: u16,
    /// What the faults of the bad network follow from.
    #[arg(long, default_value_t = 7)]
    pub(crate) seed: u64,
    /// The file that each node sends; by default this program itself, up to 16 MiB of it.
    #[arg(long)]
    pub(crate) file: Option<PathBuf>,
    /// Show the counters of every layer, too.
    #[arg(long)]
    pub(crate) verbose: bool,
}

/// A new key.
#[derive(Debug, Args)]
#[command(after_help = "\
The key is one of Ed25519, in PEM (PKCS#8). A file is for its owner alone, and none is ever overwritten.

Examples:
  p2putil keygen --out node.pem         prints its ids, as 'id' does
  p2putil keygen > node.pem")]
pub(crate) struct Keygen {
    /// The file to make; without it the key goes to standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// Whose key it is.
#[derive(Debug, Args)]
#[command(after_help = "\
One key has two ids, since layers hash it in two ways. Prints both:
  p2pke ID    as addresses of p2pke have it (SHAKE256)
  quic ID     as addresses of quic have it (SHA3-256)

Example:
  p2putil id node.pem")]
pub(crate) struct Id {
    /// A private or a public key, in PEM.
    pub(crate) file: PathBuf,
}

/// Whose node it is.
#[derive(Debug, Default, Args)]
#[group(multiple = false)]
pub(crate) struct Key {
    /// The private key of the node, in PEM; without one it has a new one each time.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// The key that 64 hex digits make. Whoever sees the command line knows it: for tests.
    #[arg(long, value_name = "HEX", value_parser = seed)]
    pub(crate) seed: Option<[u8; 32]>,
}

/// Listening.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints 'addr TEXT' for each address, then 'tell SRC PAYLOAD' and 'ask SRC PAYLOAD' as they come.

Examples, each in two terminals:
  p2putil listen udp=127.0.0.1:4000/frag=65536 --echo
  p2putil tell udp/frag=65536 127.0.0.1:4000 hello --wait 1

  p2putil listen udp=127.0.0.1:4000/quic --key node.pem --echo
  p2putil ask udp/quic ID@127.0.0.1:4000 hello")]
pub(crate) struct Listen {
    /// The stack.
    pub(crate) stack: String,
    /// Answer tells with 'echo:' and the payload, asks with the payload reversed.
    #[arg(long)]
    pub(crate) echo: bool,
    #[command(flatten)]
    pub(crate) key: Key,
}

/// One message.
#[derive(Debug, Args)]
#[command(after_help = "\
Where addresses name an ID, the message leaves once its owner proved to be there.

Examples:
  p2putil tell udp/frag=65536 127.0.0.1:4000 hello
  p2putil tell udp/frag=65536 127.0.0.1:4000 - < letter.txt
  p2putil tell udp/quic ID@127.0.0.1:4000 hello --key node.pem")]
pub(crate) struct Tell {
    /// The stack.
    pub(crate) stack: String,
    /// Whom to tell.
    #[arg(allow_hyphen_values = true)]
    pub(crate) addr: String,
    /// What to tell; '-' reads it from standard input.
    #[arg(allow_hyphen_values = true)]
    pub(crate) text: String,
    /// Then wait for up to this many seconds for a message, and print it; without one, fail.
    #[arg(long, value_name = "SECS", value_parser = seconds)]
    pub(crate) wait: Option<f64>,
    #[command(flatten)]
    pub(crate) key: Key,
}

/// One request.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2putil ask udp/mbapp 127.0.0.1:4000 'what time is it?'
  p2putil ask udp/quic ID@127.0.0.1:4000 - --key node.pem < question.txt")]
pub(crate) struct Ask {
    /// The stack; all of its layers must carry asks.
    pub(crate) stack: String,
    /// Whom to ask.
    #[arg(allow_hyphen_values = true)]
    pub(crate) addr: String,
    /// What to ask; '-' reads it from standard input.
    #[arg(allow_hyphen_values = true)]
    pub(crate) text: String,
    /// How long the response may take, in seconds.
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    pub(crate) timeout: f64,
    #[command(flatten)]
    pub(crate) key: Key,
}

/// A measurement.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints lines of name=… value=… unit=… Each node has a key of its own.

Examples:
  p2putil bench udp/frag=65536 --size 60000
  p2putil bench udp/quic --size 60000
  p2putil bench mem --ask --inflight 1")]
pub(crate) struct Bench {
    /// The stack; two nodes of it are opened.
    pub(crate) stack: String,
    /// Bytes of a message.
    #[arg(long, default_value_t = 1024)]
    pub(crate) size: usize,
    /// How long to measure, in seconds.
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    pub(crate) secs: f64,
    /// Measure asks instead of tells.
    #[arg(long)]
    pub(crate) ask: bool,
    /// Messages under way at a time.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) inflight: u32,
}

/// The laws.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints each law with its verdict, and how many passed, failed and were waived; also if it is interrupted.

Examples:
  p2putil conformance udp=127.0.0.1:0/frag=65536/mux=chat
  p2putil conformance udp/quic")]
pub(crate) struct Conformance {
    /// The stack.
    pub(crate) stack: String,
}

/// A time that ends: at most a day.
fn seconds(text: &str) -> Result<f64, String> {
    let secs = text.parse().ok();
    secs.filter(|secs| (0.0..=86_400.0).contains(secs))
        .ok_or_else(|| "a number of seconds from 0 to 86400 was expected".to_owned())
}

/// 32 bytes in hex.
fn seed(text: &str) -> Result<[u8; 32], String> {
    let mut bytes = [0; 32];
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|c| c.to_digit(16).and_then(|digit| digit.try_into().ok()))
        .collect();
    match digits {
        Some(digits) if digits.len() == 2 * bytes.len() => {
            for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
                *byte = pair.iter().fold(0, |byte, digit| byte << 4 | digit);
            }
            Ok(bytes)
        }
        Some(digits) => Err(format!(
            "64 hex digits were expected, and there are {}",
            digits.len()
        )),
        None => Err("64 hex digits were expected, and there is something else".to_owned()),
    }
}
