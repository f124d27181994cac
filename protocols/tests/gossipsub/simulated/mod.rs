//! Gossipsub engines in the simulator, honest ones and Sybils, with global measurements.
//!
//! Tests, the bench and `p2putil sim gossip` use it. Each run follows from its plan, which has a seed.
//! Messages are not signed (`StrictNoSign`), which changes the computation of nodes, but not their traffic.

#![allow(
    dead_code,
    unused_imports,
    reason = "each test crate that includes this module uses a part of it"
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

/// The topic that all nodes subscribe to.
pub(crate) const TOPIC: &str = "t";
