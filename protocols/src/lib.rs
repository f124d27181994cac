//! Engines: they take bytes, a clock and randomness, and decide; they do no I/O.
#![forbid(unsafe_code)]

pub mod ask;
pub mod chord;
pub mod fragment;
pub mod gossipsub;
pub mod hash;
pub mod kademlia;
pub mod mux;
pub mod overlay;
pub mod p2pke;
