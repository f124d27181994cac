//! What overlays addressed by id have in common: headers, who is where, and what may be relayed.
//!
//! An overlay's nodes find one another by an engine such as [`kademlia`](crate::kademlia). Beside it stand the bytes in
//! front of each message ([`wire`]), the addresses that were learnt ([`Book`]), and the bounds of what is passed on for
//! others ([`Budget`]). Relaying itself is one rule: pass on to a node that is nearer to the destination than oneself, or
//! to the destination. So each way is without loops and ends.
//!
//! Deliberately absent: the engine, and whatever seals what is relayed.

mod book;
mod budget;
pub mod wire;

pub use book::{Book, Found, Way};
pub use budget::Budget;
