//! Bounds per client: concurrent connections, and requests per second.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Number of table entries. Clients whose addresses hash to the same entry share it, unpredictably.
const BUCKETS: usize = 1024;

/// The share of every client, in a table of fixed size.
#[derive(Debug)]
pub(super) struct Sources {
    buckets: Mutex<Vec<Bucket>>,
    hasher: RandomState,
    open: u32,
    rate: u32,
    burst: u32,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    open: u32,
    /// Remaining requests, in thousandths.
    left: u64,
    since: Instant,
}

/// Returns the network of a client: an IPv4 address, an IPv6 /64.
fn network(ip: IpAddr) -> u128 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits() >> 64 << 64,
    }
}

impl Sources {
    /// Creates a table with at most `open` concurrent connections and `rate` requests per second for each
    /// client, and up to `burst` at once.
    pub(super) fn new(open: u32, rate: u32, burst: u32) -> Self {
        let bucket = Bucket {
            open: 0,
            left: 1000 * u64::from(burst),
            since: Instant::now(),
        };
        Self {
            buckets: Mutex::new(vec![bucket; BUCKETS]),
            hasher: RandomState::new(),
            open,
            rate,
            burst,
        }
    }

    /// Registers a connection, until the result is dropped; returns `None` if the client has the maximum
    /// number.
    pub(super) fn open(self: &Arc<Self>, ip: IpAddr) -> Option<Opened> {
        // An IPv6 host usually controls its /64.
        let network = network(ip);
        let index = usize::try_from(self.hasher.hash_one(network) % BUCKETS as u64).unwrap_or(0);
        let may = self.with(index, |bucket| {
            let may = bucket.open < self.open;
            bucket.open += u32::from(may);
            may
        });
        may.then(|| Opened {
            sources: self.clone(),
            index,
            network,
        })
    }

    fn with<T: Default>(&self, index: usize, change: impl FnOnce(&mut Bucket) -> T) -> T {
        let mut buckets = self.buckets.lock();
        buckets.get_mut(index).map(change).unwrap_or_default()
    }
}

/// A connection of a client.
#[derive(Debug)]
pub(super) struct Opened {
    sources: Arc<Sources>,
    index: usize,
    network: u128,
}

impl Opened {
    /// Returns the client's network.
    pub(super) fn network(&self) -> u128 {
        self.network
    }

    /// Takes one request from the client's remaining requests. Returns whether there was one.
    pub(super) fn request(&self) -> bool {
        let (rate, most) = (u64::from(self.sources.rate), 1000 * u64::from(self.sources.burst));
        self.sources.with(self.index, |bucket| {
            let now = Instant::now();
            let passed = now
                .saturating_duration_since(bucket.since)
                .min(Duration::from_hours(1));
            let millis: u64 = passed.as_millis().try_into().unwrap_or(u64::MAX);
            let gained = millis.saturating_mul(rate);
            bucket.left = bucket.left.saturating_add(gained).min(most);
            if gained > 0 {
                bucket.since = now;
            }
            let may = bucket.left >= 1000;
            bucket.left -= if may { 1000 } else { 0 };
            may
        })
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.sources
            .with(self.index, |bucket| bucket.open = bucket.open.saturating_sub(1));
    }
}
