//! Nodes that leave and return at random.

use std::fmt;
use std::time::Duration;

use p2p::engine::Engine;

use super::addr::SimAddr;
use super::distribution::Distribution;
use super::simulation::{Simulation, nanos, seed};

/// Session and absence times of nodes.
#[derive(Clone, Copy, Debug)]
pub struct Churn {
    /// How long a node is up.
    pub session: Distribution,
    /// How long it is then absent, before it returns at its address with a new engine.
    pub absence: Distribution,
    /// The fraction of departures that are announced ([`Engine::handle_leave`]),
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
pub(super) enum Plan<E: Engine<Addr = SimAddr>> {
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

impl<E: Engine<Addr = SimAddr>> fmt::Debug for Plan<E> {
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

impl<E: Engine<Addr = SimAddr>> Simulation<E> {
    /// Starts churn of all nodes that are up; `engine` creates the engines of returning nodes.
    ///
    /// Replaces earlier churn. A first session is as long as any other; planned actions remain.
    pub fn churn(&mut self, churn: Churn, engine: impl FnMut(Arrival) -> E + 'static) {
        self.churning = Some(Churning {
            churn,
            engine: Box::new(engine),
        });
        let up: Vec<SimAddr> = self.nodes().map(|(addr, _)| addr).collect();
        for addr in up {
            self.plan_departure(addr);
        }
    }

    /// Plans the end of a node's session.
    fn plan_departure(&mut self, addr: SimAddr) {
        let life = self.nodes[addr.index()].life;
        self.plan_churn(|churn| churn.session, Plan::Depart { node: addr.0, life });
    }

    /// Plans an action for a random time, unless churn will have ended by then.
    fn plan_churn(&mut self, after: impl FnOnce(&Churn) -> Distribution, plan: Plan<E>) {
        let Some(Churning { churn, .. }) = &self.churning else {
            return;
        };
        let after = after(churn).sample(|| self.random.uniform());
        let at = self.now.saturating_add(nanos(after));
        if at < nanos(churn.until) {
            self.plan(at, plan);
        }
    }

    /// Ends a session.
    pub(super) fn depart(&mut self, addr: SimAddr, life: u32) {
        let Some(Churning { churn, .. }) = &self.churning else {
            return;
        };
        if !self.lives(addr, life) {
            return;
        }
        if self.random.uniform() < churn.announced {
            self.leave(addr);
        } else {
            self.fail(addr);
        }
        self.plan_churn(|churn| churn.absence, Plan::Arrive { node: addr.0 });
    }

    /// Starts a new engine at the address of a node that left.
    pub(super) fn come_back(&mut self, addr: SimAddr) {
        let contact = self.random_up(addr);
        let arrival = Arrival {
            addr,
            now: self.now(),
            seed: seed(self.config.seed, addr, self.nodes[addr.index()].life + 1),
            contact,
        };
        let Some(churning) = &mut self.churning else {
            return;
        };
        let engine = (churning.engine)(arrival);
        self.restart(addr, engine);
        self.plan_departure(addr);
    }

    /// Returns a random node that is up, other than this one.
    fn random_up(&mut self, other_than: SimAddr) -> Option<SimAddr> {
        let others = self.up - usize::from(self.nodes[other_than.index()].engine.is_some());
        if others == 0 {
            return None;
        }
        loop {
            let index = self.random.next() % self.nodes.len() as u64;
            let addr = SimAddr(index as u32);
            if addr != other_than && self.nodes[addr.index()].engine.is_some() {
                return Some(addr);
            }
        }
    }
}
