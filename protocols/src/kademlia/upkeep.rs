//! Upkeep: expires entries, pings silent contacts, republishes, replicates and refreshes.

use std::time::Duration;

use p2p::Addr;

use super::engine::Engine;
use super::operation::Task;
use crate::overlay::{Key, OpId};

impl<A: Addr> Engine<A> {
    pub(super) fn upkeep(&mut self, now: Duration) {
        let config = self.rules.config;
        self.next_upkeep = now.saturating_add(config.upkeep_every);
        self.records.expire(now);
        self.providers.expire(now);
        for contact in self.table.silent(now, &config) {
            self.check(now, contact);
        }
        let running = self.ops.values().filter(|op| op.upkeep).count();
        // If all slots are taken, more work may be due as soon as one is free.
        self.backlog = false;
        for _ in running..config.upkeep_operations {
            let Some((task, target)) = self.next_duty(now) else {
                return;
            };
            let id = OpId(self.requests.new_id());
            self.begin(now, id, task, target, true);
        }
        self.backlog = true;
    }

    /// Returns the next due piece of work, and schedules its next time.
    fn next_duty(&mut self, now: Duration) -> Option<(Task<A>, Key)> {
        let config = self.rules.config;
        if let Some(published) = self.published.values_mut().find(|own| own.next <= now) {
            let ttl = published.ttl;
            published.next = now.saturating_add(config.republish_every.min(ttl / 2));
            let (value, until) = (published.value.clone(), now.saturating_add(ttl));
            return Some((Task::Put { value, until }, published.key.clone()));
        }
        if let Some((key, next)) = self.provided.values_mut().find(|(_, next)| *next <= now) {
            *next = now.saturating_add(config.republish_every.min(config.provider_ttl / 2));
            return Some((Task::Provide, key.clone()));
        }
        let again = self.replicate_at(now);
        if let Some((key, value, ttl)) = self.records.next_to_replicate(now, again) {
            let until = now.saturating_add(ttl);
            return Some((Task::Put { value, until }, key));
        }
        let bucket = self.table.neglected(now, &config)?;
        let target = self.codec.random_key(bucket, &mut self.rng);
        self.table.looked_up(now, target.id());
        Some((Task::FindNode, target))
    }
}
