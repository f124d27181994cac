//! Gossipsub: messages of a topic to all who subscribed to it, over meshes of few neighbours and gossip between all.
//!
//! libp2p specifications: pubsub/README.md, gossipsub v1.0, v1.1 and v1.2. So far its bytes and its signatures: an
//! RPC is parsed within [`Limits`](wire::Limits) and written ([`wire`]), a message is made and checked by a policy
//! ([`Signing`]).

mod fields;
mod identity;
mod schema;
mod signing;
pub mod wire;

pub use identity::Author;
pub use signing::{MessageId, PolicyError, SIGNATURE_PREFIX, Signing};
