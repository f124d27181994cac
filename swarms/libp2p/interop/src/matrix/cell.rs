//! One round of one cell.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use p2p_libp2p::ping::PING;
use tokio::process::Command;
use tokio::time::timeout;

use super::Context;
use super::peer::Installed;
use super::process::Process;
use crate::link::Link;
use crate::report::Latency;
use crate::transport::IDENTIFIED;

/// Timeout of a round: starting two processes takes most of it.
const LIMIT: Duration = Duration::from_mins(1);

/// The address at which listeners listen. Some test programs publish no address of 127.0.0.1.
const IP: &str = "127.0.0.2";

/// Which side dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// Our host dials the peer.
    WeDial,
    /// The peer dials our host.
    PeerDials,
    /// The tool `p2putil` dials the peer.
    Tool,
}

impl Direction {
    pub(super) const ALL: [Self; 3] = [Self::WeDial, Self::PeerDials, Self::Tool];
}

/// A cell of the matrix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell<'a> {
    pub(super) peer: &'a Installed,
    pub(super) link: Link,
    pub(super) direction: Direction,
}

impl fmt::Display for Cell<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            peer,
            link,
            direction,
        } = self;
        match direction {
            Direction::WeDial => write!(f, "{link}: ours dials {}", peer.name),
            Direction::PeerDials => write!(f, "{link}: {} dials ours", peer.name),
            Direction::Tool => write!(f, "{link}: p2putil dials {}", peer.name),
        }
    }
}

impl Cell<'_> {
    /// Runs a round. Returns the dialler's times.
    ///
    /// # Errors
    /// The reason, with the last lines that both sides wrote to standard error.
    pub(super) async fn run(self, context: &Context) -> Result<Latency, String> {
        let key = format!("{:08x}", rand::random::<u32>());
        let listener_is_ours = self.direction == Direction::PeerDials;
        let mut listener = Process::start(&mut self.command(context, listener_is_ours, false, &key))?;
        if self.direction == Direction::Tool {
            let Some(tool) = &context.p2putil else {
                return Err("there is no p2putil".to_owned());
            };
            let check = async {
                let addr = context.stub.pop(&format!("{key}_listener_multiaddr")).await;
                check_tool(tool, &addr, self.peer.peer.has_perf()).await
            };
            let outcome = tokio::select! {
                outcome = timeout(LIMIT, check) => outcome.unwrap_or(Err(too_late())),
                ended = listener.ended() => ended.and_then(early),
            };
            return outcome.map_err(|reason| format!("{reason}{}", listener.log("listener")));
        }
        let mut dialler = Process::start(&mut self.command(context, !listener_is_ours, true, &key))?;
        let outcome = tokio::select! {
            outcome = timeout(LIMIT, dialler.ended()) => outcome.unwrap_or(Err(too_late())),
            ended = listener.ended() => ended.and_then(early),
        };
        let outcome = match outcome {
            Ok(status) if status.success() => Latency::parse(&dialler.output().await),
            Ok(status) => Err(format!("the dialler failed: {status}")),
            Err(reason) => Err(reason),
        };
        // Our dialler identifies the peer after the test, which does not ask for it.
        let is_identified = listener_is_ours || dialler.log("").contains(IDENTIFIED);
        let outcome = outcome.and_then(|latency| {
            let latency = is_identified.then_some(latency);
            latency.ok_or_else(|| "ours did not identify the peer".to_owned())
        });
        outcome.map_err(|reason| format!("{reason}{}{}", dialler.log("dialler"), listener.log("listener")))
    }

    /// Returns the command of one side, with the harness's variables.
    fn command(self, context: &Context, is_ours: bool, is_dialler: bool, key: &str) -> Command {
        let mut command = match &self.peer.program {
            Some(program) if !is_ours => Command::new(program),
            _ => {
                let mut command = Command::new(&context.program);
                command.arg("transport");
                command
            }
        };
        let (transport, security, muxer) = self.link.names();
        command
            .env("IS_DIALER", is_dialler.to_string())
            .env("REDIS_ADDR", context.stub.addr())
            .env("TEST_KEY", key)
            .env("TRANSPORT", transport)
            .env("LISTENER_IP", IP)
            .env("DEBUG", context.verbose.to_string())
            // The peer of go-libp2p is this program, too.
            .env("INTEROP", &context.program);
        for (name, value) in [("SECURE_CHANNEL", security), ("MUXER", muxer)] {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }
}

fn early<T>(status: std::process::ExitStatus) -> Result<T, String> {
    Err(format!("the listener ended: {status}"))
}

fn too_late() -> String {
    format!("not done within {LIMIT:?}")
}

/// Lets `p2putil` ping and identify the listener, and measure the throughput if the listener serves perf.
async fn check_tool(tool: &Path, addr: &str, has_perf: bool) -> Result<Latency, String> {
    let pinged = output(tool, &["host", "ping", addr, "--count", "2"]).await?;
    let times: Vec<f64> = pinged
        .lines()
        .filter_map(|line| line.strip_prefix("name=rtt value="))
        .filter_map(|rest| rest.split(' ').next()?.parse().ok())
        .collect();
    let [first, second] = times[..] else {
        return Err(format!("p2putil host ping printed {pinged:?}"));
    };
    let identified = output(tool, &["host", "identify", addr]).await?;
    if !identified
        .lines()
        .any(|line| line.strip_prefix("protocol ") == Some(PING))
    {
        return Err(format!("p2putil host identify printed {identified:?}"));
    }
    if has_perf {
        let measured = output(
            tool,
            &["host", "perf", addr, "--up", "100000", "--down", "200000"],
        )
        .await?;
        if !["upload", "download"]
            .iter()
            .all(|name| measured.contains(&format!("name={name} value=")))
        {
            return Err(format!("p2putil host perf printed {measured:?}"));
        }
    }
    let time = |millis: f64| Duration::try_from_secs_f64(millis / 1e3).map_err(|error| error.to_string());
    Ok(Latency {
        handshake_plus_one_rtt: time(first)?,
        ping: time(second)?,
    })
}

/// Runs the tool, and returns its standard output.
async fn output(tool: &Path, args: &[&str]) -> Result<String, String> {
    let mut process = Process::start(Command::new(tool).args(args))?;
    let status = process.ended().await?;
    if status.success() {
        Ok(process.output().await)
    } else {
        Err(format!(
            "p2putil {}: {status}{}",
            args.join(" "),
            process.log("p2putil")
        ))
    }
}
