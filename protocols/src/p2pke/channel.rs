//! All sessions with whoever is at one address: the one in use, the one before, and those that may be next.

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

/// Handshake messages that wait to be sent at most; the driver sends them after each call.
const TRANSMITS: usize = 16;

/// The least time by which two hellos of one channel differ.
const TICK: Duration = Duration::from_nanos(1);

const SECOND: u64 = 1_000_000_000;

/// No configuration makes a handshake message wait less.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// Nor longer.
const LONGEST_WAIT: Duration = Duration::from_hours(1);

/// What happened on a channel.
#[derive(Clone, Debug)]
pub enum Event {
    /// A session was established: seal and open with this path from now on, and send what waited for it.
    Established(Arc<DataPath>),
    /// The keys to open with changed, and those to seal with did not: use this path from now on.
    Changed(Arc<DataPath>),
    /// The last session expired. Nothing can be sent until the channel is opened again.
    Expired,
    /// A handshake that this side began ended without a session. If there is a path, it is still good.
    Failed {
        /// The peer that was expected to answer. `None` is said of callers that expect no peer, and of those whose
        /// peers were too many to be kept: each that waits at this address, and is told of by no other event, looks at
        /// `found`, and connects again if that is the peer that it expects.
        expected: Option<PeerId>,
        /// The peer that proved its key in an answer, if any did.
        found: Option<PeerId>,
        /// Why there is no session: [`TimedOut`](Error::TimedOut), or what was wrong with the answer, such as
        /// [`WrongPeer`](Error::WrongPeer).
        error: Error,
    },
}

/// What would be lost with a channel that peers opened, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Idleness {
    /// It never carried data.
    NeverUsed,
    /// Nothing came for so long that nothing is sent on it.
    Silent,
    /// Nothing came for a while.
    Pausing,
}

/// All sessions with whoever is at one address.
///
/// One session is in use. Handshakes go on beside it, and it is replaced when another one is confirmed by the
/// peer's key, not before. The session before it opens what was still on its way.
#[derive(Debug)]
pub struct Channel {
    local: Arc<Local>,
    live: Option<Session>,
    previous: Option<Arc<Transport>>,
    /// Boxed, as most channels have none most of the time; for the same reason empty queues are freed.
    opening: Option<Box<Opening>>,
    /// Hellos that were answered and not yet confirmed, the oldest first.
    answering: VecDeque<Session>,
    /// The newest hello that led to a session, and whose it was.
    last_hello: Option<(PublicKey, Tai64N)>,
    /// The newest hello of this side, on the driver's clock.
    pub(super) last_opened: Option<Duration>,
    /// Nanoseconds of the driver's clock before which a peer's word that it has no session is not acted on.
    next_hint: u64,
    /// Nanoseconds up to which the allowance of [`admit_rekey`](Self::admit_rekey) is spent.
    rekeys_spent: u64,
    /// Whether this node ever began a handshake here for a caller.
    outbound: bool,
    /// Whether a session before the one in use carried data.
    carried: bool,
    path: Option<Arc<DataPath>>,
    /// Boxed, as it is empty but for the moment between a call and what the driver takes out after it.
    effects: Option<Box<Effects>>,
}

/// What calls led to.
#[derive(Debug, Default)]
struct Effects {
    transmits: VecDeque<Packet>,
    events: VecDeque<Event>,
}

impl Channel {
    /// A channel without sessions. Allocates nothing.
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

    /// The keys in use and whose data they carry, if a session is established.
    pub fn path(&self) -> Option<&Arc<DataPath>> {
        self.path.as_ref()
    }

    /// Whether nothing is left: no session, and no handshake from either side.
    pub fn is_idle(&self) -> bool {
        self.live.is_none() && self.opening.is_none() && self.answering.is_empty()
    }

    /// Whether only others want something of this channel, and have proven nothing yet.
    pub fn is_half_open(&self) -> bool {
        self.live.is_none() && self.opening.is_none() && !self.answering.is_empty()
    }

    /// Whether this node began the channel, or a handshake on it for a caller.
    pub(super) fn is_outbound(&self) -> bool {
        self.outbound
    }

    /// How little would be lost with the channel, and when it was last heard, if it may go: no handshake of this node goes
    /// on, and it was not heard a moment ago with data before. One that this node opened goes only when it is silent.
    pub(super) fn idleness(&self, now: Duration) -> Option<(Idleness, Duration)> {
        let path = self.path.as_ref().filter(|_| self.opening.is_none())?;
        let (heard, config) = (path.current.heard_at(), &self.local.config);
        let silence = now.saturating_sub(heard);
        let unused = !self.carried && !path.current.heard_data() && !path.current.has_sealed(FIRST_DATA);
        let idleness = if unused && !self.outbound {
            Idleness::NeverUsed
        } else if silence > config.keep_alive {
            Idleness::Silent
        } else if silence > config.refresh_after && !self.outbound {
            Idleness::Pausing
        } else {
            return None;
        };
        Some((idleness, heard))
    }

    /// Admits a hello in the name of the peer of the session in use, within an allowance of its own: a flood of hellos in
    /// other names does not keep a peer that is heard from replacing its session. Returns `false` for hellos in other
    /// names, and beyond the allowance.
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

    /// A path to `expected` (to any peer that is there, if `None`) that can be sent on now; or joins the handshake that
    /// goes on, or begins one. Its end is an [`Event::Established`] or an [`Event::Failed`], at once where another peer
    /// answers. Call [`release`](Self::release) when nobody waits for that any more.
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

    /// Begins a handshake beside the session in use, unless one goes on already. Call it when a seal says that
    /// [a renewal is due](super::Sealed::RenewalDue).
    pub fn renew(&mut self, now: Duration, rng: &mut dyn CryptoRng) -> Result<(), Error> {
        match &self.path {
            Some(path) => self.open(now, Some(path.peer), true, rng),
            None => Ok(()),
        }
    }

    /// Takes a packet from this address and gives back what was in it, if it was data.
    ///
    /// Data goes to the [path](Self::path) directly and only what the path calls
    /// [`Unexpected`](Error::Unexpected) comes here; while there is no path, everything does.
    ///
    /// # Errors
    /// Why the packet is dropped. No session is the worse for it.
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

    /// Makes a session that is confirmed the one in use.
    fn promote(&mut self, session: Session) {
        let Some((peer, key)) = session.peer() else { return };
        if !session.is_initiator() {
            self.last_hello = Some((key.clone(), session.timestamp()));
            let timestamp = session.timestamp();
            self.answering.retain(|other| other.timestamp() > timestamp);
            self.answering.shrink_to_fit();
        }
        let of_same_peer = |live: &Session| live.peer().is_some_and(|(id, _)| id == peer);
        // A handshake that the peer may have finished already goes on: the peer may be using its keys.
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

    /// Makes the path of what sessions there are. An event must tell of it.
    fn make_path(&mut self) -> Option<Arc<DataPath>> {
        let live = self.live.as_ref()?;
        let (peer, key) = live.peer()?;
        let current = live.transport()?.clone();
        let opening = self
            .opening
            .as_ref()
            .filter(|opening| opening.session.peer().is_some_and(|(id, _)| id == peer));
        if opening.is_some() {
            current.quiet_until(Duration::MAX);
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

    /// The next moment at which [`handle_timeout`](Self::handle_timeout) has something to do.
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

    /// Does what time asks for: repeats handshake messages, and ends what is too old.
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

    /// The next packet to send to this address.
    pub fn poll_transmit(&mut self) -> Option<Packet> {
        self.pop(|effects| effects.transmits.pop_front())
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.pop(|effects| effects.events.pop_front())
    }

    /// Takes out an effect; the memory of all goes with the last.
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

/// Appends to a queue; at the limit the oldest goes.
fn push<T>(queue: &mut VecDeque<T>, item: T) {
    if queue.len() == TRANSMITS {
        queue.pop_front();
    }
    queue.push_back(item);
}

/// A handshake message with room for the layers below.
fn packet(message: &[u8]) -> Packet {
    Packet::new(Headroom::new(64, 32), message)
}
