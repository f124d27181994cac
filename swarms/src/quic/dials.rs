//! Which dial gives its place to another one: dead destinations must not keep this node from dialling.

use std::cmp::Reverse;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use p2p::Addr;
use p2p_protocols::overlay::Prefix;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::QuicConfig;

/// The part of [`QuicConfig::handshake_timeout`] after which a dial that has no session yet gives its place to another one.
const PATIENCE: u32 = 5;

/// The dials of this node that are under way.
#[derive(Default)]
pub(super) struct Dials(Mutex<State>);

#[derive(Default)]
struct State {
    /// In the order in which they began.
    under_way: Vec<Dial>,
    next_number: u64,
}

struct Dial {
    number: u64,
    network: Option<Prefix>,
    since: Instant,
    /// Dropped when another dial takes the place.
    _stop: oneshot::Sender<()>,
}

/// The place of a dial that is under way.
pub(super) struct DialPlace {
    dials: Arc<Dials>,
    number: u64,
    stopped: oneshot::Receiver<()>,
}

impl Dials {
    /// A place for a dial to `addr`: a free one, or that of a dial which got no session for a while, first of the network
    /// that has most of the places. One public network gets three quarters of them at most.
    pub(super) fn take<A: Addr>(self: &Arc<Self>, addr: &A, config: &QuicConfig) -> Option<DialPlace> {
        let network = Prefix::of(addr);
        let mut state = self.lock();
        let limit = config.max_handshakes;
        let is_full = state.under_way.len() >= limit;
        let has_share = network.is_some_and(|own| state.count(network) >= own.limit(limit - limit / 4));
        if is_full || has_share {
            let only = if has_share { network } else { None };
            let place = state.stale(only, config)?;
            state.under_way.remove(place);
        }
        let number = state.next_number;
        state.next_number += 1;
        let (stop, stopped) = oneshot::channel();
        state.under_way.push(Dial {
            number,
            network,
            since: Instant::now(),
            _stop: stop,
        });
        drop(state);
        Some(DialPlace {
            dials: self.clone(),
            number,
            stopped,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn count(&self, network: Option<Prefix>) -> usize {
        self.under_way
            .iter()
            .filter(|dial| dial.network == network)
            .count()
    }

    /// Where the dial is that gives its place to another one, if one does; with `only`, one of that network.
    fn stale(&self, only: Option<Prefix>, config: &QuicConfig) -> Option<usize> {
        let patience = config.handshake_timeout / PATIENCE;
        let dials = self.under_way.iter().enumerate();
        let stale = dials.filter(|(_, dial)| {
            only.is_none_or(|network| dial.network == Some(network)) && dial.since.elapsed() >= patience
        });
        let (place, _) = stale.min_by_key(|(place, dial)| {
            let of_network = dial.network.map_or(1, |_| self.count(dial.network));
            (Reverse(of_network), *place)
        })?;
        Some(place)
    }
}

impl DialPlace {
    /// Waits until another dial takes the place.
    pub(super) async fn is_taken(&mut self) {
        // Nothing is ever sent.
        let _ = (&mut self.stopped).await;
    }
}

impl Drop for DialPlace {
    fn drop(&mut self) {
        self.dials
            .lock()
            .under_way
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

    fn begin(dials: &Arc<Dials>, at: SocketAddr) -> Option<DialPlace> {
        let config = QuicConfig {
            max_handshakes: 8,
            ..QuicConfig::default()
        };
        dials.take(&at, &config)
    }

    fn is_taken(place: &mut DialPlace) -> bool {
        place.stopped.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[tokio::test(start_paused = true)]
    async fn dials_that_just_began_keep_their_places_and_a_further_one_gets_none() {
        let dials = Arc::default();
        let places: Vec<_> = (0..8)
            .filter_map(|network| begin(&dials, at(network, 1)))
            .collect();
        assert_eq!(places.len(), 8);
        assert!(begin(&dials, at(9, 1)).is_none());
        drop(places);
        assert!(begin(&dials, at(9, 1)).is_some(), "the places are free again");
        // One network gets six of them.
        let dials = Arc::default();
        let places: Vec<_> = (0..8).filter_map(|host| begin(&dials, at(1, host))).collect();
        assert_eq!(places.len(), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dial_takes_the_place_of_one_of_the_network_with_the_most_and_not_of_the_oldest() {
        let dials = Arc::default();
        let mut oldest = begin(&dials, at(1, 1)).expect("free");
        let mut crowd: Vec<_> = (0..6).filter_map(|host| begin(&dials, at(2, host))).collect();
        let mut latest = begin(&dials, at(3, 1)).expect("free");
        advance(Duration::from_secs(1)).await;
        let _newcomer = begin(&dials, at(4, 1)).expect("a place of the crowd");
        let taken: Vec<bool> = crowd.iter_mut().map(is_taken).collect();
        assert_eq!(taken, [true, false, false, false, false, false]);
        assert!(!is_taken(&mut oldest) && !is_taken(&mut latest));
        // So does another dial of the crowd.
        let _another = begin(&dials, at(2, 7)).expect("a place of the crowd");
        let taken: Vec<bool> = crowd.iter_mut().map(is_taken).collect();
        assert_eq!(taken, [true, true, false, false, false, false]);
        assert!(!is_taken(&mut oldest) && !is_taken(&mut latest));
    }
}
