//! What overlays addressed by id have in common: headers, who is where, and what may be relayed.
//!
//! An overlay's nodes find one another by an engine such as [`kademlia`](crate::kademlia). Beside it stand the bytes in
//! front of each message ([`wire`]), the addresses that were learnt ([`Book`]), the bounds of what is passed on for
//! others ([`Budget`]), and the ways back to those that are known from what others brought alone ([`Returns`]). Relaying itself is one rule: pass on to a node that is nearer to the destination than oneself, or
//! to the destination. So each way is without loops and ends.
//!
//! What the engines share is here as well: contacts, operations and requests, the [`Rules`] of a network with their
//! [`Validator`], and the frame of what they say to one another ([`message`]).
//!
//! Deliberately absent: the engines, and whatever seals what is relayed.

mod book;
mod budget;
mod contact;
pub mod message;
mod operation;
mod record;
mod returns;
mod rules;
pub(crate) mod validation;
pub mod wire;

pub use book::{Book, Found, Way};
pub use budget::Budget;
pub(crate) use contact::Source;
pub use contact::{Contact, Prefix, Scope};
pub use operation::{Failure, OpId, Progress, RequestId, Transmit};
pub use record::{NoRecords, Validator};
pub use returns::Returns;
pub use rules::Rules;
pub use validation::TOKEN_BYTES;
