//! Gossipsub: its bytes, one engine, networks of engines in virtual time, and what peers can take of a node.

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
mod simulated;
mod wire;
