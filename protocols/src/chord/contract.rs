//! The engine as a [`RequestEngine`], for drivers and simulations that take any.

use std::time::Duration;

use p2p::engine::{Failure, RequestEngine, RequestId, RequestTransmit};
use p2p::{Addr, Rejection};

use super::{Engine, Event, Refusal};

impl<A: Addr> RequestEngine for Engine<A> {
    type Addr = A;
    type Event = Event<A>;

    fn handle_request(&mut self, now: Duration, from: &A, request: &[u8]) -> Result<Vec<u8>, Rejection> {
        Engine::handle_request(self, now, from, request).map_err(Refusal::rejection)
    }

    fn handle_answer(&mut self, now: Duration, id: RequestId, answer: &[u8]) {
        Engine::handle_answer(self, now, id, answer);
    }

    fn handle_failure(&mut self, now: Duration, id: RequestId, why: Failure) {
        Engine::handle_failure(self, now, id, why);
    }

    fn handle_timeout(&mut self, now: Duration) {
        Engine::handle_timeout(self, now);
    }

    /// Starts to leave the ring. A node that is already leaving continues.
    fn handle_leave(&mut self, now: Duration) {
        let _ = self.leave(now);
    }

    fn poll_transmit(&mut self, _now: Duration) -> Option<RequestTransmit<A>> {
        Engine::poll_transmit(self)
    }

    fn poll_event(&mut self) -> Option<Event<A>> {
        Engine::poll_event(self)
    }

    fn poll_timeout(&self) -> Option<Duration> {
        Engine::poll_timeout(self)
    }

    fn in_flight(&self) -> usize {
        Engine::in_flight(self)
    }
}
