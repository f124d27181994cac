//! Nodes that leave and return at random.

use std::fmt;
use std::time::Duration;

use super::distribution::Distribution;
use super::engine::SimAddr;
use super::simulation::Simulation;

/// Session and absence times of nodes.
#[derive(Clone, Copy, Debug)]
pub struct Churn {
    /// How long a node is up.
    pub session: Distribution,
    /// How long it is then absent, before it returns at its address with a new engine.
    pub absence: Distribution,
    /// The fraction of departures that are announced ([`Engine::handle_leave`](super::Engine::handle_leave)),
    /// from 0 to 1. The others are failures.
    pub announced: f64,
    /// From this time on no session ends and no node returns.
    pub until: Duration,
}

/// A returning node, for which an engine is to be created.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Its address.
    pub addr: SimAddr,
    /// The virtual time.
    pub now: Duration,
    /// A seed for the engine, different for each of a node's lives.
    pub seed: u64,
    /// A node that is up, for joining. `None` if there is no other.
    pub contact: Option<SimAddr>,
}

/// A planned action.
pub(super) enum Plan<E: super::Engine> {
    Run(Action<E>),
    /// A session ends, if the node is still in this life.
    Depart {
        node: u32,
        life: u32,
    },
    /// A node that announced its departure stops.
    Stop {
        node: u32,
        life: u32,
    },
    /// A node returns.
    Arrive {
        node: u32,
    },
}

pub(super) type Action<E> = Box<dyn FnOnce(&mut Simulation<E>)>;

/// Active churn, with the function that creates engines.
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
