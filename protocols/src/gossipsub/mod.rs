//! Gossipsub: messages of a topic to all who subscribed to it, over meshes of few neighbours and gossip between all.
//!
//! libp2p specifications: pubsub/README.md, gossipsub v1.0, v1.1 and v1.2; Vyzovitis et al., "`GossipSub`: Attack-Resilient
//! Message Propagation in the Filecoin and ETH2.0 Networks" (2020). An [`Engine`] is one node, a router of all versions,
//! or of floodsub ([`Config::floodsub`]). Neighbours of a mesh pass messages on as they come; at each heartbeat some of
//! the others are told which there were, and ask for those that they miss.
//!
//! # How to drive it
//! - Tell it who is there ([`Engine::add_peer`], [`Engine::remove_peer`]), and give it what they send
//!   ([`Engine::handle_rpc`]): one message of a swarm is one RPC.
//! - [`subscribe`](Engine::subscribe), [`unsubscribe`](Engine::unsubscribe), [`publish`](Engine::publish); and
//!   [`validate`](Engine::validate), where the application decides ([`Validation::Application`]).
//! - **After each call** empty [`Engine::poll_transmit`] and [`Engine::poll_event`], and set the timer to
//!   [`Engine::poll_timeout`]; when it rings, call [`Engine::handle_timeout`]. What waits for a peer that takes no more
//!   ([`Engine::set_writable`]) is bounded, and the more important leaves first.
//!
//! A driver that shares an engine between threads reads, verifies, writes and signs outside of its lock, which is most of
//! the work: [`Codec::read`], [`Engine::select`], [`Incoming::verify`] and [`Engine::handle_incoming`] are
//! [`Engine::handle_rpc`] in four steps, and [`Codec::write`] and [`Engine::send`] are [`Engine::publish`] in two.
//!
//! On media without connections ([`Config::direct`]) peers introduce themselves to one another, say goodbye
//! ([`Engine::leave`]), and are forgotten when they are silent ([`Config::peer_idle`]); and one can be told something that
//! nobody else hears ([`Engine::tell`]). This is an extension, in fields that other implementations pass over.
//!
//! RPCs may get lost: what was lost of messages is asked for by who hears of them, and subscriptions and GRAFTs are said
//! again ([`Config::announce_every`]). One buffer holds a message, for however many peers it waits.
//!
//! # Security
//! **Required of the caller.** Addresses that are those of the senders, and better prove their ids: a peer's score follows
//! its id. What comes of a peer exchange is claimed, not proven. Numbers of messages that are not used twice.
//!
//! **Provided.** Everything that others can make grow has a limit in [`Config`]. With [`Signing::StrictSign`] nobody speaks
//! in another's name, and a forged message does not keep the true one away. Peers that send what is invalid, break
//! promises, graft in a backoff, or do not forward where that is expected lose score, leave the meshes and are ignored in
//! the end; [`ScoreConfig::check`] holds the numbers against what they should bring about.
//!
//! **Not provided.** After [`Config::seen_ttl`] an old message is a new one: where that matters the application looks at
//! what it says. Who wants a topic is known to all peers. How many messages a topic should have is not known, so that
//! peers who keep still are scored only where [`TopicScoreParams`] say what to expect (P3): [`ScoreConfig::expecting`]
//! does, and belongs where Sybils may outnumber the others.
//!
//! Deliberately absent: the two lax signature policies, signatures of other algorithms than Ed25519, and choking.

mod admission;
mod backoff;
mod block;
mod codec;
mod config;
mod control;
mod direct;
mod engine;
mod event;
mod fields;
mod fifo;
mod heartbeat;
mod identity;
mod inspect;
mod mesh;
mod message_cache;
mod message_id;
mod peer;
mod publish;
mod queue;
mod receive;
mod schema;
mod score;
mod score_params;
mod seen;
mod signing;
mod topic;
pub mod wire;

pub use block::Block;
pub use codec::{Codec, Incoming, Outgoing};
pub use config::{Config, QueueConfig, Validation};
pub use engine::Engine;
pub use event::{Burst, Counts, Event, Published, Received, Refused, Transmit, Verdict};
pub use identity::Author;
pub use inspect::Kept;
pub use message_id::MessageId;
pub use peer::{Connection, Version};
pub use score_params::{ScoreConfig, TopicScoreParams};
pub use signing::{Check, PolicyError, SIGNATURE_PREFIX, Signing};
pub use topic::Topic;
