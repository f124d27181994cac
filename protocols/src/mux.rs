//! Multiplexes many channels over one swarm: each message starts with its channel.
//!
//! The five framings are those of go-p2p's `p2pmux`; the type of the channel selects one: [`Name`], `u16`,
//! `u32`, `u64` and [`Varint`]. Requests of asks have the same framing, responses have none.
//!
//! Deliberately absent: negotiation. Both ends must use the same framing and know the channels.

mod wire;

pub use wire::{Channel, Name, Varint, WireError};
