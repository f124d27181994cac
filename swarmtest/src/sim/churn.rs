//! Nodes that come and go at random.

use std::fmt;
use std::time::Duration;

use super::distribution::Distribution;
use super::engine::SimAddr;
use super::simulation::Simulation;

/// How long nodes stay and stay away.
#[derive(Clone, Copy, Debug)]
pub struct Churn {
    /// How long a node is up.
    pub session: Distribution,
    /// How long it is away then, before it comes back under its address with a new engine.
    pub absence: Distribution,
    /// The share of departures that are announced ([`Engine::handle_leave`](super::Engine::handle_leave)): 0 to 1.
    /// The others are failures.
    pub announced: f64,
    /// No session ends from this time on, and no node comes back.
    pub until: Duration,
}

/// A node that comes back, for which an engine is to be made.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Its address.
    pub addr: SimAddr,
    /// The virtual time.
    pub now: Duration,
    /// A seed for the engine; each of a node's lives has another.
    pub seed: u64,
    /// Some node that is up, by which it may join. `None` if there is no other.
    pub contact: Option<SimAddr>,
}

/// What is to happen at its time.
pub(super) enum Plan<E: super::Engine> {
    Run(Action<E>),
    /// A session ends, if the node still lives this life.
    Depart {
        node: u32,
        life: u32,
    },
    /// A node that said goodbye stops.
    Stop {
        node: u32,
        life: u32,
    },
    /// A node comes back.
    Arrive {
        node: u32,
    },
}

pub(super) type Action<E> = Box<dyn FnOnce(&mut Simulation<E>)>;

/// Churn under way, with what makes engines.
pub(super) struct Churning<E> {
    pub(super) churn: Churn,
    pub(super) engine: Box<dyn FnMut(Arrival) -> E>,
}

impl<E: super::Engine> fmt::Debug for Plan<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Plan::Run(_) => "Run",
            Plan::Depart { .. } => "Depart",
            Plan::Stop { .. } => "Stop",
            Plan::Arrive { .. } => "Arrive",
        })
    }
}

impl<E> fmt::Debug for Churning<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.churn.fmt(f)
    }
}
