//! The initiator side of a channel: one hello for each address, shared by any number of callers, each with
//! its expected peer.
//!
//! A hello does not name its recipient, so callers that expect different peers at one address share it. The
//! identity in the answer resolves them: callers that expect that peer get the session, the others learn at
//! once which peer answered. The handshake ends with its last caller; a hello in flight can still be answered
//! until its retransmission would be due.

use std::time::Duration;

use p2p::PeerId;
use rand::CryptoRng;

use super::super::session::{Answers, Session, Stage, Step};
use super::super::transport::nanos;
use super::super::{Error, Tai64N, wire};
use super::{Channel, Event, LONGEST_WAIT, SHORTEST_WAIT, TICK, packet, push_events};

/// Maximum number of invalid answers to one transmission of a hello; further ones are dropped until the next
/// transmission. Each costs an X25519 operation, and anyone can send them. Answers that cost none are not
/// counted.
const FORGED_ANSWERS: u32 = 32;

/// Maximum number of expected peers that one hello stores. Callers with other expected peers are told which
/// identity answers, and connect again if it is theirs.
const EXPECTED: usize = 8;

/// Minimum interval between two no-session notices that are processed, and minimum silence before one.
const BETWEEN_HINTS: Duration = Duration::from_secs(1);
const SILENCE_BEFORE_HINT: Duration = Duration::from_millis(100);

/// A handshake that this side began.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) session: Session,
    /// The peers that callers expect, and whether a caller still waits for each.
    expected: Vec<(PeerId, bool)>,
    /// Whether callers wait that accept any peer.
    anyone: bool,
    /// Whether callers wait that expect a peer beyond those in `expected`.
    crowded: bool,
    /// The peer of the current session, if this handshake is a rekey.
    rekey: Option<PeerId>,
    deadline: Duration,
    pub(super) next_send: Duration,
    wait: Duration,
    /// Whether the hello was sent again since the last regular transmission, because a hello of the peer
    /// crossed it.
    pub(super) repeated: bool,
    /// Number of invalid answers since the last regular transmission.
    forged: u32,
    /// The peer that proved its key in the last answer.
    found: Option<PeerId>,
    /// The fault of a valid answer from a peer that is not expected or not allowed.
    refused: Option<Error>,
}

impl Opening {
    /// Returns whether a caller or the current session still needs this handshake.
    pub(super) fn is_wanted(&self) -> bool {
        self.anyone || self.crowded || self.rekey.is_some() || self.expected.iter().any(|(_, waits)| *waits)
    }

    /// Returns whether an answer of this peer leads to a session.
    pub(super) fn expects(&self, peer: &PeerId) -> bool {
        self.anyone || self.rekey == Some(*peer) || self.expected.iter().any(|(id, _)| id == peer)
    }

    /// Records a caller and its expected peer.
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
            // Peers without a waiting caller make room.
            self.expected.retain(|(_, waits)| *waits);
        }
        if self.expected.len() < EXPECTED {
            self.expected.push((expected, true));
        } else {
            self.crowded = true;
        }
    }

    /// Removes the expectations that a session with this peer fulfils.
    pub(super) fn resolve(&mut self, peer: PeerId) {
        self.anyone = false;
        self.rekey.take_if(|rekey| *rekey == peer);
        self.expected.retain(|(id, _)| *id != peer);
    }

    /// Removes the expectations that this identity does not fulfil (all of them, if `None`). Returns their
    /// events.
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

    /// Returns the time at which [`Channel::handle_timeout`] is due for this handshake.
    pub(super) fn timeout(&self) -> Duration {
        self.next_send.min(self.deadline)
    }
}

impl Channel {
    /// Joins the handshake in progress, or begins one.
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
                // The hello can be used for as long as its keys last.
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
                path.current.suppress_rekey_until(Duration::MAX);
            }
        } else {
            opening.join(expected);
        }
        let again = match (opening.found, expected) {
            // The answer to this hello is already known; if it is acceptable now, it is requested again.
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

    /// Creates a hello without sending it.
    fn begin(&mut self, now: Duration, rng: &mut dyn CryptoRng) -> Result<Opening, Error> {
        // Time stamps of one channel increase even if the clock does not.
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

    /// Records that no caller waits for `expected` at this address, or for any peer, if `None`. A hello
    /// without a waiting caller is not retransmitted. A handshake in which the peer has proven its key
    /// continues, because the peer may be using the session.
    pub fn release(&mut self, expected: Option<PeerId>) {
        let Some(opening) = &mut self.opening else { return };
        for (id, waits) in &mut opening.expected {
            *waits &= expected.is_some_and(|expected| *id != expected);
        }
        if expected.is_none() {
            (opening.anyone, opening.crowded) = (false, false);
        }
    }

    /// Processes a responder's message: for this side's handshake, or a late copy for the current session.
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
                // Progress: the next message gets a full timeout.
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

    /// Returns whether a no-session notice of the peer should start a handshake beside the current session.
    /// The notice is not authenticated, so it ends nothing: it must name a packet of this side, nothing
    /// authentic may have arrived since, and it is processed at most once a second.
    ///
    /// # Errors
    /// The reason for dropping the notice.
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
        self.rekey(now, rng)
    }

    /// Ends the handshake if it has timed out or its last caller has left; otherwise retransmits its message
    /// if that is due.
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
            let quiet = now.saturating_add(self.local.config.rekey_after_silence);
            path.current.suppress_rekey_until(quiet);
        }
        if opening.session.transport().is_some() {
            self.change_path();
        }
    }

    /// Sends the message of the handshake, and schedules its retransmission.
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
