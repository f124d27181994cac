//! A swarm is a group of nodes that send messages to one another; this crate has the traits that make swarms
//! stack.
//!
//! [`Swarm`] is one node's view of the group. A *base* implements it over a medium such as UDP. A *layer*
//! wraps a swarm and implements the same trait, so a program that is written against [`Swarm`] runs on every
//! stack of layers.
//!
//! ```text
//!   program     tell(dst, packet) │                 ▲ receive() -> Message
//!                                 ▼                 │
//!   layer       writes its header into the packet   checks the header and removes it
//!                                 │                 ▲
//!   base        sends the packet  ▼                 │ receives a packet
//! ```
//!
//! One [`Packet`] travels through the whole stack: it has room in front for all headers, so no layer copies
//! the payload.
//!
//! # What is here
//!
//! | item | purpose |
//! | --- | --- |
//! | [`Swarm`] | sends and receives messages; has an MTU, addresses and counters |
//! | [`AskSwarm`] | adds requests with responses |
//! | [`SecureSwarm`] | adds authenticated public keys |
//! | [`Packet`], [`Headroom`], [`Message`] | the buffer of a message, and a received message with its addresses |
//! | [`Request`], [`Responder`], [`Rejection`] | a received request, the handle that answers it, and the codes for refusing it |
//! | [`Addr`], [`PeerId`] | an address in one swarm, and the identity of a node |
//! | [`Filter`], [`FilterSwarm`], [`pass_through!`] | helpers for writing a layer |
//! | [`engine`] | the contract of a protocol without I/O, which runs in a simulation and on swarms |
//! | [`serve_asks`], [`messages`] | a request server with a concurrency limit, and a stream of messages |
//! | [`BoxSwarm`], [`BoxAddr`] and relatives | swarms and addresses with a type that is chosen at run time |
//! | [`Counters`], [`CounterSnapshot`], [`DropReason`] | what each layer sent, received, delivered and dropped, and why |
//! | [`Error`], [`BatchError`] | the errors of all swarms |
//!
//! # Example
//! A layer that marks every message with one byte and drops messages without the mark. It works on any swarm:
//!
//! ```
//! use p2p::{Addr, Filter, FilterSwarm, Headroom, Packet, DropReason, Swarm};
//!
//! struct Tag(u8);
//!
//! impl<A: Addr> Filter<A> for Tag {
//!     const LAYER: &'static str = "tag";
//!
//!     fn overhead(&self) -> Headroom {
//!         Headroom::new(1, 0)
//!     }
//!     fn outgoing(&self, _to: &A, packet: &mut Packet) -> p2p::Result<()> {
//!         packet.push_front(&[self.0]);
//!         Ok(())
//!     }
//!     fn incoming(&self, _from: &A, packet: &mut Packet) -> Result<(), DropReason> {
//!         match packet.pop_front() {
//!             Some([tag]) if tag == self.0 => Ok(()),
//!             _ => Err(DropReason::Malformed),
//!         }
//!     }
//! }
//!
//! async fn greet<A: Addr>(swarm: impl Swarm<A>, dst: A) -> p2p::Result<()> {
//!     let tagged = FilterSwarm::new(swarm, Tag(7));
//!     tagged.tell(&dst, tagged.packet(b"hello")).await?;
//!     let message = tagged.receive().await?;
//!     println!("{} bytes from {}", message.payload.len(), message.src);
//!     Ok(())
//! }
//! ```
//!
//! Deliberately absent: a runtime, sockets, clocks, streams, and any assumption of IP. Bases and layers are
//! in `p2p-swarms`; the laws that every swarm must keep are in `p2p-swarmtest`.
#![forbid(unsafe_code)]

mod addr;
mod ask;
mod boxed;
mod counters;
pub mod engine;
mod error;
mod filter;
mod message;
mod packet;
mod pass;
mod peer;
mod pool;
mod secure;
mod serve;
mod swarm;
#[cfg(feature = "tower")]
mod tower;

pub use addr::Addr;
pub use ask::{AskSwarm, Rejection, Request, Respond, Responder};
pub use boxed::{BoxAddr, BoxAskSwarm, BoxKey, BoxSecureAskSwarm, BoxSecureSwarm, BoxSwarm};
pub use counters::{CounterSnapshot, Counters, DropReason};
pub use error::{BatchError, BatchOutcome, Error, Result};
pub use filter::{Filter, FilterSwarm};
pub use message::Message;
pub use packet::{Headroom, Packet};
pub use peer::PeerId;
pub use secure::SecureSwarm;
pub use serve::{messages, serve_asks};
pub use swarm::Swarm;
#[cfg(feature = "tower")]
pub use tower::AskService;
