//! Kademlia: distances and the cache, one engine, and networks of engines in virtual time.

mod engine;
#[path = "../hex/mod.rs"]
mod hex;
mod libp2p;
mod net;
mod network;
#[path = "../gossipsub/schema.rs"]
mod schema;
mod vectors;
