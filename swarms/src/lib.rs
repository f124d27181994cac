//! Swarms over tokio: bases, and the layers that stack on any swarm.
#![forbid(unsafe_code)]

pub mod fragment;
pub mod inbox;
pub mod memory;
pub mod metrics;
pub mod turn;
pub mod udp;

mod ext;

pub use ext::SwarmExt;
pub use fragment::{FragmentConfig, FragmentSwarm};
pub use memory::{MemoryAddr, MemoryRealm, MemorySwarm};
pub use udp::{UdpConfig, UdpSwarm};
