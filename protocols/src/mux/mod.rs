//! Many channels over one swarm: each message starts with the channel that it is for.
//!
//! The five framings are those of go-p2p's `p2pmux`; the type of a channel says which: [`Name`], `u16`, `u32`,
//! `u64` and [`Varint`]. Requests of asks carry the same framing, responses none.
//!
//! Deliberately absent: any negotiation. Both ends know which framing they speak, and which channels there are.

mod wire;

pub use wire::{Channel, Name, Varint, WireError};
