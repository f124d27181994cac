//! Who waits, who polls the work, and who is to be woken.

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
    /// The work can go on.
    pub(super) due: bool,
    /// Somebody polls the work, and will see whether it can go on.
    pub(super) polling: bool,
    /// What whoever polls the work takes itself.
    pub(super) polled_for: Option<Wants<K>>,
    /// How often somebody began to poll the work.
    polls: u64,
    /// How often somebody came for items.
    visits: u64,
    /// Somebody came for items not long ago, and mostly comes again. Who waited for something else need not.
    readers_return: bool,
    /// How often items were put anywhere.
    pub(super) puts: u64,
    /// Those who want items, in the order of their tickets.
    readers: VecDeque<Waiting<K>>,
    /// Those who want something else, in the order of their tickets.
    others: VecDeque<Waiting<K>>,
    next_ticket: u64,
    pub(super) duty: Duty,
    pub(super) background: Option<Waker>,
    /// What the work failed with, for the next who wants items.
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
    /// Woken to poll the work, and not polled since.
    called: bool,
    /// Woken to take an item, and not polled since; or polls the work, and looks afterwards.
    notified: bool,
    waker: Waker,
}

/// What the background does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Duty {
    /// Polls the work whenever nobody else can be called.
    Work,
    /// Looks, after some time, whether somebody else polls the work.
    Watch,
    /// Nothing: somebody else polled the work, and there was nothing to do since.
    Rest,
}

/// Whom to wake once the lock is given back.
pub(super) type Calls = [Option<Waker>; 2];

impl<K: Kind> Line<K> {
    /// Whom to wake because the work can go on.
    #[must_use]
    pub(super) fn call(&mut self) -> Calls {
        if !self.due || self.polling || self.closed {
            return Calls::default();
        }
        // Who wants items finds them in the same poll.
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

    /// Whether the work can go on, and nobody is at it.
    pub(super) fn is_free(&self) -> bool {
        self.due && !self.polling && !self.closed
    }

    /// Somebody comes who waits for this.
    pub(super) fn come(&mut self, wants: Wants<K>) {
        if let Wants::Items(..) = wants {
            self.visits += 1;
            self.readers_return = true;
            if self.duty == Duty::Work {
                self.duty = Duty::Rest;
            }
        }
    }

    /// Begins a poll of the work for one with these wants, who has this place in the line, if any.
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

    /// Whom to wake because there are so many items more of this kind to be taken.
    #[must_use]
    pub(super) fn notify(&mut self, kind: K, items: usize) -> Vec<Waker> {
        self.puts += 1;
        let unaware = |waiting: &&mut Waiting<K>| !waiting.notified && waiting.kind == kind;
        notify(self.readers.iter_mut().filter(unaware).take(items))
    }

    /// Whom to wake because there is something for everybody who wants items.
    #[must_use]
    pub(super) fn notify_every_kind(&mut self) -> Vec<Waker> {
        notify(self.readers.iter_mut().filter(|waiting| !waiting.notified))
    }

    /// Those among whom one with these wants waits.
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

    /// Takes or keeps a place for one with these wants, who looks for what it wants after that. Returns its ticket, and a
    /// waker that is not needed any more, to be dropped without the lock.
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

    /// Gives a place up. Returns whether its owner was woken for an item and did not come, and its waker, to be dropped
    /// without the lock.
    pub(super) fn leave(&mut self, wants: Wants<K>, ticket: u64) -> (bool, Option<Waker>) {
        let queue = self.queue(wants);
        let left = position(queue, ticket).and_then(|at| queue.remove(at));
        left.map_or((false, None), |left| (left.notified, Some(left.waker)))
    }

    /// Empties the line; returns whom to wake for that.
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

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.readers.len() + self.others.len()
    }

    /// What the background does now that it has watched for a while; `before` is what it [saw](Self::sight) when it began
    /// to.
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

/// How far things were at some time.
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
