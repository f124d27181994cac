//! The connection manager: which connections a node accepts, which ones it keeps, and why each one is open.
//!
//! [`Connections`] has no I/O and no clock. It is generic over the key of a peer. A driver asks before it
//! accepts or opens a connection ([`Connections::admit_inbound`], [`Connections::admit_outbound`]), reports
//! handshakes, streams and ends, and closes the connections that an [`Action`] names.
//!
//! # Life of a connection
//! ```text
//!  admit_* ──▶ pending ──handle_established──▶ open ──┬─ handle_closed, close
//!                 │                                   ├─ idle: no reason to stay for Config::idle_timeout
//!                 ├─ handle_failed                    ├─ trimmed: more than Config::high_water are open
//!                 └─ Config::handshake_timeout        └─ displaced: another network needs a place
//! ```
//!
//! # Reasons to keep a connection open
//! Open streams, a protocol that asked for it ([`Connections::keep_alive`]), a tag of its peer with a positive
//! value, and protection of its peer. A connection without any of these is idle, and is closed after
//! [`Config::idle_timeout`]. [`Connections::why_open`] returns the reasons.
//!
//! # Trimming
//! When more than [`Config::high_water`] connections are open, connections are closed down to
//! [`Config::low_water`]: never of a protected peer, and none that is younger than [`Config::grace`]. First
//! go those of peers with the lowest value (the sum of a peer's tags), then those with the fewest streams,
//! then those that were not used for longest.
//!
//! A peer may have several connections, such as after simultaneous dials. All stay; the oldest one is used
//! ([`Connections::best`]).
//!
//! ```
//! use std::time::Duration;
//! use p2p_protocols::connections::{Action, CloseReason, Config, Connections, Event, OpenReason};
//!
//! let mut connections = Connections::new(Config::default());
//! let mut now = Duration::ZERO;
//! let id = connections.admit_inbound(now, Some([192, 0, 2, 1].into()))?;
//! connections.handle_established(now, id, &"alice")?;
//! assert!(matches!(connections.poll_event(), Some(Event::Connected { peer: "alice", .. })));
//!
//! connections.handle_stream_opened(now, id);
//! assert_eq!(connections.why_open(now, id)[0], OpenReason::Streams(1));
//! connections.handle_stream_closed(now, id);
//!
//! // Nothing needs it any more.
//! now = connections.poll_timeout().unwrap();
//! assert_eq!(now, Duration::from_secs(10));
//! connections.handle_timeout(now);
//! assert_eq!(connections.poll_action(), Some(Action::Close { id, reason: CloseReason::Idle }));
//! # Ok::<_, p2p_protocols::connections::Refusal>(())
//! ```
//!
//! # Limits
//! [`Config`] bounds pending connections in each direction and by network, and open ones in total, inbound,
//! by peer and by network. A network is an IPv4 /24 or an IPv6 /48, or a host of a private network with
//! eight times the limit ([`Prefix`](crate::overlay::Prefix)). A part of the total is for connections that
//! this node opens. A [`Refusal`] names the limit.
//!
//! At the limit of pending inbound connections, a network with fewer of them displaces the oldest one of the
//! network with the most. A network at its own limit displaces its own oldest one, if that has used a fifth
//! of the time for the handshake. At the limit of open inbound connections, the same rule applies to
//! connections that nothing needs, the least recently used first.
//!
//! # Security
//! **Required of the caller.** Peers have proven their keys before
//! [`handle_established`](Connections::handle_established). IP addresses are those that the packets came
//! from.
//!
//! **Provided.** A flood from one network takes that network's share only. The connection of a protected
//! peer is accepted while there is any connection that may be closed for it.
//!
//! **Not provided.** A flood from as many networks as there are places excludes others until
//! [`Config::grace`] has passed and trimming makes room.

mod admit;
mod config;
mod connection;
mod event;
mod manager;
mod marks;
mod trim;

pub use config::Config;
pub use connection::{ConnId, Info};
pub use event::{Action, CloseReason, Counts, Direction, Event, Full, OpenReason, Refusal};
pub use manager::Connections;
