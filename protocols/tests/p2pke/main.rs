//! P2PKE's engine: guarantees of channels, attacks, arbitrary networks, and recorded bytes.

mod abuse;
mod any;
mod channel;
#[path = "../hex/mod.rs"]
mod hex;
mod net;
mod ops;
mod strange;
mod vectors;
