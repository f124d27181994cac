//! The sessions with one remote address: current, previous, and pending.
//!
//! | state | field | ends when |
//! | --- | --- | --- |
//! | opening: this side sent a hello | `opening` | confirmed; [`Config::handshake_timeout`](super::Config::handshake_timeout) without progress; or no caller waits |
//! | answering: this side answered a hello | `answering` | confirmed; `handshake_timeout`; or more than `half_open_per_channel` newer ones |
//! | current session | `live` | replaced by a confirmed one; or `reject_after` |
//! | previous session, only opens data | `previous` | the next session is confirmed; or `reject_after` |
//!
//! | timer | at | action |
//! | --- | --- | --- |
//! | retransmit | `retry_first`, growing by half up to `retry_max`, with jitter | sends the handshake message of `opening` again |
//! | handshake timeout | `handshake_timeout` after the last progress | ends `opening`, or forgets an entry of `answering` |
//! | expiry | `reject_after` after the session began | drops `live` or `previous` |

mod answer;
mod opening;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use p2p::{Headroom, Packet, PeerId};
use p2p_formats::x509::PublicKey;
use rand::CryptoRng;

use super::path::DataPath;
use super::session::{Session, Stage};
use super::transport::{Transport, nanos};
use super::wire::{self, FIRST_DATA, INIT_DONE, INIT_HELLO, InitHello, RESP_DONE, RESP_HELLO};
use super::{Error, Local, Tai64N};
pub use answer::Hello;
use opening::Opening;

/// Maximum number of queued handshake messages, and of queued events; the driver drains them after each call.
const TRANSMITS: usize = 16;

/// Minimum difference between the time stamps of two hellos of one channel.
const TICK: Duration = Duration::from_nanos(1);

const SECOND: u64 = 1_000_000_000;

/// Minimum interval between handshake messages, for any configuration.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// Maximum interval between handshake messages, for any configuration.
const LONGEST_WAIT: Duration = Duration::from_hours(1);

/// An event of a channel.
#[derive(Clone, Debug)]
pub enum Event {
    /// A session was established: use this path from now on, and send the data that waited for it.
    Established(Arc<DataPath>),
    /// The set of keys for opening data changed, and the key for sealing did not: use this path from now on.
    Changed(Arc<DataPath>),
    /// The last session expired. Nothing can be sent until the channel is opened again.
    Expired,
    /// A handshake of this side ended without a session. An existing path remains valid.
    Failed {
        /// The expected peer. `None` concerns callers that expect no particular peer, and callers with
        /// expected peers beyond the number that is stored: each caller that waits at this address, and gets
        /// no other event, compares `found` with its expected peer and connects again if they are equal.
        expected: Option<PeerId>,
        /// The peer that proved its key in an answer, if any.
        found: Option<PeerId>,
        /// The cause: [`TimedOut`](Error::TimedOut), or the fault of the answer, such as
        /// [`WrongPeer`](Error::WrongPeer).
        error: Error,
    },
}

/// The value of a channel that a peer opened, the least valuable first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Idleness {
    /// It never carried data.
    NeverUsed,
    /// It was silent for so long that nothing may be sent on it.
    Silent,
    /// It was silent for a while.
    Pausing,
}

/// The sessions with one remote address: current, previous, and pending.
///
/// One session is current. Handshakes run beside it, and it is replaced only when another session is
/// confirmed by the peer's key. The previous session still opens packets that were in flight.
#[derive(Debug)]
pub struct Channel {
    local: Arc<Local>,
    live: Option<Session>,
    previous: Option<Arc<Transport>>,
    /// Boxed, because most channels have no handshake most of the time. For the same reason, empty queues are
    /// freed.
    opening: Option<Box<Opening>>,
    /// Hellos that were answered and are not confirmed, the oldest first.
    answering: VecDeque<Session>,
    /// The newest hello that led to a session, with its peer's key.
    last_hello: Option<(PublicKey, Tai64N)>,
    /// The time of this side's newest hello, on the driver's clock.
    pub(super) last_opened: Option<Duration>,
    /// Time in nanoseconds of the driver's clock before which no-session notices are ignored.
    next_hint: u64,
    /// Time in nanoseconds up to which the allowance of [`admit_rekey`](Self::admit_rekey) is used.
    rekeys_spent: u64,
    /// Whether this node ever started a handshake here for a caller.
    outbound: bool,
    /// Whether a session before the current one carried data.
    carried: bool,
    path: Option<Arc<DataPath>>,
    /// Boxed, because it is empty except between a call and the driver's drain after it.
    effects: Option<Box<Effects>>,
}

/// The effects of calls, for the driver.
#[derive(Debug, Default)]
struct Effects {
    transmits: VecDeque<Packet>,
    events: VecDeque<Event>,
}

impl Channel {
    /// Creates a channel without sessions. Allocates nothing.
    pub fn new(local: Arc<Local>) -> Self {
        Self {
            local,
            live: None,
            previous: None,
            opening: None,
            answering: VecDeque::new(),
            last_hello: None,
            last_opened: None,
            next_hint: 0,
            rekeys_spent: 0,
            outbound: false,
            carried: false,
            path: None,
            effects: None,
        }
    }

    /// Returns the current path, if a session is established.
    pub fn path(&self) -> Option<&Arc<DataPath>> {
        self.path.as_ref()
    }

    /// Returns whether the channel has no session and no handshake of either side.
    pub fn is_idle(&self) -> bool {
        self.live.is_none() && self.opening.is_none() && self.answering.is_empty()
    }

    /// Returns whether the channel has only answered hellos, and its peers have not proven a key.
    pub fn is_half_open(&self) -> bool {
        self.live.is_none() && self.opening.is_none() && !self.answering.is_empty()
    }

    /// Returns whether this node opened the channel, or started a handshake on it for a caller.
    pub(super) fn is_outbound(&self) -> bool {
        self.outbound
    }

    /// Returns the value of the channel and the time of its last authentic packet, if it may be removed: not
    /// during a handshake of this node, nor shortly after a packet if it carried data. A channel that this
    /// node opened may be removed only after a long silence.
    pub(super) fn idleness(&self, now: Duration) -> Option<(Idleness, Duration)> {
        let path = self.path.as_ref().filter(|_| self.opening.is_none())?;
        let (heard, config) = (path.current.heard_at(), &self.local.config);
        let silence = now.saturating_sub(heard);
        let unused = !self.carried && !path.current.heard_data() && !path.current.has_sealed(FIRST_DATA);
        let idleness = if unused && !self.outbound {
            Idleness::NeverUsed
        } else if silence > config.max_silence {
            Idleness::Silent
        } else if silence > config.rekey_after_silence && !self.outbound {
            Idleness::Pausing
        } else {
            return None;
        };
        Some((idleness, heard))
    }

    /// Admits a hello with the key of the current session's peer, within a separate allowance, so that a
    /// flood of hellos with other keys cannot prevent a peer from replacing its session. Returns `false` for
    /// other keys, and beyond the allowance.
    pub(super) fn admit_rekey(&mut self, now: Duration, hello: &InitHello<'_>) -> bool {
        let per_second = self.local.config.hello_rate_per_source.max(1);
        let known = self
            .path
            .as_ref()
            .is_some_and(|path| path.key.as_der() == hello.key);
        let now = nanos(now);
        let spent = (self.rekeys_spent.max(now)).saturating_add(SECOND / u64::from(per_second));
        let admitted = known && spent <= now.saturating_add(SECOND);
        if admitted {
            self.rekeys_spent = spent;
        }
        admitted
    }

    /// Returns a path to `expected` (or to any peer, if `None`) if there is a usable one. Otherwise joins the
    /// handshake in progress, or starts one. The handshake ends with [`Event::Established`] or
    /// [`Event::Failed`]; the latter at once if another peer answers. Call [`release`](Self::release) when no
    /// caller waits for it.
    pub fn connect(
        &mut self,
        now: Duration,
        expected: Option<PeerId>,
        rng: &mut dyn CryptoRng,
    ) -> Result<Option<Arc<DataPath>>, Error> {
        if let Some(path) = &self.path {
            let usable =
                now <= path.current.expires() && !path.current.is_silent(now) && !path.current.is_exhausted();
            if usable && expected.is_none_or(|expected| expected == path.peer) {
                return Ok(Some(path.clone()));
            }
        }
        self.open(now, expected, false, rng)?;
        self.outbound = true;
        Ok(None)
    }

    /// Starts a rekey: a handshake beside the current session, unless one is in progress. Call it when
    /// [`Transport::seal`] returns [`RekeyDue`](super::Sealed::RekeyDue).
    pub fn rekey(&mut self, now: Duration, rng: &mut dyn CryptoRng) -> Result<(), Error> {
        match &self.path {
            Some(path) => self.open(now, Some(path.peer), true, rng),
            None => Ok(()),
        }
    }

    /// Processes a packet from this address. Returns its contents if it was data.
    ///
    /// Once there is a [path](Self::path), pass data to it, and only packets that it reports as
    /// [`Unexpected`](Error::Unexpected) to this method; before that, pass every packet here.
    ///
    /// # Errors
    /// The reason for dropping the packet. No session changes.
    pub fn handle(
        &mut self,
        now: Duration,
        mut packet: Packet,
        rng: &mut dyn CryptoRng,
    ) -> Result<Option<Packet>, Error> {
        match wire::counter(&packet) {
            None => Err(Error::Malformed("shorter than a counter")),
            Some(INIT_HELLO) => {
                let hello = InitHello::parse(&packet)?;
                if self.check(now, &hello)? == Hello::New {
                    self.answer(now, &hello, rng)?;
                }
                Ok(None)
            }
            Some(RESP_HELLO | RESP_DONE) => self.handle_answer(now, &packet, rng).map(|()| None),
            Some(INIT_DONE) => self.handle_init_done(now, &packet).map(|()| None),
            Some(_) => {
                if let Some(path) = &self.path {
                    path.open(now, &mut packet)?;
                } else {
                    let opening = self
                        .opening
                        .as_ref()
                        .and_then(|opening| opening.session.transport());
                    let transport = match opening {
                        Some(transport) => transport,
                        None if self.is_idle() => return Err(Error::NoSession),
                        None => return Err(Error::EarlyData),
                    };
                    transport.open(now, &mut packet)?;
                }
                self.confirm_by_data();
                Ok(Some(packet))
            }
        }
    }

    fn confirm_by_data(&mut self) {
        if self
            .opening
            .as_mut()
            .is_some_and(|opening| opening.session.confirm_by_data())
        {
            self.promote_opening();
        }
    }

    fn promote_opening(&mut self) {
        if let Some(opening) = self.opening.take() {
            self.promote(opening.session);
        }
    }

    /// Makes a confirmed session the current one.
    fn promote(&mut self, session: Session) {
        let Some((peer, key)) = session.peer() else { return };
        if !session.is_initiator() {
            self.last_hello = Some((key.clone(), session.timestamp()));
            let timestamp = session.timestamp();
            self.answering.retain(|other| other.timestamp() > timestamp);
            self.answering.shrink_to_fit();
        }
        let of_same_peer = |live: &Session| live.peer().is_some_and(|(id, _)| id == peer);
        // If the peer may have completed the pending handshake, it continues, because the peer may be using
        // its keys.
        if let Some(opening) = &mut self.opening
            && opening.session.stage() == Stage::HelloSent
        {
            opening.resolve(peer);
            self.opening.take_if(|opening| !opening.is_wanted());
        }
        let live = self.live.as_ref().and_then(Session::transport);
        self.carried |= live.is_some_and(|live| live.heard_data() || live.has_sealed(FIRST_DATA));
        self.previous = self
            .live
            .take()
            .filter(of_same_peer)
            .and_then(|live| live.transport().cloned());
        self.live = Some(session);
        if let Some(path) = self.make_path() {
            self.event(Event::Established(path));
        }
    }

    /// Makes the path from the existing sessions. The caller must report it in an event.
    fn make_path(&mut self) -> Option<Arc<DataPath>> {
        let live = self.live.as_ref()?;
        let (peer, key) = live.peer()?;
        let current = live.transport()?.clone();
        let opening = self
            .opening
            .as_ref()
            .filter(|opening| opening.session.peer().is_some_and(|(id, _)| id == peer));
        if opening.is_some() {
            current.suppress_rekey_until(Duration::MAX);
        }
        let opening = opening.and_then(|opening| opening.session.transport());
        let path = Arc::new(DataPath {
            peer,
            key: key.clone(),
            current,
            others: self.previous.iter().chain(opening).cloned().collect(),
        });
        self.path = Some(path.clone());
        Some(path)
    }

    fn change_path(&mut self) {
        if let Some(path) = self.make_path() {
            self.event(Event::Changed(path));
        }
    }

    /// Returns the time at which [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let config = &self.local.config;
        let opening = self.opening.as_ref().map(|opening| opening.timeout());
        let answering = self
            .answering
            .front()
            .map(|session| session.started().saturating_add(config.handshake_timeout));
        let previous = self
            .previous
            .as_ref()
            .map(|previous| previous.expires().saturating_add(TICK));
        let live = self
            .live
            .as_ref()
            .map(|live| live.expires(&self.local).saturating_add(TICK));
        [opening, answering, previous, live].into_iter().flatten().min()
    }

    /// Retransmits handshake messages that are due, and ends expired sessions and handshakes.
    pub fn handle_timeout(&mut self, now: Duration, rng: &mut dyn CryptoRng) {
        self.confirm_by_data();
        let timeout = self.local.config.handshake_timeout;
        self.answering
            .retain(|session| session.started().saturating_add(timeout) > now);
        self.answering.shrink_to_fit();
        self.opening_timeout(now, rng);
        if self
            .live
            .as_ref()
            .is_some_and(|live| now > live.expires(&self.local))
        {
            (self.live, self.previous, self.path) = (None, None, None);
            self.event(Event::Expired);
        } else if self
            .previous
            .take_if(|previous| now > previous.expires())
            .is_some()
        {
            self.change_path();
        }
    }

    /// Returns the next packet to send to this address.
    pub fn poll_transmit(&mut self) -> Option<Packet> {
        self.pop(|effects| effects.transmits.pop_front())
    }

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.pop(|effects| effects.events.pop_front())
    }

    /// Removes an effect; frees the memory of an empty list.
    fn pop<T>(&mut self, pop: impl FnOnce(&mut Effects) -> Option<T>) -> Option<T> {
        let effects = self.effects.as_deref_mut()?;
        let popped = pop(effects);
        if effects.transmits.is_empty() && effects.events.is_empty() {
            self.effects = None;
        }
        popped
    }

    fn transmit(&mut self, packet: Packet) {
        push(&mut self.effects.get_or_insert_default().transmits, packet);
    }

    fn event(&mut self, event: Event) {
        push(&mut self.effects.get_or_insert_default().events, event);
    }
}

fn push_events(effects: &mut Option<Box<Effects>>, events: Vec<Event>) {
    for event in events {
        push(&mut effects.get_or_insert_default().events, event);
    }
}

/// Appends to a queue; at the limit, drops the oldest item.
fn push<T>(queue: &mut VecDeque<T>, item: T) {
    if queue.len() == TRANSMITS {
        queue.pop_front();
    }
    queue.push_back(item);
}

/// Makes a packet of a handshake message, with room for the layers below.
fn packet(message: &[u8]) -> Packet {
    Packet::new(Headroom::new(64, 32), message)
}
