//! Runs [`p2p_libp2p`] against other implementations of libp2p.
//!
//! Two modes are the test program that the libp2p project's harness runs in a container, [`transport`] and [`perf`]. Their
//! parameters are environment variables ([`settings`]), and listener and dialler meet through a Redis server ([`redis`]).
//! The [`matrix`] runs the same tests without containers: it starts listener and dialler as plain processes, ours and those
//! of the peers in `peers/`, over a Redis stub of its own. [`go`] is the peer that steers go-libp2p's daemon.
//! [`mesh`] starts a gossipsub mesh of [`gossip`] nodes and of those of the peers.
#![forbid(unsafe_code)]

pub mod commands;
pub mod go;
pub mod gossip;
pub mod link;
pub mod matrix;
pub mod mesh;
pub mod node;
pub mod perf;
pub mod redis;
pub mod report;
pub mod settings;
pub mod stub;
pub mod transport;

/// The error of a run: shown to a person, and the end of the process.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
