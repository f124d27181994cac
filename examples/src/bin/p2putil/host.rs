//! `host`: libp2p hosts, which speak with programs of any libp2p implementation.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use clap::{Args, Subcommand};
use p2p_libp2p::{Host, HostAddr, HostEvent};
use serde_json::json;

use crate::Failure;
use crate::cli::Key;
use crate::interrupt::interrupt;
use crate::output::Out;

/// Subcommands for libp2p hosts.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Addresses are multiaddrs that end with the id of the peer:
  /ip4/192.0.2.1/udp/4001/quic-v1/p2p/12D3KooW...     QUIC
  /dns4/example.org/tcp/4001/p2p/12D3KooW...          TCP, Noise or TLS, yamux

Examples, each in two terminals:
  p2putil host listen /ip4/127.0.0.1/udp/4001/quic-v1 /ip4/127.0.0.1/tcp/4001 --perf
  p2putil host ping /ip4/127.0.0.1/tcp/4001/p2p/12D3KooW... --count 5
  p2putil host identify /ip4/127.0.0.1/tcp/4001/p2p/12D3KooW...
  p2putil host perf /ip4/127.0.0.1/udp/4001/quic-v1/p2p/12D3KooW... --up 1000000 --down 1000000
  p2putil host listen /ip4/127.0.0.1/tcp/4001 --control /run/user/1000/host
  p2putil host connections /run/user/1000/host")]
pub(crate) enum Hosts {
    /// Print this host's addresses, then connections, and serve ping and identify, until interrupted
    Listen(Listen),
    /// Measure round-trip times to a peer
    Ping(Ping),
    /// Print what a peer says of itself
    Identify(Identify),
    /// Measure the throughput to and from a peer that serves perf
    Perf(Perf),
    /// Print the connections of a running host, and why each is open
    Connections(Connections),
}

/// Options of a host that listens.
#[derive(Debug, Args)]
pub(crate) struct Listen {
    /// Where to listen: /ip4/IP/udp/PORT/quic-v1 or /ip4/IP/tcp/PORT; port 0 takes a free one
    #[arg(required = true, value_name = "MULTIADDR")]
    places: Vec<String>,
    #[command(flatten)]
    key: Key,
    /// Serve perf: any peer may ask for as many bytes as it likes
    #[arg(long)]
    perf: bool,
    /// Serve a Unix socket at this path, where `host connections` asks
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// Keep the addresses of peers in this file
    #[arg(long, value_name = "FILE")]
    peers: Option<PathBuf>,
}

/// Options of pings.
#[derive(Debug, Args)]
pub(crate) struct Ping {
    /// The address of the peer
    addr: String,
    /// Number of pings
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    #[command(flatten)]
    key: Key,
}

/// Options of identify.
#[derive(Debug, Args)]
pub(crate) struct Identify {
    /// The address of the peer
    addr: String,
    #[command(flatten)]
    key: Key,
}

/// Options of perf.
#[derive(Debug, Args)]
pub(crate) struct Perf {
    /// The address of the peer
    addr: String,
    /// Bytes to send
    #[arg(long, default_value_t = 10_000_000, value_name = "BYTES")]
    up: u64,
    /// Bytes to receive
    #[arg(long, default_value_t = 10_000_000, value_name = "BYTES")]
    down: u64,
    #[command(flatten)]
    key: Key,
}

/// Options of the list of connections.
#[derive(Debug, Args)]
pub(crate) struct Connections {
    /// The control socket of the running host
    path: PathBuf,
}

pub(crate) async fn run(command: Hosts, out: Out) -> Result<(), Failure> {
    match command {
        Hosts::Listen(args) => listen(args, out).await,
        Hosts::Ping(args) => ping(args, out).await,
        Hosts::Identify(args) => identify(args, out).await,
        Hosts::Perf(args) => perf(args, out).await,
        Hosts::Connections(args) => connections(&args.path, out).await,
    }
}

async fn listen(args: Listen, out: Out) -> Result<(), Failure> {
    let interrupt = interrupt()?;
    let mut builder = Host::builder(&args.key.load()?);
    for place in &args.places {
        builder = builder.listen(place)?;
    }
    if let Some(file) = &args.peers {
        builder = builder.peer_store(file);
    }
    let host = builder.start().await?;
    let mut events = host.events();
    let control = control(args.control.as_deref(), &host).await?;
    if args.perf {
        host.serve_perf()?;
    }
    for addr in host.local_addrs() {
        let addr = addr.to_string();
        out.line(&format!("addr {addr}"), &json!({ "event": "addr", "addr": addr }))?;
    }
    let serve = async {
        loop {
            show(&events.next().await?, out)?;
        }
    };
    let ended = tokio::select! {
        ended = serve => ended,
        ended = control => Err(ended),
        () = interrupt => Ok(()),
    };
    host.close().await;
    ended
}

/// Serves the control socket, if there is one.
#[cfg(unix)]
async fn control(
    path: Option<&Path>,
    host: &Host,
) -> Result<Pin<Box<dyn Future<Output = Failure> + Send>>, Failure> {
    let Some(path) = path else {
        return Ok(Box::pin(std::future::pending()));
    };
    let (socket, host) = (crate::control::Control::bind(path).await?, host.clone());
    Ok(Box::pin(async move { socket.serve(&host).await }))
}

#[cfg(not(unix))]
async fn control(
    path: Option<&Path>,
    _: &Host,
) -> Result<Pin<Box<dyn Future<Output = Failure> + Send>>, Failure> {
    match path {
        Some(_) => Err(Failure::Usage("this system has no Unix sockets".to_owned())),
        None => Ok(Box::pin(std::future::pending())),
    }
}

fn show(event: &HostEvent, out: Out) -> Result<(), Failure> {
    let (name, connection) = match event {
        HostEvent::Connected(connection) => ("connected", connection),
        HostEvent::Disconnected { connection, .. } => ("disconnected", connection),
        _ => return Ok(()),
    };
    let (peer, remote) = (connection.peer.to_string(), connection.remote.to_string());
    let transport = connection.transport.to_string();
    let mut text = format!("{name} {peer} {remote}");
    let mut object = json!({ "event": name, "peer": peer, "remote": remote, "transport": transport });
    if let HostEvent::Disconnected { reason, detail, .. } = event {
        text = format!("{text} {reason}");
        object["reason"] = reason.to_string().into();
        object["detail"] = detail.as_ref().into();
    }
    out.line(&text, &object)
}

#[cfg(not(unix))]
async fn connections(_: &Path, _: Out) -> Result<(), Failure> {
    Err(Failure::Usage("this system has no Unix sockets".to_owned()))
}

#[cfg(unix)]
async fn connections(path: &Path, out: Out) -> Result<(), Failure> {
    crate::control::show(path, out).await
}

/// Starts a host that only dials.
async fn dialler(key: &Key, addr: &str) -> Result<(Host, HostAddr), Failure> {
    let addr = addr.parse()?;
    Ok((Host::builder(&key.load()?).start().await?, addr))
}

async fn ping(args: Ping, out: Out) -> Result<(), Failure> {
    let (host, addr) = dialler(&args.key, &args.addr).await?;
    let mut pinger = host.pinger(&addr).await?;
    for _ in 0..args.count {
        let rtt = pinger.ping().await?;
        out.value("rtt", rtt.as_secs_f64() * 1e3, "ms")?;
    }
    host.close().await;
    Ok(())
}

async fn identify(args: Identify, out: Out) -> Result<(), Failure> {
    let (host, addr) = dialler(&args.key, &args.addr).await?;
    let identified = host.identify(&addr).await?;
    let peer = host.connect(&addr).await?.to_string();
    let addrs: Vec<_> = identified.listen_addrs.iter().map(ToString::to_string).collect();
    let observed = identified.observed_addr.as_ref().map(ToString::to_string);
    let head = [
        format!("peer {peer}"),
        format!("agent {}", identified.agent),
        format!("version {}", identified.protocol_version),
    ];
    let lines = head
        .into_iter()
        .chain(addrs.iter().map(|addr| format!("addr {addr}")))
        .chain(identified.protocols.iter().map(|id| format!("protocol {id}")))
        .chain(observed.iter().map(|observed| format!("observed {observed}")));
    let text = lines.collect::<Vec<_>>().join("\n");
    let json = json!({
        "peer": peer, "agent": identified.agent, "version": identified.protocol_version, "addrs": addrs,
        "protocols": identified.protocols, "observed": observed, "signed": identified.record.is_some(),
    });
    out.line(&text, &json)?;
    host.close().await;
    Ok(())
}

async fn perf(args: Perf, out: Out) -> Result<(), Failure> {
    let (host, addr) = dialler(&args.key, &args.addr).await?;
    let report = host.perf(&addr, args.up, args.down).await?;
    for (name, bytes, time) in [
        ("upload", args.up, report.upload),
        ("download", args.down, report.download),
    ] {
        let seconds = time.max(Duration::from_nanos(1)).as_secs_f64();
        #[expect(
            clippy::cast_precision_loss,
            reason = "more than 2^53 bytes are not measured exactly"
        )]
        out.value(name, bytes as f64 * 8.0 / seconds / 1e9, "Gbit/s")?;
    }
    host.close().await;
    Ok(())
}
