//! Requests with one answer each over a medium that loses, repeats and reorders datagrams.
//!
//! The wire form is that of go-p2p's `mbapp`: a 24-byte header, then a part of a message, which is a tell, an ask or a
//! reply to an ask. The [`Engine`] sends what its node tells and asks, reassembles what others send, and sees to
//! two things that `mbapp` leaves open:
//!
//! - **An ask survives loss.** While its deadline lasts, the asker inquires with backoff and jitter what became of
//!   it. The server says which parts it lacks, that it is at work, or sends the parts of the reply that the asker
//!   lacks. A peer that has answered an inquiry once gets small asks again at once instead of another inquiry.
//! - **An ask runs at most once.** The server remembers asks by peer, counter and origin time, with their replies,
//!   within [`Limits`]. What it had to forget under pressure it refuses rather than runs again
//!   ([`Rejection::FORGOTTEN`](p2p::Rejection::FORGOTTEN)).
//!
//! A peer that knows `mbapp` alone sees plain `mbapp`. It ignores inquiries, since they have the form of replies to
//! asks that nobody made, and it never gets an ask twice, because it would run it twice: over a medium that
//! loses, an ask to such a peer can still be lost, as it is between two of them.
//!
//! Deliberately absent: congestion control, and any proof of who a peer is. Put a secure layer below: who can forge a
//! source address can spoil its messages.

mod asking;
mod assembly;
mod config;
mod engine;
mod event;
mod output;
mod recent;
mod serving;
mod shelf;
mod split;
mod wire;

pub use config::{Config, Limits};
pub use engine::Engine;
pub use event::{Answer, AskId, Event, Now, ServeId, What};
pub use wire::{HEADER, Header, Key, MAX_PARTS, PhaseTime};
