//! Backoffs: the times before which a peer must not be grafted again (gossipsub v1.1, "PRUNE Backoff").
//!
//! A backoff outlasts the connection. Their number is bounded; at the limit, the one that ends first is
//! forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::topic::Topic;

/// The backoffs of one node; see the [module](self). `W` identifies a peer across connections.
#[derive(Debug)]
pub(super) struct Backoffs<W> {
    until: BTreeMap<(W, Topic), Duration>,
    ends: BTreeSet<(Duration, W, Topic)>,
    max: usize,
}

impl<W: Clone + Ord> Backoffs<W> {
    pub(super) fn new(max: usize) -> Self {
        Self {
            until: BTreeMap::new(),
            ends: BTreeSet::new(),
            max: max.max(1),
        }
    }

    /// Sets a backoff. It can extend an existing backoff but not shorten it.
    pub(super) fn set(&mut self, identity: &W, topic: &Topic, until: Duration) {
        let key = (identity.clone(), topic.clone());
        if let Some(old) = self.until.get(&key).copied() {
            if old >= until {
                return;
            }
            self.ends.remove(&(old, key.0.clone(), key.1.clone()));
        } else if self.until.len() >= self.max
            && let Some((_, identity, topic)) = self.ends.pop_first()
        {
            self.until.remove(&(identity, topic));
        }
        self.ends.insert((until, key.0.clone(), key.1.clone()));
        self.until.insert(key, until);
    }

    /// Returns the end of a backoff, if there is one.
    pub(super) fn until(&self, identity: &W, topic: &Topic) -> Option<Duration> {
        self.until.get(&(identity.clone(), topic.clone())).copied()
    }

    /// Removes the backoffs that ended before this time.
    pub(super) fn expire(&mut self, before: Duration) {
        while self.ends.first().is_some_and(|(until, ..)| *until < before)
            && let Some((_, identity, topic)) = self.ends.pop_first()
        {
            self.until.remove(&(identity, topic));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.until.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn a_backoff_is_never_shortened() {
        let (mut backoffs, topic) = (Backoffs::new(10), Topic::from("t"));
        backoffs.set(&1, &topic, SECOND(60));
        backoffs.set(&1, &topic, SECOND(10));
        assert_eq!(backoffs.until(&1, &topic), Some(SECOND(60)));
        backoffs.set(&1, &topic, Duration::MAX);
        assert_eq!(
            (backoffs.until(&1, &topic), backoffs.len()),
            (Some(Duration::MAX), 1)
        );
        assert_eq!(backoffs.until(&2, &topic), None);
        assert_eq!(backoffs.until(&1, &Topic::from("u")), None);
    }

    #[test]
    fn at_the_limit_the_backoff_that_ends_first_is_forgotten() {
        let (mut backoffs, topic) = (Backoffs::new(3), Topic::from("t"));
        for identity in [5, 3, 4, 1, 2] {
            backoffs.set(&identity, &topic, SECOND(identity));
        }
        let kept = (1..=5).filter(|identity| backoffs.until(identity, &topic).is_some());
        assert_eq!(kept.collect::<Vec<_>>(), [2, 4, 5]);
        backoffs.expire(SECOND(5));
        assert_eq!((backoffs.len(), backoffs.ends.len()), (1, 1));
    }
}
