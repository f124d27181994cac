//! Requests with exactly one answer each, over a medium that loses, duplicates and reorders datagrams.
//!
//! The encoding is that of go-p2p's `mbapp`: a 24-byte header, then a part of a message, which is a tell, an
//! ask or a reply to an ask. The [`Engine`] sends its node's tells and asks, reassembles received messages,
//! and adds two guarantees that `mbapp` lacks:
//!
//! - **An ask survives loss.** Until its deadline, the asking node sends inquiries with backoff and jitter.
//!   The server answers with the parts that it lacks, or that it is processing the request, or sends the
//!   parts of the reply that the asking node lacks. To a peer that has answered an inquiry once, short
//!   requests are sent again at once instead of another inquiry.
//! - **An ask runs at most once.** The server remembers asks by peer, counter and origin time, with their
//!   replies, within [`Limits`]. An ask that it had to forget is rejected rather than run again
//!   ([`Rejection::FORGOTTEN`](p2p::Rejection::FORGOTTEN)).
//!
//! A peer that implements only `mbapp` sees plain `mbapp`. It ignores inquiries, because they have the form
//! of replies to unknown asks, and it never gets a request twice, because it would run it twice. So over a
//! medium that loses datagrams, an ask to such a peer can be lost, as between two such peers.
//!
//! # Limits
//! [`Limits`] bounds pending asks, incomplete messages, and remembered replies, in total and for each source.
//! At a limit the oldest item is dropped, with an [`Event::Dropped`] if it was an incomplete message.
//!
//! # Security
//! Sources are not authenticated: an attacker that can forge a source address can corrupt its messages. Use a
//! secure layer below.
//!
//! Deliberately absent: congestion control, and authentication.

mod asking;
mod assembly;
mod bounded_store;
mod config;
mod engine;
mod event;
mod output;
mod recent;
mod serving;
mod split;
mod wire;

pub use config::{Config, Limits};
pub use engine::Engine;
pub use event::{Answer, AskId, Event, Now, ServeId, What};
pub use wire::{HEADER, Header, Key, MAX_PARTS, PhaseTime};
