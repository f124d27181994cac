//! The responder side of a channel: checks hellos, answers them, and verifies the proofs of their initiators.

use std::time::Duration;

use p2p_formats::x509::PublicKey;
use rand::CryptoRng;

use super::super::Error;
use super::super::session::{Session, SessionId, Stage, Step};
use super::super::wire::InitHello;
use super::{Channel, packet};

/// The result of [`Channel::check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hello {
    /// The hello is known, and its answer, if any, is sent again.
    Known,
    /// The hello needs verification by [`Channel::answer`].
    New,
}

impl Channel {
    /// Checks a hello without a public-key operation: whether it is known, new, or to be dropped.
    ///
    /// # Errors
    /// [`Stale`](Error::Stale), [`Denied`](Error::Denied), [`WrongPeer`](Error::WrongPeer),
    /// [`Superseded`](Error::Superseded), or the key's error.
    pub fn check(&mut self, now: Duration, hello: &InitHello<'_>) -> Result<Hello, Error> {
        let id = SessionId::of(hello.packet);
        if let Some(session) = self.answering.iter().find(|session| session.id() == id) {
            let message = packet(session.message());
            self.transmit(message);
            return Ok(Hello::Known);
        }
        if self.live.as_ref().is_some_and(|live| live.id() == id) {
            return Ok(Hello::Known);
        }
        let key = PublicKey::from_der(hello.key)?;
        if self
            .last_hello
            .as_ref()
            .is_some_and(|(last, at)| *last == key && *at >= hello.timestamp)
        {
            return Err(Error::Stale);
        }
        let peer = (self.local.fingerprint)(&key);
        if !self.local.allows(&peer) {
            return Err(Error::Denied);
        }
        // The key is pinned while its owner sends authentic packets; another key can take the address only
        // after a silence.
        if let Some(path) = &self.path
            && path.peer != peer
            && !path.current.is_silent(now)
        {
            return Err(Error::WrongPeer);
        }
        if let Some(opening) = &mut self.opening
            && opening.session.stage() == Stage::HelloSent
            && opening.is_wanted()
            && opening.expects(&peer)
            && opening.session.id() <= id
        {
            if opening.session.id() != id && !std::mem::replace(&mut opening.repeated, true) {
                let message = packet(opening.session.message());
                self.transmit(message);
            }
            return Err(Error::Superseded);
        }
        Ok(Hello::New)
    }

    /// Verifies a hello that [`check`](Self::check) reported as new, and answers it.
    pub fn answer(
        &mut self,
        now: Duration,
        hello: &InitHello<'_>,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), Error> {
        let session = Session::respond(&self.local, now, hello, rng)?;
        // The other side's hello has precedence, so this side delays its own.
        if let Some(opening) = &mut self.opening
            && opening.session.stage() == Stage::HelloSent
            && session.peer().is_some_and(|(id, _)| opening.expects(&id))
        {
            opening.next_send = opening
                .next_send
                .max(now.saturating_add(self.local.config.retry_max));
        }
        self.transmit(packet(session.message()));
        self.answering.push_back(session);
        if self.answering.len() > self.local.config.half_open_per_channel {
            self.answering.pop_front();
        }
        Ok(())
    }

    /// Processes an initiator's proof: for an answered hello, or a late copy for the current session.
    pub(super) fn handle_init_done(&mut self, now: Duration, message: &[u8]) -> Result<(), Error> {
        let mut error = Error::Unexpected;
        for index in (0..self.answering.len()).rev() {
            let Some(session) = self.answering.get_mut(index) else {
                break;
            };
            match session.handle(&self.local, now, message) {
                Ok(Step::Established) => {
                    let Some(session) = self.answering.remove(index) else {
                        break;
                    };
                    self.transmit(packet(session.message()));
                    self.promote(session);
                    return Ok(());
                }
                Ok(_) => return Ok(()),
                Err(other) => {
                    error = other;
                    if session.has_failed() {
                        self.answering.remove(index);
                        self.answering.shrink_to_fit();
                        return Err(error);
                    }
                }
            }
        }
        let Some(live) = self.live.as_mut().filter(|live| !live.is_initiator()) else {
            return Err(error);
        };
        if live.handle(&self.local, now, message)? == Step::Reply {
            let message = packet(live.message());
            self.transmit(message);
        }
        Ok(())
    }
}
