//! Builds a stack at run time from its text form.
//!
//! In `udp=127.0.0.1:0/faulty,loss=0.1,seed=7/frag=9000/mux=chat` the base comes first, layers are separated
//! by `/`, the argument of a layer follows `=`, and its options follow `,`. [`StackText`] is the parsed text,
//! checked before anything is opened. [`Stack`] is the swarm, with asks and keys if all of its layers have
//! them.
//!
//! | word | argument | options |
//! | --- | --- | --- |
//! | `mem` | realm name, or nothing | |
//! | `udp` | socket address; default `127.0.0.1:0` | `mtu=` |
//! | `faulty` | | `loss= dup= reorder= corrupt=` (0 to 1), `delay= jitter=` (ms), `rate=` (bytes/s), `seed=` |
//! | `frag` | MTU; default 65536 | |
//! | `mux`, `mux16`, `mux32`, `mux64`, `muxv` | channel: a name or a number | |
//! | `allow` | ids or addresses separated by `;` | |
//! | `p2pke` | | |
//! | `quic` | MTU; default 1048576 | |
//! | `mbapp` | MTU; default 65536 | |
//! | `kad`, `chord` | addresses below of bootstrap nodes, separated by `;`, or nothing | |
//! | `gossip` | topic | `peers=` addresses below, separated by `;` |
//!
//! Layers with a private key share one: that of [`StackText::build_with`], or a random one per node. Directly
//! on `udp`, `quic` uses a UDP socket of its own, and `mtu=` bounds the datagrams that it probes; over any
//! other layer it sends its datagrams through that layer.
//!
//! An overlay needs asks below, and an MTU of 513 bytes for `kad` or 1025 for `chord`. Its node has the
//! identity that the layers below prove; if they prove none, its identity is derived from the key. It stores
//! any record, the first one of a key, within the limits of [`KademliaConfig`](crate::KademliaConfig) or
//! [`ChordConfig`](crate::ChordConfig). Building the node joins the network. If the text contains no
//! bootstrap node, the node joins through nodes of this process that were built from the same [`StackText`],
//! or is the first. A client that only sends requests is built from [`StackText::visiting`].
//!
//! `gossip` publishes to one topic, signed with the key, and subscribes to it. Its first peers are those in
//! the text, or some nodes of this process that were built from the same [`StackText`]. [`Overlay::Gossip`]
//! adds further peers, and a node that sends to it becomes a peer. A client that only publishes is built from
//! [`StackText::visiting`]. The source of a message is `topic@ID`.
//!
//! Every error contains its byte position in the text, and what is expected there.
//!
//! # Bases of a program
//! A program adds bases of its own: a [`BaseWord`] parses their arguments, a [`Base`] opens nodes, and a [`Grammar`] with
//! them parses texts. The crate `p2p-libp2p` has such a word. Where addresses of a base contain `/`, its word says how far
//! an address goes, and such addresses stand in texts as they are.
//!
//! Deliberately absent: escapes for `/`, `,` and `;`. A stack whose arguments contain them is built in Rust.

mod below;
mod build;
mod error;
mod gossip;
mod grammar;
mod medium;
mod node;
mod nodes;
mod overlay;
mod read;
#[cfg(test)]
mod tests;
mod words;

pub use error::StackError;
pub use gossip::Gossip;
pub use grammar::{Channel, Layer, StackText};
pub use medium::Medium;
pub use node::{Stack, StackNode, forged};
pub use nodes::StackNodes;
pub use overlay::{Chord, Kademlia, Overlay, OverlayNode};
pub use words::{Arguments, Base, BaseProperties, BaseWord, CustomBase, Grammar, Value};
