//! A swarm is a group of nodes that send messages to one another; these are the traits that make swarms stack.
//!
//! [`Swarm`] is one node's view: [`tell`](Swarm::tell) and [`receive`](Swarm::receive), an MTU, addresses.
//! [`AskSwarm`] adds request and response, [`SecureSwarm`] adds keys. A layer wraps a swarm and is one again,
//! so whatever runs on a swarm runs on a stack of them.
//!
//! Deliberately absent: a runtime, sockets, clocks, streams, and any assumption of IP. Bases and layers are in
//! `p2p-swarms`, and the laws that every swarm keeps in `p2p-swarmtest`.
#![forbid(unsafe_code)]

mod addr;
mod ask;
mod boxed;
mod counters;
mod error;
mod header;
mod message;
mod packet;
mod pass;
mod peer;
mod secure;
mod serve;
mod spare;
mod swarm;
#[cfg(feature = "tower")]
mod tower;

pub use addr::Addr;
pub use ask::{AskSwarm, Rejection, Request, Respond, Responder};
pub use boxed::{BoxAddr, BoxAskSwarm, BoxKey, BoxSecureAskSwarm, BoxSecureSwarm, BoxSwarm};
pub use counters::{Counters, Reason, Snapshot};
pub use error::{BatchError, BatchOutcome, Error, Result};
pub use header::{Header, HeaderSwarm};
pub use message::Message;
pub use packet::{Headroom, Packet};
pub use peer::PeerId;
pub use secure::SecureSwarm;
pub use serve::{Asked, messages, serve_asks};
pub use swarm::Swarm;
#[cfg(feature = "tower")]
pub use tower::AskService;
