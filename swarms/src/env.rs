//! The wall clock and the randomness of drivers.
//!
//! By default both are the system's. Swarms that are created while an [`Env`] of a seed is [entered](Env::enter)
//! take them from there, and a whole stack on memory then repeats its run: keys of sessions, jitter, choices, and
//! the times in handshakes. The monotonic clock is tokio's, which a runtime for tests can pause.
//!
//! ```
//! use p2p::Swarm as _;
//! use p2p_formats::x509::PrivateKey;
//! use p2p_swarms::env::Env;
//! use p2p_swarms::{MemoryRealm, SwarmExt as _};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> p2p::Result<()> {
//! let env = Env::seeded(7);
//! let guard = env.enter();
//! let realm = MemoryRealm::default();
//! let node = |seed: u8| realm.open().p2pke(&PrivateKey::ed25519(&[seed; 32]));
//! let (alice, bob) = (node(1)?, node(2)?);
//! drop(guard);
//!
//! // Every byte of this exchange is the same in each run.
//! alice.tell(&bob.local_addr()?, alice.packet(b"hello")).await?;
//! assert_eq!(bob.receive().await?.payload, b"hello");
//! # Ok(())
//! # }
//! ```
//!
//! # Limits
//! A run repeats on one thread, with tokio's clock paused, and with `biased` in each `select!` of the program. QUIC
//! takes its randomness from its libraries, UDP its timing from the system: stacks on them do not repeat.
//!
//! # Security
//! An `Env` of a seed makes keys of sessions that the seed determines: it is for tests and simulations alone.

use std::cell::RefCell;
use std::convert::Infallible;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use parking_lot::{Mutex, MutexGuard};
use rand::rngs::{StdRng, ThreadRng};
use rand::{Rng as _, SeedableRng as _, TryCryptoRng, TryRng};
use tokio::time::Instant;

use crate::driver::Clock;

/// The wall clock of a seeded [`Env`] when it is created: 1 January 2020.
const EPOCH: Duration = Duration::from_hours(438_288);

thread_local! {
    static CURRENT: RefCell<Env> = const { RefCell::new(Env(None)) };
}

/// A wall clock and a source of randomness; see the [module](self). Clones share both.
#[derive(Clone, Default)]
pub struct Env(Option<Arc<Seeded>>);

struct Seeded {
    rng: Mutex<StdRng>,
    clock: Clock,
    clocks: AtomicU64,
}

impl Env {
    /// Returns the system's clock and randomness.
    pub fn system() -> Self {
        Self(None)
    }

    /// Creates a source of randomness with this seed, and a wall clock that starts at a fixed date and follows
    /// tokio's clock.
    pub fn seeded(seed: u64) -> Self {
        Self(Some(Arc::new(Seeded {
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            clock: Clock::new(Instant::now(), EPOCH),
            clocks: AtomicU64::new(0),
        })))
    }

    /// Returns the `Env` that this thread has entered, or the system's.
    pub fn current() -> Self {
        CURRENT.with_borrow(Env::clone)
    }

    /// Makes this the [current](Self::current) `Env` of the thread until the returned value is dropped. Swarms take
    /// the current `Env` when they are created.
    pub fn enter(&self) -> EnterGuard {
        EnterGuard {
            previous: CURRENT.replace(self.clone()),
            of_this_thread: PhantomData,
        }
    }

    /// Returns the source of randomness, which is cryptographically secure unless it is seeded.
    pub fn rng(&self) -> EnvRng {
        EnvRng(match &self.0 {
            None => Source::System(rand::rng()),
            Some(seeded) => Source::Seeded(seeded.clone()),
        })
    }

    /// Returns a random number, such as a seed for an engine.
    pub fn seed(&self) -> u64 {
        self.rng().next_u64()
    }

    /// Returns the time since the Unix epoch.
    pub fn unix_time(&self) -> Duration {
        match &self.0 {
            None => system_time(),
            Some(seeded) => seeded.clock.now(),
        }
    }

    /// Returns a clock of Unix time that never steps, a microsecond ahead of the one before. So a node that is
    /// restarted at the same instant, as under a paused clock, reports later times than its predecessor.
    pub(crate) fn later_clock(&self) -> Clock {
        static CLOCK: LazyLock<Clock> =
            LazyLock::new(|| Clock::new(Instant::from_std(std::time::Instant::now()), system_time()));
        static CLOCKS: AtomicU64 = AtomicU64::new(0);
        let (clock, clocks) = match &self.0 {
            None => (&*CLOCK, &CLOCKS),
            Some(seeded) => (&seeded.clock, &seeded.clocks),
        };
        clock.ahead(Duration::from_micros(clocks.fetch_add(1, Relaxed)))
    }
}

fn system_time() -> Duration {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default()
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "Env(seeded)"
        } else {
            "Env(system)"
        })
    }
}

/// The time for which an [`Env`] is current. Dropping it restores the one before.
#[derive(Debug)]
#[must_use = "the Env is current until this is dropped"]
pub struct EnterGuard {
    previous: Env,
    of_this_thread: PhantomData<*const ()>,
}

impl Drop for EnterGuard {
    fn drop(&mut self) {
        CURRENT.set(std::mem::take(&mut self.previous));
    }
}

/// The source of randomness of an [`Env`].
pub struct EnvRng(Source);

enum Source {
    System(ThreadRng),
    Seeded(Arc<Seeded>),
}

impl Seeded {
    fn rng(&self) -> MutexGuard<'_, StdRng> {
        self.rng.lock()
    }
}

impl TryRng for EnvRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        match &mut self.0 {
            Source::System(rng) => rng.try_next_u32(),
            Source::Seeded(seeded) => seeded.rng().try_next_u32(),
        }
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        match &mut self.0 {
            Source::System(rng) => rng.try_next_u64(),
            Source::Seeded(seeded) => seeded.rng().try_next_u64(),
        }
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        match &mut self.0 {
            Source::System(rng) => rng.try_fill_bytes(bytes),
            Source::Seeded(seeded) => seeded.rng().try_fill_bytes(bytes),
        }
    }
}

impl TryCryptoRng for EnvRng {}

impl fmt::Debug for EnvRng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvRng").finish_non_exhaustive()
    }
}
