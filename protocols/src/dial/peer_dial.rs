//! The dial of one peer, which all of its callers share.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::config::Config;
use super::event::{AttemptId, DialError, DialId, Failure};
use super::rank::Ranked;

/// The addresses of all callers of one dial together, as a multiple of those of one caller.
const SHARED: usize = 4;

/// An address that waits for its start.
#[derive(Debug)]
struct Planned<A> {
    at: Duration,
    addr: A,
    timeout: Duration,
}

/// An attempt in progress.
#[derive(Debug)]
pub(super) struct InFlight<A> {
    pub(super) addr: A,
    pub(super) deadline: Duration,
    pub(super) timeout: Duration,
}

/// The dial of one peer.
#[derive(Debug)]
pub(super) struct PeerDial<A> {
    /// Each with its deadline.
    pub(super) callers: BTreeMap<DialId, Duration>,
    /// In the order of their starts.
    planned: VecDeque<Planned<A>>,
    pub(super) in_flight: BTreeMap<AttemptId, InFlight<A>>,
    failed: Vec<(A, Failure)>,
    /// Whether it waits for one of the attempts in total.
    pub(super) is_waiting: bool,
    /// Its time in the index of timers.
    pub(super) due: Option<Duration>,
}

impl<A: Clone + Ord> PeerDial<A> {
    pub(super) fn new() -> Self {
        Self {
            callers: BTreeMap::new(),
            planned: VecDeque::new(),
            in_flight: BTreeMap::new(),
            failed: Vec::new(),
            is_waiting: false,
            due: None,
        }
    }

    /// Plans the addresses of a caller that are not part of the dial, within the limits. They come before
    /// those of earlier callers that are late, so that many false addresses of another caller do not delay
    /// them.
    pub(super) fn plan(
        &mut self,
        now: Duration,
        config: &Config,
        ranked: impl IntoIterator<Item = Ranked<A>>,
    ) {
        let max = config.addrs.saturating_mul(SHARED);
        let mut added = Vec::new();
        for Ranked { addr, delay, timeout } in ranked.into_iter().take(config.addrs) {
            let count = added.len() + self.planned.len() + self.in_flight.len() + self.failed.len();
            let mut planned = self.planned.iter().chain(&added);
            let is_known = planned.any(|planned| planned.addr == addr)
                || self.in_flight.values().any(|flight| flight.addr == addr)
                || self.failed.iter().any(|(failed, _)| *failed == addr);
            if !is_known && count < max {
                let at = now.saturating_add(delay);
                added.push(Planned { at, addr, timeout });
            }
        }
        for mut planned in self.planned.drain(..) {
            planned.at = planned.at.max(now);
            added.push(planned);
        }
        added.sort_by_key(|planned| planned.at);
        self.planned = added.into();
    }

    /// Returns whether an address should start now, apart from the limit of attempts in total.
    pub(super) fn is_ready(&self, now: Duration, config: &Config) -> bool {
        let is_due = self
            .planned
            .front()
            .is_some_and(|first| first.at <= now || self.in_flight.is_empty());
        is_due && self.in_flight.len() < config.parallel.max(1)
    }

    /// Starts the next address. Returns it, and the time after which it fails.
    pub(super) fn start(&mut self, now: Duration, attempt: AttemptId) -> Option<(A, Duration)> {
        let first = self.planned.pop_front()?;
        // If nothing is in progress, the whole plan moves forward.
        if let Some(early) = first.at.checked_sub(now) {
            for planned in &mut self.planned {
                planned.at = planned.at.saturating_sub(early);
            }
        }
        let in_flight = InFlight {
            addr: first.addr.clone(),
            deadline: now.saturating_add(first.timeout),
            timeout: first.timeout,
        };
        self.in_flight.insert(attempt, in_flight);
        Some((first.addr, first.timeout))
    }

    /// Ends an attempt that failed. Returns its address.
    pub(super) fn fail(&mut self, attempt: AttemptId, failure: Failure) -> Option<A> {
        let InFlight { addr, .. } = self.in_flight.remove(&attempt)?;
        self.failed.push((addr.clone(), failure));
        Some(addr)
    }

    /// Returns the attempts that took too long.
    pub(super) fn late(&self, now: Duration) -> Vec<(AttemptId, Duration)> {
        let late = self.in_flight.iter().filter(|(_, flight)| flight.deadline <= now);
        late.map(|(attempt, flight)| (*attempt, flight.timeout)).collect()
    }

    /// Ends the dial for its callers, and starts no more addresses. Returns the callers.
    pub(super) fn stop(&mut self) -> Vec<DialId> {
        self.planned.clear();
        std::mem::take(&mut self.callers).into_keys().collect()
    }

    /// Removes the callers whose deadline has passed. Returns them, and their error.
    pub(super) fn expire(&mut self, now: Duration, config: &Config) -> (Vec<DialId>, DialError<A>) {
        let late = self.callers.extract_if(.., |_, deadline| *deadline <= now);
        let late = late.map(|(id, _)| id).collect();
        let (limit, attempts) = (config.dial_timeout, self.failed.clone());
        (late, DialError::TimedOut { limit, attempts })
    }

    /// Returns the reason for which the dial ends, if nothing is left to try.
    pub(super) fn error(&self) -> Option<DialError<A>> {
        if !self.planned.is_empty() || !self.in_flight.is_empty() {
            return None;
        }
        let attempts = self.failed.clone();
        Some(if attempts.is_empty() {
            DialError::NoAddrs
        } else {
            DialError::Failed { attempts }
        })
    }

    /// Returns the time of its next change.
    pub(super) fn next_timeout(&self, config: &Config) -> Duration {
        let deadlines = self.in_flight.values().map(|flight| flight.deadline);
        let can_start = !self.is_waiting && self.in_flight.len() < config.parallel.max(1);
        let start = self.planned.front().filter(|_| can_start).map(|first| first.at);
        let callers = self.callers.values().copied();
        let timers = deadlines.chain(start).chain(callers);
        timers.min().unwrap_or(Duration::MAX)
    }
}
