//! Many channels over one swarm, each a swarm again.

mod channel;
mod dispatch;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use p2p::{Addr, Counters, Error, Reason, Result, Swarm};
use p2p_protocols::hash::HashMap;
use p2p_protocols::mux::{Channel, Name};

use crate::driver::Driver;
use crate::inbox::Limits;

pub use channel::MuxSwarm;
use channel::Queues;

/// Bounds of a [`Mux`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MuxConfig {
    /// Channels that are open at a time; opening more is [`Error::Limit`]. Default: 1024.
    pub channels: usize,
    /// Messages that wait for the reader of one channel. At the limit one of the source with the most is
    /// dropped and counted as [`Reason::QueueFull`]. Default: 1024 messages, 4 MiB.
    pub messages: Limits,
    /// Requests that wait for the reader of one channel. At the limit an asker with the most
    /// gets [`Rejection::BUSY`](p2p::Rejection::BUSY) at once. Default: 1024 requests, 4 MiB.
    pub asks: Limits,
    /// Messages that are pulled from below at a time. More cost more memory while they are looked at, fewer
    /// cost more calls. Default: 64.
    pub batch: usize,
}

impl Default for MuxConfig {
    fn default() -> Self {
        Self {
            channels: 1024,
            messages: Limits::default(),
            asks: Limits::default(),
            batch: 64,
        }
    }
}

/// Opens channels over one swarm, in the bytes of go-p2p's `p2pmux`.
///
/// The type of the channels chooses the framing: [`Name`] (the default), `u16`, `u32`, `u64` or
/// [`Varint`](p2p_protocols::mux::Varint).
///
/// Of all channels whose readers wait, one pulls from below, and hands to the others' queues what is theirs. Once somebody
/// has read, a background task pulls while nobody does, or whoever should does not come, so that a `receive` that is kept
/// aside stalls no other channel. A channel that nobody reads costs its queue and no more. Receiving needs a tokio runtime;
/// outside of one it fails with [`Error::Invalid`].
///
/// A `Mux` is a handle: clones and channels share the swarm below, which is dropped, and its port freed, with the
/// last of them. Until then channels may be opened, and opened again after they were closed or dropped. Where no
/// `Mux` is left, so that none can be opened again, closing the last open channel closes the swarm below.
///
/// Counters: `mux` counts the messages of all channels together, and `mux-ask` their requests.
#[derive(Debug)]
pub struct Mux<A, S, C = Name> {
    shared: Arc<Shared<A, S, C>>,
}

/// What channels share.
#[derive(Debug)]
struct Shared<A, S, C> {
    inner: S,
    config: MuxConfig,
    channels: Mutex<Channels<A, C>>,
    /// Pulls messages. Its kinds are the [ids](Queues::id) of queues.
    messages: Driver<usize>,
    /// Pulls requests.
    asks: Driver<usize>,
    counters: Counters,
    ask_counters: Counters,
    /// Handles by which channels can be opened. Without any, the last channel that is closed closes the swarm below.
    handles: AtomicUsize,
}

#[derive(Debug)]
struct Channels<A, C> {
    open: HashMap<C, Arc<Queues<A, C>>>,
    closed: bool,
}

impl<A, S> Mux<A, S> {
    /// Channels that have names, over `inner`.
    pub fn new(inner: S) -> Self {
        Self::with_config(inner, MuxConfig::default())
    }
}

impl<A, S, C> Mux<A, S, C> {
    /// Channels of any kind, with other bounds: `Mux::<_, _, u16>::with_config(inner, MuxConfig::default())`.
    pub fn with_config(inner: S, config: MuxConfig) -> Self {
        Self {
            shared: Arc::new(Shared {
                inner,
                config,
                channels: Mutex::new(Channels {
                    open: HashMap::default(),
                    closed: false,
                }),
                messages: Driver::new(),
                asks: Driver::new(),
                counters: Counters::new("mux"),
                ask_counters: Counters::new("mux-ask"),
                handles: AtomicUsize::new(1),
            }),
        }
    }

    /// The swarm below.
    pub fn inner(&self) -> &S {
        &self.shared.inner
    }
}

impl<A: Addr, S: Swarm<A>, C: Channel> Mux<A, S, C> {
    /// Opens a channel, which hears what comes from now on.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the channel is open already or its header leaves no room for a payload,
    /// [`Error::Limit`] if too many are open, [`Error::Closed`] after [`close`](Self::close).
    pub fn open(&self, channel: impl Into<C>) -> Result<MuxSwarm<A, S, C>> {
        let channel = channel.into();
        let header = channel.header();
        if header.len() > self.shared.inner.mtu() {
            return Err(Error::invalid(
                "channel",
                format!("its header of {} bytes exceeds the MTU below", header.len()),
            ));
        }
        let limit = self.shared.config.channels;
        let mut channels = self.shared.channels();
        if channels.closed {
            return Err(Error::Closed);
        }
        if channels.open.contains_key(channel.borrow()) {
            return Err(Error::invalid("channel", format!("{channel} is open already")));
        }
        if channels.open.len() >= limit {
            return Err(Error::Limit {
                what: "channels",
                limit,
            });
        }
        let queues = Arc::new(Queues::new(&self.shared.config, channel.clone(), header));
        channels.open.insert(channel, queues.clone());
        drop(channels);
        Ok(MuxSwarm::new(self.shared.clone(), queues))
    }

    /// Closes every channel and the swarm below. Idempotent.
    pub async fn close(&self) {
        let open = {
            let mut channels = self.shared.channels();
            channels.closed = true;
            std::mem::take(&mut channels.open)
        };
        for queues in open.into_values() {
            self.shared.shut(&queues);
        }
        self.shared.end();
        self.shared.inner.close().await;
    }
}

impl<A, S, C> Clone for Mux<A, S, C> {
    /// Another handle on the same channels.
    fn clone(&self) -> Self {
        self.shared.handles.fetch_add(1, Ordering::Relaxed);
        Self {
            shared: self.shared.clone(),
        }
    }
}

impl<A, S, C> Drop for Mux<A, S, C> {
    fn drop(&mut self) {
        self.shared.handles.fetch_sub(1, Ordering::AcqRel);
        if self.shared.is_over() {
            self.shared.end();
        }
    }
}

impl<A, S, C> Shared<A, S, C> {
    fn channels(&self) -> MutexGuard<'_, Channels<A, C>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no channel is open and none can be opened any more.
    fn is_over(&self) -> bool {
        self.handles.load(Ordering::Acquire) == 0 && self.channels().open.is_empty()
    }

    /// Ends a channel and counts what waited in it.
    fn shut(&self, queues: &Queues<A, C>) {
        let (messages, asks) = queues.close();
        // Its readers find out by themselves.
        self.messages.put(queues.id(), usize::MAX);
        self.asks.put(queues.id(), usize::MAX);
        self.counters.dropped_many(Reason::Closed, messages);
        self.ask_counters.dropped_many(Reason::Closed, asks);
    }

    /// Drops the work, which keeps the swarm below.
    fn end(&self) {
        self.messages.close();
        self.asks.close();
    }
}
