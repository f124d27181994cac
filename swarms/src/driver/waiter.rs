//! One waiting call, which polls the work meanwhile.

use std::task::{Context, Poll};

use p2p::{Error, Result};
use parking_lot::MutexGuard;
use tokio::task::coop::has_budget_remaining;

use super::wait_list::WaitList;
use super::{Interest, Kind, POLLS, PollGuard, Shared};
use crate::waiters::wake_all;

/// An entry in the wait list, registered only if there is nothing to do at once. Dropping it passes a pending
/// wake-up to another caller.
pub(super) struct Waiter<'a, K: Kind> {
    shared: &'a Shared<K>,
    interest: Interest<K>,
    ticket: Option<u64>,
    /// Set once the call has its result.
    served: bool,
}

impl<'a, K: Kind> Waiter<'a, K> {
    pub(super) fn new(shared: &'a Shared<K>, interest: Interest<K>) -> Self {
        Self {
            shared,
            interest,
            ticket: None,
            served: false,
        }
    }

    /// Calls `take`, and polls the work while it can make progress and `take` returns nothing.
    pub(super) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut impl FnMut(&mut Context<'_>) -> Poll<Result<T>>,
    ) -> Poll<Result<T>> {
        let taken = take(cx);
        if taken.is_ready() {
            self.served = true;
            return taken;
        }
        let mut list = self.shared.list();
        if let Some(failure) = self.failure(&mut list) {
            return Poll::Ready(Err(failure));
        }
        list.record_call(self.interest);
        let mut runnable = list.is_runnable();
        if !(runnable && has_budget_remaining()) {
            return self.register(list, None, runnable, cx, Some(take));
        }
        let guard = PollGuard::new(self.shared);
        let mut notifications_before = 0;
        for polls in 1.. {
            notifications_before = list.notifications;
            list.begin(Some(self.interest), self.ticket);
            drop(list);
            self.shared.poll_work();
            let taken = take(cx);
            list = self.shared.list_after_poll();
            if taken.is_ready() {
                self.served = true;
                if list.due && matches!(self.interest, Interest::Own(_)) {
                    // Readers usually call again and continue the work. Other callers leave the work pending
                    // on its next event.
                    list.begin(None, self.ticket);
                    drop(list);
                    self.shared.poll_work();
                    list = self.shared.list_after_poll();
                }
                let ticket = self.ticket.take();
                let _outdated = ticket.map(|ticket| list.leave(self.interest, ticket));
                guard.end(list, true);
                return taken;
            }
            if let Some(failure) = self.failure(&mut list) {
                guard.end(list, true);
                return Poll::Ready(Err(failure));
            }
            runnable = list.due;
            if !runnable || polls == POLLS || !has_budget_remaining() {
                break;
            }
        }
        // An item that was stored since the last `take` would otherwise be found too late.
        let again = (list.notifications != notifications_before).then_some(take);
        self.register(list, Some(guard), runnable, cx, again)
    }

    /// Returns the error that ends the wait, if there is one.
    fn failure(&self, list: &mut WaitList<K>) -> Option<Error> {
        match self.interest {
            _ if list.closed => Some(Error::Closed),
            Interest::Items(..) => list.failure.take(),
            Interest::Own(_) => None,
        }
    }

    /// Registers the caller in the wait list. If the work can make progress (`runnable`), it wakes its own
    /// task to continue later. Calls `take` again if an item may have been stored before the registration.
    fn register<T>(
        &mut self,
        mut list: MutexGuard<'_, WaitList<K>>,
        guard: Option<PollGuard<'_, K>>,
        runnable: bool,
        cx: &mut Context<'_>,
        take: Option<&mut impl FnMut(&mut Context<'_>) -> Poll<Result<T>>>,
    ) -> Poll<Result<T>> {
        let outdated = list.register(self.interest, &mut self.ticket, cx.waker());
        match guard {
            Some(guard) => guard.end(list, false),
            None => drop(list),
        }
        // Only after the lock is released: dropping a waker may run foreign code.
        drop(outdated);
        let taken = take.map_or(Poll::Pending, |take| take(cx));
        if taken.is_ready() {
            self.served = true;
        } else if runnable {
            cx.waker().wake_by_ref();
        }
        taken
    }
}

impl<K: Kind> Drop for Waiter<'_, K> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut list = self.shared.list();
        let (notified, waker) = list.leave(self.interest, ticket);
        let wakers = list.choose_wakers();
        let passed_on = notified && !self.served;
        let notified = list.notify(self.interest.kind(), usize::from(passed_on));
        drop(list);
        drop(waker);
        wake_all(wakers.into_iter().flatten());
        wake_all(notified);
    }
}
