//! Chord: nodes on a circle of ids, where each key belongs to the next node, found in about ½ log2(N) steps.
//!
//! Ion Stoica, Robert Morris, David Liben-Nowell, David Karger, M. Frans Kaashoek, Frank Dabek and Hari
//! Balakrishnan, "Chord: A Scalable Peer-to-peer Lookup Service for Internet Applications" (SIGCOMM 2001;
//! IEEE/ACM Transactions on Networking 11(1), 2003). An [`Engine`] is one node with a 256-bit id. It
//! maintains its place on the ring (predecessor, successor list, fingers), stores the records of its own
//! range and copies of its predecessors' records, and performs lookups. Everything that it sends is an ask.
//!
//! # Driving an engine
//! - **Requests.** Send what [`Engine::poll_transmit`] returns. Pass each response to
//!   [`Engine::handle_answer`] and each error to [`Engine::handle_failure`]. The engine fails a request
//!   without either after a timeout.
//! - **Serving.** Pass each incoming ask to [`Engine::handle_request`]. Respond with the returned bytes, or
//!   reject with [`Refusal::rejection`]. The layer that carries the asks should have an MTU of
//!   [`Config::message`] bytes.
//! - **Any driver.** The engine is a [`RequestEngine`](p2p::engine::RequestEngine), so a simulation or a driver
//!   that takes any engine takes this one.
//! - **After each call**, drain [`Engine::poll_transmit`] and [`Engine::poll_event`], and set a timer to
//!   [`Engine::poll_timeout`]. When it expires, call [`Engine::handle_timeout`].
//! - **Operations** ([`join`](Engine::join), [`lookup`](Engine::lookup), [`locate`](Engine::locate),
//!   [`get`](Engine::get), [`put`](Engine::put), [`leave`](Engine::leave)) return an [`OpId`].
//!   [`Event::Progress`] reports their progress, one [`Event::Done`] the result. [`Engine::cancel`] ends an
//!   operation without an event.
//!
//! # Protocol
//! **Stabilization.** The paper's `stabilize` and `notify` are one request. If the successor's predecessor is
//! the new successor, the node asks it at once, not in the next round. A node that gets a nearer predecessor
//! tells the old one, which asks the newcomer at once; the paper leaves that to the next round. A node
//! becomes the successor only after it has answered.
//!
//! **Joining.** A join ends when both neighbours know the newcomer, and is tried again a limited number of
//! times. A joining node requests the records of its range from its successor. A node that is joining or
//! leaving refuses requests about the ring.
//!
//! **Records.** Stored records are copied along the successor list, and again whenever the list changes. A
//! copy that is not renewed goes back to its key's successor, which repairs failed transfers. A leaving node
//! hands its records over.
//!
//! **Failures.** A lost packet removes no node: a request that only one node can answer is sent twice, and a
//! silent node on the way of a lookup is pinged before it is forgotten. A finger is asked whether it still is
//! the finger before it is looked up.
//!
//! **Partitions.** A partition leaves two rings, which stabilization alone never merges. So each node
//! periodically looks up its own place through its bootstrap nodes, and notifies the node that it finds.
//!
//! # Limits
//! Everything that other nodes can make grow has a limit in [`Config`]; each field says what is dropped or
//! refused at the limit. [`Counts`] has a counter for each kind of refusal.
//!
//! # Security
//! **Required of the caller.** Addresses that authenticate ids, such as those of P2PKE and QUIC
//! ([`Addr::peer_id`](p2p::Addr)); ids that cannot be chosen freely; a [`Validator`] that authenticates the
//! owner of a record, because any node may put one.
//!
//! **Provided.** No node can speak in another node's name. Each step of a lookup is nearer to the key, and a
//! lookup ends after a limited number of requests; a transfer of records ends when a page brings nothing new.
//! A node becomes the successor only after it has answered. At a limit, older records stay.
//!
//! **Not provided.** An attacker that owns the ids around a key controls the key: Chord has one way to each
//! key and trusts the nodes on it. The asked nodes see what is asked for.
//!
//! Deliberately absent: recursive lookups (the last node answers an address that the first one states, so
//! that an attacker could redirect answers to a victim, 17 times the bytes of its request), virtual nodes
//! (run several engines), republishing of records (their owner puts them again), proximity of fingers, and
//! signatures on messages (the layer below authenticates the sender, the validator authenticates records).

mod commands;
mod config;
mod copies;
pub mod distance;
mod engine;
mod event;
mod leave;
mod lookup;
mod operation;
mod requests;
mod serve;
mod stabilize;
mod step;
mod store;
mod table;
mod upkeep;
pub mod wire;

pub use crate::overlay::{
    Contact, Failure, NoRecords, OpId, Progress, RequestId, RequestTransmit, Validator,
};
pub use config::{Config, Rules};
pub use engine::Engine;
pub use event::{Counts, Event, Found, OpError, Outcome, Refusal};
