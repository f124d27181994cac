//! A node of rust-libp2p with ping and identify, in a task.

use std::time::Duration;

use futures_util::StreamExt as _;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, SwarmBuilder, identify, noise, ping, tcp, tls, yamux};
use tokio::sync::{mpsc, watch};

use super::Way;

type Error = Box<dyn std::error::Error>;

#[derive(NetworkBehaviour)]
struct Behaviour {
    ping: ping::Behaviour,
    identify: identify::Behaviour,
}

/// A running node. It ends when it is dropped.
pub(super) struct Peer {
    /// Its address, with its id.
    pub(super) addr: String,
    dials: mpsc::Sender<Multiaddr>,
    agent: watch::Receiver<Option<String>>,
    rtt: watch::Receiver<Option<Duration>>,
}

impl Peer {
    /// Starts a node that listens.
    pub(super) async fn start(way: Way) -> Result<Self, Error> {
        let builder = SwarmBuilder::with_new_identity().with_tokio();
        let behaviour = |key: &libp2p::identity::Keypair| {
            let config = identify::Config::new("peer/1".to_owned(), key.public());
            Behaviour {
                ping: ping::Behaviour::new(ping::Config::new().with_interval(Duration::from_millis(100))),
                identify: identify::Behaviour::new(config.with_agent_version("peer/1".to_owned())),
            }
        };
        let mut swarm = match way {
            Way::Quic => builder.with_quic().with_behaviour(behaviour)?.build(),
            Way::Noise => {
                let tcp = tcp::Config::default();
                let builder = builder.with_tcp(tcp, noise::Config::new, yamux::Config::default)?;
                builder.with_behaviour(behaviour)?.build()
            }
            Way::Tls => {
                let tcp = tcp::Config::default();
                let builder = builder.with_tcp(tcp, tls::Config::new, yamux::Config::default)?;
                builder.with_behaviour(behaviour)?.build()
            }
        };
        swarm.listen_on(way.place().parse()?)?;
        let (listening, mut addr) = watch::channel(None);
        let (agents, agent) = watch::channel(None);
        let (rtts, rtt) = watch::channel(None);
        let (dials, mut dialling) = mpsc::channel::<Multiaddr>(1);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    dial = dialling.recv() => match dial {
                        Some(addr) => if let Err(error) = swarm.dial(addr) {
                            eprintln!("rust-libp2p cannot dial: {error}");
                        },
                        None => return,
                    },
                    event = swarm.select_next_some() => match event {
                        SwarmEvent::NewListenAddr { address, .. } => {
                            let addr = format!("{address}/p2p/{}", swarm.local_peer_id());
                            listening.send_replace(Some(addr));
                        }
                        SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { info, .. })) => {
                            agents.send_replace(Some(info.agent_version));
                        }
                        SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event { result, .. })) => match result {
                            Ok(rtt) => { rtts.send_replace(Some(rtt)); }
                            Err(error) => eprintln!("rust-libp2p's ping failed: {error}"),
                        },
                        SwarmEvent::OutgoingConnectionError { error, .. } => {
                            eprintln!("rust-libp2p's dial failed: {error}");
                        }
                        SwarmEvent::IncomingConnectionError { error, .. } => {
                            eprintln!("rust-libp2p refused a dial: {error}");
                        }
                        _ => {}
                    },
                }
            }
        });
        let addr = addr.wait_for(Option::is_some).await?.clone().unwrap_or_default();
        Ok(Self {
            addr,
            dials,
            agent,
            rtt,
        })
    }

    /// Dials an address.
    pub(super) async fn dial(&mut self, addr: &str) -> Result<(), Error> {
        Ok(self.dials.send(addr.parse()?).await?)
    }

    /// Waits until it has identified its peer, and returns the peer's agent.
    pub(super) async fn identified(&self) -> Result<String, Error> {
        let agent = self.agent.clone().wait_for(Option::is_some).await?.clone();
        Ok(agent.unwrap_or_default())
    }

    /// Waits until its peer has answered a ping, and returns the round-trip time.
    pub(super) async fn pinged(&self) -> Result<Duration, Error> {
        let rtt = *self.rtt.clone().wait_for(Option::is_some).await?;
        Ok(rtt.unwrap_or_default())
    }
}
