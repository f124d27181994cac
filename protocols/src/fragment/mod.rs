//! Messages longer than an MTU, as fragments that a stranger on a lossy medium may lose, repeat, forge or reorder.
//!
//! The wire form is that of go-p2p's `fragswarm`. [`split`](split()) takes a message apart, [`Ids`] numbers it, and a
//! [`Reassembler`] puts it together within [`Limits`]. Under pressure whole messages go, the oldest first:
//! fragments dropped one by one would leave nothing but ruins of many.
//!
//! Deliberately absent: retransmission, and any promise about who sent a fragment.

mod message;
mod reassemble;
mod spare;
mod split;
mod wire;

pub use reassemble::{GivenUp, Handled, Limits, Reassembler};
pub use split::{Ids, chunk, mtu, split};
pub use wire::{Header, MAX_HEADER, MAX_PARTS, OVERHEAD, WireError};
