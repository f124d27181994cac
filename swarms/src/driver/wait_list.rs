//! The wait list: which callers wait, which one polls the work, and which to wake.

use std::collections::VecDeque;
use std::mem;
use std::task::Waker;

use p2p::Error;

use super::{Kind, Wants};

#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact that holds or not, whatever the others do"
)]
pub(super) struct Line<K> {
    /// Set if the work can make progress.
    pub(super) due: bool,
    /// Set while a caller or the background task polls the work. It checks afterwards whether more is due.
    pub(super) polling: bool,
    /// What the caller that polls the work wants; it takes that itself.
    pub(super) polled_for: Option<Wants<K>>,
    /// Number of polls begun.
    polls: u64,
    /// Number of calls for items.
    visits: u64,
    /// Set if a reader called recently and is expected to call again. Callers that wait for a single result
    /// are not.
    readers_return: bool,
    /// Number of times that items were announced.
    pub(super) puts: u64,
    /// Callers that want items, in the order of their tickets.
    readers: VecDeque<Waiting<K>>,
    /// Callers that want a single result, in the order of their tickets.
    others: VecDeque<Waiting<K>>,
    next_ticket: u64,
    pub(super) duty: Duty,
    pub(super) background: Option<Waker>,
    /// The error of the work, for the next caller that wants items.
    pub(super) failure: Option<Error>,
    pub(super) closed: bool,
}

impl<K> Default for Line<K> {
    fn default() -> Self {
        Self {
            due: false,
            polling: false,
            polled_for: None,
            polls: 0,
            visits: 0,
            readers_return: false,
            puts: 0,
            readers: VecDeque::new(),
            others: VecDeque::new(),
            next_ticket: 0,
            duty: Duty::Work,
            background: None,
            failure: None,
            closed: false,
        }
    }
}

struct Waiting<K> {
    ticket: u64,
    kind: K,
    /// Set if the caller was woken to poll the work and has not been polled since.
    called: bool,
    /// Set if the caller was woken to take an item and has not been polled since, or if it polls the work and
    /// looks afterwards.
    notified: bool,
    waker: Waker,
}

/// What the background task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    /// Polls the work whenever no caller can be woken for it.
    Work,
    /// Checks, after some time, whether a caller polls the work.
    Watch,
    /// Nothing: a caller polled the work, and nothing was due since.
    Rest,
}

/// Wakers to call after the lock is released.
pub(super) type Calls = [Option<Waker>; 2];

impl<K: Kind> Line<K> {
    /// Returns the wakers to call because the work can make progress.
    #[must_use]
    pub(super) fn call(&mut self) -> Calls {
        if !self.due || self.polling || self.closed {
            return Calls::default();
        }
        // Readers first: they find their items in the same poll.
        let mut waiting = self.readers.iter_mut().chain(&mut self.others);
        let called = waiting.find(|waiting| !waiting.called);
        let called = called.map(|waiting| {
            waiting.called = true;
            waiting.waker.clone()
        });
        if called.is_none() && !self.readers_return {
            self.duty = Duty::Work;
            return [None, self.background.clone()];
        }
        let background = match self.duty {
            Duty::Work if called.is_none() => self.background.clone(),
            Duty::Watch => None,
            Duty::Work | Duty::Rest => {
                self.duty = Duty::Watch;
                self.background.clone()
            }
        };
        [called, background]
    }

    /// Returns whether the work can make progress and is not being polled.
    pub(super) fn is_free(&self) -> bool {
        self.due && !self.polling && !self.closed
    }

    /// Records a call that waits for `wants`.
    pub(super) fn come(&mut self, wants: Wants<K>) {
        if let Wants::Items(..) = wants {
            self.visits += 1;
            self.readers_return = true;
            if self.duty == Duty::Work {
                self.duty = Duty::Rest;
            }
        }
    }

    /// Records the start of a poll, by a caller with these wants and this entry, if any.
    pub(super) fn begin(&mut self, wants: Option<Wants<K>>, ticket: Option<u64>) {
        (self.due, self.polling, self.polled_for) = (false, true, wants);
        self.polls += 1;
        if let Some(waiting) = wants
            .zip(ticket)
            .and_then(|(wants, ticket)| self.find(wants, ticket))
        {
            (waiting.called, waiting.notified) = (false, true);
        }
    }

    /// Returns the wakers to call because of `items` new items of this kind.
    #[must_use]
    pub(super) fn notify(&mut self, kind: K, items: usize) -> Vec<Waker> {
        self.puts += 1;
        let unaware = |waiting: &&mut Waiting<K>| !waiting.notified && waiting.kind == kind;
        notify(self.readers.iter_mut().filter(unaware).take(items))
    }

    /// Returns the wakers of all callers that want items.
    #[must_use]
    pub(super) fn notify_every_kind(&mut self) -> Vec<Waker> {
        notify(self.readers.iter_mut().filter(|waiting| !waiting.notified))
    }

    /// Returns the queue of callers with such wants.
    fn queue(&mut self, wants: Wants<K>) -> &mut VecDeque<Waiting<K>> {
        match wants {
            Wants::Items(..) => &mut self.readers,
            Wants::Own(_) => &mut self.others,
        }
    }

    fn find(&mut self, wants: Wants<K>, ticket: u64) -> Option<&mut Waiting<K>> {
        let queue = self.queue(wants);
        let at = position(queue, ticket)?;
        queue.get_mut(at)
    }

    /// Registers a caller or updates its entry; the caller looks for its item afterwards. Returns its ticket,
    /// and a replaced waker, to be dropped without the lock.
    pub(super) fn stand(
        &mut self,
        wants: Wants<K>,
        ticket: Option<u64>,
        waker: &Waker,
    ) -> (u64, Option<Waker>) {
        if let Some(waiting) = ticket.and_then(|ticket| self.find(wants, ticket)) {
            (waiting.called, waiting.notified) = (false, false);
            let known = waiting.waker.will_wake(waker);
            let outdated = (!known).then(|| mem::replace(&mut waiting.waker, waker.clone()));
            return (waiting.ticket, outdated);
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.queue(wants).push_back(Waiting {
            ticket,
            kind: wants.kind(),
            called: false,
            notified: false,
            waker: waker.clone(),
        });
        (ticket, None)
    }

    /// Removes an entry. Returns whether its caller was notified of an item and has not been polled since,
    /// and its waker, to be dropped without the lock.
    pub(super) fn leave(&mut self, wants: Wants<K>, ticket: u64) -> (bool, Option<Waker>) {
        let queue = self.queue(wants);
        let left = position(queue, ticket).and_then(|at| queue.remove(at));
        left.map_or((false, None), |left| (left.notified, Some(left.waker)))
    }

    /// Empties the wait list and returns all wakers.
    pub(super) fn take_everybody(&mut self) -> impl Iterator<Item = Waker> + use<K> {
        let waiting = [mem::take(&mut self.readers), mem::take(&mut self.others)];
        let background = self.background.take();
        let waiting = waiting.into_iter().flatten().map(|waiting| waiting.waker);
        waiting.chain(background)
    }

    pub(super) fn sight(&self) -> Sight {
        Sight {
            polls: self.polls,
            visits: self.visits,
        }
    }

    /// Returns the number of waiting callers.
    pub(super) fn waiting(&self) -> usize {
        self.readers.len() + self.others.len()
    }

    /// Decides what the background task does after it has watched for a while. `before` is the [`Sight`] from
    /// when it began.
    pub(super) fn look(&mut self, before: Sight) -> Duty {
        self.readers_return = self.visits != before.visits;
        let mut waiting = self.readers.iter().chain(&self.others);
        let somebody_waits = waiting.any(|waiting| !waiting.called);
        let nobody_comes = !(somebody_waits || self.readers_return);
        self.duty = if self.polls != before.polls && !(self.due && nobody_comes) {
            Duty::Watch
        } else if self.due || !somebody_waits {
            Duty::Work
        } else {
            Duty::Rest
        };
        self.duty
    }
}

/// Counter values at some moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight {
    polls: u64,
    visits: u64,
}

impl<K> Wants<K> {
    pub(super) fn kind(self) -> K {
        match self {
            Wants::Items(kind, _) | Wants::Own(kind) => kind,
        }
    }
}

fn position<K>(queue: &VecDeque<Waiting<K>>, ticket: u64) -> Option<usize> {
    queue.binary_search_by_key(&ticket, |waiting| waiting.ticket).ok()
}

fn notify<'a, K: 'a>(readers: impl Iterator<Item = &'a mut Waiting<K>>) -> Vec<Waker> {
    let notified = readers.map(|waiting| {
        waiting.notified = true;
        waiting.waker.clone()
    });
    notified.collect()
}
