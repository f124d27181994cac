//! The laws of a swarm, as functions with names, and the suite that checks them on any swarm.
//!
//! The author of a swarm says how to make connected nodes of it and what its medium may do; [`run`] gives a
//! verdict for each law, [`conformance!`] makes a test of each. [`LAWS`] lists them all with their sentences.
//!
//! ```
//! use p2p_swarmtest::reference::{Config, Network};
//! use p2p_swarmtest::{Plain, Profile, run};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let network = Network::new(Config { loss: 0.1, ..Config::default() });
//! let profile = Profile::lossy(0.1).waive("close::closing_frees_the_address", "places are never reused");
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
//! The laws of the group [`wire`](laws::wire) look at the medium beneath a secure swarm and attack it. They need a
//! medium that the suite owns: [`Testbed::over`] hands in [taps](wire::Tap) on it, and the swarm under test goes on top.
//! That is all there is to it, and every other law is checked there as well:
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
//! On other testbeds these laws are waived. [`Testbed::over`] has an example that is run, of a swarm that seals nothing
//! and is found out.
//!
//! Beside the laws: [`topology`] makes networks' shapes, and [`sim`] runs whole networks of engines in virtual time.
//!
//! # Effort and seeds
//! A run of [`Effort::Normal`] makes long exchanges of thousands of messages and finds faults that show in one message of 50,
//! at one length, after 256 messages, or with several senders. [`Profile::quick`] makes a tenth of the traffic, for hundreds
//! of stacks; [`Profile::strict`] makes ten times as much. `SWARMTEST_EFFORT=strict` does so for every profile of a test run.
//!
//! Everything that laws leave to chance comes from [`Profile::seed`] and the law's name. Each failure says the seed;
//! `SWARMTEST_SEED` replaces that of every profile. On a runtime with threads, or in real time, the order of events may still
//! differ from run to run.
//!
//! What a law finds depends on what can be seen from outside in a bounded time: a pass is no proof. Each law is known to
//! find two faults, which are mutants in this crate's tests: one that breaks it always, and one that breaks it rarely or
//! under a condition.
//! On a lossy medium laws repeat what may be lost, so that a correct swarm passes; see [`Profile`].
//!
//! Deliberately absent: a clock of its own (it runs under tokio's, paused or not), a guard against swarms that block
//! their thread, and a look at what is beneath a swarm that brings its own medium.
#![forbid(unsafe_code)]

mod chance;
mod erased;
mod field;
mod kind;
pub mod laws;
mod ledger;
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
#[doc(hidden)]
pub use macros::{check_law, checked};
pub use profile::{Effort, Profile, SHORT};
pub use report::{Checked, Outcome, Report, Unmet, Verdict};
pub use testbed::{Testbed, run};
