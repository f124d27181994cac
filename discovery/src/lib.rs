//! Discovery: nodes announce their addresses under a topic, and other nodes find them there.
//!
//! [`Discovery`] is the one trait: announce for a limited time, withdraw, find, and watch as a stream of
//! changes. Addresses are texts, so that addresses of any swarm can be announced; a node that finds one
//! parses it with [`Swarm::parse_addr`](p2p::Swarm::parse_addr).
//!
//! | implementation | finds nodes | can be falsified by |
//! | --- | --- | --- |
//! | [`FixedList`] | in a fixed list | the author of the list |
//! | [`Tracker`] on a [`Cell`] | that share a secret and a small value: in memory, in a file, at a server | members can remove announcements of others, but announce only for themselves |
//! | [`Mdns`] | on the local network, by multicast | any node on that network |
//! | [`Dht`] | in a Kademlia network, by a key | members, as to the addresses of others |
//! | [`Combined`] | by any of several methods | the same nodes as in each of them |
//!
//! ```
//! use std::time::Duration;
//!
//! use p2p::PeerId;
//! use p2p_discovery::{Addrs, Discovery, Error, FixedList, Node, Topic};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Error> {
//! let topic: Topic = "chat".parse()?;
//! let addrs = Addrs::new(["127.0.0.1:4001"])?;
//! let node = Node { id: PeerId::new([1; 32]), addrs };
//! let list = FixedList::new().with(&topic, node.clone());
//! assert_eq!(list.find(&topic).await?, [node]);
//! // The list is fixed: announcing needs another implementation.
//! let addrs = Addrs::new(["127.0.0.1:4002"])?;
//! let announced = list.announce(&topic, &addrs, Duration::from_secs(60)).await;
//! assert!(matches!(announced, Err(Error::ReadOnly(_))));
//! # Ok(())
//! # }
//! ```
//!
//! [`keep_peers`] adds found nodes as peers of a gossip node.
//!
//! # Adding a method
//! A new implementation gives a [`Testbed`](laws::Testbed) and runs [`laws::check`]; each law has a mutant
//! that breaks it.
//!
//! # A tracker
//! A tracker is a set of announcements, each signed by its node, encrypted together as the value of a
//! [`Cell`]: compare-and-swap in memory, in a file (lock, sync, rename), or at an HTTP server ([`http`]: `ETag`
//! and If-Match). The cell's id is the hash of its bearer token, and both are derived from the secret in the
//! URL. An invalid announcement hides no other; a value that cannot be decrypted is an error and is never
//! overwritten.
//!
//! # Security
//! Discovery says where to look for a node, and does not authenticate it: a secure swarm does.
//!
//! Deliberately absent: address formats and connecting beyond those of swarms, and any guarantee of
//! completeness.
#![forbid(unsafe_code)]

mod announcement;
pub mod cell;
mod clock;
mod combined;
pub mod dht;
mod discovery;
mod error;
mod fixed;
pub mod http;
pub mod laws;
pub mod mdns;
mod node;
mod peering;
mod topic;
pub mod tracker;
mod watch;

pub use announcement::Announcement;
pub use cell::{Cell, FileCell, MemoryCell};
pub use clock::UnixTime;
pub use combined::Combined;
pub use dht::Dht;
pub use discovery::{Change, Discovery, MAX_TTL, MIN_TTL, keep_announced};
pub use error::{Error, Result};
pub use fixed::FixedList;
pub use http::{HttpCell, ServerConfig, Token, TrackerServer};
pub use mdns::{Mdns, MdnsConfig};
pub use node::{Addrs, MAX_ADDR, MAX_ADDRS, Node};
pub use peering::{MAX_KEPT, TRY_AGAIN, keep_peers};
pub use topic::Topic;
pub use tracker::{Secret, Tracker, TrackerConfig};
