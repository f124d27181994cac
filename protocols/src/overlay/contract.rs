//! The engines of overlays as [`RequestEngine`](p2p::engine::RequestEngine)s, for drivers and simulations that take any.

/// Implements [`RequestEngine`](p2p::engine::RequestEngine) for an `$engine<A>` with the events `$event<A>`, by the
/// engine's own methods of the same names. The methods in braces replace defaults of the trait.
macro_rules! request_engine {
    ($engine:ident, $event:ident, { $($methods:tt)* }) => {
        impl<A: p2p::Addr> p2p::engine::RequestEngine for $engine<A> {
            type Addr = A;
            type Event = $event<A>;

            fn handle_request(
                &mut self,
                now: std::time::Duration,
                from: &A,
                request: &[u8],
            ) -> Result<Vec<u8>, p2p::Rejection> {
                $engine::handle_request(self, now, from, request).map_err(|refusal| refusal.rejection())
            }

            fn handle_answer(&mut self, now: std::time::Duration, id: p2p::engine::RequestId, answer: &[u8]) {
                $engine::handle_answer(self, now, id, answer);
            }

            fn handle_failure(
                &mut self,
                now: std::time::Duration,
                id: p2p::engine::RequestId,
                why: p2p::engine::Failure,
            ) {
                $engine::handle_failure(self, now, id, why);
            }

            fn handle_timeout(&mut self, now: std::time::Duration) {
                $engine::handle_timeout(self, now);
            }

            fn poll_transmit(
                &mut self,
                _now: std::time::Duration,
            ) -> Option<p2p::engine::RequestTransmit<A>> {
                $engine::poll_transmit(self)
            }

            fn poll_event(&mut self) -> Option<$event<A>> {
                $engine::poll_event(self)
            }

            /// An engine that always waits for some time returns that time alone.
            fn poll_timeout(&self) -> Option<std::time::Duration> {
                $engine::poll_timeout(self).into()
            }

            fn in_flight(&self) -> usize {
                $engine::in_flight(self)
            }

            $($methods)*
        }
    };
}

pub(crate) use request_engine;
