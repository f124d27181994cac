//! Replication: copies along the successor list, the transfer of a newcomer's records from its successor, and
//! the return of misplaced copies to their key's successor.

use std::collections::VecDeque;
use std::time::Duration;

use p2p::{Addr, PeerId};

use super::distance::in_half_open;
use super::engine::{Engine, Purpose};
use super::event::Refusal;
use super::operation::Goal;
use super::store::Incoming;
use super::wire::{Answer, Ask, Message, Record};
use crate::overlay::{Contact, Source};

/// Maximum number of keys that wait to be copied; beyond this, all own records are copied.
const QUEUE: usize = 256;
/// Number of copies that are returned to their key's successor at a time.
const RETURNED: usize = 4;

/// The progress of copying this node's own records.
#[derive(Debug, Default)]
pub(super) struct Copies {
    /// New records.
    queue: VecDeque<PeerId>,
    /// The last copied record while all own records are copied.
    sweep: Option<PeerId>,
    /// Whether all own records are to be copied again after the current sweep.
    again: bool,
    in_flight: usize,
    returning: usize,
}

/// The state of a transfer from the successor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pull {
    /// The arc that is still missing: after `after`, up to and including `until`.
    pub(super) after: PeerId,
    pub(super) until: PeerId,
    /// If set, the arc from the successor to this id follows.
    pub(super) copies_until: Option<PeerId>,
}

impl Copies {
    /// Requests a copy of all own records, because the neighbours changed or the interval has passed.
    pub(super) fn again(&mut self) {
        self.again = true;
    }
}

impl<A: Addr> Engine<A> {
    /// Stores a record that a node sent.
    pub(super) fn keep(&mut self, now: Duration, record: Record<'_>, source: Source) -> Result<(), Refusal> {
        let key = PeerId::new(record.key);
        let own_range = self.table.own_range();
        let incoming = Incoming {
            record,
            source,
            own_range,
            is_own: own_range.is_some_and(|(from, to)| in_half_open(&key, &from, &to)),
        };
        self.store.put(now, &incoming, &self.rules)
    }

    /// Returns the nodes that keep copies of this node's records.
    pub(super) fn copy_holders(&self) -> Vec<Contact<A>> {
        let others = self.rules.config.copies - 1;
        self.table.successors.iter().take(others).cloned().collect()
    }

    /// Copies a new record to the successors.
    pub(super) fn copy(&mut self, now: Duration, key: PeerId) {
        if self.copies.queue.len() < QUEUE {
            self.copies.queue.push_back(key);
        } else {
            self.copies.again();
        }
        self.copy_on(now);
    }

    /// Sends queued copies to the successors, up to the limit of copies in flight.
    pub(super) fn copy_on(&mut self, now: Duration) {
        let holders = self.copy_holders();
        if holders.is_empty() {
            self.copies.queue.clear();
            self.copies.sweep = None;
            return;
        }
        while self.copies.in_flight < self.rules.config.replicate_batch {
            let Some(key) = self.copies.queue.pop_front().or_else(|| self.next_of_sweep(now)) else {
                return;
            };
            let own = *self.table.own.as_bytes();
            let Some(record) = self.store.get(now, &key) else {
                continue;
            };
            let request = Message::new(own, Ask::Keep(record)).emit();
            for Contact { id, addr } in &holders {
                self.copies.in_flight += 1;
                self.send(now, addr.clone(), Some(*id), request.clone(), Purpose::Copy);
            }
        }
    }

    /// Returns the next own record of the sweep, if all are to be copied.
    fn next_of_sweep(&mut self, now: Duration) -> Option<PeerId> {
        let (from, own) = self.table.own_range()?;
        let after = match self.copies.sweep {
            // The record at this node's own id is the last of the range; the next one would start the circle
            // again.
            Some(last) if last == own => None,
            Some(last) if in_half_open(&last, &from, &own) => Some(last),
            Some(_) => Some(from),
            None => None,
        };
        let next = |after| Some(PeerId::new(self.store.range(now, after, own).next()?.key));
        let mut key = after.and_then(next);
        if key.is_none() && std::mem::take(&mut self.copies.again) {
            key = next(from);
        }
        self.copies.sweep = key;
        key
    }

    /// Processes a successor's confirmation of a copy.
    pub(super) fn copied(&mut self, now: Duration, by: PeerId) {
        self.heard(now, by);
        self.copy_failed(now);
    }

    /// Processes a copy that was not stored. The next sweep sends it again.
    pub(super) fn copy_failed(&mut self, now: Duration) {
        self.copies.in_flight = self.copies.in_flight.saturating_sub(1);
        self.copy_on(now);
    }

    /// Requests records from the successor: those of this node's range, then the copies of the range before
    /// it.
    pub(super) fn pull(&mut self, now: Duration, from: &A, id: PeerId, pull: Pull) {
        let keys = Ask::Keys(*pull.after.as_bytes(), *pull.until.as_bytes());
        let purpose = Purpose::Pull(from.clone(), pull);
        self.ask(now, from, Some(id), keys, purpose);
    }

    /// Processes a page of records. Each page must bring a new record, so that the transfer ends.
    pub(super) fn pulled(
        &mut self,
        now: Duration,
        from: PeerId,
        addr: &A,
        mut pull: Pull,
        answer: Answer<'_>,
    ) {
        let Answer::Keys { records, more } = answer else {
            self.counts.malformed += 1;
            return;
        };
        let before = pull.after;
        let source = Source::of(&Contact {
            id: from,
            addr: addr.clone(),
        });
        for record in records {
            let key = PeerId::new(record.key);
            if key == pull.after || !in_half_open(&key, &pull.after, &pull.until) {
                self.counts.bad_records += 1;
                return;
            }
            match self.keep(now, record, source) {
                Ok(()) | Err(Refusal::Stale) => pull.after = key,
                Err(Refusal::Full | Refusal::Limit) => return,
                Err(_) => {
                    self.counts.bad_records += 1;
                    return;
                }
            }
        }
        let next = if more && pull.after != before && pull.after != pull.until {
            Some(pull)
        } else {
            pull.copies_until.map(|until| Pull {
                after: from,
                until,
                copies_until: None,
            })
        };
        if let Some(next) = next.filter(|_| self.leaving.is_none()) {
            self.pull(now, addr, from, next);
        }
    }

    /// Sends some copies that were not renewed to their key's successor. So a record reaches its owner even
    /// if the transfer to it failed, and copies that are no longer needed here are removed.
    pub(super) fn return_strays(&mut self, now: Duration) {
        let Some(own_range) = self.table.own_range() else {
            return;
        };
        let Some(since) = now.checked_sub(self.rules.config.replicate_every.saturating_mul(3)) else {
            return;
        };
        let count = RETURNED.saturating_sub(self.copies.returning);
        for key in self.store.strays(now, since, own_range, count) {
            let Some(record) = self.store.get(now, &key) else {
                continue;
            };
            let (ttl, value) = (record.ttl, record.value.to_vec());
            self.copies.returning += 1;
            self.begin(
                now,
                Goal::Return {
                    since: now,
                    ttl,
                    value,
                },
                key,
                Vec::new(),
                true,
            );
        }
    }

    /// Processes the end of a return. If the copy is at its key's successor, removes it here, unless it was
    /// renewed meanwhile.
    pub(super) fn returned(&mut self, key: &PeerId, since: Duration, is_there: bool) {
        self.copies.returning = self.copies.returning.saturating_sub(1);
        if is_there && self.store.seen(key).is_some_and(|seen| seen <= since) {
            self.counts.returned += 1;
            self.store.remove(key);
        }
    }
}
