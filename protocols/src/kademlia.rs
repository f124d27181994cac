//! Kademlia: finds nodes, records and providers by key in about log2(N)/2 steps or fewer, without a central
//! node.
//!
//! Petar Maymounkov and David Mazières, "Kademlia: A Peer-to-peer Information System Based on the XOR Metric"
//! (2002), with the disjoint paths of Ingmar Baumgart and Sebastian Mies, "S/Kademlia: A Practicable Approach
//! Towards Secure Key-Based Routing" (2007). An [`Engine`] is one node: it keeps contacts in buckets, stores
//! records and providers for other nodes, and performs lookups. Everything that it sends is an ask.
//!
//! # Driving an engine
//! - **Requests.** Send what [`Engine::poll_transmit`] returns. Pass each response to
//!   [`Engine::handle_answer`] and each error to [`Engine::handle_failure`]. The engine fails a request
//!   without either after a timeout.
//! - **Serving.** Pass each incoming ask to [`Engine::handle_request`]. Respond with the returned bytes, or
//!   reject with [`Refusal::rejection`]. The layer that carries the asks must have an MTU of
//!   [`Config::message`] bytes.
//! - **Any driver.** The engine is a [`RequestEngine`](p2p::engine::RequestEngine), so a simulation or a driver
//!   that takes any engine takes this one.
//! - **After each call**, drain [`Engine::poll_transmit`] and [`Engine::poll_event`], and set a timer to
//!   [`Engine::poll_timeout`]. When it expires, call [`Engine::handle_timeout`].
//! - **Operations** ([`join`](Engine::join), [`find_node`](Engine::find_node), [`locate`](Engine::locate),
//!   [`get`](Engine::get), [`put`](Engine::put), [`provide`](Engine::provide),
//!   [`providers`](Engine::providers)) return an [`OpId`]. [`Event::Progress`] reports their progress, one
//!   [`Event::Done`] the result. [`Engine::cancel`] ends an operation without an event.
//!
//! # Protocol
//! A node gets a place in a bucket only after it has answered a request, and keeps the place as long as it
//! answers. A record is stored if the application's [`Validator`] accepts it. A provider announces itself;
//! its address is the source of the announcement.
//!
//! # Encodings
//! The engine decides, and a [`Codec`] writes and reads its messages. [`Engine::new`] speaks the encoding of this
//! framework, [`wire`], in which the bytes of a key are its place. [`Engine::with_codec`] speaks another one, such as that of
//! `/ipfs/kad/1.0.0`, whose messages are in [`libp2p`]: its keys are hashed, and a [`Key`] carries the bytes that messages
//! need. Where a request does not show that its sender serves requests, the driver says which nodes do
//! ([`Engine::handle_contact`], [`Engine::handle_departure`]).
//!
//! # Limits
//! Everything that other nodes can make grow has a limit in [`Config`]; each field says what is dropped at
//! the limit. [`Counts`] has a counter for each kind of drop.
//!
//! # Security
//! **Required of the caller.** Addresses that authenticate ids, such as those of P2PKE and QUIC
//! ([`Addr::peer_id`](p2p::Addr)); ids that are costly, or at least not free, to choose; a validator that
//! authenticates the owner of a record.
//!
//! **Provided.** No node can speak in another node's name. A node that names nodes which do not exist loses
//! credit within a lookup, and the paths of a lookup are disjoint. An answer cannot hide a node behind false
//! addresses, and cannot name an address with a narrower scope than the sender's. Networks with one owner get
//! few places, and sources that fill a node's stores leave room for others. A source that does not
//! authenticate its id gets no more bytes than it sent, unless [`Config::unproven_ids`] declares all nodes
//! trusted: then an attacker that can forge a source address can redirect an answer, of about twenty times the
//! size of the request, to it.
//!
//! **Not provided.** An attacker with enough ids near a key can withhold that key's records; many networks
//! are expensive, ids in them are not. A node that stores a record can claim a longer lifetime than the
//! publisher set: if this matters, include the expiry in the record and check it in the validator. Providers
//! in a result were not contacted. The asked nodes see what is asked for.
//!
//! Deliberately absent: a flag for clients that do not serve (a node that refuses requests, see
//! [`Config::serves`], is in no bucket anyway), and signatures on messages (the layer below authenticates the
//! sender, the validator authenticates records).

mod answers;
pub mod cache;
mod candidate;
pub mod codec;
mod commands;
mod config;
pub mod distance;
mod engine;
mod event;
pub mod libp2p;
mod lookup;
mod operation;
mod postcard;
mod providers;
mod records;
mod serve;
mod silent;
mod table;
mod upkeep;
pub mod wire;

pub use crate::overlay::{
    Contact, Failure, Key, NoRecords, OpId, Prefix, Progress, RequestId, RequestTransmit, Scope, Validator,
};
pub use codec::Codec;
pub use config::{Config, Rules};
pub use distance::Distance;
pub use engine::Engine;
pub use event::{Counts, Event, Outcome, Record, Refusal};
pub use postcard::PostcardCodec;
