//! The requests of an engine that are in flight, with their deadlines.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::{RequestId, RequestTransmit};

/// The requests of an engine: those to be sent, and those without an answer or a failure. `P` is what the engine
/// keeps for each of them.
///
/// Ids of requests and of operations come from one counter, so they differ.
#[derive(Debug)]
pub(crate) struct InFlight<A, P> {
    timeout: Duration,
    last_id: u64,
    transmits: VecDeque<RequestTransmit<A>>,
    pending: HashMap<RequestId, P>,
    /// Ordered, because all requests have the same timeout. The first request is still pending.
    deadlines: VecDeque<(Duration, RequestId)>,
}

impl<A, P> InFlight<A, P> {
    /// Creates an empty set, whose requests have this timeout.
    pub(crate) fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            last_id: 0,
            transmits: VecDeque::new(),
            pending: HashMap::new(),
            deadlines: VecDeque::new(),
        }
    }

    /// Returns an unused id, for a request or an operation.
    pub(crate) fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Sends a request.
    pub(crate) fn begin(&mut self, now: Duration, to: A, request: Vec<u8>, pending: P) {
        let id = RequestId(self.new_id());
        self.deadlines.push_back((now.saturating_add(self.timeout), id));
        self.pending.insert(id, pending);
        self.transmits.push_back(RequestTransmit { to, id, request });
    }

    /// Returns a request, if it is in flight.
    pub(crate) fn get(&self, id: RequestId) -> Option<&P> {
        self.pending.get(&id)
    }

    /// Removes a request, if it is in flight.
    pub(crate) fn end(&mut self, id: RequestId) -> Option<P> {
        let pending = self.pending.remove(&id);
        while let Some((_, id)) = self.deadlines.front()
            && !self.pending.contains_key(id)
        {
            self.deadlines.pop_front();
        }
        pending
    }

    /// Returns the first request past its deadline. It is in flight until it is [ended](Self::end).
    pub(crate) fn expired(&self, now: Duration) -> Option<RequestId> {
        let (deadline, id) = self.deadlines.front()?;
        (*deadline <= now).then_some(*id)
    }

    /// Returns the earliest deadline.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.front().map(|(deadline, _)| *deadline)
    }

    /// Returns the next request to send.
    pub(crate) fn poll_transmit(&mut self) -> Option<RequestTransmit<A>> {
        self.transmits.pop_front()
    }

    /// Returns the number of requests in flight.
    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_deadline_passes_only_for_requests_in_flight() {
        let mut requests = InFlight::new(seconds(5));
        for (at, name) in ["first", "second", "third"].into_iter().enumerate() {
            requests.begin(seconds(at as u64), (), Vec::new(), name);
        }
        let ids: Vec<_> = std::iter::from_fn(|| requests.poll_transmit().map(|sent| sent.id)).collect();

        assert_eq!(requests.next_deadline(), Some(seconds(5)));
        assert_eq!(requests.expired(seconds(4)), None);
        // An answer out of order leaves the first deadline; after the answer to the first one, none of both is left.
        assert_eq!(requests.end(ids[1]), Some("second"));
        assert_eq!(requests.next_deadline(), Some(seconds(5)));
        assert_eq!(requests.end(ids[0]), Some("first"));
        assert_eq!((requests.next_deadline(), requests.len()), (Some(seconds(7)), 1));

        assert_eq!(requests.expired(seconds(7)), Some(ids[2]));
        assert_eq!(
            requests.get(ids[2]),
            Some(&"third"),
            "it is in flight until it is ended"
        );
        assert_eq!(requests.end(ids[2]), Some("third"));
        assert_eq!(
            (requests.end(ids[2]), requests.expired(seconds(99))),
            (None, None)
        );
    }

    #[test]
    fn requests_and_operations_never_share_an_id() {
        let mut requests = InFlight::new(seconds(1));
        let mut ids = Vec::new();
        for _ in 0..4 {
            ids.push(requests.new_id());
            requests.begin(Duration::MAX, (), Vec::new(), ());
            ids.extend(requests.poll_transmit().map(|sent| sent.id.0));
        }
        assert_eq!(ids, (1..=8).collect::<Vec<_>>());
        assert_eq!(
            requests.next_deadline(),
            Some(Duration::MAX),
            "the time saturates"
        );
    }
}
