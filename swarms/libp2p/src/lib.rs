//! A libp2p host: it speaks with every libp2p implementation over QUIC and TCP.
//!
//! ```text
//!   program        handle(protocol, handler)    open(&addr, protocols)
//!                          ▲ Stream                   │ Stream
//!   streams        multistream-select: one protocol for each stream
//!   connection     QUIC                   │ yamux (or mplex) over Noise or TLS over TCP
//!   identity       certificate of the peer │ handshake payload or certificate
//! ```
//!
//! A [`Host`] owns connections. Protocols take bidirectional [`Stream`]s from it, which are tokio's `AsyncRead` and
//! `AsyncWrite`. Ping and identify are served by the host itself.
//!
//! ```
//! use p2p_formats::x509::PrivateKey;
//! use p2p_libp2p::{Host, Stream};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Host::builder(&PrivateKey::ed25519(&[1; 32])).listen("/ip4/127.0.0.1/udp/0/quic-v1")?.start().await?;
//! server.handle("/echo/1.0.0", async |mut stream: Stream| {
//!     let mut text = Vec::new();
//!     if (&mut stream).take(1024).read_to_end(&mut text).await.is_ok() {
//!         let _ = stream.write_all(&text).await;
//!         let _ = stream.shutdown().await;
//!     }
//! })?;
//!
//! let client = Host::builder(&PrivateKey::ed25519(&[2; 32])).start().await?;
//! let to = &server.local_addrs()[0]; // /ip4/127.0.0.1/udp/PORT/quic-v1/p2p/ID
//! let mut stream = client.open(to, &["/echo/1.0.0"]).await?;
//! stream.write_all(b"hello").await?;
//! stream.shutdown().await?;
//! let mut answer = String::new();
//! stream.read_to_string(&mut answer).await?;
//! assert_eq!(answer, "hello");
//!
//! let rtt = client.pinger(to).await?.ping().await?;
//! println!("{:?} to {}", rtt, client.identify(to).await?.agent);
//! # Ok(())
//! # }
//! ```
//!
//! # What is here
//!
//! | module or item | contents | libp2p specification |
//! | --- | --- | --- |
//! | [`Host`], [`HostBuilder`], [`HostConfig`] | listening, dialling, handlers, limits | connections |
//! | [`OpenReason`], [`PeerInfo`] | why a connection is open, and what is known of a peer | |
//! | [`Stream`] | a stream of a connection | connections |
//! | [`HostAddr`] | the address of a host | addressing |
//! | [`key`], [`identity`] | public keys, peer ids, and their identity in this framework | peer-ids |
//! | [`envelope`] | signed envelopes and peer records | RFC 0002, RFC 0003 |
//! | [`negotiate`] | multistream-select | connections |
//! | [`noise`], [`tls`] | secure channels | noise, tls |
//! | [`mplex`] | a stream muxer for peers without yamux | mplex |
//! | [`HostSwarm`] | tells and asks between hosts, as a [`Swarm`](p2p::Swarm) | |
//! | [`gossip`] | gossipsub among hosts, with topics | pubsub |
//! | [`packets`] | unreliable tells in QUIC datagrams, as a [`Swarm`](p2p::Swarm) | |
//! | [`kademlia`] | nodes, records and providers by key | kad-dht |
//! | [`stack`] | the word `libp2p` of stacks as text | |
//! | [`identify`], [`ping`] | protocols that each host serves | identify, ping |
//! | [`perf`] | measurement of throughput | perf |
//!
//! # Over any swarm
//! QUIC also runs over any [`Swarm`](p2p::Swarm) whose MTU is at least 1200 bytes ([`HostBuilder::over`]): in memory, over a
//! medium with faults, over another secure channel. The place of such a host is `/unix/TEXT/quic-v1`, where TEXT is
//! its address in that swarm, with `%25` for `%` and `%2F` for `/`.
//!
//! # Connections
//! The engines of `p2p-protocols` decide: [`connections`](p2p_protocols::connections) which connections are accepted, trimmed
//! and closed because nothing needs them; [`dial`](p2p_protocols::dial) which addresses are dialled in which order, and when
//! a maintained peer is dialled again; [`peers`](p2p_protocols::peers) what is kept of a peer and for how long. A host drives
//! them.
//!
//! # Limits
//! All limits are in [`HostConfig`] and in the modules: connections in total, inbound, by peer and by network; handshakes
//! under way in total and by network; dials; known peers; streams of a connection; lengths of every message. At a limit, a
//! network with fewer handshakes or connections displaces those of the network with the most.
//!
//! # Security
//! Provided: the peer of a connection holds the private key of its peer id; a stream to an address with an id
//! reaches that peer or none; confidentiality, integrity and forward secrecy. Not provided: anonymity, and free
//! refusal of inbound dials: handshakes are bounded, but each costs work.
//!
//! Deliberately absent: relays, hole punching, WebTransport and WebRTC, QUIC draft 29.
#![forbid(unsafe_code)]

pub mod addr;
mod attachment;
pub mod config;
mod connection;
pub mod envelope;
mod forward_write;
mod frame;
pub mod gossip;
mod host;
pub mod identify;
pub mod kademlia;
pub mod key;
pub mod mplex;
mod muxer;
pub mod negotiate;
pub mod noise;
pub mod packets;
pub mod perf;
pub mod ping;
pub mod stack;
mod stream;
pub mod swarm;
pub mod tls;
mod upgrade;

pub use addr::HostAddr;
pub use config::{HostConfig, Muxer, Security};
pub use connection::{ConnectionInfo, Transport};
pub use gossip::{HostGossip, HostGossipConfig};
pub use host::{Host, HostBuilder, HostEvent, HostEvents, OpenReason, PeerInfo};
pub use kademlia::{Kademlia, KademliaConfig};
pub use key::{Keypair, PublicKey, identity};
pub use multiaddr::{Multiaddr, PeerId};
pub use p2p_protocols::connections::{CloseReason, ConnId};
pub use p2p_protocols::peers::Source;
pub use packets::{PacketConfig, PacketSwarm};
pub use stream::Stream;
pub use swarm::{HostSwarm, HostSwarmConfig};
