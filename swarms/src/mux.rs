//! Multiplexes channels over one swarm; each channel is a swarm.

mod channel;
mod dispatch;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use p2p::{Addr, Counters, DropReason, Error, Result, Swarm};
use p2p_protocols::hash::HashMap;
use p2p_protocols::mux::{Channel, Name};
use parking_lot::{Mutex, MutexGuard};

use crate::driver::Driver;
use crate::inbox::Limits;

pub use channel::MuxSwarm;
use channel::Queues;

/// Bounds of a [`Mux`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MuxConfig {
    /// Maximum number of open channels; opening more fails with [`Error::Limit`]. Default: 1024.
    pub channels: usize,
    /// Messages that wait for the reader of one channel. At the limit one of the source with the most is
    /// dropped and counted as [`DropReason::QueueFull`]. Default: 1024 messages, 4 MiB.
    pub messages: Limits,
    /// Requests that wait for the reader of one channel. At the limit an asker with the most
    /// gets [`Rejection::BUSY`](p2p::Rejection::BUSY) at once. Default: 1024 requests, 4 MiB.
    pub asks: Limits,
    /// Maximum number of messages that are received from below at a time. A larger number costs memory while
    /// a batch is dispatched, a smaller one costs more calls. Default: 64.
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

/// Opens channels over one swarm, in go-p2p's `p2pmux` format.
///
/// The channel type chooses the framing: [`Name`] (the default), `u16`, `u32`, `u64` or
/// [`Varint`](p2p_protocols::mux::Varint).
///
/// Of all channels with waiting readers, one receives from below and delivers messages to the queues of the
/// others. After the first read, a background task receives while no reader polls, so that a `receive` that
/// is kept but not polled does not block other channels. A channel without a reader costs only its queue.
/// Receiving needs a tokio runtime; outside of one it fails with [`Error::Invalid`].
///
/// A `Mux` is a handle: clones and channels share the swarm below, which is dropped, and its port freed, with
/// the last of them. Until then channels may be opened, and opened again after they were closed or dropped.
/// If no `Mux` is left, closing the last open channel closes the swarm below.
///
/// Counters: `mux` counts the messages of all channels together, `mux-ask` their requests.
///
/// ```
/// use p2p::Swarm;
/// use p2p_swarms::{MemorySwarm, Mux};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> p2p::Result<()> {
/// let swarm = MemorySwarm::new();
/// let (alice, bob) = (Mux::new(swarm.realm().open()), Mux::new(swarm));
/// let (chat, files) = (bob.open("chat")?, bob.open("files")?);
///
/// let to = bob.inner().local_addr();
/// let sender = alice.open("files")?;
/// sender.tell(&to, sender.packet(b"a file")).await?;
/// assert_eq!(files.receive().await?.payload, b"a file");
/// # drop(chat);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Mux<A, S, C = Name> {
    shared: Arc<Shared<A, S, C>>,
}

/// State that all channels share.
#[derive(Debug)]
struct Shared<A, S, C> {
    inner: S,
    config: MuxConfig,
    channels: Mutex<Channels<A, C>>,
    /// Receives messages. Its kinds are the [ids](Queues::id) of queues.
    messages: Driver<usize>,
    /// Receives requests.
    asks: Driver<usize>,
    counters: Counters,
    ask_counters: Counters,
    /// Number of handles that can open channels. At zero, closing the last channel closes the swarm below.
    handles: AtomicUsize,
}

#[derive(Debug)]
struct Channels<A, C> {
    open: HashMap<C, Arc<Queues<A, C>>>,
    closed: bool,
}

impl<A, S> Mux<A, S> {
    /// Creates a mux with named channels over `inner`.
    pub fn new(inner: S) -> Self {
        Self::with_config(inner, MuxConfig::default())
    }
}

impl<A, S, C> Mux<A, S, C> {
    /// Creates a mux with channels of any kind and with other bounds, for example `Mux::<_, _,
    /// u16>::with_config(inner, MuxConfig::default())`.
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

    /// Returns the swarm below.
    pub fn inner(&self) -> &S {
        &self.shared.inner
    }
}

impl<A: Addr, S: Swarm<A>, C: Channel> Mux<A, S, C> {
    /// Opens a channel, which receives the messages that arrive from now on.
    ///
    /// # Errors
    /// Returns [`Error::Invalid`] if the channel is already open or its header leaves no room for a payload,
    /// [`Error::Limit`] if too many channels are open, and [`Error::Closed`] after [`close`](Self::close).
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
            return Err(Error::invalid("channel", format!("{channel} is already open")));
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
            self.shared.close_queues(&queues);
        }
        self.shared.end();
        self.shared.inner.close().await;
    }
}

impl<A, S, C> Clone for Mux<A, S, C> {
    /// Returns another handle on the same channels.
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
        self.channels.lock()
    }

    /// Returns whether no channel is open and none can be opened.
    fn is_over(&self) -> bool {
        self.handles.load(Ordering::Acquire) == 0 && self.channels().open.is_empty()
    }

    /// Closes a channel and counts the messages and requests that waited in it.
    fn close_queues(&self, queues: &Queues<A, C>) {
        let (messages, asks) = queues.close();
        // The readers find the queue closed.
        self.messages.notify(queues.id(), usize::MAX);
        self.asks.notify(queues.id(), usize::MAX);
        self.counters.add_dropped_many(DropReason::Closed, messages);
        self.ask_counters.add_dropped_many(DropReason::Closed, asks);
    }

    /// Drops the work, which holds a reference to the swarm below.
    fn end(&self) {
        self.messages.close();
        self.asks.close();
    }
}
