//! The common parts of overlays addressed by id: headers, address tables, relay limits, and shared engine
//! types.
//!
//! The nodes of an overlay find one another with an engine such as [`kademlia`](crate::kademlia). This module
//! adds the header of each message ([`wire`]), the learned addresses ([`AddressBook`]), the limits on relayed
//! traffic ([`Budget`]), and the return routes to nodes that are known from relayed messages only
//! ([`Returns`]). Relaying has one rule: forward to a node that is nearer to the destination than this node,
//! or to the destination. So each route ends and has no loops.
//!
//! The engines also share contacts, operations and requests in flight, the [`Rules`] of a network with their
//! [`Validator`], and the frame of their messages ([`message`]).
//!
//! # Security
//! [`Scope`] decides which named addresses are used: those with at least the scope of the peer that names
//! them. [`Prefix`] defines which addresses share a limit: a public /24 or /48, a host of a private network,
//! or loopback. The source of a relayed message is not authenticated: answers go back over the neighbour that
//! brought the message, which is charged for it, and no lookup starts for it ([`Returns`]).
//!
//! Deliberately absent: the engines, and the encryption of relayed messages.

mod address_book;
mod budget;
mod contact;
mod contract;
mod in_flight;
mod key;
pub mod message;
mod operation;
mod record;
mod returns;
mod rules;
pub(crate) mod validation;
pub mod wire;

pub use address_book::{AddressBook, Found, Route};
pub use budget::Budget;
pub(crate) use contact::Source;
pub use contact::{Contact, Prefix, Scope};
pub(crate) use contract::request_engine;
pub(crate) use in_flight::InFlight;
pub use key::Key;
pub use operation::{OpId, Progress};
pub use p2p::engine::{Failure, RequestId, RequestTransmit};
pub use record::{NoRecords, Validator};
pub use returns::Returns;
pub use rules::{EngineConfig, Rules};
pub use validation::TOKEN_BYTES;
