//! Gossipsub: delivers messages of a topic to all its subscribers, through meshes of few neighbours and
//! gossip between all.
//!
//! libp2p specifications: pubsub/README.md, gossipsub v1.0, v1.1 and v1.2; Dimitris Vyzovitis et al.,
//! "`GossipSub`: Attack-Resilient Message Propagation in the Filecoin and ETH2.0 Networks" (2020). An
//! [`Engine`] is one node: a router of all versions, or of floodsub ([`Config::floodsub`]). Mesh neighbours
//! forward messages as they arrive. At each heartbeat, some other peers get the ids of recent messages
//! (IHAVE) and request those that they miss (IWANT).
//!
//! # Driving an engine
//! - **Peers.** Report peers with [`Engine::add_peer`] and [`Engine::remove_peer`], and pass what they send
//!   to [`Engine::handle_rpc`]: one message of a swarm is one RPC.
//! - **Topics.** Call [`subscribe`](Engine::subscribe), [`unsubscribe`](Engine::unsubscribe) and
//!   [`publish`](Engine::publish); and [`validate`](Engine::validate) if the application decides about
//!   messages ([`Validation::Application`]).
//! - **After each call**, drain [`Engine::poll_transmit`] and [`Engine::poll_event`], and set a timer to
//!   [`Engine::poll_timeout`]. When it expires, call [`Engine::handle_timeout`]. [`Engine::set_writable`]
//!   reports that a peer accepts no more RPCs for now; its queue is bounded, and drained in order of
//!   priority.
//!
//! A driver that shares an engine between threads parses, verifies, encodes and signs without the engine's
//! lock, which is most of the work. [`Codec::read`], [`Engine::select`], [`Incoming::verify`] and
//! [`Engine::handle_incoming`] are [`Engine::handle_rpc`] in four steps; [`Codec::write`] and
//! [`Engine::send`] are [`Engine::publish`] in two. [`Engine::select`] only saves time: whatever was not
//! verified before is verified in the engine.
//!
//! On a medium with connections, [`Links`] decides which streams there are to peers.
//! [`Engine::resume`] repeats what a lost stream may have lost.
//!
//! # Protocol
//! **Encoding.** [`wire`] counts and measures an RPC before it is decoded. A message is encoded once, as an
//! RPC of its own; the queues of all peers, the message cache and IWANT answers share that buffer. Short
//! messages share larger blocks of memory, because they arrive and leave together.
//!
//! **Reception.** The checks are, in this order: topic, fields, duplicate, signature. An id is recorded only
//! after its signature was verified, so a forged message cannot suppress the authentic one.
//!
//! **Queues.** The queue of a peer has four priorities (control, own, forwarded, gossip), each limited in
//! length and age, and all together in bytes. A received IDONTWANT is applied when a copy leaves the queue.
//! IDONTWANT is not sent to a peer that gets the message itself at once.
//!
//! **Scores.** Scores, backoffs and the limits of one heartbeat belong to a peer's identity, also when it
//! reconnects. Scores can require proof: a peer that was never first with a message is a newcomer for
//! [`ScoreConfig::newcomer_time`], then idle; idle peers are grafted after others, and get a place beyond
//! `d_lo` only now and then.
//!
//! **Admission.** The limit for inbound peers is below [`Config::max_peers`], so that there is room for
//! outbound ones. At the limit, the network with the most inbound peers gives a place to a network with
//! fewer.
//!
//! **Media that lose messages.** Lost messages are requested by nodes that hear of them, and subscriptions
//! and GRAFTs are repeated ([`Config::announce_every`]).
//!
//! **Media without connections** ([`Config::direct`]). Peers introduce themselves to one another, say goodbye
//! ([`Engine::leave`]), and are removed when they are silent ([`Config::peer_idle`]). A node can send a
//! message to one peer only ([`Engine::tell`]). Changed subscriptions are repeated after 1, 2, 4 … 64
//! heartbeats, and mesh peers get gossip if there are few others. This is an extension, in fields that other
//! implementations ignore.
//!
//! # Limits
//! Everything that other nodes can make grow has a limit in [`Config`] or [`wire::Limits`]; each field says
//! what is dropped at the limit. [`Counts`] has a counter for each kind of drop.
//!
//! # Security
//! **Required of the caller.** Addresses that are the true sources of the RPCs, and preferably authenticate
//! their ids, because a peer's score follows its id. Verification of the records in a peer exchange, which
//! are claims. Sequence numbers that are never used twice.
//!
//! **Provided.** With [`Signing::StrictSign`] no node can publish in another node's name, and a forged
//! message does not suppress the authentic one. Peers that send invalid messages, break promises, graft
//! during a backoff, or do not forward where this is expected lose score, are removed from the meshes and are
//! finally ignored; [`ScoreConfig::check`] verifies that the parameters have this effect.
//!
//! **Not provided.** After [`Config::seen_ttl`] a replayed message counts as new; if this matters, the
//! application must detect replays. All peers learn a node's subscriptions. The message rate of a topic is
//! unknown, so peers that do not forward are penalised only if [`TopicScoreParams`] state the expected rate
//! (P3): use [`ScoreConfig::expecting`] if Sybils may outnumber the other nodes.
//!
//! Deliberately absent: the two lax signature policies, own signatures with algorithms other than Ed25519, and
//! choking.
//!
//! # Tests
//! `tests/gossipsub/ops.rs` states the invariants, for a property test and a fuzz target.
//! `tests/gossipsub/others.rs` compares the bytes with rust-protobuf, and ids and signatures with
//! libp2p-identity. `tests/gossipsub/simulated/` simulates whole networks; the bench `gossipsub_network` and
//! `p2putil sim gossip` use it as well.

mod admission;
mod backoff;
mod block;
mod codec;
mod config;
mod control;
mod direct;
mod engine;
mod event;
mod fifo;
mod heartbeat;
mod identity;
mod inspect;
mod links;
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
mod validating;
pub mod wire;

pub use block::Block;
pub use codec::{Codec, Incoming, Outgoing};
pub use config::{Config, QueueConfig, SendLimits, Validation};
pub use engine::Engine;
pub use event::{Counts, Event, MessageAcceptance, Published, Received, Refused, RpcBatch, Transmit};
pub use identity::{Author, VerifyAuthor};
pub use inspect::Kept;
pub use links::{LinkAction, LinkConfig, Links, OpeningId};
pub use message_id::MessageId;
pub use peer::{Connection, Version};
pub use score_params::{ScoreConfig, TopicScoreParams};
pub use signing::{Check, PolicyError, SIGNATURE_PREFIX, Signing};
pub use topic::Topic;
