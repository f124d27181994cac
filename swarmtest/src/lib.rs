//! A conformance suite for swarms: the laws of a swarm, as named functions that run against any
//! implementation.
//!
//! The author of a swarm describes how to create connected nodes and what their medium may do. [`run`]
//! returns a verdict for each law, [`conformance!`] creates a test for each, and [`LAWS`] lists them with
//! their sentences.
//!
//! | item | contents |
//! | --- | --- |
//! | [`Testbed`], [`run`], [`conformance!`] | how nodes are created, and how laws are run |
//! | [`Profile`], [`Effort`] | what the medium may do, timeouts, the amount of traffic, the seed, waived laws |
//! | [`LAWS`], [`laws`] | the laws, by group |
//! | [`wire`] | a medium that records and attacks packets, for secure swarms |
//! | [`reference`](mod@reference) | a small correct swarm with every capability |
//! | [`topology`] | shapes of networks |
//! | [`sim`] | a simulator of whole networks of engines in virtual time |
//!
//! ```
//! use p2p_swarmtest::reference::{Config, Network};
//! use p2p_swarmtest::{Plain, Profile, run};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let network = Network::new(Config { loss: 0.1, ..Config::default() });
//! let profile = Profile::lossy(0.1).waive("close::closing_frees_the_address", "addresses are never reused");
//! let report = run(Plain, profile, move |count| {
//!     let network = network.clone();
//!     async move { Ok(network.nodes(count)) }
//! })
//! .await;
//! println!("{report}");
//! report.assert_ok();
//! # }
//! ```
//!
//! # Laws of the wire
//! The laws of the group [`wire`](laws::wire) observe and attack the medium below a secure swarm. They need a
//! medium that the suite owns: [`Testbed::over`] passes in [taps](wire::Tap) on it, and the swarm under test
//! goes on top. All other laws run there as well:
//!
//! ```
//! # use p2p::{Addr, Result, SecureSwarm};
//! # use p2p_swarmtest::wire::Tap;
//! # use p2p_swarmtest::{Report, Secure, Testbed};
//! /// Checks a secure layer, which `seal` puts on a swarm with a new key each time.
//! async fn check<A: Addr, S: SecureSwarm<A>>(seal: fn(Tap) -> Result<S>) -> Report {
//!     Testbed::over(Secure, move |taps| async move { taps.into_iter().map(seal).collect() }).run().await
//! }
//! ```
//!
//! On other testbeds these laws are waived. [`Testbed::over`] has a running example of a swarm that does not
//! encrypt, and fails them.
//!
//! # Effort and seeds
//! A run of [`Effort::Normal`] makes long exchanges of thousands of messages and finds faults that affect one
//! message in 50, one length, the 256th message, or several senders. [`Profile::quick`] makes a tenth of the
//! traffic, for hundreds of stacks; [`Profile::strict`] makes ten times as much. `SWARMTEST_EFFORT=strict`
//! does so for every profile of a test run.
//!
//! All random choices of laws are derived from [`Profile::seed`] and the law's name. Each failure reports the
//! seed; `SWARMTEST_SEED` replaces that of every profile. On a runtime with threads, or in real time, the
//! order of events may still differ between runs.
//!
//! # Limits
//! A law finds what is observable from outside in a bounded time: a pass is not a proof. Each law is known to
//! find two faults, which are mutants in this crate's tests: one that breaks it always, and one that breaks
//! it rarely or under a condition. On a lossy medium laws repeat operations that may be lost, so that a
//! correct swarm passes; see [`Profile`].
//!
//! Deliberately absent: a clock (the suite runs under tokio's, paused or not), protection against swarms that
//! block their thread, and access to the medium of a swarm that brings its own.
#![forbid(unsafe_code)]

mod chance;
mod erased;
mod harness;
mod kind;
pub mod laws;
mod ledger;
mod loopback;
mod macros;
mod payloads;
mod profile;
mod queue;
pub mod reference;
mod report;
mod series;
pub mod sim;
mod testbed;
pub mod topology;
pub mod wire;

pub use kind::{Ask, Kind, Needs, Node, Plain, Secure, SecureAsk};
pub use laws::{LAWS, Law};
pub use loopback::loopback;
#[doc(hidden)]
pub use macros::{check_law, checked};
pub use profile::{Effort, Profile, SHORT};
pub use report::{Checked, Outcome, Report, Unmet, Verdict};
pub use testbed::{Testbed, run};
