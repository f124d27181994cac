//! Swarms over tokio: bases, and the layers that stack on any swarm.
#![forbid(unsafe_code)]

pub mod inbox;
pub mod memory;
pub mod metrics;

mod ext;

pub use ext::SwarmExt;
pub use memory::{MemoryAddr, MemoryRealm, MemorySwarm};
