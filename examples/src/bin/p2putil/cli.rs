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
  udp/p2pke/mbapp/kad=ID@1.2.3.4:5      nodes that are reached by their IDs, wherever they are

Layers:
  mem[=REALM]           memory swarm; nodes of one process that name the same realm meet
  udp[=IP:PORT]         UDP; mtu=; host names such as localhost are not resolved
  faulty                loss= dup= reorder= corrupt= (0 to 1), delay= jitter= (ms), rate= (bytes/s), seed=
  frag[=MTU]            messages longer than those below
  mux, mux16, mux32, mux64, muxv =CHANNEL
  allow=ID;ADDR;...     nobody else is heard or spoken to
  quic[=MTU]            messages and asks of up to 1 MiB over QUIC; addresses are ID@ADDR
  p2pke                 a secure channel over datagrams; addresses are ID@ADDR
  mbapp[=MTU]           asks over datagrams
  kad[=ADDR;ADDR;...]   a Kademlia network, joined through nodes at these addresses; addresses are IDs
  chord[=ADDR;...]      a Chord ring, likewise
  gossip=TOPIC          publish and subscribe; peers=ADDR;ADDR;... are the first neighbours

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
    /// Show nodes at work in this process: files and asks around a ring, records and messages in a network.
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
    /// Publish one message to a topic.
    Pub(crate::gossip::Pub),
    /// Print what is published to a topic, until interrupted.
    Sub(crate::gossip::Sub),
    /// Talk with all who are in the same room.
    Chat(crate::chat::Chat),
    /// Print where nodes are that announced themselves.
    Find(crate::discover::Find),
    /// Serve a tracker, through which nodes find each other.
    Tracker(crate::tracker::Tracker),
    /// Measure two nodes of a stack in this process.
    Bench(Bench),
    /// Check a stack against the laws of a swarm.
    Conformance(Conformance),
    /// Simulate an overlay of thousands of nodes.
    #[command(subcommand)]
    Sim(Sim),
    /// Run a node of a Kademlia network; find nodes, get and put records in one.
    #[command(subcommand)]
    Dht(Dht),
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
#[command(after_help = "Examples:\n  p2putil demo\n  p2putil demo --nodes 64 --file photo.jpg --verbose")]
pub(crate) struct Demo {
    /// Nodes of the network; up to 8 of them make the rings.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(2..=64))]
    pub(crate) nodes: u16,
    /// What follows from it: the faults of the bad network, the keys of nodes, the records.
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
    /// The private key of the node, in PEM; without one it has a new one each time. A file that others can read gets a
    /// warning.
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// The key that 64 hex digits make. Whoever sees the command line knows it: for tests.
    #[arg(long, value_name = "HEX", value_parser = seed)]
    pub(crate) seed: Option<[u8; 32]>,
}

/// Listening.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints 'addr TEXT' for each address, then 'tell SRC PAYLOAD' and 'ask SRC PAYLOAD' as they come. A node of an overlay also
prints 'bootstrap TEXT': where others join through it.

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
    pub(crate) announce: crate::discover::Announce,
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
Prints each law with its verdict, and how many passed, failed and were waived; also if it is interrupted. A waived law was
not checked, for the reason that is given. A seed gives the same lengths, contents and orders again.

Examples:
  p2putil conformance udp=127.0.0.1:0/frag=65536/mux=chat
  p2putil conformance udp/quic --strict --seed 7
  p2putil conformance mem --junit laws.xml --report laws.json")]
pub(crate) struct Conformance {
    /// The stack.
    pub(crate) stack: String,
    /// Ten times as much traffic as otherwise, which finds rarer faults and takes ten times as long.
    #[arg(long, conflicts_with = "quick")]
    pub(crate) strict: bool,
    /// A tenth of the traffic, for a first look.
    #[arg(long)]
    pub(crate) quick: bool,
    /// What everything random follows from; a failure names it.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Also write the verdicts to a file as `JUnit` XML, which CI systems read.
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// Also write the verdicts to a file as one JSON object.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
}

/// What to do in a Kademlia network.
#[derive(Debug, Subcommand)]
#[command(after_help = DHT)]
pub(crate) enum Dht {
    /// Run a node: print its addresses, then what it receives, until interrupted.
    Join(Join),
    /// Print the nodes nearest to an id, the nearest first.
    Find(Find),
    /// Print a record.
    Get(Get),
    /// Put a record on the nodes nearest to its key.
    Put(Put),
}

const DHT: &str = "\
Examples, the first one in a terminal of its own:
  p2putil dht join udp=127.0.0.1:4000/p2pke/mbapp/kad --key node.pem
  p2putil dht join udp/p2pke/mbapp/kad=ID@127.0.0.1:4000
  p2putil dht put  udp/p2pke/mbapp/kad=ID@127.0.0.1:4000 greeting hello
  p2putil dht get  udp/p2pke/mbapp/kad=ID@127.0.0.1:4000 greeting
  p2putil dht find udp/p2pke/mbapp/kad=ID@127.0.0.1:4000 ID";

/// A node.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints 'addr ID', then 'bootstrap ADDR', through which others join, then what it receives as 'listen' does. Nodes keep any
record, the first one of a key, for a day at most.

Examples:
  p2putil dht join udp=127.0.0.1:4000/p2pke/mbapp/kad --key node.pem
  p2putil dht join udp/p2pke/mbapp/kad=ID@127.0.0.1:4000 --echo")]
pub(crate) struct Join {
    /// The stack, with kad and behind it addresses of nodes that are there; the first node of all has none.
    pub(crate) stack: String,
    /// Answer tells with 'echo:' and the payload, asks with the payload reversed.
    #[arg(long)]
    pub(crate) echo: bool,
    #[command(flatten)]
    pub(crate) key: Key,
}

/// A search for nodes.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints 'node ID ADDR' for each; with --json also how far the search is.

Example:
  p2putil dht find udp/p2pke/mbapp/kad=ID@127.0.0.1:4000 ID")]
pub(crate) struct Find {
    /// The stack, with kad and behind it addresses of nodes that are there.
    pub(crate) stack: String,
    /// Whom to find.
    #[arg(allow_hyphen_values = true)]
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) key: Key,
}

/// A search for a record.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints the record's value.

Example:
  p2putil dht get udp/p2pke/mbapp/kad=ID@127.0.0.1:4000 greeting")]
pub(crate) struct Get {
    /// The stack, with kad and behind it addresses of nodes that are there.
    pub(crate) stack: String,
    /// The record's key: an id, or any other text, which stands for its BLAKE3 hash.
    #[arg(value_name = "KEY", allow_hyphen_values = true)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) key: Key,
}

/// A record.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints 'put ID SIZE bytes COUNT copies'. It stays when this command ends; a record that is there is not replaced.

Examples:
  p2putil dht put udp/p2pke/mbapp/kad=ID@127.0.0.1:4000 greeting hello
  p2putil dht put udp/p2pke/mbapp/kad=ID@127.0.0.1:4000 letter - --ttl 3600 < letter.txt")]
pub(crate) struct Put {
    /// The stack, with kad and behind it addresses of nodes that are there.
    pub(crate) stack: String,
    /// The record's key: an id, or any other text, which stands for its BLAKE3 hash.
    #[arg(value_name = "KEY", allow_hyphen_values = true)]
    pub(crate) name: String,
    /// The record's value, of up to 8192 bytes; '-' reads it from standard input.
    #[arg(allow_hyphen_values = true)]
    pub(crate) value: String,
    /// For how many seconds it is good.
    #[arg(long, value_name = "SECS", default_value_t = 86_400.0, value_parser = seconds)]
    pub(crate) ttl: f64,
    #[command(flatten)]
    pub(crate) key: Key,
}

/// A time that ends: at most a day.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
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
