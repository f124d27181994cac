//! P2PKE's engine: what its channels promise, attacks, arbitrary networks, and observed bytes.

mod abuse;
mod any;
mod channel;
#[path = "../hex/mod.rs"]
mod hex;
mod net;
mod ops;
mod strange;
mod vectors;
