//! Limits concurrent dials. At the limit a stale dial is stopped for a new one, so that unreachable
//! destinations do not keep this node from dialling.

use std::cmp::Reverse;
use std::sync::Arc;

use p2p::Addr;
use p2p_protocols::overlay::Prefix;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::QuicConfig;

/// The fraction of [`QuicConfig::handshake_timeout`] after which a dial without a session is stale.
const STALE_AFTER: u32 = 5;

/// The dials of this node that are in progress.
#[derive(Default)]
pub(super) struct Dials(Mutex<State>);

#[derive(Default)]
struct State {
    /// In the order in which they began.
    in_progress: Vec<Dial>,
    next_number: u64,
}

struct Dial {
    number: u64,
    network: Option<Prefix>,
    since: Instant,
    /// Dropped when the permit is revoked for another dial.
    _stop: oneshot::Sender<()>,
}

/// The permit of a dial in progress, returned when it is dropped.
pub(super) struct DialPermit {
    dials: Arc<Dials>,
    number: u64,
    stopped: oneshot::Receiver<()>,
}

impl Dials {
    /// Returns a permit for a dial to `addr`: a free one, or that of a stale dial, first of the network with the
    /// most permits. One public network gets at most three quarters of them. Returns `None` if there is none.
    pub(super) fn take<A: Addr>(self: &Arc<Self>, addr: &A, config: &QuicConfig) -> Option<DialPermit> {
        let network = Prefix::of(addr);
        let mut state = self.lock();
        let limit = config.max_handshakes;
        let is_full = state.in_progress.len() >= limit;
        let has_share = network.is_some_and(|own| state.count(network) >= own.limit(limit - limit / 4));
        if is_full || has_share {
            let only = if has_share { network } else { None };
            let at = state.stale(only, config)?;
            state.in_progress.remove(at);
        }
        let number = state.next_number;
        state.next_number += 1;
        let (stop, stopped) = oneshot::channel();
        state.in_progress.push(Dial {
            number,
            network,
            since: Instant::now(),
            _stop: stop,
        });
        drop(state);
        Some(DialPermit {
            dials: self.clone(),
            number,
            stopped,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl State {
    fn count(&self, network: Option<Prefix>) -> usize {
        self.in_progress
            .iter()
            .filter(|dial| dial.network == network)
            .count()
    }

    /// Returns the index of the stale dial to stop for another one, if there is one; with `only`, one of that
    /// network.
    fn stale(&self, only: Option<Prefix>, config: &QuicConfig) -> Option<usize> {
        let stale_after = config.handshake_timeout / STALE_AFTER;
        let dials = self.in_progress.iter().enumerate();
        let stale = dials.filter(|(_, dial)| {
            only.is_none_or(|network| dial.network == Some(network)) && dial.since.elapsed() >= stale_after
        });
        let (at, _) = stale.min_by_key(|(at, dial)| {
            let of_network = dial.network.map_or(1, |_| self.count(dial.network));
            (Reverse(of_network), *at)
        })?;
        Some(at)
    }
}

impl DialPermit {
    /// Waits until the permit is revoked for another dial.
    pub(super) async fn is_revoked(&mut self) {
        // Nothing is ever sent.
        let _ = (&mut self.stopped).await;
    }
}

impl Drop for DialPermit {
    fn drop(&mut self) {
        self.dials
            .lock()
            .in_progress
            .retain(|dial| dial.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    fn at(network: u8, host: u8) -> SocketAddr {
        ([8, 8, network, host], 443).into()
    }

    fn begin(dials: &Arc<Dials>, at: SocketAddr) -> Option<DialPermit> {
        let config = QuicConfig {
            max_handshakes: 8,
            ..QuicConfig::default()
        };
        dials.take(&at, &config)
    }

    fn is_revoked(permit: &mut DialPermit) -> bool {
        permit.stopped.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[tokio::test(start_paused = true)]
    async fn dials_that_just_began_keep_their_places_and_a_further_one_gets_none() {
        let dials = Arc::default();
        let permits: Vec<_> = (0..8)
            .filter_map(|network| begin(&dials, at(network, 1)))
            .collect();
        assert_eq!(permits.len(), 8);
        assert!(begin(&dials, at(9, 1)).is_none());
        drop(permits);
        assert!(begin(&dials, at(9, 1)).is_some(), "the permits are free again");
        // One network gets six of them.
        let dials = Arc::default();
        let permits: Vec<_> = (0..8).filter_map(|host| begin(&dials, at(1, host))).collect();
        assert_eq!(permits.len(), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dial_takes_the_place_of_one_of_the_network_with_the_most_and_not_of_the_oldest() {
        let dials = Arc::default();
        let mut oldest = begin(&dials, at(1, 1)).expect("free");
        let mut crowd: Vec<_> = (0..6).filter_map(|host| begin(&dials, at(2, host))).collect();
        let mut latest = begin(&dials, at(3, 1)).expect("free");
        advance(Duration::from_secs(1)).await;
        let _newcomer = begin(&dials, at(4, 1)).expect("a permit of the crowd");
        let taken: Vec<bool> = crowd.iter_mut().map(is_revoked).collect();
        assert_eq!(taken, [true, false, false, false, false, false]);
        assert!(!is_revoked(&mut oldest) && !is_revoked(&mut latest));
        // So does another dial of the crowd.
        let _another = begin(&dials, at(2, 7)).expect("a permit of the crowd");
        let taken: Vec<bool> = crowd.iter_mut().map(is_revoked).collect();
        assert_eq!(taken, [true, true, false, false, false, false]);
        assert!(!is_revoked(&mut oldest) && !is_revoked(&mut latest));
    }
}
