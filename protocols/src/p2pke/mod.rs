//! P2PKE version 1: channels between keys, over any medium that carries datagrams.
//!
//! Two nodes prove their keys to each other in a handshake of four messages, [`Session`], and seal what they say
//! from then on. A [`Channel`] holds the sessions with whoever is at one address and replaces them in time;
//! an [`Endpoint`] holds the channels of a node and its limits. None of them does I/O.
//!
//! The bytes are those of the Go library go-p2p; see [`wire`]. The handshake is
//! `Noise_NN_25519_ChaChaPoly_BLAKE2b` (Noise specification, revision 34) with an empty prologue; each side signs
//! the handshake's hash with its long-term key, the responder the hash of the first message, the initiator that of
//! both. What is signed is a digest under a purpose (`BLAKE2Xb`).
//!
//! # How to drive it
//! A driver has one [`Endpoint`] under a lock, a clock that began at Unix time and only moves on, an RNG, and beside
//! them a map from addresses to `Arc<`[`DataPath`]`>` that many threads read.
//!
//! - **To send**, look the address up in that map and [`DataPath::seal`] each packet of a batch, without any lock.
//!   [`Sealed::RenewalDue`] asks for one call of [`Endpoint::renew`] after the batch. Without a path, with one of
//!   another peer, or after an error, call [`Endpoint::connect`] and wait for [`Event::Established`] (seal and send), or
//!   [`Event::Failed`] (tell the caller). Callers that expect different peers at one address share a handshake, and the
//!   identity that answers says how it ends for each; when nobody waits any more, call [`Endpoint::release`].
//! - **To receive**, [`DataPath::open`] each packet of a batch, again without a lock.
//!   [`Error::Unexpected`] is a handshake message and goes to [`Endpoint::handle`], as does everything from
//!   an address without a path; any other error is a drop, counted under [`Error::reason`]. The message's source is
//!   [`DataPath::peer`] at that address.
//! - **After each call** of the endpoint, empty [`Endpoint::poll_transmit`] and [`Endpoint::poll_event`], keep the map
//!   up to date ([`Event::Established`] and [`Event::Changed`] put, [`Event::Expired`] takes out), and set the timer to
//!   [`Endpoint::poll_timeout`]; when it rings, call [`Endpoint::handle_timeout`].
//! - A packet wants [`wire::HEADER`] bytes of room in front and [`wire::TAG`] behind; a message may have the MTU below
//!   less [`wire::OVERHEAD`], and at most [`wire::MAX_MESSAGE`].
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use p2p::Packet;
//! use p2p_formats::x509::PrivateKey;
//! use p2p_protocols::p2pke::{Config, Endpoint, Local};
//! use rand::{SeedableRng, rngs::StdRng};
//!
//! let (now, mut rng) = (Duration::from_secs(1_700_000_000), StdRng::seed_from_u64(1));
//! let [mut alice, mut bob] = [1, 2].map(|seed| {
//!     let local = Local::new(&PrivateKey::ed25519(&[seed; 32]), Config::default()).unwrap();
//!     Endpoint::<&str>::new(Arc::new(local), &mut rng)
//! });
//! assert!(alice.connect(now, &"bob", Some(bob.local().id()), &mut rng).unwrap().is_none());
//! for _ in 0..2 {
//!     while let Some((_, packet)) = alice.poll_transmit() {
//!         bob.handle(now, &"alice", packet, &mut rng).unwrap();
//!     }
//!     while let Some((_, packet)) = bob.poll_transmit() {
//!         alice.handle(now, &"bob", packet, &mut rng).unwrap();
//!     }
//! }
//! let (there, here) = (alice.path(&"bob").unwrap(), bob.path(&"alice").unwrap());
//! let mut packet = Packet::from("hello");
//! let _ = there.seal(now, &mut packet).unwrap();
//! here.open(now, &mut packet).unwrap();
//! assert_eq!((here.peer(), packet), (alice.local().id(), Packet::from("hello")));
//! ```
//!
//! # Limits
//! All are in [`Config`]. A source gets memory with its first hello that is verified, and counts as half open until it has
//! proven its key. Channels that peers open are counted by peer, by network and in total, and a share is left for what this
//! node opens; at a limit the least useful one goes, never one that was heard with data within
//! [`Config::refresh_after`]. Hellos have rates in total, by network and by source, and a peer that is known at its
//! address has an allowance beside them. An unproven source is sent at most one answer for each hello,
//! and 20 bytes for a data packet: no more than it sent, where both sides have keys of one kind.
//!
//! # Peers that were started again
//! A node that gets a data packet without a session answers with [`wire::no_session`], of 20 bytes, at most as long as the
//! packet. The peer begins a handshake beside its session, at most once a second, and only if it sent a packet under that
//! counter and has heard nothing authentic for 100 ms; the session goes on until the other one is confirmed. So whoever
//! forges such an answer causes one handshake a second, and ends nothing. What was sent before is lost, as on the medium.
//!
//! # Security
//! **Required of the caller.** A cryptographic RNG: an ephemeral key that can be guessed gives its session away. A
//! clock that does not go back, also over restarts: a hello older than the last one is refused while the peer
//! remembers that. Private keys that stay private. To compare [`DataPath::peer`] with whom a message is for.
//!
//! **Provided.** Data is read by the peer alone, comes from the peer, unchanged and at most once (within a session
//! and within [`WINDOW`] counters of the newest). A path to an id leads to that id or nowhere. Keys that leak later do
//! not open sessions that have ended (each has an ephemeral key of its own from both sides, and the keys for data
//! are wiped with their session; what snow held during the handshake is freed, not wiped). No state for strangers before a signature; bounded work and memory after it. Nothing on the wire
//! panics, and no forged or repeated packet ends or moves a session. A false id at a node's address does not make that node
//! unreachable. Nobody takes an address over from a peer that
//! is heard there.
//!
//! **Not provided**, by version 1:
//! - *Hidden identities.* The initiator's public key is in clear in its hello, with the time by its clock. The
//!   responder's is sealed, and anyone who sends it a valid hello learns it, unless the allow-list refuses them.
//! - *Hidden traffic.* Lengths, times, counters and the kinds of messages are in clear; nothing is padded.
//! - *Freshness of hellos.* The signature in a hello covers its time stamp alone. Who has seen a hello can make others of
//!   it that cost the responder a handshake's work and lead to no session.
//! - *Reachable addresses.* No cookie proves a source before work is done for it; a flood from made-up addresses
//!   spends [`Config::hello_rate`] and thereby keeps newcomers out while it lasts. So does a flood in the name of one
//!   newcomer: it spends [`Config::hello_rate_per_source`], and [`Config::half_open_per_channel`] hellos within a round trip
//!   displace the newcomer's own; 32 well-formed forged answers after each of its hellos have the true one dropped. Its
//!   handshake is repeated and goes through when the flood ends, within [`Config::handshake_timeout`] of its begin. Established
//!   sessions go on and are replaced in time.
//! - *Answers that cannot be outrun.* A node on the path that sees a hello may answer it first with a key of its own; callers
//!   then learn of the wrong peer. The true answer to the same hello still makes a session, for the next caller.
//! - *Denied conversations.* Both sides sign, so each can show others that the peer spoke with somebody.
//! - *Safety from quantum computers.* What is recorded today can be opened by one tomorrow.
//! - *An end.* No message closes a session; it expires.
//!
//! Deliberately absent: versions other than 1, roaming (an address is an address), keep-alive packets (the
//! protocol has none: a sender that hears nothing asks for a new session instead), and sockets, tasks, clocks.
//!
//! # Where the Go library is otherwise
//! Counters always begin at 16, also when data overtakes the end of the handshake. Empty messages are delivered. The
//! version is checked. Several hellos are answered side by side, instead of the lowest alone. A Go initiator whose
//! `RespDone` is overtaken by data is stuck until its session expires, and nothing here can help it.

mod channel;
mod config;
mod endpoint;
mod error;
mod gate;
mod noise;
mod path;
mod places;
mod presig;
mod replay;
mod session;
mod tai64n;
mod transport;
pub mod wire;

pub use channel::{Channel, Event, Hello};
pub use config::{Config, Local};
pub use endpoint::Endpoint;
pub use error::Error;
pub use gate::Gate;
pub use path::DataPath;
pub use replay::{ReplayWindow, WINDOW};
pub use session::{Session, SessionId, Stage, Step};
pub use tai64n::Tai64N;
pub use transport::{Sealed, Transport};
