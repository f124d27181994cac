//! Kademlia: distances and the cache, one engine, and networks of engines in virtual time.

mod engine;
#[path = "../hex/mod.rs"]
mod hex;
mod net;
mod network;
mod vectors;
