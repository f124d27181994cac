//! The settings of a medium, shared by its swarms and the code that changes them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use p2p::{Addr, Result};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::LinkFaults;
use super::plan::Planner;
use crate::inbox::Limits;

/// Settings that are fixed for the lifetime of the medium.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FaultyConfig {
    /// Seed of all choices. Default: 0.
    pub seed: u64,
    /// Faults of every link without settings of its own. Default: none.
    pub link: LinkFaults,
    /// Maximum number and bytes of delayed messages in each node. Further messages are dropped and counted as
    /// [`DropReason::QueueFull`](p2p::DropReason::QueueFull). Default: 16,384 messages, 32 MiB.
    pub delayed: Limits,
    /// The same for each link (the messages of a node to one destination), so that one slow link does not
    /// take room from the others. Default: 4096 messages, 8 MiB.
    pub link_delayed: Limits,
    /// How long [`close`](p2p::Swarm::close) waits for delayed messages. Messages that are not due by then
    /// are sent on at once, earlier than their link would deliver them. Default: 1 s.
    pub linger: Duration,
    /// Time after which a lost ask fails with [`Error::TimedOut`](p2p::Error::TimedOut). Default: 1 s.
    pub ask_timeout: Duration,
}

impl Default for FaultyConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            link: LinkFaults::default(),
            delayed: Limits {
                items: 16 << 10,
                bytes: 32 << 20,
                ..Limits::default()
            },
            link_delayed: Limits {
                items: 4 << 10,
                bytes: 8 << 20,
                ..Limits::default()
            },
            linger: Duration::from_secs(1),
            ask_timeout: Duration::from_secs(1),
        }
    }
}

/// The faults of a medium, which can be changed while it is in use.
///
/// Clones refer to the same medium. Give one to each [`FaultySwarm`](super::FaultySwarm) on it, and keep one
/// to change it: a change applies to messages sent from then on, not to those in flight. A link leads from
/// any of the sender's [`local_addrs`](p2p::Swarm::local_addrs) to the destination address. The settings grow
/// with calls of this type only, never with messages.
pub struct Faults<A>(Arc<Shared<A>>);

struct Shared<A> {
    config: FaultyConfig,
    /// Whether any fault is set.
    active: AtomicBool,
    settings: Mutex<Settings<A>>,
    /// Number of swarms created so far: each has its own random stream.
    nodes: AtomicU64,
    in_flight: Arc<InFlight>,
}

/// The number of delayed messages on a medium, over all of its swarms.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    count: AtomicUsize,
    none: Notify,
}

impl InFlight {
    pub(super) fn begin(&self, messages: usize) {
        self.count.fetch_add(messages, Ordering::AcqRel);
    }

    pub(super) fn end(&self, messages: usize) {
        if messages > 0 && self.count.fetch_sub(messages, Ordering::AcqRel) == messages {
            self.none.notify_waiters();
        }
    }

    async fn settled(&self) {
        loop {
            // From here on the end of the last message wakes this task.
            let none = self.none.notified();
            if self.count.load(Ordering::Acquire) == 0 {
                return;
            }
            none.await;
        }
    }
}

struct Settings<A> {
    link: LinkFaults,
    /// By destination, then by source.
    links: HashMap<A, HashMap<A, Link>>,
}

/// Settings of one link.
#[derive(Clone, Copy, Default)]
struct Link {
    faults: Option<LinkFaults>,
    cut: bool,
}

impl<A: Addr> Faults<A> {
    /// Creates a medium with these settings.
    ///
    /// # Errors
    /// Returns [`Error::Invalid`](p2p::Error::Invalid) under the conditions of [`LinkFaults::check`].
    pub fn new(config: FaultyConfig) -> Result<Self> {
        config.link.check()?;
        Ok(Self(Arc::new(Shared {
            config,
            active: AtomicBool::new(!config.link.is_none()),
            settings: Mutex::new(Settings {
                link: config.link,
                links: HashMap::new(),
            }),
            nodes: AtomicU64::new(0),
            in_flight: Arc::default(),
        })))
    }

    /// Creates a medium without faults whose choices are derived from `seed`.
    pub fn seeded(seed: u64) -> Self {
        let config = FaultyConfig {
            seed,
            ..FaultyConfig::default()
        };
        Self::new(config).unwrap_or_else(|_| unreachable!("a link without faults is valid"))
    }

    /// Sets the faults of every link without settings of its own.
    ///
    /// # Errors
    /// Returns [`Error::Invalid`](p2p::Error::Invalid) under the conditions of [`LinkFaults::check`]; nothing
    /// is changed.
    pub fn set_all(&self, faults: LinkFaults) -> Result<()> {
        faults.check()?;
        self.change(|settings| settings.link = faults);
        Ok(())
    }

    /// Sets the faults of the link from `src` to `dst`.
    ///
    /// # Errors
    /// Returns [`Error::Invalid`](p2p::Error::Invalid) under the conditions of [`LinkFaults::check`]; nothing
    /// is changed.
    pub fn set_link(&self, src: &A, dst: &A, faults: LinkFaults) -> Result<()> {
        faults.check()?;
        self.change(|settings| settings.link(src, dst).faults = Some(faults));
        Ok(())
    }

    /// Removes the settings of the link from `src` to `dst`: the default faults apply again.
    pub fn reset_link(&self, src: &A, dst: &A) {
        self.change(|settings| settings.link(src, dst).faults = None);
    }

    /// Cuts the link from `src` to `dst` in this direction: messages sent there are dropped and counted as
    /// [`DropReason::Partitioned`](p2p::DropReason::Partitioned).
    pub fn cut(&self, src: &A, dst: &A) {
        self.change(|settings| settings.link(src, dst).cut = true);
    }

    /// Restores the link from `src` to `dst`, with its former settings.
    pub fn mend(&self, src: &A, dst: &A) {
        self.change(|settings| settings.link(src, dst).cut = false);
    }

    /// Cuts both directions between every address in `left` and every address in `right`.
    pub fn partition(&self, left: &[A], right: &[A]) {
        self.change(|settings| {
            for one in left {
                for other in right {
                    settings.link(one, other).cut = true;
                    settings.link(other, one).cut = true;
                }
            }
        });
    }

    /// Restores all links, with their former settings.
    pub fn heal(&self) {
        self.change(|settings| {
            for link in settings.links.values_mut().flat_map(HashMap::values_mut) {
                link.cut = false;
            }
        });
    }

    /// Waits until no message is delayed at any node: each was passed to the swarm below or dropped.
    ///
    /// # Cancel safety
    /// Cancelling has no effect.
    pub async fn settled(&self) {
        self.0.in_flight.settled().await;
    }

    pub(super) fn in_flight(&self) -> Arc<InFlight> {
        self.0.in_flight.clone()
    }

    pub(crate) fn config(&self) -> &FaultyConfig {
        &self.0.config
    }

    /// Returns whether any fault is set.
    pub(super) fn is_active(&self) -> bool {
        self.0.active.load(Ordering::Acquire)
    }

    /// Returns the random choices of the next swarm on this medium.
    pub(super) fn planner(&self) -> Planner {
        Planner::new(self.0.config.seed, self.0.nodes.fetch_add(1, Ordering::Relaxed))
    }

    /// Returns the faults of the link from a node with the addresses `local` to `dst`; `None` if it is cut.
    pub(super) fn link(&self, local: &[A], dst: &A) -> Option<LinkFaults> {
        let settings = self.lock();
        let Some(links) = settings.links.get(dst) else {
            return Some(settings.link);
        };
        let mut faults = None;
        for link in local.iter().filter_map(|src| links.get(src)) {
            if link.cut {
                return None;
            }
            faults = faults.or(link.faults);
        }
        Some(faults.unwrap_or(settings.link))
    }

    fn change(&self, change: impl FnOnce(&mut Settings<A>)) {
        let mut settings = self.lock();
        change(&mut settings);
        settings.links.retain(|_, links| {
            links.retain(|_, link| link.cut || link.faults.is_some());
            !links.is_empty()
        });
        let active = !settings.link.is_none() || !settings.links.is_empty();
        self.0.active.store(active, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Settings<A>> {
        self.0.settings.lock()
    }
}

impl<A: Addr> Settings<A> {
    fn link(&mut self, src: &A, dst: &A) -> &mut Link {
        self.links
            .entry(dst.clone())
            .or_default()
            .entry(src.clone())
            .or_default()
    }
}

impl<A> Clone for Faults<A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<A> fmt::Debug for Faults<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults")
            .field("config", &self.0.config)
            .finish_non_exhaustive()
    }
}
