//! P2PKE version 1: secure channels between public keys, over any medium that carries datagrams.
//!
//! Two nodes prove their keys to each other in a handshake of four messages ([`Session`]), and then encrypt
//! and authenticate data. A [`Channel`] has the sessions with one remote address and replaces them in time;
//! an [`Endpoint`] has the channels of a node and its limits. None of them does I/O.
//!
//! The bytes are those of the Go library go-p2p; see [`wire`]. The handshake is
//! `Noise_NN_25519_ChaChaPoly_BLAKE2b` (Noise Protocol Framework, revision 34) with an empty prologue. Each
//! side signs a handshake hash with its long-term key: the responder that of the first message, the initiator
//! that of both. The signed bytes are a digest with a purpose (`BLAKE2Xb`).
//!
//! # Driving an endpoint
//! A driver has one [`Endpoint`] in a lock, a clock that starts at Unix time and is monotonic, an RNG, and a
//! map from addresses to `Arc<`[`DataPath`]`>` that many threads read.
//!
//! - **To send**, look up the path and call [`DataPath::seal`] for each packet of a batch, without a lock.
//!   After [`Sealed::RekeyDue`], call [`Endpoint::rekey`] once after the batch, which starts a rekey.
//!   Without a path, with a path to another peer, or after an error, call [`Endpoint::connect`] and wait for
//!   [`Event::Established`] (seal and send) or [`Event::Failed`] (report to the caller). Callers that expect
//!   different peers at one address share a handshake, and the identity in the answer resolves each of them.
//!   Call [`Endpoint::release`] when no caller waits.
//! - **To receive**, call [`DataPath::open`] for each packet of a batch, again without a lock.
//!   [`Error::Unexpected`] means a handshake message: pass it to [`Endpoint::handle`], as well as every
//!   packet from an address without a path. Any other error is a drop, counted with [`Error::reason`]. The
//!   source of the message is [`DataPath::peer`] at that address.
//! - **After each call** of the endpoint, drain [`Endpoint::poll_transmit`] and [`Endpoint::poll_event`],
//!   update the map ([`Event::Established`] and [`Event::Changed`] insert a path, [`Event::Expired`] removes
//!   it), and set a timer to [`Endpoint::poll_timeout`]. When it expires, call [`Endpoint::handle_timeout`].
//! - A packet needs [`wire::HEADER`] bytes of room in front and [`wire::TAG`] behind. The MTU is the MTU
//!   below less [`wire::OVERHEAD`], and at most [`wire::MAX_MESSAGE`].
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
//! All limits are in [`Config`]. A source gets memory with its first verified hello, and counts as half-open
//! until it has proven its key. Channels that peers open are counted by peer, by network and in total, and a
//! share is reserved for channels that this node opens. At a limit the least valuable channel is removed, but
//! never one that carried data and had an authentic packet within [`Config::rekey_after_silence`]. Hellos
//! have rate limits in total, by network and by source; a peer that is known at its address has a separate
//! allowance. An unauthenticated source gets at most one answer for each hello, and 20 bytes for a data
//! packet: no more than it sent, if both sides have keys of the same kind.
//!
//! # Restarted peers
//! A node that receives a data packet without a session answers with a no-session notice
//! ([`wire::no_session`]) of 20 bytes, which is not longer than the packet. The peer starts a handshake
//! beside its session, at most once a second, and only if it sent a packet with that counter and received
//! nothing authentic for 100 ms. The session stays in use until another one is confirmed. So a forged notice
//! can cause one handshake a second, and ends nothing. Data that was sent before is lost, as on the medium.
//!
//! # Security
//! **Required of the caller.** A cryptographic RNG: a predictable ephemeral key exposes its session. A clock
//! that never goes back, even over restarts: a hello that is older than the last one is refused while the
//! peer remembers the last one. Private keys that stay private. A comparison of [`DataPath::peer`] with the
//! intended recipient of a message.
//!
//! **Provided.** Data can be read by the peer only, is authenticated as the peer's, unmodified, and delivered
//! at most once (within a session, and within [`WINDOW`] counters of the newest). A path to an id leads to
//! that id or does not exist. Long-term keys that leak later do not expose past sessions: each session has
//! ephemeral keys of both sides, and its data keys are zeroized with it; what snow holds during the handshake
//! is freed, not zeroized. A node keeps no state for a source before it has verified a signature, and its
//! work and memory are bounded after that. No packet can cause a panic, and no forged or replayed packet ends
//! or changes a session. A false id at a node's address does not make that node unreachable. An address
//! cannot be taken over from a peer with recent authentic packets.
//!
//! **Not provided** by version 1:
//! - *Identity hiding.* The initiator's public key is unencrypted in its hello, with the time of its clock.
//!   The responder's is encrypted, and any node that sends a valid hello learns it, unless the allow-list
//!   denies it.
//! - *Traffic hiding.* Lengths, times, counters and kinds of messages are visible; nothing is padded.
//! - *Fresh hellos.* The signature in a hello covers its time stamp only. An attacker that has seen a hello
//!   can make others from it, which cost the responder the work of a handshake and lead to no session.
//! - *Return routability.* No cookie validates a source address before work is done for it. A flood from
//!   forged addresses uses up [`Config::hello_rate`] and so excludes newcomers while it lasts. So does a
//!   flood with one newcomer's address: it uses up [`Config::hello_rate_per_source`], and
//!   [`Config::half_open_per_channel`] hellos within a round trip displace the newcomer's own; 32 well-formed
//!   forged answers after each of its hellos cause the authentic answer to be dropped. The handshake is
//!   retransmitted and succeeds if the flood ends within [`Config::handshake_timeout`]. Established sessions
//!   stay in use and are replaced in time.
//! - *Protection from fast answers.* A node on the path that sees a hello can answer it first with its own
//!   key; callers then learn of the wrong peer. The authentic answer to the same hello still creates a
//!   session, for the next caller.
//! - *Deniability.* Both sides sign, so each can prove to others that it communicated with the peer.
//! - *Post-quantum security.* A future quantum computer can decrypt recorded traffic.
//! - *Session termination.* No message closes a session; it expires.
//!
//! Deliberately absent: versions other than 1, roaming (a channel belongs to one address), keep-alive packets
//! (the protocol has none: a sender that receives nothing starts a rekey instead), and sockets, tasks,
//! clocks.
//!
//! # Differences from the Go library
//! Counters always start at 16, even if data overtakes the end of the handshake. Empty messages are
//! delivered. The version is checked. Several hellos are answered concurrently, instead of the lowest only. If
//! data overtakes the `RespDone` to a Go initiator, the initiator is stuck until its session expires; this side
//! cannot prevent that.

mod channel;
mod channel_counts;
mod config;
mod endpoint;
mod error;
mod hello_rate_limiter;
mod noise;
mod path;
mod replay;
mod session;
mod signing_digest;
mod tai64n;
mod transport;
pub mod wire;

pub use channel::{Channel, Event, Hello};
pub use config::{Config, Local};
pub use endpoint::Endpoint;
pub use error::Error;
pub use hello_rate_limiter::HelloRateLimiter;
pub use path::DataPath;
pub use replay::{ReplayWindow, WINDOW};
pub use session::{Session, SessionId, Stage, Step};
pub use tai64n::Tai64N;
pub use transport::{Sealed, Transport};
