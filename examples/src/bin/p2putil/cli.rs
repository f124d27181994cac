//! Command line arguments.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::sim::Sim;

const STACKS: &str = "\
Stacks are written base first, layers joined by '/', arguments after '=', options after ',':
  udp=127.0.0.1:0/frag=65536            large messages over UDP
  udp=[::1]:0,mtu=1452/quic             QUIC, to authenticated peers
  udp/p2pke/mbapp/mux=chat              a secure channel, asks, one channel of several
  mem/faulty,loss=0.1,seed=7/frag=9000  a bad network inside this process
  udp/p2pke/mbapp/kad=ID@1.2.3.4:5      nodes that are reached by ID
  libp2p=/ip4/127.0.0.1/tcp/0/mux=chat  a libp2p host; addresses are /ip4/.../tcp/PORT/p2p/ID

Layers:
  mem[=REALM]           memory swarm; nodes of one process with the same realm reach each other
  udp[=IP:PORT]         UDP; mtu=; host names such as localhost are not resolved
  libp2p[=MULTIADDR]    a libp2p host; protocol=/name/version; several places are joined by ;
  faulty                loss= dup= reorder= corrupt= (0 to 1), delay= jitter= (ms), rate= (bytes/s), seed=
  frag[=MTU]            messages longer than the MTU below
  mux, mux16, mux32, mux64, muxv =CHANNEL
  allow=ID;ADDR;...     messages to and from other peers are refused
  quic[=MTU]            messages and asks of up to 1 MiB over QUIC; addresses are ID@ADDR
  p2pke                 a secure channel over datagrams; addresses are ID@ADDR
  mbapp[=MTU]           asks over datagrams
  kad[=ADDR;ADDR;...]   a Kademlia network, joined through nodes at these addresses; addresses are IDs
  chord[=ADDR;...]      a Chord ring, likewise
  gossip=TOPIC          publish and subscribe; peers=ADDR;ADDR;... are the first neighbours

Exit codes: 0 success, 1 failure, 2 wrong usage.";

/// Swarms from the command line
#[derive(Debug, Parser)]
#[command(name = "p2putil", version, about = "Swarms from the command line", after_help = STACKS)]
pub(crate) struct Cli {
    /// Print one JSON object per line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Demonstrate nodes in this process: files and asks around a ring, records and messages in a network
    Demo(Demo),
    /// Create a private key
    Keygen(Keygen),
    /// Print the ids of a key
    Id(Id),
    /// Print this node's addresses, then received messages, until interrupted
    Listen(Listen),
    /// Send one message
    Tell(Tell),
    /// Send one request and print the response
    Ask(Ask),
    /// Publish one message to a topic
    Pub(crate::gossip::Pub),
    /// Print messages published to a topic, until interrupted
    Sub(crate::gossip::Sub),
    /// Chat with all nodes in a room
    Chat(crate::chat::Chat),
    /// Print the addresses of nodes that announced themselves
    Find(crate::discover::Find),
    /// Serve a tracker, through which nodes find each other
    Tracker(crate::tracker::Tracker),
    /// Measure two nodes of a stack in this process
    Bench(Bench),
    /// Check a stack against the laws of a swarm
    Conformance(Conformance),
    /// Simulate an overlay of thousands of nodes
    #[command(subcommand)]
    Sim(Sim),
    /// Run a node of a Kademlia network; find nodes, get and put records
    #[command(subcommand)]
    Dht(Dht),
    /// Run a libp2p host; ping, identify and measure peers of any libp2p implementation
    #[command(subcommand)]
    Host(crate::host::Hosts),
    /// Print a shell completion script
    #[command(
        after_help = "Example:\n  p2putil completions bash > ~/.local/share/bash-completion/completions/p2putil"
    )]
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// Options of the demonstration.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  p2putil demo\n  p2putil demo --nodes 64 --file photo.jpg --verbose")]
pub(crate) struct Demo {
    /// Number of nodes in the network; up to 8 of them form the rings
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(2..=64))]
    pub(crate) nodes: u16,
    /// Seed of the bad network's faults, the node keys and the records
    #[arg(long, default_value_t = 7)]
    pub(crate) seed: u64,
    /// The file that each node sends; by default this program, up to 16 MiB of it
    #[arg(long)]
    pub(crate) file: Option<PathBuf>,
    /// Also show the counters of every layer
    #[arg(long)]
    pub(crate) verbose: bool,
}

/// Options of a new key.
#[derive(Debug, Args)]
#[command(after_help = "\
The key is an Ed25519 key in PEM (PKCS#8). A file is readable by its owner only, and is never overwritten.

Examples:
  p2putil keygen --out node.pem         prints its ids, as 'id' does
  p2putil keygen > node.pem")]
pub(crate) struct Keygen {
    /// The file to create; without it the key is written to standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// The key to print.
#[derive(Debug, Args)]
#[command(after_help = "\
One key has two ids, since layers hash it differently. Prints both:
  p2pke ID    as in addresses of p2pke (SHAKE256)
  quic ID     as in addresses of quic (SHA3-256)

Example:
  p2putil id node.pem")]
pub(crate) struct Id {
    /// A private or public key, in PEM
    pub(crate) file: PathBuf,
}

/// The key of the node.
#[derive(Debug, Default, Args)]
#[group(multiple = false)]
pub(crate) struct Key {
    /// The private key of the node, in PEM; default: a new key each time. A file that other users can read
    /// causes a warning
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// A key of 64 hex digits, for tests: it is visible in the process list
    #[arg(long, value_name = "HEX", value_parser = seed)]
    pub(crate) seed: Option<[u8; 32]>,
}

/// Options of a listener.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints 'addr TEXT' for each address, then 'tell SRC PAYLOAD' and 'ask SRC PAYLOAD' for received messages. A node of an
overlay also prints 'bootstrap TEXT', the address for others to join through.

Examples, each in two terminals:
  p2putil listen udp=127.0.0.1:4000/frag=65536 --echo
  p2putil tell udp/frag=65536 127.0.0.1:4000 hello --wait 1

  p2putil listen udp=127.0.0.1:4000/quic --key node.pem --echo
  p2putil ask udp/quic ID@127.0.0.1:4000 hello")]
pub(crate) struct Listen {
    /// The stack
    pub(crate) stack: String,
    /// Answer tells with 'echo:' and the payload, asks with the reversed payload
    #[arg(long)]
    pub(crate) echo: bool,
    #[command(flatten)]
    pub(crate) announce: crate::discover::Announce,
    #[command(flatten)]
    pub(crate) key: Key,
}

/// Options of one message.
#[derive(Debug, Args)]
#[command(after_help = "\
If addresses contain an ID, the message is sent once the peer has proved that identity.

Examples:
  p2putil tell udp/frag=65536 127.0.0.1:4000 hello
  p2putil tell udp/frag=65536 127.0.0.1:4000 - < letter.txt
  p2putil tell udp/quic ID@127.0.0.1:4000 hello --key node.pem")]
pub(crate) struct Tell {
    /// The stack
    pub(crate) stack: String,
    /// The destination address
    #[arg(allow_hyphen_values = true)]
    pub(crate) addr: String,
    /// The message; '-' reads it from standard input
    #[arg(allow_hyphen_values = true)]
    pub(crate) text: String,
    /// Then wait up to this many seconds for a message, and print it; fail without one
    #[arg(long, value_name = "SECS", value_parser = seconds)]
    pub(crate) wait: Option<f64>,
    #[command(flatten)]
    pub(crate) key: Key,
}

/// Options of one request.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  p2putil ask udp/mbapp 127.0.0.1:4000 'what time is it?'
  p2putil ask udp/quic ID@127.0.0.1:4000 - --key node.pem < question.txt")]
pub(crate) struct Ask {
    /// The stack; all of its layers must support asks
    pub(crate) stack: String,
    /// The destination address
    #[arg(allow_hyphen_values = true)]
    pub(crate) addr: String,
    /// The request; '-' reads it from standard input
    #[arg(allow_hyphen_values = true)]
    pub(crate) text: String,
    /// Timeout for the response, in seconds
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    pub(crate) timeout: f64,
    #[command(flatten)]
    pub(crate) key: Key,
}

/// Options of a measurement.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints lines of name=… value=… unit=… Each node has its own key.

Examples:
  p2putil bench udp/frag=65536 --size 60000
  p2putil bench udp/quic --size 60000
  p2putil bench mem --ask --inflight 1")]
pub(crate) struct Bench {
    /// The stack; two nodes of it are opened
    pub(crate) stack: String,
    /// Length of a message in bytes
    #[arg(long, default_value_t = 1024)]
    pub(crate) size: usize,
    /// Duration of the measurement, in seconds
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    pub(crate) secs: f64,
    /// Measure asks instead of tells
    #[arg(long)]
    pub(crate) ask: bool,
    /// Maximum number of messages in flight
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) inflight: u32,
}

/// Options of a conformance run.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints each law with its verdict, and how many passed, failed and were waived, also when it is interrupted. A waived law
was not checked, for the printed reason. Equal seeds give equal lengths, contents and orders.

Examples:
  p2putil conformance udp=127.0.0.1:0/frag=65536/mux=chat
  p2putil conformance udp/quic --strict --seed 7
  p2putil conformance mem --junit laws.xml --report laws.json")]
pub(crate) struct Conformance {
    /// The stack
    pub(crate) stack: String,
    /// Ten times the traffic, which finds rarer faults and takes ten times as long
    #[arg(long, conflicts_with = "quick")]
    pub(crate) strict: bool,
    /// A tenth of the traffic, for a first check
    #[arg(long)]
    pub(crate) quick: bool,
    /// Seed of all random choices; a failure reports it
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Also write the verdicts to a file as `JUnit` XML, for CI systems
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// Also write the verdicts to a file as one JSON object
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
}

/// Subcommands for a Kademlia network.
#[derive(Debug, Subcommand)]
#[command(after_help = DHT)]
pub(crate) enum Dht {
    /// Run a node: print its addresses, then received messages, until interrupted
    Join(Join),
    /// Print the nodes nearest to an id, the nearest first
    Find(Find),
    /// Print a record
    Get(Get),
    /// Store a record at the nodes nearest to its key
    Put(Put),
}

const DHT: &str = "\
Examples, the first one in a separate terminal:
  p2putil dht join udp=127.0.0.1:4000/p2pke/mbapp/kad --key node.pem
  p2putil dht join udp/p2pke/mbapp/kad=ID@127.0.0.1:4000
  p2putil dht put  udp/p2pke/mbapp/kad=ID@127.0.0.1:4000 greeting hello
  p2putil dht get  udp/p2pke/mbapp/kad=ID@127.0.0.1:4000 greeting
  p2putil dht find udp/p2pke/mbapp/kad=ID@127.0.0.1:4000 ID";

/// Options of a node.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints 'addr ID', then 'bootstrap ADDR', through which others join, then received messages as 'listen' does. Nodes store
any record, the first one of a key, for at most a day.

Examples:
  p2putil dht join udp=127.0.0.1:4000/p2pke/mbapp/kad --key node.pem
  p2putil dht join udp/p2pke/mbapp/kad=ID@127.0.0.1:4000 --echo")]
pub(crate) struct Join {
    /// The stack, with kad and the addresses of existing nodes; the first node has none
    pub(crate) stack: String,
    /// Answer tells with 'echo:' and the payload, asks with the reversed payload
    #[arg(long)]
    pub(crate) echo: bool,
    #[command(flatten)]
    pub(crate) key: Key,
}

/// Options of a node lookup.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints 'node ID ADDR' for each node; with --json also the progress of the lookup.

Example:
  p2putil dht find udp/p2pke/mbapp/kad=ID@127.0.0.1:4000 ID")]
pub(crate) struct Find {
    /// The stack, with kad and the addresses of existing nodes
    pub(crate) stack: String,
    /// The id to look up
    #[arg(allow_hyphen_values = true)]
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) key: Key,
}

/// Options of a record lookup.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints the record's value.

Example:
  p2putil dht get udp/p2pke/mbapp/kad=ID@127.0.0.1:4000 greeting")]
pub(crate) struct Get {
    /// The stack, with kad and the addresses of existing nodes
    pub(crate) stack: String,
    /// The record's key: an id, or any other text, of which the BLAKE3 hash is used
    #[arg(value_name = "KEY", allow_hyphen_values = true)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) key: Key,
}

/// Options of storing a record.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints 'put ID SIZE bytes COUNT copies'. The record remains when this command ends; an existing record is not replaced.

Examples:
  p2putil dht put udp/p2pke/mbapp/kad=ID@127.0.0.1:4000 greeting hello
  p2putil dht put udp/p2pke/mbapp/kad=ID@127.0.0.1:4000 letter - --ttl 3600 < letter.txt")]
pub(crate) struct Put {
    /// The stack, with kad and the addresses of existing nodes
    pub(crate) stack: String,
    /// The record's key: an id, or any other text, of which the BLAKE3 hash is used
    #[arg(value_name = "KEY", allow_hyphen_values = true)]
    pub(crate) name: String,
    /// The record's value, up to 8192 bytes; '-' reads it from standard input
    #[arg(allow_hyphen_values = true)]
    pub(crate) value: String,
    /// Lifetime of the record, in seconds
    #[arg(long, value_name = "SECS", default_value_t = 86_400.0, value_parser = seconds)]
    pub(crate) ttl: f64,
    #[command(flatten)]
    pub(crate) key: Key,
}

/// Parses a duration of at most one day.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    let secs: Option<f64> = text.parse().ok();
    secs.filter(|secs| (0.0..=86_400.0).contains(secs))
        .ok_or_else(|| "expected a number of seconds from 0 to 86400".to_owned())
}

/// Parses 32 bytes in hex.
fn seed(text: &str) -> Result<[u8; 32], String> {
    let mut bytes = [0_u8; 32];
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    match digits {
        Some(digits) if digits.len() == 2 * bytes.len() => {
            for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
                *byte = pair.iter().fold(0, |byte: u8, digit| byte << 4 | *digit);
            }
            Ok(bytes)
        }
        Some(digits) => Err(format!("expected 64 hex digits, and there are {}", digits.len())),
        None => Err("expected 64 hex digits, and there is something else".to_owned()),
    }
}
