//! Gossipsub: its encoding, one engine, networks of engines in virtual time, and its limits under attack.

mod any;
mod codec;
mod direct;
mod engine;
mod limits;
mod net;
mod network;
mod ops;
mod others;
mod pack;
mod schema;
mod score;
mod sending;
mod simulated;
mod wire;

/// The messages of pubsub/README.md and gossipsub v1.0 to v1.2.
const RPC: &str = include_str!("rpc.proto");
