//! The settings of a medium, held by the swarms on it and by whoever changes them.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use p2p::{Addr, Result};
use tokio::sync::Notify;

use super::LinkFaults;
use super::plan::Planner;
use crate::inbox::Limits;

/// Settings that last as long as the medium.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FaultyConfig {
    /// What all choices follow from. Default: 0.
    pub seed: u64,
    /// What every link does that has no settings of its own. Default: nothing.
    pub link: LinkFaults,
    /// Messages that are delayed at a time in each node, at most. Further ones are dropped and counted as
    /// [`Reason::QueueFull`](p2p::Reason::QueueFull). Default: 16,384 messages, 32 MiB.
    pub delayed: Limits,
    /// The same for each link: messages of a node to one destination. So one destination whose link is slow takes no room
    /// from the others. Default: 4096 messages, 8 MiB.
    pub link_delayed: Limits,
    /// How long [`close`](p2p::Swarm::close) waits for messages that are delayed. What is not due by then is handed on at
    /// once, sooner than its link would. Default: 1 s.
    pub linger: Duration,
    /// After what time an ask that the medium lost fails with [`Error::TimedOut`](p2p::Error::TimedOut).
    /// Default: 1 s.
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

/// The faults of a medium, changeable while it runs.
///
/// Clones are the same medium. Give one to each [`FaultySwarm`](super::FaultySwarm) on it, and keep one to change it: a change
/// holds for what is sent from then on, and leaves alone what is under way. A link leads from any one of the
/// sender's [`local_addrs`](p2p::Swarm::local_addrs) to the address that is told. Settings grow only by what
/// is set here, never by what is sent.
pub struct Faults<A>(Arc<Shared<A>>);

struct Shared<A> {
    config: FaultyConfig,
    /// Whether there is anything to look up.
    active: AtomicBool,
    settings: Mutex<Settings<A>>,
    /// Swarms made so far: each has its own stream of choices.
    nodes: AtomicU64,
    under_way: Arc<UnderWay>,
}

/// How many messages are delayed on a medium, over all swarms on it.
#[derive(Debug, Default)]
pub(super) struct UnderWay {
    count: AtomicUsize,
    none: Notify,
}

impl UnderWay {
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
            // Whoever ends the last one from here on wakes this.
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
    /// A medium with these settings.
    ///
    /// # Errors
    /// [`Error::Invalid`](p2p::Error::Invalid) as [`LinkFaults::check`] has it.
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
            under_way: Arc::default(),
        })))
    }

    /// A medium that does nothing yet, with choices that follow from `seed`.
    pub fn seeded(seed: u64) -> Self {
        let config = FaultyConfig {
            seed,
            ..FaultyConfig::default()
        };
        Self::new(config).unwrap_or_else(|_| unreachable!("a link without faults is valid"))
    }

    /// Sets what every link does that has no settings of its own.
    ///
    /// # Errors
    /// [`Error::Invalid`](p2p::Error::Invalid) as [`LinkFaults::check`] has it; nothing changed.
    pub fn set_all(&self, faults: LinkFaults) -> Result<()> {
        faults.check()?;
        self.change(|settings| settings.link = faults);
        Ok(())
    }

    /// Sets what the link from `src` to `dst` does.
    ///
    /// # Errors
    /// [`Error::Invalid`](p2p::Error::Invalid) as [`LinkFaults::check`] has it; nothing changed.
    pub fn set_link(&self, src: &A, dst: &A, faults: LinkFaults) -> Result<()> {
        faults.check()?;
        self.change(|settings| settings.link(src, dst).faults = Some(faults));
        Ok(())
    }

    /// Lets the link from `src` to `dst` do what all others do.
    pub fn reset_link(&self, src: &A, dst: &A) {
        self.change(|settings| settings.link(src, dst).faults = None);
    }

    /// Cuts the way from `src` to `dst`, that way only: what is told there is dropped and counted as
    /// [`Reason::Partitioned`](p2p::Reason::Partitioned).
    pub fn cut(&self, src: &A, dst: &A) {
        self.change(|settings| settings.link(src, dst).cut = true);
    }

    /// Opens the way from `src` to `dst` again, with the settings that it had.
    pub fn mend(&self, src: &A, dst: &A) {
        self.change(|settings| settings.link(src, dst).cut = false);
    }

    /// Cuts both ways between every one of `left` and every one of `right`.
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

    /// Opens all ways again, each with the settings that it had.
    pub fn heal(&self) {
        self.change(|settings| {
            for link in settings.links.values_mut().flat_map(HashMap::values_mut) {
                link.cut = false;
            }
        });
    }

    /// Waits until no message is delayed, at any node: each was handed to the swarm below its layer, or dropped.
    ///
    /// # Cancel safety
    /// It changes nothing.
    pub async fn settled(&self) {
        self.0.under_way.settled().await;
    }

    pub(super) fn under_way(&self) -> Arc<UnderWay> {
        self.0.under_way.clone()
    }

    pub(super) fn config(&self) -> &FaultyConfig {
        &self.0.config
    }

    /// Whether any message needs a look at all.
    pub(super) fn is_active(&self) -> bool {
        self.0.active.load(Ordering::Acquire)
    }

    /// The choices of the next swarm on this medium.
    pub(super) fn planner(&self) -> Planner {
        Planner::new(self.0.config.seed, self.0.nodes.fetch_add(1, Ordering::Relaxed))
    }

    /// What the link from whoever has the addresses `local` to `dst` does; nothing if it is cut.
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
        self.0.settings.lock().unwrap_or_else(PoisonError::into_inner)
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
