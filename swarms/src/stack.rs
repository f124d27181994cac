//! A stack written as text, and built at run time.
//!
//! `udp=127.0.0.1:0/faulty,loss=0.1,seed=7/frag=9000/mux=chat`: the base first, layers joined by `/`, a layer's
//! argument after `=`, its further options after `,`. [`StackText`] is what the text says, parsed and checked
//! before anything is opened; [`Stack`] is the swarm, with asks and keys where all of its layers have them.
//!
//! | word | argument | options |
//! | --- | --- | --- |
//! | `mem` | realm name, or nothing | |
//! | `udp` | socket address; without one `127.0.0.1:0` | `mtu=` |
//! | `faulty` | | `loss= dup= reorder= corrupt=` (0 to 1), `delay= jitter=` (ms), `rate=` (bytes/s), `seed=` |
//! | `frag` | MTU; without one 65536 | |
//! | `mux`, `mux16`, `mux32`, `mux64`, `muxv` | channel: a name or a number | |
//! | `allow` | ids or addresses joined by `;` | |
//! | `p2pke` | | |
//! | `quic` | MTU; without one 1048576 | |
//! | `mbapp` | MTU; without one 65536 | |
//! | `kad`, `chord` | addresses below of nodes to join through, joined by `;`, or nothing | |
//! | `gossip` | topic | `peers=` addresses below, joined by `;` |
//!
//! Layers with a private key share one: that of [`StackText::build_with`], or one that is made up for the node. Directly
//! on `udp`, `quic` has a UDP socket of its own, where `mtu=` bounds the datagrams that it tries; over anything else it
//! runs over that.
//!
//! An overlay needs asks beneath it, and 513 bytes of MTU for `kad`, 1025 for `chord`. Its node is whoever the layers below prove, and where
//! they prove nothing, whoever has the key. It keeps any record, the first one of a key, within the limits of
//! [`KademliaConfig`](crate::KademliaConfig) or [`ChordConfig`](crate::ChordConfig). Building the node joins the network; where the text names nobody, it joins
//! through nodes of this process that were built from the same [`StackText`], or is the first. One that only comes to ask
//! something is built of [`StackText::visiting`].
//!
//! `gossip` publishes to one topic, signed with the key, and subscribes to it. Its first peers are those that the text names,
//! or some nodes of this process that were built from the same [`StackText`]; [`Overlay::Gossip`] adds others, and whoever
//! speaks becomes one. One that only publishes is built of [`StackText::visiting`]. Messages come from `topic@ID`.
//!
//! Every error says at which byte of the text it is, and what would fit there.
//!
//! Deliberately absent: a way to escape `/`, `,` and `;`. What contains them is built in Rust.

mod below;
mod build;
mod chord;
mod error;
mod gossip;
mod grammar;
mod kademlia;
mod medium;
mod node;
mod nodes;
mod overlay;
mod read;
#[cfg(test)]
mod tests;

pub use chord::Chord;
pub use error::StackError;
pub use gossip::Gossip;
pub use grammar::{Channel, Layer, StackText};
pub use kademlia::Kademlia;
pub use medium::Medium;
pub use node::{Node, Stack, forged};
pub use nodes::Nodes;
pub use overlay::{Overlay, OverlayNode};
