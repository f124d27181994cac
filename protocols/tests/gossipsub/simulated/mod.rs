//! Gossipsub engines under the simulator, honest ones and Sybils, and what is true of them as seen from above.
//!
//! Tests, the bench and `p2putil sim gossip` share it. Each run follows from its plan, which has a seed. Messages are not
//! signed (`StrictNoSign`), which changes what nodes compute and not what they say to whom.

#![allow(
    dead_code,
    unused_imports,
    reason = "each of those who include this uses a part of it"
)]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "counts of one run are far below 2^52, and nothing is negative"
)]

mod measure;
mod network;
mod node;
mod sybil;

pub(crate) use measure::{Measured, Sample};
pub(crate) use network::{Network, Plan, RATE, evaluated, expecting, unprotected};
pub(crate) use sybil::Attack;

/// The topic that all of them want.
pub(crate) const TOPIC: &str = "t";
