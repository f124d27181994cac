//! The wait list: which callers wait, which one polls the work, and which to wake.

use std::task::Waker;

use p2p::Error;

use super::{Interest, Kind};
use crate::waiters::{self, Waiters};

#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact that holds or not, whatever the others do"
)]
pub(super) struct WaitList<K> {
    /// Set if the work can make progress.
    pub(super) due: bool,
    /// Set while a caller or the background task polls the work. It checks afterwards whether more is due.
    pub(super) polling: bool,
    /// The interest of the caller that polls the work; it takes its item itself.
    pub(super) polled_for: Option<Interest<K>>,
    /// Number of polls begun.
    polls: u64,
    /// Number of calls for items.
    reads: u64,
    /// Set if a reader called recently and is expected to call again. Callers that wait for a single result
    /// are not.
    readers_return: bool,
    /// Number of times that items were announced.
    pub(super) notifications: u64,
    /// Callers that want items.
    readers: Waiters<Waiting<K>>,
    /// Callers that want a single result.
    others: Waiters<Waiting<K>>,
    /// Whether the work must make progress while no caller polls it.
    pub(super) needs_background: bool,
    pub(super) background: Background,
    pub(super) background_waker: Option<Waker>,
    /// The error of the work, for the next caller that wants items.
    pub(super) failure: Option<Error>,
    pub(super) closed: bool,
}

impl<K> Default for WaitList<K> {
    fn default() -> Self {
        Self {
            due: false,
            polling: false,
            polled_for: None,
            polls: 0,
            reads: 0,
            readers_return: false,
            notifications: 0,
            readers: Waiters::default(),
            others: Waiters::default(),
            needs_background: true,
            background: Background::Active,
            background_waker: None,
            failure: None,
            closed: false,
        }
    }
}

type Waiter<K> = waiters::Waiter<Waiting<K>>;

struct Waiting<K> {
    kind: K,
    /// Set if the caller was woken to poll the work and has not been polled since.
    woken: bool,
    /// Set if the caller was woken to take an item and has not been polled since, or if it polls the work and
    /// checks for an item afterwards.
    notified: bool,
}

/// What the background task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Background {
    /// Polls the work whenever no caller can be woken for it.
    Active,
    /// Checks, after some time, whether a caller polls the work.
    Watching,
    /// Nothing: a caller polled the work, and nothing was due since.
    Idle,
}

/// Wakers to call after the lock is released.
pub(super) type Wakers = [Option<Waker>; 2];

impl<K: Kind> WaitList<K> {
    /// Returns the wakers to call because the work can make progress.
    #[must_use]
    pub(super) fn choose_wakers(&mut self) -> Wakers {
        if !self.due || self.polling || self.closed {
            return Wakers::default();
        }
        // A caller that was woken and does not poll keeps no other caller waiting.
        let watched = self.is_watched();
        // Readers first: they find their items in the same poll.
        let mut waiting = self.readers.iter_mut().chain(self.others.iter_mut());
        let woken = waiting.find(|waiting| !waiting.value.woken);
        let woken = woken.map(|waiting| {
            waiting.value.woken = true;
            waiting.waker.clone()
        });
        if !watched {
            return [woken, None];
        }
        if woken.is_none() && !self.readers_return {
            self.background = Background::Active;
            return [None, self.background_waker.clone()];
        }
        let background_waker = match self.background {
            Background::Active if woken.is_none() => self.background_waker.clone(),
            Background::Watching => None,
            Background::Active | Background::Idle => {
                self.background = Background::Watching;
                self.background_waker.clone()
            }
        };
        [woken, background_waker]
    }

    /// Returns whether the work can make progress and is not being polled.
    pub(super) fn is_runnable(&self) -> bool {
        self.due && !self.polling && !self.closed
    }

    /// Records a call that waits for `interest`.
    pub(super) fn record_call(&mut self, interest: Interest<K>) {
        if let Interest::Items(..) = interest {
            self.reads += 1;
            self.readers_return = true;
            if self.background == Background::Active {
                self.background = Background::Idle;
            }
        }
    }

    /// Records the start of a poll, by a caller with this interest and this entry, if any.
    pub(super) fn begin(&mut self, interest: Option<Interest<K>>, ticket: Option<u64>) {
        (self.due, self.polling, self.polled_for) = (false, true, interest);
        self.polls += 1;
        if let Some((interest, ticket)) = interest.zip(ticket)
            && let Some(waiting) = self.queue(interest).find(ticket)
        {
            (waiting.value.woken, waiting.value.notified) = (false, true);
        }
    }

    /// Returns the wakers to call because of `items` new items of this kind.
    #[must_use]
    pub(super) fn notify(&mut self, kind: K, items: usize) -> Vec<Waker> {
        self.notifications += 1;
        let of_kind = |waiting: &&mut Waiter<K>| !waiting.value.notified && waiting.value.kind == kind;
        notify(self.readers.iter_mut().filter(of_kind).take(items))
    }

    /// Returns the wakers of all callers that want items.
    #[must_use]
    pub(super) fn notify_every_kind(&mut self) -> Vec<Waker> {
        let unaware = |waiting: &&mut Waiter<K>| !waiting.value.notified;
        notify(self.readers.iter_mut().filter(unaware))
    }

    /// Returns the callers with such an interest.
    fn queue(&mut self, interest: Interest<K>) -> &mut Waiters<Waiting<K>> {
        match interest {
            Interest::Items(..) => &mut self.readers,
            Interest::Own(_) => &mut self.others,
        }
    }

    /// Registers a caller or updates its entry; the caller checks for its item afterwards. Returns a replaced
    /// waker, to be dropped without the lock.
    #[must_use]
    pub(super) fn register(
        &mut self,
        interest: Interest<K>,
        ticket: &mut Option<u64>,
        waker: &Waker,
    ) -> Option<Waker> {
        let waiting = Waiting {
            kind: interest.kind(),
            woken: false,
            notified: false,
        };
        self.queue(interest).register(ticket, waker, waiting)
    }

    /// Removes an entry. Returns whether its caller was notified of an item and has not been polled since,
    /// and its waker, to be dropped without the lock.
    pub(super) fn leave(&mut self, interest: Interest<K>, ticket: u64) -> (bool, Option<Waker>) {
        let left = self.queue(interest).remove(ticket);
        left.map_or((false, None), |left| (left.value.notified, Some(left.waker)))
    }

    /// Empties the wait list and returns all wakers.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Waker> + use<K> {
        let waiting = self.readers.take().chain(self.others.take());
        waiting.chain(self.background_waker.take())
    }

    pub(super) fn progress(&self) -> Progress {
        Progress {
            polls: self.polls,
            reads: self.reads,
        }
    }

    /// Returns the number of waiting callers.
    pub(super) fn waiting(&self) -> usize {
        self.readers.len() + self.others.len()
    }

    /// Returns whether the background task polls the work if the callers do not.
    fn is_watched(&self) -> bool {
        self.needs_background || self.waiting() > 1
    }

    /// Decides what the background task does after it has watched for a while. `before` is the [`Progress`]
    /// from when it began.
    pub(super) fn reassess(&mut self, before: Progress) -> Background {
        self.readers_return = self.reads != before.reads;
        if !self.is_watched() {
            self.background = Background::Idle;
            return self.background;
        }
        let mut waiting = self.readers.iter().chain(self.others.iter());
        let any_waiting = waiting.any(|waiting| !waiting.value.woken);
        let abandoned = !(any_waiting || self.readers_return);
        self.background = if self.polls != before.polls && !(self.due && abandoned) {
            Background::Watching
        } else if self.due || !any_waiting {
            Background::Active
        } else {
            Background::Idle
        };
        self.background
    }
}

/// Counter values at some moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    polls: u64,
    reads: u64,
}

impl<K> Interest<K> {
    pub(super) fn kind(self) -> K {
        match self {
            Interest::Items(kind, _) | Interest::Own(kind) => kind,
        }
    }
}

fn notify<'a, K: 'a>(readers: impl Iterator<Item = &'a mut Waiter<K>>) -> Vec<Waker> {
    let notified = readers.map(|waiting| {
        waiting.value.notified = true;
        waiting.waker.clone()
    });
    notified.collect()
}
