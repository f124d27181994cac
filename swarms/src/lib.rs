//! Swarms over tokio: bases, and the layers that stack on any swarm.
#![forbid(unsafe_code)]

pub mod allow;
pub mod ask;
pub mod chord;
pub mod faulty;
pub mod fragment;
pub mod gossip;
pub mod inbox;
pub mod kad;
pub mod map;
pub mod memory;
pub mod metrics;
pub mod multi;
pub mod mux;
pub mod overlay;
pub mod p2pke;
pub mod quic;
pub mod stack;
pub mod turn;
pub mod udp;

mod driver;
mod ext;
mod key_addr;

pub use allow::AllowSwarm;
pub use ask::{AskingConfig, AskingSwarm};
pub use chord::{ChordConfig, ChordSwarm};
pub use ext::SwarmExt;
pub use faulty::{Faults, FaultySwarm, LinkFaults};
pub use fragment::{FragmentConfig, FragmentSwarm};
pub use gossip::{GossipAddr, GossipConfig, GossipSwarm};
pub use kad::{KademliaConfig, KademliaSwarm};
pub use key_addr::KeyAddr;
pub use map::{EraseSwarm, MapSwarm};
pub use memory::{MemoryAddr, MemoryRealm, MemorySwarm};
pub use multi::{MultiAddr, MultiSwarm};
pub use mux::{Mux, MuxConfig, MuxSwarm};
pub use overlay::{Identity, OverlayConfig, OverlaySwarm};
pub use p2pke::{P2pkeConfig, P2pkeSwarm};
pub use quic::{QuicConfig, QuicSwarm};
pub use udp::{UdpConfig, UdpSwarm};
