//! p2putil: swarms from the command line, over stacks in text form.
#![forbid(unsafe_code)]

mod asking;
mod bench;
mod chat;
mod cli;
mod conformance;
#[cfg(unix)]
mod control;
mod demo;
mod dht;
mod discover;
mod files;
mod gossip;
mod host;
mod interrupt;
mod key;
mod listen;
mod network;
mod output;
mod publishing;
mod relayed;
mod report;
mod send;
mod sim;
mod tracker;

use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, Parser as _};
use p2p::{BoxAddr, Error, PeerId, SecureSwarm as _, Swarm};
use p2p_libp2p::stack::Libp2pWord;
use p2p_swarms::stack::{Grammar, Stack, StackError, StackText};

use cli::{Cli, Command};
use output::{Out, complain, print};

/// How long remaining tasks may take to notice that the program ends.
const SHUTDOWN: Duration = Duration::from_secs(1);

/// Why a command failed.
#[derive(Debug)]
enum Failure {
    /// Wrong usage: exit code 2.
    Usage(String),
    /// A failure: exit code 1.
    Failed(String),
    /// The reader of standard output has closed it, as `head` does: exit code 0, since the reader has all it
    /// needs.
    OutputClosed,
}

impl From<StackError> for Failure {
    fn from(error: StackError) -> Self {
        if error.is_in_text() {
            Failure::Usage(error.to_string())
        } else {
            Failure::Failed(with_causes(&error))
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::InvalidAddr { .. } | Error::Invalid { .. } => Failure::Usage(error.to_string()),
            _ => Failure::Failed(with_causes(&error)),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::Failed(error.to_string())
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += ": ";
        text += &error.to_string();
        cause = error.source();
    }
    text
}

/// Parses a stack with the words of all crates.
fn parse(stack: &str) -> Result<StackText, Failure> {
    let grammar = Grammar::default().with_base(Libp2pWord)?;
    Ok(grammar.parse(stack)?)
}

/// Opens a node of the stack `text`.
async fn open(text: &StackText) -> Result<Stack, Failure> {
    Ok(text.build().await?)
}

/// Opens several nodes.
async fn open_many(text: &StackText, count: usize) -> Result<Vec<Stack>, Failure> {
    let mut nodes = Vec::with_capacity(count);
    for _ in 0..count {
        nodes.push(open(text).await?);
    }
    Ok(nodes)
}

/// Returns the best address of a node.
fn first_addr(swarm: &impl Swarm<BoxAddr>) -> Result<BoxAddr, Failure> {
    let first = swarm.local_addrs().into_iter().next();
    first.ok_or_else(|| Failure::Failed("a node has no address".to_owned()))
}

/// Runs `work` and then closes `stack`, even if the work failed, so that messages told before are sent.
async fn closing<T>(stack: &Stack, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let done = work.await;
    stack.close().await;
    done
}

/// Waits until the node at `addr` is authenticated, if addresses of `stack` contain ids. An overlay looks
/// nodes up by itself, and cannot look up the key of a node that it reaches over relays.
async fn reach(text: &StackText, stack: &Stack, addr: &BoxAddr) -> Result<(), Failure> {
    let is_found = addr.downcast_ref::<PeerId>().is_some();
    if let (true, false, Some(keys)) = (text.takes_key(), is_found, stack.keys()) {
        keys.lookup_public_key(addr).await?;
    }
    Ok(())
}

fn run(cli: Cli) -> Result<(), Failure> {
    let out = Out::new(cli.json);
    match &cli.command {
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "p2putil", &mut script);
            return print(String::from_utf8_lossy(&script).trim_end());
        }
        Command::Keygen(args) => return key::keygen(args, out),
        Command::Id(args) => return key::id(args, out),
        Command::Sim(command) => return sim::run(command, out),
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("starting the runtime failed: {error}")))?;
    let result = runtime.block_on(async {
        match cli.command {
            Command::Demo(args) => demo::run(args, out).await,
            Command::Listen(args) => listen::run(args, out).await,
            Command::Tell(args) => send::tell(args, out).await,
            Command::Ask(args) => send::ask(args, out).await,
            Command::Pub(args) => gossip::publish(args, out).await,
            Command::Sub(args) => gossip::subscribe(args, out).await,
            Command::Chat(args) => chat::run(args, out).await,
            Command::Find(args) => discover::find(args, out).await,
            Command::Tracker(args) => tracker::run(args, out).await,
            Command::Bench(args) => bench::run(args, out).await,
            Command::Conformance(args) => conformance::run(args, out).await,
            Command::Dht(command) => dht::run(command, out).await,
            Command::Host(command) => host::run(command, out).await,
            Command::Keygen(_) | Command::Id(_) | Command::Sim(_) | Command::Completions { .. } => Ok(()),
        }
    });
    // A swarm that blocks its thread must not delay the end.
    runtime.shutdown_timeout(SHUTDOWN);
    result
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) | Err(Failure::OutputClosed) => ExitCode::SUCCESS,
        Err(Failure::Failed(why)) => {
            complain(&format!("error: {why}"));
            ExitCode::FAILURE
        }
        Err(Failure::Usage(why)) => {
            complain(&format!("error: {why}\n\nFor more information, try '--help'."));
            ExitCode::from(2)
        }
    }
}
