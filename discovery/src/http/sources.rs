//! What each client may have: connections at a time, and requests in a second.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Places for clients, which those share whose addresses fall into one; nobody knows with whom.
const PLACES: usize = 1024;

/// Every client's share, in a table of one size.
#[derive(Debug)]
pub(super) struct Sources {
    places: Mutex<Vec<Place>>,
    hasher: RandomState,
    open: u32,
    rate: u32,
    burst: u32,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    open: u32,
    /// Requests that it has left, in thousandths.
    left: u64,
    since: Instant,
}

/// A client: an IPv4 address, an IPv6 /64.
fn network(ip: IpAddr) -> u128 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits() >> 64 << 64,
    }
}

impl Sources {
    /// At most `open` connections at a time and `rate` requests in a second each, and up to `burst` at once.
    pub(super) fn new(open: u32, rate: u32, burst: u32) -> Self {
        let place = Place {
            open: 0,
            left: 1000 * u64::from(burst),
            since: Instant::now(),
        };
        Self {
            places: Mutex::new(vec![place; PLACES]),
            hasher: RandomState::new(),
            open,
            rate,
            burst,
        }
    }

    /// A place for a connection, until it is dropped; nothing if the client has as many as it may.
    pub(super) fn open(self: &Arc<Self>, ip: IpAddr) -> Option<Opened> {
        // Whoever has an IPv6 address has the /64 around it.
        let network = network(ip);
        let index = usize::try_from(self.hasher.hash_one(network) % PLACES as u64).unwrap_or(0);
        let may = self.with(index, |place| {
            let may = place.open < self.open;
            place.open += u32::from(may);
            may
        });
        may.then(|| Opened {
            sources: self.clone(),
            index,
            network,
        })
    }

    fn with<T: Default>(&self, index: usize, change: impl FnOnce(&mut Place) -> T) -> T {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.get_mut(index).map(change).unwrap_or_default()
    }
}

/// A client's connection.
#[derive(Debug)]
pub(super) struct Opened {
    sources: Arc<Sources>,
    index: usize,
    network: u128,
}

impl Opened {
    /// Whose it is.
    pub(super) fn network(&self) -> u128 {
        self.network
    }

    /// Takes a request off what the client has left, if it has.
    pub(super) fn request(&self) -> bool {
        let (rate, most) = (u64::from(self.sources.rate), 1000 * u64::from(self.sources.burst));
        self.sources.with(self.index, |place| {
            let now = Instant::now();
            let passed = now
                .saturating_duration_since(place.since)
                .min(Duration::from_hours(1));
            let millis: u64 = passed.as_millis().try_into().unwrap_or(u64::MAX);
            let gained = millis.saturating_mul(rate);
            place.left = place.left.saturating_add(gained).min(most);
            if gained > 0 {
                place.since = now;
            }
            let may = place.left >= 1000;
            place.left -= if may { 1000 } else { 0 };
            may
        })
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.sources
            .with(self.index, |place| place.open = place.open.saturating_sub(1));
    }
}
