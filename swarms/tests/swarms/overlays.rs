//! Overlays as swarms and in stacks: tests of both overlays, then of one.

mod both;
mod chord;
mod kademlia;
mod net;
pub(crate) mod node;
mod stacks;
