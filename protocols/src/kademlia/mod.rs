//! Kademlia: nodes, records and providers found by key, in about log2(N)/2 steps or fewer, without anybody in charge.
//!
//! Maymounkov and Mazières, "Kademlia: A Peer-to-peer Information System Based on the XOR Metric" (2002); disjoint
//! paths from Baumgart and Mies, "S/Kademlia" (2007). An [`Engine`] is one node. It keeps contacts in buckets, keeps
//! records and providers for others, and looks things up; all that it sends are asks.
//!
//! # How to drive it
//! - **To ask**, take [`Engine::poll_transmit`]; give what comes of each to [`Engine::handle_answer`] or
//!   [`Engine::handle_failure`]. What gets neither in time fails by itself.
//! - **To serve**, give each ask that arrives to [`Engine::handle_request`] and respond with what it returns, or reject
//!   with [`Refusal::rejection`]. The asks below must carry [`Config::message`] bytes.
//! - **After each call** empty [`Engine::poll_transmit`] and [`Engine::poll_event`], and set the timer to
//!   [`Engine::poll_timeout`]; when it rings, call [`Engine::handle_timeout`].
//! - Operations ([`join`](Engine::join), [`find_node`](Engine::find_node), [`locate`](Engine::locate),
//!   [`get`](Engine::get), [`put`](Engine::put), [`provide`](Engine::provide), [`providers`](Engine::providers)) return an [`OpId`]; [`Event::Progress`] says how far
//!   each is, one [`Event::Done`] what came of it. [`Engine::cancel`] ends one without an event.
//!
//! Only who has answered a request gets a place in a bucket, and who has one and answers keeps it. A record is kept
//! if the application's [`Validator`] takes it. A provider is who says so, at the address that it says so from.
//!
//! # Security
//! **Required of the caller.** Addresses that prove ids, as P2PKE's and QUIC's do ([`Addr::peer_id`](p2p::Addr)), and
//! ids that are costly or at least not free to choose; a validator that proves records to be whose they should be.
//!
//! **Provided.** Everything that others can make grow has a limit in [`Config`]. Nobody speaks in another's name.
//! A node that names nodes which do not exist loses credit within a lookup, and one lookup's paths are disjoint. An answer
//! hides no node behind false addresses, and names no address that reaches less far than its sender's. Networks of one owner
//! get few places, and those that fill a node leave room for others. A source that proves no id gets no more bytes than it
//! sent, unless [`Config::unproven_ids`] says that all are friends: then anybody who can forge a source can have an answer,
//! some twenty times a request, sent there.
//!
//! **Not provided.** Who can make enough ids near a key can keep that key's records to itself; many networks are dear,
//! ids on them are not. Who keeps a record can say that it is good for longer than its publisher said: where that
//! matters, a record says itself until when, and the validator looks. Providers that are found were not asked. What is asked for is seen by those who are asked.
//!
//! Deliberately absent: a mark of clients that do not serve (who refuses, as [`Config::serves`] says, is in no bucket
//! anyway), and signatures on messages (the layer below proves who speaks, the validator whose a record is).

pub mod cache;
mod config;
pub mod distance;
mod engine;
mod event;
mod lookup;
mod operation;
mod providers;
mod records;
mod serve;
mod table;
mod upkeep;
pub mod wire;

pub use crate::overlay::{
    Contact, Failure, NoRecords, OpId, Prefix, Progress, RequestId, Scope, Transmit, Validator,
};
pub use config::{Config, Rules};
pub use distance::Distance;
pub use engine::Engine;
pub use event::{Counts, Event, Outcome, Record, Refusal};
