//! All sessions with whoever is at one address: the one in use, the one before, and those that may be next.

mod answer;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use p2p::{Headroom, Packet, PeerId};
use p2p_formats::x509::PublicKey;
use rand::CryptoRng;

use super::path::DataPath;
use super::session::{Session, Stage, Step};
use super::transport::Transport;
use super::wire::{self, INIT_DONE, INIT_HELLO, InitHello, RESP_DONE, RESP_HELLO};
use super::{Error, Local, Tai64N};
pub use answer::Hello;

/// Handshake messages that wait to be sent at most; the driver sends them after each call.
const TRANSMITS: usize = 16;

/// Answers to one repetition of a hello that may turn out to be none; further ones are dropped until the next.
/// Each costs an X25519 operation, and anybody can send them.
const FORGED_ANSWERS: u32 = 32;

/// The least time by which two hellos of one channel differ.
const TICK: Duration = Duration::from_nanos(1);

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
        /// Who was expected to answer.
        expected: Option<PeerId>,
        /// Why nobody did: [`TimedOut`](Error::TimedOut), or what was wrong with those who did.
        error: Error,
    },
}

/// The handshake that this side began.
#[derive(Debug)]
struct Opening {
    session: Session,
    expected: Option<PeerId>,
    deadline: Duration,
    next_send: Duration,
    wait: Duration,
    /// Whether the hello went out again since the last regular time, because a hello crossed it.
    repeated: bool,
    /// Answers since the last regular time that were none.
    forged: u32,
    /// What was wrong with an answer that was one, though not of the expected peer, or not of one that is welcome.
    refused: Option<Error>,
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
    path: Option<Arc<DataPath>>,
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
            path: None,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
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

    /// A path to `expected` (to whoever is there, if `None`) that can be sent on now; or begins a handshake, whose
    /// end is an [`Event::Established`] or an [`Event::Failed`]. A handshake that goes on already goes on.
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
        self.open(now, expected, rng)?;
        Ok(None)
    }

    /// Begins a handshake beside the session in use, unless one goes on already. Call it when a seal says that
    /// [a renewal is due](super::Sealed::RenewalDue).
    pub fn renew(&mut self, now: Duration, rng: &mut dyn CryptoRng) -> Result<(), Error> {
        match &self.path {
            Some(path) if self.opening.is_none() => self.open(now, Some(path.peer), rng),
            _ => Ok(()),
        }
    }

    fn open(
        &mut self,
        now: Duration,
        expected: Option<PeerId>,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), Error> {
        if expected.is_some_and(|expected| !self.local.allows(&expected)) {
            return Err(Error::Denied);
        }
        match self.opening.take() {
            Some(opening) if expected.is_none() || opening.expected == expected => {
                self.opening = Some(opening);
                return Ok(());
            }
            Some(other) => self.fail(other.expected, Error::WrongPeer),
            None => {}
        }
        // Time stamps of one channel rise even where the clock does not.
        let stamp = self
            .last_opened
            .map_or(now, |last| now.max(last.saturating_add(TICK)));
        self.last_opened = Some(stamp);
        let session = Session::initiate(&self.local, now, Tai64N::from_unix(stamp), expected, rng)?;
        let config = &self.local.config;
        self.opening = Some(Box::new(Opening {
            deadline: now.saturating_add(config.handshake_timeout),
            next_send: now,
            wait: config.retry_first,
            repeated: false,
            forged: 0,
            refused: None,
            session,
            expected,
        }));
        if let Some(path) = &self.path {
            path.current.quiet_until(Duration::MAX);
        }
        self.send_opening(now, rng);
        Ok(())
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

    /// A responder's message: for the handshake that this side began, or a late copy for the live session.
    fn handle_answer(&mut self, now: Duration, message: &[u8], rng: &mut dyn CryptoRng) -> Result<(), Error> {
        let Some(opening) = &mut self.opening else {
            let live = self.live.as_mut().filter(|live| live.is_initiator());
            return match live.ok_or(Error::Unexpected)?.handle(&self.local, now, message)? {
                Step::Nothing => Ok(()),
                Step::Reply | Step::Established => Err(Error::Unexpected),
            };
        };
        if opening.forged >= FORGED_ANSWERS {
            return Err(Error::RateLimited);
        }
        let before = opening.session.stage();
        let step = opening.session.handle(&self.local, now, message);
        opening.forged += u32::from(step.is_err());
        if let Err(refused @ (Error::WrongPeer | Error::Denied | Error::Key(_))) = &step {
            opening.refused = Some(refused.clone());
        }
        match step? {
            Step::Reply if before == Stage::HelloSent => {
                // Progress: the next message gets the whole patience again.
                opening.deadline = now.saturating_add(self.local.config.handshake_timeout);
                opening.wait = self.local.config.retry_first;
                self.send_opening(now, rng);
                self.change_path();
            }
            Step::Reply => {
                let message = packet(opening.session.message());
                self.transmit(message);
            }
            Step::Established => self.promote_opening(),
            Step::Nothing => {}
        }
        Ok(())
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
        if let Some(opening) = &self.opening
            && opening.session.stage() == Stage::HelloSent
            && opening.expected.is_none_or(|expected| expected == peer)
        {
            self.opening = None;
        }
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
        let opening = self
            .opening
            .as_ref()
            .map(|opening| opening.next_send.min(opening.deadline));
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
        if let Some(opening) = self.opening.take_if(|opening| now >= opening.deadline) {
            self.fail(opening.expected, opening.refused.unwrap_or(Error::TimedOut));
            if let Some(path) = &self.path {
                path.current
                    .quiet_until(now.saturating_add(self.local.config.refresh_after));
            }
            if opening.session.transport().is_some() {
                self.change_path();
            }
        }
        if self
            .opening
            .as_ref()
            .is_some_and(|opening| now >= opening.next_send)
        {
            self.send_opening(now, rng);
        }
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

    /// Sends the opening's message and sets the time for the next.
    fn send_opening(&mut self, now: Duration, rng: &mut dyn CryptoRng) {
        let Some(opening) = &mut self.opening else { return };
        let config = &self.local.config;
        let chance = f64::from(rng.next_u32()) / f64::from(u32::MAX) * 2.0 - 1.0;
        let jitter = 1.0 + f64::from(config.retry_jitter.clamp(0.0, 1.0)) * chance;
        let wait = opening.wait.min(config.retry_max).min(LONGEST_WAIT);
        opening.next_send = now.saturating_add(wait.mul_f64(jitter).max(SHORTEST_WAIT));
        opening.wait = wait.saturating_add(wait / 2);
        opening.repeated = false;
        opening.forged = 0;
        let message = packet(opening.session.message());
        self.transmit(message);
    }

    fn fail(&mut self, expected: Option<PeerId>, error: Error) {
        self.event(Event::Failed { expected, error });
    }

    /// The next packet to send to this address.
    pub fn poll_transmit(&mut self) -> Option<Packet> {
        pop(&mut self.transmits)
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        pop(&mut self.events)
    }

    fn transmit(&mut self, packet: Packet) {
        if self.transmits.len() == TRANSMITS {
            self.transmits.pop_front();
        }
        self.transmits.push_back(packet);
    }

    fn event(&mut self, event: Event) {
        if self.events.len() == TRANSMITS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}

/// The front of a queue, whose memory is freed with its last element.
fn pop<T>(queue: &mut VecDeque<T>) -> Option<T> {
    let front = queue.pop_front();
    if queue.is_empty() {
        *queue = VecDeque::new();
    }
    front
}

/// A handshake message with room for the layers below.
fn packet(message: &[u8]) -> Packet {
    Packet::new(Headroom::new(64, 32), message)
}
