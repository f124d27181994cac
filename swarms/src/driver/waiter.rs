//! One waiting call, which polls the work meanwhile.

use std::sync::MutexGuard;
use std::task::{Context, Poll};

use p2p::{Error, Result};
use tokio::task::coop::has_budget_remaining;

use super::line::Line;
use super::{Desk, Kind, POLLS, Shift, Wants, make, wake_all};

/// An entry in the wait list, registered only if there is nothing to do at once. Dropping it passes a pending
/// wake-up to another caller.
pub(super) struct Place<'a, K: Kind> {
    desk: &'a Desk<K>,
    wants: Wants<K>,
    ticket: Option<u64>,
    /// Set once the call has its result.
    served: bool,
}

impl<'a, K: Kind> Place<'a, K> {
    pub(super) fn new(desk: &'a Desk<K>, wants: Wants<K>) -> Self {
        Self {
            desk,
            wants,
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
        let mut line = self.desk.line();
        if let Some(over) = self.over(&mut line) {
            return Poll::Ready(Err(over));
        }
        line.come(self.wants);
        let mut free = line.is_free();
        if !(free && has_budget_remaining()) {
            return self.stand(line, None, free, cx, Some(take));
        }
        let shift = Shift::new(self.desk);
        let mut puts_before = 0;
        for polls in 1.. {
            puts_before = line.puts;
            line.begin(Some(self.wants), self.ticket);
            drop(line);
            self.desk.poll_work();
            let taken = take(cx);
            line = self.desk.line_after_poll();
            if taken.is_ready() {
                self.served = true;
                if line.due && matches!(self.wants, Wants::Own(_)) {
                    // Readers usually call again and continue the work. Other callers leave the work pending
                    // on its next event.
                    line.begin(None, self.ticket);
                    drop(line);
                    self.desk.poll_work();
                    line = self.desk.line_after_poll();
                }
                let ticket = self.ticket.take();
                let _outdated = ticket.map(|ticket| line.leave(self.wants, ticket));
                shift.end(line, true);
                return taken;
            }
            if let Some(over) = self.over(&mut line) {
                shift.end(line, true);
                return Poll::Ready(Err(over));
            }
            free = line.due;
            if !free || polls == POLLS || !has_budget_remaining() {
                break;
            }
        }
        // An item that was stored since the last `take` would otherwise be found too late.
        let again = (line.puts != puts_before).then_some(take);
        self.stand(line, Some(shift), free, cx, again)
    }

    /// Returns the error that ends the wait, if there is one.
    fn over(&self, line: &mut Line<K>) -> Option<Error> {
        match self.wants {
            _ if line.closed => Some(Error::Closed),
            Wants::Items(..) => line.failure.take(),
            Wants::Own(_) => None,
        }
    }

    /// Registers the caller in the wait list. If the work can make progress (`free`), it wakes its own task
    /// to continue later. Calls `take` again if an item may have been stored before the registration.
    fn stand<T>(
        &mut self,
        mut line: MutexGuard<'_, Line<K>>,
        shift: Option<Shift<'_, K>>,
        free: bool,
        cx: &mut Context<'_>,
        take: Option<&mut impl FnMut(&mut Context<'_>) -> Poll<Result<T>>>,
    ) -> Poll<Result<T>> {
        let (ticket, outdated) = line.stand(self.wants, self.ticket, cx.waker());
        self.ticket = Some(ticket);
        match shift {
            Some(shift) => shift.end(line, false),
            None => drop(line),
        }
        // Only after the lock is released: dropping a waker may run foreign code.
        drop(outdated);
        let taken = take.map_or(Poll::Pending, |take| take(cx));
        if taken.is_ready() {
            self.served = true;
        } else if free {
            cx.waker().wake_by_ref();
        }
        taken
    }
}

impl<K: Kind> Drop for Place<'_, K> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut line = self.desk.line();
        let (notified, waker) = line.leave(self.wants, ticket);
        let calls = line.call();
        let passed_on = notified && !self.served;
        let notified = line.notify(self.wants.kind(), usize::from(passed_on));
        drop(line);
        drop(waker);
        make(calls);
        wake_all(notified);
    }
}
