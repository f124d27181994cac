//! Many channels over one swarm, each a swarm again.

mod channel;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use p2p::{Addr, Counters, Error, Message, Reason, Rejection, Request, Result, Swarm};
use p2p_protocols::mux::{Channel, Name};

use crate::inbox::Limits;
use crate::turn::Turn;

pub use channel::MuxSwarm;
use channel::Queues;

/// Bounds of a [`Mux`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MuxConfig {
    /// Channels that are open at a time; opening more is [`Error::Limit`]. Default: 1024.
    pub channels: usize,
    /// Messages that wait for the reader of one channel. At the limit the newest is dropped and counted as
    /// [`Reason::QueueFull`]. Default: 1024 messages, 4 MiB.
    pub messages: Limits,
    /// Requests that wait for the reader of one channel. At the limit the asker gets [`Rejection::BUSY`] at
    /// once. Default: 1024 requests, 4 MiB.
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
/// There is no task: of all channels whose readers wait, one pulls from below, and hands to the others' queues what
/// is theirs. A channel that nobody reads costs its queue and no more; while nobody reads any, messages wait below.
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
    /// Who has it pulls messages, into the buffer that goes with it.
    messages: Turn<Vec<Message<A>>>,
    /// Who has it pulls requests.
    asks: Turn<()>,
    counters: Counters,
    ask_counters: Counters,
    /// Handles by which channels can be opened. Without any, the last channel that is closed closes the swarm below.
    handles: AtomicUsize,
}

#[derive(Debug)]
struct Channels<A, C> {
    open: HashMap<C, Arc<Queues<A>>>,
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
                    open: HashMap::new(),
                    closed: false,
                }),
                messages: Turn::new(Vec::new()),
                asks: Turn::new(()),
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
        let queues = Arc::new(Queues::new(&self.shared.config, header.len()));
        channels.open.insert(channel.clone(), queues.clone());
        drop(channels);
        Ok(MuxSwarm::new(self.shared.clone(), channel, header, queues))
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
    fn shut(&self, queues: &Queues<A>) {
        let (messages, asks) = queues.close();
        self.counters.dropped_many(Reason::Closed, messages);
        self.ask_counters.dropped_many(Reason::Closed, asks);
    }
}

impl<A: Addr, S: Swarm<A>, C: Channel> Shared<A, S, C> {
    /// Hands what was pulled to its channels; of `own` messages up to `max` go to `out`. Returns how many did.
    fn dispatch(
        &self,
        pulled: &mut Vec<Message<A>>,
        own: (&C, &Arc<Queues<A>>),
        max: usize,
        mut out: impl FnMut(Message<A>),
    ) -> usize {
        self.counters.received(pulled.len());
        let channels = self.channels();
        let mut routed = pulled
            .drain(..)
            .filter_map(|mut message| match route(&channels, own, &message.payload) {
                Ok((queues, header)) => {
                    message.payload.advance(header);
                    Some((queues, message))
                }
                Err(reason) => {
                    self.counters.dropped_at(reason, &message.src);
                    None
                }
            })
            .peekable();
        let mut count = 0;
        while let Some((queues, message)) = routed.next() {
            if count < max && std::ptr::eq(queues, own.1) {
                out(message);
                count += 1;
                continue;
            }
            // Neighbours that go to the same channel go in under one lock and with one wake-up.
            let more = std::iter::from_fn(|| routed.next_if(|(next, _)| std::ptr::eq(*next, queues)));
            let run = std::iter::once(message).chain(more.map(|(_, message)| message));
            let put = queues.messages.extend(run);
            self.counters.dropped_many(put.reason, put.refused.len());
        }
        self.counters.delivered(count);
        count
    }

    /// Hands a request to its channel; gives it back if it is for `own`.
    fn dispatch_ask(&self, mut request: Request<A>, own: (&C, &Arc<Queues<A>>)) -> Option<Request<A>> {
        self.ask_counters.received(1);
        let refused = {
            let channels = self.channels();
            match route(&channels, own, &request.payload) {
                Ok((queues, header)) => {
                    request.payload.advance(header);
                    // An overlong header of the peer's does not count: channels have one MTU.
                    let request = request.limit_response(self.inner.mtu().saturating_sub(queues.header));
                    if std::ptr::eq(queues, own.1) {
                        self.ask_counters.delivered(1);
                        return Some(request);
                    }
                    let put = queues.asks.push(request);
                    put.map_err(|refused| (refused.item, refused.reason, Rejection::BUSY))
                }
                Err(reason) => Err((request, reason, Rejection::NO_CHANNEL)),
            }
        };
        if let Err((request, reason, rejection)) = refused {
            self.ask_counters.dropped_at(reason, &request.src);
            request.reject(rejection);
        }
        None
    }
}

/// The channel that `frame` is for, and the length of its header. `own` is the one that it mostly is for.
fn route<'a, A: Addr, C: Channel>(
    channels: &'a Channels<A, C>,
    own: (&C, &'a Arc<Queues<A>>),
    frame: &[u8],
) -> Result<(&'a Arc<Queues<A>>, usize), Reason> {
    let (key, header) = C::read(frame).map_err(|_| Reason::Malformed)?;
    if *key == *own.0.borrow() && !own.1.is_closed() {
        return Ok((own.1, header));
    }
    let queues = channels.open.get(&*key).ok_or(Reason::NoChannel)?;
    Ok((queues, header))
}
