//! A rust-libp2p node as one side of the transport test: it listens, or dials, pings and prints the times.

// The same few commands as those of our test program.
#[path = "../../../src/redis.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the perf test is not run with this peer"
)]
mod redis;

use std::env::var;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, Swarm, SwarmBuilder, identify, identity, noise, ping, tcp, tls, yamux};
use libp2p_mplex as mplex;

use self::redis::Redis;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Timeout of what precedes the dial.
const LIMIT: Duration = Duration::from_mins(1);

#[derive(NetworkBehaviour)]
struct Behaviour {
    ping: ping::Behaviour,
    identify: identify::Behaviour,
}

fn behaviour(key: &identity::Keypair) -> Behaviour {
    Behaviour {
        ping: ping::Behaviour::new(ping::Config::new()),
        identify: identify::Behaviour::new(identify::Config::new("ipfs/0.1.0".to_owned(), key.public())),
    }
}

fn node() -> Result<Swarm<Behaviour>, Failure> {
    let builder = SwarmBuilder::with_new_identity().with_tokio();
    let (transport, security, muxer) = (var("TRANSPORT")?, var("SECURE_CHANNEL"), var("MUXER"));
    let link = (transport.as_str(), security.as_deref(), muxer.as_deref());
    let tcp = tcp::Config::default().nodelay(true);
    Ok(match link {
        ("quic-v1", ..) => builder.with_quic().with_behaviour(behaviour)?.build(),
        ("tcp", Ok("noise"), Ok("yamux")) => {
            let builder = builder.with_tcp(tcp, noise::Config::new, yamux::Config::default)?;
            builder.with_behaviour(behaviour)?.build()
        }
        ("tcp", Ok("tls"), Ok("yamux")) => {
            let builder = builder.with_tcp(tcp, tls::Config::new, yamux::Config::default)?;
            builder.with_behaviour(behaviour)?.build()
        }
        ("tcp", Ok("noise"), Ok("mplex")) => {
            let builder = builder.with_tcp(tcp, noise::Config::new, mplex::Config::default)?;
            builder.with_behaviour(behaviour)?.build()
        }
        ("tcp", Ok("tls"), Ok("mplex")) => {
            let builder = builder.with_tcp(tcp, tls::Config::new, mplex::Config::default)?;
            builder.with_behaviour(behaviour)?.build()
        }
        other => return Err(format!("unknown: {other:?}").into()),
    })
}

async fn listen(mut node: Swarm<Behaviour>, mut redis: Redis, key: &str) -> Result<(), Failure> {
    let ip = var("LISTENER_IP")?;
    let place = if var("TRANSPORT")? == "quic-v1" {
        "udp/0/quic-v1"
    } else {
        "tcp/0"
    };
    node.listen_on(format!("/ip4/{ip}/{place}").parse()?)?;
    loop {
        match node.select_next_some().await {
            SwarmEvent::NewListenAddr { address, .. } => {
                let addr = format!("{address}/p2p/{}", node.local_peer_id());
                redis.push(key, &addr).await?;
                eprintln!("listening at {addr}");
            }
            SwarmEvent::IncomingConnectionError { error, .. } => eprintln!("refused: {error}"),
            _ => {}
        }
    }
}

async fn dial(mut node: Swarm<Behaviour>, mut redis: Redis, key: &str) -> Result<(), Failure> {
    let addr: Multiaddr = redis.wait_for(key, LIMIT).await?.parse()?;
    let began = Instant::now();
    node.dial(addr)?;
    let (mut times, mut agent) = (None, None);
    while times.is_none() || agent.is_none() {
        match node.select_next_some().await {
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event { result, .. })) => {
                times = Some((began.elapsed(), result?));
            }
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { info, .. })) => {
                eprintln!("identified {:?}", info.agent_version);
                agent = Some(info.agent_version);
            }
            SwarmEvent::OutgoingConnectionError { error, .. } => return Err(error.into()),
            SwarmEvent::ConnectionClosed { cause, .. } => {
                return Err(format!("the connection was closed: {cause:?}").into());
            }
            _ => {}
        }
    }
    if let Some((handshake, ping)) = times {
        let [handshake, ping] = [handshake, ping].map(|time| time.as_secs_f64() * 1e3);
        println!("latency:\n  handshake_plus_one_rtt: {handshake:.3}\n  ping_rtt: {ping:.3}\n  unit: ms");
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let redis = Redis::connect(&var("REDIS_ADDR")?, LIMIT).await?;
    let key = format!("{}_listener_multiaddr", var("TEST_KEY")?);
    if var("IS_DIALER")? == "true" {
        dial(node()?, redis, &key).await
    } else {
        listen(node()?, redis, &key).await
    }
}
