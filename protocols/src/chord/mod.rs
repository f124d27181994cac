//! Chord: nodes on a circle of ids, each key with the node that comes next, found in about ½ log2(N) steps.
//!
//! Stoica, Morris, Liben-Nowell, Karger, Kaashoek, Dabek and Balakrishnan, "Chord: A Scalable Peer-to-peer Lookup Service
//! for Internet Applications" (SIGCOMM 2001; IEEE/ACM Transactions on Networking 11(1), 2003). An [`Engine`] is one node,
//! with ids of 256 bits. It keeps its place on the ring (predecessor, successor list, fingers), keeps records for keys
//! that are its own and copies of its predecessors', and looks keys up; all that it sends are asks.
//!
//! # How to drive it
//! - **To ask**, take [`Engine::poll_transmit`]; give what comes of each to [`Engine::handle_answer`] or
//!   [`Engine::handle_failure`]. What gets neither in time fails by itself.
//! - **To serve**, give each ask that arrives to [`Engine::handle_request`] and respond with what it returns, or reject
//!   with [`Refusal::rejection`]. The asks below should carry [`Config::message`] bytes.
//! - **After each call** empty [`Engine::poll_transmit`] and [`Engine::poll_event`], and set the timer to
//!   [`Engine::poll_timeout`]; when it rings, call [`Engine::handle_timeout`].
//! - Operations ([`join`](Engine::join), [`lookup`](Engine::lookup), [`locate`](Engine::locate),
//!   [`get`](Engine::get), [`put`](Engine::put), [`leave`](Engine::leave)) return an [`OpId`];
//!   [`Event::Progress`] says how far each is, one [`Event::Done`] what came of it. [`Engine::cancel`] ends one without an
//!   event.
//!
//! A node that joins fetches its records from its successor; who leaves hands them over; what is stored is copied along
//! the successor list, again whenever that changes. A copy that nobody renews goes back to its key's successor, so that a
//! transfer that failed is made good. Stabilization and the notification of the successor are one request, and a node asks
//! its successor's predecessor at once, not a round later, if that is its new successor. Who has got a nearer
//! predecessor tells the old one, which asks the newcomer at once; the paper leaves that to the next round. A join ends
//! when both neighbours know the newcomer.
//!
//! One lost packet drops nobody: what only one node can answer is asked twice, and who is silent on the way to somewhere is
//! asked whether it lives before it is forgotten. A partition leaves two rings, and stabilization alone never makes them one
//! again; so each node looks its own place up from time to time by way of those that it joined by, and tells whom it finds.
//!
//! # Security
//! **Required of the caller.** Addresses that prove ids, as P2PKE's and QUIC's do ([`Addr::peer_id`](p2p::Addr)), ids that
//! cannot be chosen freely, and a [`Validator`] that proves records to be whose they should be: anybody may put.
//!
//! **Provided.** Everything that others can make grow has a limit in [`Config`]. Nobody speaks in another's name. Lookups
//! only ever get nearer to their key and end after so many requests; pages of records end when they bring nothing new.
//! Only who has answered becomes the successor. What came first stays.
//!
//! **Not provided.** Who owns the ids around a key owns the key: Chord has one way to each key and believes those on it.
//! What is asked for is seen by those who are asked.
//!
//! Deliberately absent: recursive lookups (the last node answers an address that the first one states, so that a liar can
//! aim answers at a stranger, 17 times the bytes of its request), virtual nodes (run several engines), publishing records again (their owner does that by putting
//! again), proximity of fingers, and signatures on messages (the layer below proves who speaks, the validator whose a
//! record is).

mod config;
mod copies;
pub mod distance;
mod engine;
mod event;
mod leave;
mod lookup;
mod operation;
mod serve;
mod step;
mod store;
mod table;
mod upkeep;
pub mod wire;

pub use crate::overlay::{Contact, Failure, NoRecords, OpId, Progress, RequestId, Transmit, Validator};
pub use config::{Config, Rules};
pub use engine::Engine;
pub use event::{Counts, Event, Found, OpError, Outcome, Refusal};
