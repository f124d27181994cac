//! The initiating side of a channel: one hello an address, which any number of callers wait for, each for its own peer.
//!
//! A hello does not name the peer that it is for, so callers that expect different peers at one address share it. The
//! identity in the answer decides: callers that expect that peer get the session, the others learn at once which peer is
//! there. The handshake ends with its last caller; a hello that is on its way then may still be answered until it would have
//! been sent again.

use std::time::Duration;

use p2p::PeerId;
use rand::CryptoRng;

use super::super::session::{Answers, Session, Stage, Step};
use super::super::transport::nanos;
use super::super::{Error, Tai64N, wire};
use super::{Channel, Event, LONGEST_WAIT, SHORTEST_WAIT, TICK, packet, push_events};

/// Answers to one repetition of a hello that may turn out to be none; further ones are dropped until the next.
/// Each costs an X25519 operation, and anybody can send them. What does not cost one is not counted.
const FORGED_ANSWERS: u32 = 32;

/// Peers that one hello expects by name. Callers that expect yet other peers are told by the identity that answers, and
/// ask again if it is theirs.
const EXPECTED: usize = 8;

/// The least time between two hints that are acted on, and between the last authentic packet and a hint.
const BETWEEN_HINTS: Duration = Duration::from_secs(1);
const SILENCE_BEFORE_HINT: Duration = Duration::from_millis(100);

/// The handshake that this side began.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) session: Session,
    /// The peers that callers expect, and whether any caller still waits.
    expected: Vec<(PeerId, bool)>,
    /// Callers wait that take any peer.
    anyone: bool,
    /// Callers wait that expect a peer beyond those of the list.
    crowded: bool,
    /// The peer of the session in use, if this handshake is to replace it.
    rekey: Option<PeerId>,
    deadline: Duration,
    pub(super) next_send: Duration,
    wait: Duration,
    /// Whether the hello went out again since the last regular time, because a hello crossed it.
    pub(super) repeated: bool,
    /// Answers since the last regular time that were none.
    forged: u32,
    /// The peer that proved its key in the last answer.
    found: Option<PeerId>,
    /// What was wrong with an answer that was one, though not of the expected peer, or not of one that is welcome.
    refused: Option<Error>,
}

impl Opening {
    /// Whether a caller or the session in use still wants what this handshake leads to.
    pub(super) fn is_wanted(&self) -> bool {
        self.anyone || self.crowded || self.rekey.is_some() || self.expected.iter().any(|(_, waits)| *waits)
    }

    /// Whether an answer of this peer leads to a session.
    pub(super) fn expects(&self, peer: &PeerId) -> bool {
        self.anyone || self.rekey == Some(*peer) || self.expected.iter().any(|(id, _)| id == peer)
    }

    /// Notes a caller; says whether its peer found a place.
    fn join(&mut self, expected: Option<PeerId>) {
        let Some(expected) = expected else {
            self.anyone = true;
            return;
        };
        if let Some((_, waits)) = self.expected.iter_mut().find(|(id, _)| *id == expected) {
            *waits = true;
            return;
        }
        if self.expected.len() >= EXPECTED {
            // Peers that are not waited for any more give way.
            self.expected.retain(|(_, waits)| *waits);
        }
        if self.expected.len() < EXPECTED {
            self.expected.push((expected, true));
        } else {
            self.crowded = true;
        }
    }

    /// The callers' peer has a session: what remains of the handshake is for others.
    pub(super) fn resolve(&mut self, peer: PeerId) {
        self.anyone = false;
        self.rekey.take_if(|rekey| *rekey == peer);
        self.expected.retain(|(id, _)| *id != peer);
    }

    /// Takes out the expectations that this identity does not meet (all of them, if there is none), and says how they end.
    fn disappoint(&mut self, found: Option<PeerId>, error: &Error) -> Vec<Event> {
        let failed = |expected| Event::Failed {
            expected,
            found: found.or(self.found),
            error: error.clone(),
        };
        let mut events = Vec::new();
        for (id, waits) in &mut self.expected {
            if found != Some(*id) && std::mem::take(waits) {
                events.push(failed(Some(*id)));
            }
        }
        let everyone = found.is_none();
        let rekey = self.rekey.take_if(|_| everyone);
        if let Some(peer) = rekey
            && !events
                .iter()
                .any(|event| matches!(event, Event::Failed { expected, .. } if *expected == Some(peer)))
        {
            events.push(failed(Some(peer)));
        }
        let anyone = everyone && std::mem::take(&mut self.anyone);
        if std::mem::take(&mut self.crowded) || anyone {
            events.push(failed(None));
        }
        events
    }

    /// When [`Channel::handle_timeout`] has something to do for it.
    pub(super) fn timeout(&self) -> Duration {
        self.next_send.min(self.deadline)
    }
}

impl Channel {
    /// Joins the handshake that goes on, or begins one.
    pub(super) fn open(
        &mut self,
        now: Duration,
        expected: Option<PeerId>,
        rekey: bool,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), Error> {
        if expected.is_some_and(|expected| !self.local.allows(&expected)) {
            return Err(Error::Denied);
        }
        let timeout = self.local.config.handshake_timeout;
        let mut begun = false;
        if let Some(opening) = &mut self.opening {
            if !opening.is_wanted() {
                // Its hello may be used for as long as its keys last.
                let last = opening.session.expires(&self.local).saturating_sub(timeout);
                opening.deadline = opening.deadline.max(now.saturating_add(timeout).min(last));
            }
        } else {
            self.opening = Some(Box::new(self.begin(now, rng)?));
            begun = true;
        }
        let Some(opening) = &mut self.opening else {
            return Ok(());
        };
        if rekey {
            opening.rekey = expected;
            if let Some(path) = &self.path {
                path.current.quiet_until(Duration::MAX);
            }
        } else {
            opening.join(expected);
        }
        let again = match (opening.found, expected) {
            // The answer to this very hello is known already, and is asked for again if it is welcome by now.
            (Some(found), Some(expected)) if found == expected => opening.session.stage() == Stage::HelloSent,
            (Some(found), _) => {
                let events = opening.disappoint(Some(found), &Error::WrongPeer);
                push_events(&mut self.effects, events);
                false
            }
            (None, _) => begun,
        };
        if again {
            self.send_opening(now, rng);
        }
        Ok(())
    }

    /// A hello, which is not sent yet.
    fn begin(&mut self, now: Duration, rng: &mut dyn CryptoRng) -> Result<Opening, Error> {
        // Time stamps of one channel rise even where the clock does not.
        let stamp = self
            .last_opened
            .map_or(now, |last| now.max(last.saturating_add(TICK)));
        self.last_opened = Some(stamp);
        let session = Session::initiate(&self.local, now, Tai64N::from_unix(stamp), None, rng)?;
        let config = &self.local.config;
        Ok(Opening {
            session,
            expected: Vec::new(),
            anyone: false,
            crowded: false,
            rekey: None,
            deadline: now.saturating_add(config.handshake_timeout),
            next_send: now,
            wait: config.retry_first,
            repeated: false,
            forged: 0,
            found: None,
            refused: None,
        })
    }

    /// No caller waits for `expected` at this address any more, or none for any peer, if `None`. A hello that nobody waits
    /// for is not sent again. A handshake whose peer has proven its key goes on: the peer may be using the session.
    pub fn release(&mut self, expected: Option<PeerId>) {
        let Some(opening) = &mut self.opening else { return };
        for (id, waits) in &mut opening.expected {
            *waits &= expected.is_some_and(|expected| *id != expected);
        }
        if expected.is_none() {
            (opening.anyone, opening.crowded) = (false, false);
        }
    }

    /// A responder's message: for the handshake that this side began, or a late copy for the live session.
    pub(super) fn handle_answer(
        &mut self,
        now: Duration,
        message: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Result<(), Error> {
        if let Some(counter) = wire::parse_no_session(message) {
            return self.handle_hint(now, counter, rng);
        }
        let Some(opening) = &mut self.opening else {
            let live = self.live.as_mut().filter(|live| live.is_initiator());
            return match live.ok_or(Error::Unexpected)?.handle(&self.local, now, message)? {
                Step::Nothing => Ok(()),
                Step::Reply | Step::Established => Err(Error::Unexpected),
            };
        };
        let before = opening.session.stage();
        let costly = before == Stage::HelloSent && wire::is_resp_hello(message);
        if costly && opening.forged >= FORGED_ANSWERS {
            return Err(Error::RateLimited);
        }
        let (anyone, rekey, expected) = (opening.anyone, opening.rekey, &opening.expected);
        let mut answers = Answers::new(|peer: &PeerId| {
            anyone || rekey == Some(*peer) || expected.iter().any(|(id, _)| id == peer)
        });
        let step = opening
            .session
            .handle_with(&self.local, now, message, &mut answers);
        let other = answers.other;
        opening.forged += u32::from(costly && step.is_err());
        if let Err(refused @ (Error::WrongPeer | Error::Denied | Error::Key(_))) = &step {
            opening.refused = Some(refused.clone());
        }
        let proven = match &step {
            Ok(Step::Reply) if before == Stage::HelloSent => opening.session.peer().map(|(id, _)| id),
            _ => other,
        };
        if proven.is_some() {
            opening.found = proven;
            let events = opening.disappoint(proven, &Error::WrongPeer);
            push_events(&mut self.effects, events);
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

    /// Whether the peer's word that it has no session for a packet is a reason to begin a handshake beside the session in
    /// use. Nothing proves that word, so nothing ends by it: the packet must have been one of this side's, nothing
    /// authentic came since, and it is acted on once a second.
    ///
    /// # Errors
    /// Why it is dropped.
    pub(in super::super) fn check_hint(&self, now: Duration, counter: u32) -> Result<bool, Error> {
        let path = self.path.as_ref().ok_or(Error::Unexpected)?;
        if !path.current.has_sealed(counter) {
            return Err(Error::Unexpected);
        }
        let heard = path.current.heard_at().saturating_add(SILENCE_BEFORE_HINT);
        if now < heard || nanos(now) < self.next_hint {
            return Err(Error::RateLimited);
        }
        Ok(self.opening.is_none())
    }

    fn handle_hint(&mut self, now: Duration, counter: u32, rng: &mut dyn CryptoRng) -> Result<(), Error> {
        if !self.check_hint(now, counter)? {
            return Ok(());
        }
        self.next_hint = nanos(now.saturating_add(BETWEEN_HINTS));
        self.renew(now, rng)
    }

    /// Ends the handshake if its time is over or its last caller has left, and else sends its message if that is due.
    pub(super) fn opening_timeout(&mut self, now: Duration, rng: &mut dyn CryptoRng) {
        let Some(opening) = &mut self.opening else { return };
        let left = opening.session.stage() == Stage::HelloSent && !opening.is_wanted();
        if now < opening.deadline && !(left && now >= opening.next_send) {
            if now >= opening.next_send {
                self.send_opening(now, rng);
            }
            return;
        }
        let Some(mut opening) = self.opening.take() else {
            return;
        };
        let rekeyed = opening.rekey.is_some() || opening.session.transport().is_some();
        let error = opening.refused.take().unwrap_or(Error::TimedOut);
        let events = opening.disappoint(None, &error);
        push_events(&mut self.effects, events);
        if let Some(path) = &self.path
            && rekeyed
        {
            let quiet = now.saturating_add(self.local.config.refresh_after);
            path.current.quiet_until(quiet);
        }
        if opening.session.transport().is_some() {
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
        if opening.session.stage() == Stage::HelloSent {
            opening.found = None;
        }
        let message = packet(opening.session.message());
        self.transmit(message);
    }
}
