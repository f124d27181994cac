//! Pings and identifies between our host and rust-libp2p, over every transport, in both directions.
//!
//! ```sh
//! cargo run --manifest-path swarms/libp2p/interop/Cargo.toml --bin matrix -- [ROUNDS]
//! ```
//!
//! Prints one row for each cell, and exits with 1 if one failed.

mod peer;

use std::time::Duration;

use p2p_formats::x509::PrivateKey;
use p2p_libp2p::{Host, HostAddr, HostEvent, Security};
use tokio::time::timeout;

use self::peer::Peer;

/// Timeout of one cell.
const LIMIT: Duration = Duration::from_secs(20);

/// How the two are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Quic,
    Noise,
    Tls,
}

impl Way {
    fn place(self) -> &'static str {
        match self {
            Self::Quic => "/ip4/127.0.0.1/udp/0/quic-v1",
            Self::Noise | Self::Tls => "/ip4/127.0.0.1/tcp/0",
        }
    }
}

type Outcome = Result<String, Box<dyn std::error::Error>>;

async fn host(way: Way) -> Result<Host, Box<dyn std::error::Error>> {
    let security = match way {
        Way::Quic | Way::Noise => Security::Noise,
        Way::Tls => Security::Tls,
    };
    let builder = Host::builder(&PrivateKey::ed25519(&[1; 32])).security(&[security]);
    Ok(builder.listen(way.place())?.start().await?)
}

/// Our host dials rust-libp2p.
async fn ours_dials(way: Way) -> Outcome {
    let (host, peer) = (host(way).await?, Peer::start(way).await?);
    let addr: HostAddr = peer.addr.parse()?;
    let mut pinger = host.pinger(&addr).await?;
    let mut best = Duration::MAX;
    for _ in 0..5 {
        best = best.min(pinger.ping().await?);
    }
    let identified = host.identify(&addr).await?;
    if !identified.agent.starts_with("peer/") || identified.listen_addrs.is_empty() {
        return Err(format!("identify: {identified:?}").into());
    }
    // The peer identified our host as well.
    let agent = peer.identified().await?;
    host.close().await;
    Ok(format!("ping {best:?}, {} and {agent}", identified.agent))
}

/// rust-libp2p dials our host.
async fn peer_dials(way: Way) -> Outcome {
    let (host, mut peer) = (host(way).await?, Peer::start(way).await?);
    let mut events = host.events();
    peer.dial(&host.local_addrs()[0].to_string()).await?;
    let rtt = peer.pinged().await?;
    let agent = peer.identified().await?;
    loop {
        if let HostEvent::Identified { identified, .. } = events.next().await? {
            host.close().await;
            return Ok(format!("ping {rtt:?}, {agent} and {}", identified.agent));
        }
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> std::process::ExitCode {
    let rounds = std::env::args()
        .find_map(|arg| arg.parse::<u32>().ok())
        .unwrap_or(1);
    let mut failed = 0;
    for round in 1..=rounds {
        for way in [Way::Quic, Way::Noise, Way::Tls] {
            for ours in [true, false] {
                let cell = async {
                    if ours {
                        ours_dials(way).await
                    } else {
                        peer_dials(way).await
                    }
                };
                let outcome = match timeout(LIMIT, cell).await {
                    Ok(Ok(outcome)) => outcome,
                    Ok(Err(error)) => {
                        failed += 1;
                        format!("FAILED: {error}")
                    }
                    Err(_) => {
                        failed += 1;
                        "FAILED: it took more than 20 s".to_owned()
                    }
                };
                let (dialler, listener) = if ours { ("ours", "rust") } else { ("rust", "ours") };
                println!("{round:>3}  {way:<5?}  {dialler} dials {listener}  {outcome}");
            }
        }
    }
    println!("{failed} failed");
    std::process::ExitCode::from(u8::from(failed > 0))
}
