//! A stack written as text, and built at run time.
//!
//! `udp=127.0.0.1:0/faulty,loss=0.1,seed=7/frag=9000/mux=chat`: the base first, layers joined by `/`, a layer's
//! argument after `=`, its further options after `,`. [`StackText`] is what the text says, parsed and checked
//! before anything is opened; [`Stack`] is the swarm, with asks and keys where all of its layers have them.
//!
//! | word | argument | options |
//! | --- | --- | --- |
//! | `mem` | realm name, or nothing | |
//! | `udp` | socket address; without one `127.0.0.1:0` | `mtu=` |
//! | `faulty` | | `loss= dup= reorder= corrupt=` (0 to 1), `delay= jitter=` (ms), `rate=` (bytes/s), `seed=` |
//! | `frag` | MTU; without one 65536 | |
//! | `mux`, `mux16`, `mux32`, `mux64`, `muxv` | channel: a name or a number | |
//! | `allow` | ids or addresses joined by `;` | |
//! | `p2pke` | | |
//! | `quic` | MTU; without one 1048576 | |
//! | `mbapp` | MTU; without one 65536 | |
//!
//! Layers with a private key share one: that of [`StackText::build_with`], or one that is made up for the node. Directly
//! on `udp`, `quic` has a UDP socket of its own, where `mtu=` bounds the datagrams that it tries; over anything else it
//! runs over that.
//!
//! Every error says at which byte of the text it is, and what would fit there.
//!
//! Deliberately absent: a way to escape `/`, `,` and `;`. What contains them is built in Rust.

mod build;
mod error;
mod grammar;
mod node;
mod read;
#[cfg(test)]
mod tests;

pub use error::StackError;
pub use grammar::{Channel, Layer, StackText};
pub use node::{Stack, forged};
