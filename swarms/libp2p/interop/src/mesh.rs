//! A gossipsub mesh of several implementations: each node is a process, and each publishes in turn.
//!
//! The nodes of [`gossip`](crate::gossip) and of the peers understand the same lines. A run passes if every node hears of the
//! subscriptions of all others, and every message arrives at every other node.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use clap::Args;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};

use crate::Failure;
use crate::matrix::installed;

/// Timeout of each line that a node must print.
const LIMIT: Duration = Duration::from_secs(30);

/// Three heartbeats, in which all nodes come into one another's meshes. Before, a node that is in no mesh when a message
/// passes, and in a mesh at the next heartbeat, hears of it neither by the mesh nor by gossip.
const MESHES_FORM: Duration = Duration::from_secs(3);

/// The peers that have a program for the mesh.
const PEERS: [&str; 3] = ["rust", "js", "go"];

/// Options of the mesh.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Number of nodes of each implementation
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    nodes: u8,
    /// Number of messages of each node
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    messages: u16,
    /// The peers, separated by commas: rust, js, go; by default those that are installed
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// The folder of the installed peers; by default `interop` beside the folder of this program
    #[arg(long, value_name = "FOLDER")]
    installed: Option<PathBuf>,
}

/// A process of the mesh, in a group of its own with those that it starts. The group is killed when this is dropped.
struct Node {
    name: String,
    addr: String,
    /// `None` once they have ended.
    commands: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    child: Child,
    group: Option<Pid>,
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            // An error says that all of them have ended.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Node {
    async fn start(name: String, command: &mut Command) -> Result<Self, Failure> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0);
        let mut child = command
            .spawn()
            .map_err(|error| format!("{name} cannot be started: {error}"))?;
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let (commands, lines) = (child.stdin.take(), child.stdout.take());
        let (commands, lines) = commands.zip(lines).ok_or("a process without pipes")?;
        let mut node = Self {
            name,
            addr: String::new(),
            commands: Some(commands),
            lines: BufReader::new(lines).lines(),
            child,
            group,
        };
        node.addr = node.next("at").await?;
        Ok(node)
    }

    /// Returns the rest of the next line that begins with a word.
    async fn next(&mut self, word: &str) -> Result<String, Failure> {
        let name = &self.name;
        let lines = &mut self.lines;
        let found = async {
            while let Some(line) = lines.next_line().await? {
                if let Some((first, rest)) = line.split_once(' ')
                    && first == word
                {
                    return Ok::<_, Failure>(rest.to_owned());
                }
            }
            Err(format!("{name} ended").into())
        };
        let found = timeout(LIMIT, found).await;
        found.map_err(|_| format!("{name}: no line `{word}` within {LIMIT:?}"))?
    }

    /// Ends the node by the end of its commands.
    async fn end(mut self) -> Result<(), Failure> {
        self.commands.take();
        // Its output is read, so that it does not wait for room.
        let (name, lines) = (&self.name, &mut self.lines);
        let ended = async {
            while lines.next_line().await?.is_some() {}
            self.child.wait().await
        };
        let ended = timeout(LIMIT, ended).await;
        let status = ended.map_err(|_| format!("{name} did not end within {LIMIT:?}"))??;
        if status.success() {
            return Ok(());
        }
        Err(format!("{name} ended: {status}").into())
    }

    async fn command(&mut self, line: String) -> Result<(), Failure> {
        let commands = self.commands.as_mut().ok_or("the node was ended")?;
        commands.write_all(format!("{line}\n").as_bytes()).await?;
        Ok(())
    }
}

/// Runs a mesh, and prints what was delivered.
///
/// # Errors
/// A text, if a node could not be started, a message did not arrive, or a chosen peer is not installed.
pub async fn run(options: &Options) -> Result<(), Failure> {
    // The processes are groups of their own, which no signal to this one reaches.
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        delivered = deliver(options) => delivered,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
        _ = terminated.recv() => Err("terminated".into()),
    }
}

async fn deliver(options: &Options) -> Result<(), Failure> {
    let program = std::env::current_exe()?;
    let folder = installed(options.installed.as_deref(), &program);
    let mut programs = vec![("ours".to_owned(), program.clone())];
    for peer in PEERS {
        let path = folder.join(peer).join("gossip");
        let is_chosen = options.peers.iter().any(|chosen| chosen == peer);
        if path.is_file() && (is_chosen || options.peers.is_empty()) {
            programs.push((peer.to_owned(), path));
        } else if is_chosen {
            return Err(format!("{peer} is not installed").into());
        }
    }
    let mut nodes: Vec<Node> = Vec::new();
    for number in 0..options.nodes {
        for (name, path) in &programs {
            let mut command = Command::new(path);
            command.env("INTEROP", &program);
            if name == "ours" {
                command.arg("gossip");
            }
            let mut node = Node::start(format!("{name} {number}"), &mut command).await?;
            // Each node dials all that are there.
            for other in &nodes {
                node.command(format!("connect {}", other.addr)).await?;
            }
            nodes.push(node);
        }
    }
    let count = nodes.len();
    for node in &mut nodes {
        let mut peers = std::collections::BTreeSet::new();
        while peers.len() < count - 1 {
            peers.insert(node.next("subscribed").await?);
        }
    }
    sleep(MESHES_FORM).await;
    for number in 0..options.messages {
        for from in 0..count {
            let mut text = String::new();
            if let Some(node) = nodes.get_mut(from) {
                text = format!("{}-{number}", node.name.replace(' ', "-"));
                node.command(format!("publish {text}")).await?;
            }
            for (to, node) in nodes.iter_mut().enumerate() {
                if to == from {
                    continue;
                }
                let received = node.next("received").await;
                let received = received.map_err(|error| format!("{text} did not arrive: {error}"))?;
                if received != text {
                    return Err(format!("{} received {received} in place of {text}", node.name).into());
                }
            }
        }
    }
    let names: Vec<String> = nodes.iter().map(|node| node.name.clone()).collect();
    for node in nodes {
        node.end().await?;
    }
    println!("{count} nodes: {}", names.join(", "));
    let messages = usize::from(options.messages) * count;
    println!("{messages} messages, each received by all {} others", count - 1);
    Ok(())
}
