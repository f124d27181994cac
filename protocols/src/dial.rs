//! Dialling: which addresses of a peer to try, in which order, how many at once, and when to try again.
//!
//! A [`Dialer`] has no I/O and no clock. A driver resolves names, opens connections for the [`Action`]s, and
//! reports the results. It is generic over the key of a peer and over addresses; [`DialAddr`] states what the
//! order depends on.
//!
//! # Order
//! [`rank`] gives each address a delay after the start, like the default of go-libp2p:
//!
//! - Private addresses (loopback and private networks) and public ones are two groups that start at the same
//!   time. Relayed addresses start [`Config::relay_delay`] (500 ms) later if there is a public address.
//! - Within a group, QUIC comes before TCP. The first TCP address starts [`Config::public_delay`] (250 ms)
//!   after the last QUIC address, or [`Config::private_delay`] (30 ms) in the private group.
//! - Within a transport, IPv6 comes before IPv4, and low ports before high ones. The first address starts at
//!   once, the second one step later; with both IP versions the second is the first IPv4 address, and the
//!   rest follows another step later (Happy Eyeballs, RFC 8305).
//!
//! If all connections that were tried have failed, the next address starts at once. Addresses that failed a
//! short time ago come after all others ([`Config::backoff_first`]); they are never left out, because a peer
//! that just started must be reachable. Addresses that no peer can have (unspecified, multicast, broadcast)
//! are left out.
//!
//! # Sharing
//! All dials of one peer share its attempts, and further addresses join them. The first connection ends all of
//! them, whether this node or the peer opened it. A dial ends with its last caller: [`Dialer::cancel`].
//!
//! After a connection that this node opened, the other attempts are aborted. After one that the peer opened
//! ([`Dialer::handle_peer_connected`]), attempts in progress go on, because the peer may have an attempt in
//! progress as well: if both peers gave up their own for that of the other, none would be left. So
//! simultaneous dials lead to two connections. Both stay, and
//! [`Connections::best`](crate::connections::Connections::best) names the older one.
//!
//! # Reconnection
//! A peer in [`Dialer::maintain`] is dialled again after it disconnects or cannot be reached: after 5 s, 10 s,
//! 20 s … 5 min, each with a jitter of a fifth, so that nodes that lost a peer at the same time do not return
//! in step. A connection that lasted [`Config::stable_after`] starts this sequence anew.
//! [`Action::Reconnect`] asks the driver to look up the addresses and to call [`Dialer::dial`].
//!
//! ```
//! use std::time::Duration;
//! use p2p_protocols::dial::{Action, Config, DialAddr, Dialer, Event, Transport};
//!
//! let addr = |text: &'static str, transport, port| DialAddr {
//!     addr: text,
//!     transport,
//!     ip: Some([192, 0, 2, 1].into()),
//!     port,
//!     is_relayed: false,
//! };
//! let (mut dialer, mut now) = (Dialer::new(Config::default(), 1), Duration::ZERO);
//! let addrs = [addr("tcp", Transport::Tcp, 4001), addr("quic", Transport::Quic, 4001)];
//! let id = dialer.dial(now, &7_u32, addrs)?;
//! let Some(Action::Start { addr: "quic", .. }) = dialer.poll_action() else { panic!() };
//! assert_eq!(dialer.poll_action(), None);
//!
//! now = dialer.poll_timeout().unwrap();
//! assert_eq!(now, Duration::from_millis(250));
//! dialer.handle_timeout(now);
//! let Some(Action::Start { attempt, addr: "tcp", .. }) = dialer.poll_action() else { panic!() };
//! dialer.handle_connected(now, attempt);
//! let Some(Action::Abort { .. }) = dialer.poll_action() else { panic!() };
//! assert_eq!(dialer.poll_event(), Some(Event::Connected { id, peer: 7, attempt: Some(attempt) }));
//! # Ok::<_, p2p_protocols::dial::Full>(())
//! ```
//!
//! # Limits
//! [`Config`] bounds the addresses of a dial, the attempts at once for one peer and in total, the peers that
//! are dialled, the callers, the maintained peers, and the addresses that are remembered because they failed.
//! An attempt ends after 5 s at a private address and after 15 s at any other, a dial after 60 s.
//!
//! While peers wait because of the limit in total, an attempt that has used a fifth of its time is given up
//! for the first of them. So peers that do not answer do not keep others from being dialled. Of one peer, the
//! addresses of a new caller come before those of earlier callers that are late.
//!
//! # Security
//! **Required of the caller.** A connection counts only if the peer has proven its key
//! ([`Failure::WrongPeer`]). Addresses that other peers name must be within their scope
//! ([`Scope::may_name`](crate::overlay::Scope::may_name)), or a peer can direct this node to hosts of its own
//! network.

mod config;
mod dialer;
mod event;
mod failed;
mod maintain;
mod peer_dial;
mod progress;
mod rank;
mod slots;

pub use config::Config;
pub use dialer::Dialer;
pub use event::{Action, AttemptId, DialError, DialId, Event, Failure, Full};
pub use rank::{DialAddr, Ranked, Transport, rank};
