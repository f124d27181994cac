//! Protocol engines: state machines that take bytes, a clock and randomness, and return bytes and events.
//! They do no I/O.
//!
//! A driver owns an engine and connects it to a network, a clock and an application. The drivers of these
//! engines on any swarm are in `p2p-swarms`; a simulator or a test can be a driver as well.
//!
//! ```text
//!                      calls of the application
//!                                ▼
//!    bytes received ──▶ ┌──────────────────┐ ──▶ poll_transmit: bytes to send
//!         handle_*      │      engine      │ ──▶ poll_event: results for the application
//!   handle_timeout ──▶  └──────────────────┘ ──▶ poll_timeout: time of the next handle_timeout
//! ```
//!
//! # The engine contract
//! - An engine has no clock, socket, lock, task or source of randomness. Methods take `now`, the time since
//!   any fixed moment, which must not decrease; engines that need randomness take a seed or an RNG.
//! - Input methods are named `handle_*`. They never block, and accept any bytes.
//! - After each call, the driver drains `poll_transmit` and `poll_event` until they return `None`, and sets a
//!   timer to `poll_timeout`. When the timer expires, it calls `handle_timeout`.
//! - An engine decides about the protocol; a driver decides nothing. So a run is a function of its inputs,
//!   and a test or a simulation can repeat it exactly.
//!
//! # What is here
//!
//! | module | protocol | state |
//! | --- | --- | --- |
//! | [`fragment`] | messages longer than the MTU, as fragments | reassembly |
//! | [`mux`] | channels over one swarm | none: only the framing |
//! | [`mbapp`] | requests with one answer each, over datagrams | pending asks, replies, reassembly |
//! | [`p2pke`] | secure channels between public keys (Noise) | sessions, handshakes |
//! | [`noise`] | primitives of Noise handshakes | |
//! | [`kademlia`] | nodes, records and providers by key, with the XOR metric | buckets, lookups, stores |
//! | [`chord`] | nodes and records by key, on a ring | ring, lookups, store |
//! | [`gossipsub`] | messages to all subscribers of a topic | meshes, caches, scores |
//! | [`identify`] | what two peers of a connection tell each other about themselves | the codec |
//! | [`peers`] | none: what a node knows about other peers | addresses with expiry, keys, records |
//! | [`dial`] | none: the order of dials | attempts, reconnections |
//! | [`connections`] | none: which connections are accepted, and which are kept | connections, tags |
//! | [`overlay`] | common parts of overlays addressed by id | address table, relay limits |
//! | [`hash`] | fast hash tables with random seeds | |
//!
//! Each module's front page cites its paper or specification, and lists limits and security properties.
//!
//! # Features
//! `ciphers`, on by default: [`p2pke`] and [`gossipsub`], whose ciphers and signatures are C and assembly. Without it the crate
//! compiles for WebAssembly.
//!
//! # Example
//! Two nodes of a Kademlia network without a runtime, in virtual time. A [`PeerId`](p2p::PeerId) is the
//! address of a node here:
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use p2p::PeerId;
//! use p2p_protocols::kademlia::{Config, Engine, Event, Failure, NoRecords, Outcome, Rules};
//!
//! let parse = |text: &str| text.parse::<PeerId>().ok();
//! let rules = Arc::new(Rules::new(Config::default(), parse, NoRecords));
//! let ids = [PeerId::new([1; 32]), PeerId::new([2; 32])];
//! let mut now = Duration::ZERO;
//! let mut nodes = ids.map(|id| Engine::new(id, rules.clone(), now, 1));
//!
//! let join = nodes[0].join(now, &[ids[1]])?;
//! let outcome = 'run: loop {
//!     for at in 0..nodes.len() {
//!         // The network of this example delivers each request at once.
//!         while let Some(transmit) = nodes[at].poll_transmit() {
//!             let to = ids.iter().position(|id| *id == transmit.to);
//!             match to.map(|to| nodes[to].handle_request(now, &ids[at], &transmit.request)) {
//!                 Some(Ok(answer)) => nodes[at].handle_answer(now, transmit.id, &answer),
//!                 Some(Err(_)) => nodes[at].handle_failure(now, transmit.id, Failure::Rejected),
//!                 None => nodes[at].handle_failure(now, transmit.id, Failure::Unreachable),
//!             }
//!         }
//!         while let Some(event) = nodes[at].poll_event() {
//!             match event {
//!                 Event::Done { op, outcome, .. } if op == join => break 'run outcome,
//!                 _ => {}
//!             }
//!         }
//!     }
//!     // Nothing is left to do now: the clock advances to the next timer.
//!     now = nodes[0].poll_timeout().min(nodes[1].poll_timeout());
//!     nodes.iter_mut().for_each(|node| node.handle_timeout(now));
//! };
//! assert_eq!(outcome, Outcome::Joined { contacts: 1 });
//! # Ok::<_, p2p::Error>(())
//! ```
//!
//! Deliberately absent: I/O, tasks, clocks, and any assumption about the network below.
#![forbid(unsafe_code)]

pub mod chord;
pub mod connections;
pub mod dial;
pub mod fragment;
#[cfg(feature = "ciphers")]
pub mod gossipsub;
pub mod hash;
pub mod identify;
pub mod kademlia;
pub mod mbapp;
pub mod mux;
#[cfg(feature = "ciphers")]
pub mod noise;
pub mod overlay;
#[cfg(feature = "ciphers")]
pub mod p2pke;
pub mod peers;
mod protobuf;
