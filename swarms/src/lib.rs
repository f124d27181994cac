//! Swarms over tokio, and the layers that stack on any swarm.
//!
//! A *base* sends messages over a medium: memory or UDP. A *layer* wraps a swarm and is a [`Swarm`](p2p::Swarm) again, so
//! layers stack in any order that their MTUs allow, and a program written against `Swarm<A>` runs on every stack.
//!
//! ```text
//!   program          tell(dst, packet) │           ▲ receive() -> message
//!   mbapp            asks: requests, responses, retransmission
//!   p2pke            proves the peer's key, encrypts; addresses become ID@address
//!   faulty           drops, delays, damages: tests only
//!   udp              datagrams; batches leave by GSO and arrive by GRO
//!                    ▼ one packet, headers pushed in place │ headers popped in place
//! ```
//!
//! ```
//! use p2p::{AskSwarm, Swarm};
//! use p2p_formats::x509::PrivateKey;
//! use p2p_swarms::{SwarmExt, UdpSwarm};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> p2p::Result<()> {
//! let node = |seed: u8| -> p2p::Result<_> {
//!     let udp = UdpSwarm::bind(([127, 0, 0, 1], 0).into())?;
//!     Ok(udp.p2pke(&PrivateKey::ed25519(&[seed; 32]))?.mbapp(64 << 10))
//! };
//! let (server, client) = (node(1)?, node(2)?);
//! let to = server.local_addrs()[0].clone(); // ID@127.0.0.1:PORT
//! let serve = p2p::serve_asks(&server, 16, async |request| Ok(request.payload));
//! tokio::select! {
//!     ended = serve => ended?,
//!     answer = client.ask(&to, client.packet(b"hello")) => assert_eq!(answer?, b"hello"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Bases, layers and overlays
//! "MTU" is what the layer takes from the MTU below. "Loss" is what becomes of a message of which the medium below loses a
//! packet.
//!
//! | type | made by | stack word | adds | MTU | loss |
//! | --- | --- | --- | --- | --- | --- |
//! | [`MemorySwarm`] | [`MemoryRealm::open`] | `mem` | asks; keys that prove nothing | 65,536 bytes | drops only what a full queue has no room for |
//! | [`UdpSwarm`] | [`UdpSwarm::bind`] | `udp` | | 1,232 bytes | lost |
//! | [`FaultySwarm`] | [`faulty`](SwarmExt::faulty) | `faulty` | loss, delay, damage, by seed | 0 | as configured |
//! | [`FragmentSwarm`] | [`fragment`](SwarmExt::fragment) | `frag` | messages longer than the MTU below | as configured | lost |
//! | [`Mux`], [`MuxSwarm`] | [`mux`](SwarmExt::mux), [`mux_by`](SwarmExt::mux_by) | `mux`, `mux16`, … | channels | the channel's header | lost |
//! | [`AllowSwarm`] | [`allow`](SwarmExt::allow) | `allow` | rules by address or id | 0 | lost |
//! | [`MapSwarm`], [`EraseSwarm`] | [`map`](SwarmExt::map), [`erase`](SwarmExt::erase) | | other addresses | 0 | lost |
//! | [`MultiSwarm`] | [`MultiSwarm::new`] | | several transports as one swarm | the smallest of all | lost |
//! | [`MbappSwarm`] | [`mbapp`](SwarmExt::mbapp) | `mbapp` | asks, and messages longer than the MTU below | as configured | asks are retransmitted, tells lost |
//! | [`P2pkeSwarm`] | [`p2pke`](SwarmExt::p2pke) | `p2pke` | keys, encryption | 20 bytes | handshakes are retransmitted, tells lost |
//! | [`QuicSwarm`] | [`quic`](SwarmExt::quic), [`QuicSwarm::bind_udp`] | `quic` | asks, keys, encryption, long messages | as configured | retransmitted |
//! | [`KademliaSwarm`] | [`kademlia`](SwarmExt::kademlia) | `kad` | addresses that are ids, records | by the swarm below | asks are retransmitted, tells lost |
//! | [`ChordSwarm`] | [`chord`](SwarmExt::chord) | `chord` | the same on a ring | by the swarm below | the same |
//! | [`GossipSwarm`] | [`gossip`](SwarmExt::gossip) | `gossip` | addresses that are topics | by the swarm below | repaired by gossip |
//!
//! A layer passes on what the swarm below can do: `FragmentSwarm` has keys where the swarm below has keys.
//! `FragmentSwarm`, `P2pkeSwarm` and `GossipSwarm` pass no asks on: put `mbapp` above the first two.
//!
//! An engine of your own runs on any of them: see [`drive`](mod@drive).
//!
//! # Security
//! | what | [`P2pkeSwarm`] | [`QuicSwarm`] | [`MemorySwarm`] and others |
//! | --- | --- | --- | --- |
//! | the source of a message is proven | yes | yes | no |
//! | secrecy and integrity | yes | yes | no |
//! | forward secrecy | by session | by session | no |
//! | against quantum computers | no | where both ends offer X25519MLKEM768 | no |
//! | the dialler's identity is hidden | no | from all but the peer that was dialled | no |
//!
//! An overlay proves what the swarm below proves. The pages of [`p2pke`] and [`quic`] say what is required of the caller,
//! what is provided and what is not.
//!
//! Stacks can also be written as text and built at run time: see [`stack`]. The laws that each stack keeps are in
//! `p2p-swarmtest`; the engines, which do no I/O, in `p2p-protocols`.
#![forbid(unsafe_code)]

pub mod allow;
pub mod chord;
pub mod drive;
pub mod driver;
pub mod env;
pub mod faulty;
pub mod fragment;
pub mod gossipsub;
pub mod inbox;
pub mod kademlia;
pub mod map;
pub mod mbapp;
pub mod memory;
pub mod metrics;
pub mod multi;
pub mod mux;
pub mod overlay;
pub mod p2pke;
pub mod quic;
pub mod stack;
pub mod udp;
pub mod whole_file;

mod allowed_peers;
mod ext;
mod key_addr;
mod waiters;

pub use allow::AllowSwarm;
pub use chord::{ChordConfig, ChordSwarm};
pub use drive::{DriveConfig, Driven, drive};
pub use ext::{AskSwarmExt, SwarmExt};
pub use faulty::{Faults, FaultySwarm, LinkFaults};
pub use fragment::{FragmentConfig, FragmentSwarm};
pub use gossipsub::{GossipAddr, GossipConfig, GossipSwarm};
pub use kademlia::{KademliaConfig, KademliaSwarm};
pub use key_addr::KeyAddr;
pub use map::{EraseSwarm, MapSwarm};
pub use mbapp::{MbappConfig, MbappSwarm};
pub use memory::{MemoryAddr, MemoryRealm, MemorySwarm};
pub use multi::{MultiAddr, MultiSwarm};
pub use mux::{Mux, MuxConfig, MuxSwarm};
pub use overlay::{Identity, OverlayConfig, OverlaySwarm};
pub use p2pke::{P2pkeConfig, P2pkeSwarm};
pub use quic::{QuicConfig, QuicSwarm};
pub use udp::{UdpConfig, UdpSwarm};
