//! Splits messages longer than an MTU into fragments, and reassembles them from untrusted sources on a lossy
//! medium.
//!
//! The encoding is that of go-p2p's `fragswarm`. [`split`](split()) splits a message, [`Ids`] numbers it, and
//! a [`Reassembler`] reassembles it.
//!
//! # Limits
//! [`Limits`] bounds the memory of incomplete messages, in total and for each source. At a limit, whole
//! messages are dropped, the oldest first: dropping single fragments would leave many incomplete messages.
//! [`Reassembler::poll_given_up`] reports each dropped message.
//!
//! # Security
//! Sources are not authenticated: see [`Reassembler`].
//!
//! Deliberately absent: retransmission, and authentication of fragments.

mod buffer_cache;
mod message;
mod reassemble;
mod split;
mod wire;

pub use reassemble::{GivenUp, Handled, Limits, Reassembler};
pub use split::{Ids, chunk, mtu, split};
pub use wire::{Header, MAX_HEADER, MAX_PARTS, OVERHEAD, WireError};
