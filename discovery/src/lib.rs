//! Who is where: nodes announce under a topic where they are reached, and others find them there.
//!
//! [`Discovery`] is the one trait: announce for a time, withdraw, find, and watch as a stream of changes. Addresses are
//! texts, so that any swarm's addresses can be announced; whoever finds one parses it with
//! [`Swarm::parse_addr`](p2p::Swarm::parse_addr).
//!
//! | implementation | nodes are found | who can lie |
//! | --- | --- | --- |
//! | [`FixedList`] | that were written down | whoever writes the list |
//! | [`Tracker`] on a [`Cell`] | that share a secret and a small value: in memory, in a file, at a server | members can hide others, but speak for themselves alone |
//! | [`Mdns`] | on the local network, by multicast | anybody on it |
//! | [`Dht`] | in a Kademlia network, by a key | members, about where others are |
//! | [`Several`] | in any of several ways | whoever can in one of them |
//!
//! What is found says where to look, not who is there: that a secure swarm proves.
//!
//! [`keep_peers`] makes whoever is found a peer of a gossip node.
//!
//! Deliberately absent: other ways to parse addresses and to connect, and any wish to be complete.
#![forbid(unsafe_code)]

mod announcement;
pub mod cell;
mod clock;
pub mod dht;
mod discovery;
mod error;
mod fixed;
pub mod http;
pub mod laws;
pub mod mdns;
mod node;
mod peering;
mod several;
mod topic;
pub mod tracker;
mod watch;

pub use announcement::Announcement;
pub use cell::{Cell, FileCell, MemoryCell};
pub use clock::UnixTime;
pub use dht::Dht;
pub use discovery::{Change, Discovery, MAX_TTL, MIN_TTL, keep_announced};
pub use error::{Error, Result};
pub use fixed::FixedList;
pub use http::{HttpCell, ServerConfig, Token, TrackerServer};
pub use mdns::{Mdns, MdnsConfig};
pub use node::{Addrs, MAX_ADDR, MAX_ADDRS, Node};
pub use peering::{MAX_KEPT, TRY_AGAIN, keep_peers};
pub use several::Several;
pub use topic::Topic;
pub use tracker::{Secret, Tracker, TrackerConfig};
