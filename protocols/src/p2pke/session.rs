//! One handshake and the keys that come of it.
//!
//! A session is made by the first message and lives until its keys expire. Each handshake message affects it
//! once; the same message again gets the same answer again, which is how a lost answer is replaced. Nothing is
//! verified twice.

use std::sync::Arc;
use std::time::Duration;

use p2p::{Headroom, Packet, PeerId};
use p2p_formats::x509::{PublicKey, Verifier};
use rand::CryptoRng;
use snow::HandshakeState;
use zeroize::Zeroizing;

use super::presig::{self, CHANNEL_BINDING, TIMESTAMP};
use super::transport::{Transport, aead_key};
use super::wire::{self, INIT_DONE, INIT_HELLO, InitHello, RESP_DONE, RESP_HELLO, RespHello};
use super::{Error, Local, Tai64N, noise};

/// Names a session: the BLAKE2b-256 hash of its `InitHello`. Of two hellos that cross, the lower one stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub [u8; 32]);

impl SessionId {
    /// The name of the session that this `InitHello` begins.
    pub fn of(hello: &[u8]) -> Self {
        Self(digest(hello))
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    let hash = blake2b_simd::Params::new().hash_length(32).hash(bytes);
    let mut out = [0; 32];
    for (out, byte) in out.iter_mut().zip(hash.as_bytes()) {
        *out = *byte;
    }
    out
}

/// How far a session has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The initiator has sent its hello.
    HelloSent,
    /// The responder has answered a hello. The initiator has proven nothing that a replay would not.
    HelloAnswered,
    /// The initiator knows the responder, and has proven itself.
    InitDoneSent,
    /// The responder knows the initiator, and has said so.
    RespDoneSent,
    /// The initiator knows that it is known.
    RespDoneReceived,
    /// Data came: both know.
    DataReceived,
}

/// What a handshake message led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// Send [`Session::message`].
    Reply,
    /// The session is established. Send [`Session::message`] if there is one.
    Established,
    /// There is nothing to do.
    Nothing,
}

/// Whose answers to a hello lead to a session.
pub(super) struct Answers<F> {
    welcome: F,
    /// The peer that proved its key in an answer, and is not one of them.
    pub(super) other: Option<PeerId>,
}

impl<F: Fn(&PeerId) -> bool> Answers<F> {
    pub(super) fn new(welcome: F) -> Self {
        Self { welcome, other: None }
    }
}

/// What only one of the two sides keeps while the handshake lasts.
enum Pending {
    /// The initiator before the responder's hello, and what it takes to begin anew: Noise cannot go back behind a
    /// message that authenticates and is yet not good, and anybody on the way can send such a one.
    Noise(Box<HandshakeState>, Opened),
    /// The responder before the initiator's proof: what the proof must be of.
    Binding(Box<[u8]>, Box<dyn Verifier>),
    Nothing,
}

/// What a hello was made of.
struct Opened {
    ephemeral: noise::Ephemeral,
    payload: Box<[u8]>,
    expected: Option<PeerId>,
}

impl Opened {
    /// The handshake's state with the hello, the same each time.
    fn noise(&self) -> Result<(Box<HandshakeState>, Box<[u8]>), Error> {
        let mut noise = noise::handshake(true, self.ephemeral.clone()).map_err(|error| internal(&error))?;
        let message = write(&mut noise, INIT_HELLO, &self.payload)?;
        Ok((noise, message))
    }
}

/// One session, as initiator or as responder.
pub struct Session {
    id: SessionId,
    initiator: bool,
    started: Duration,
    timestamp: Tai64N,
    stage: Stage,
    pending: Pending,
    /// The handshake message to repeat.
    message: Box<[u8]>,
    /// The digest of the last handshake message that was accepted.
    accepted: [u8; 32],
    peer: Option<(PeerId, PublicKey)>,
    transport: Option<Arc<Transport>>,
}

impl Session {
    /// Begins a session: [`message`](Self::message) is the hello to send. Draws 32 bytes of randomness.
    ///
    /// If somebody is `expected`, answers of others are errors, and the session goes on waiting.
    pub fn initiate(
        local: &Local,
        now: Duration,
        timestamp: Tai64N,
        expected: Option<PeerId>,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, Error> {
        let signature = presig::sign(&*local.signer, TIMESTAMP, timestamp.as_bytes());
        let key = local.public_key().as_der();
        let opened = Opened {
            ephemeral: ephemeral(rng),
            payload: InitHello::payload(timestamp, key, &signature).into(),
            expected,
        };
        let (noise, message) = opened.noise()?;
        Ok(Self {
            id: SessionId::of(&message),
            initiator: true,
            started: now,
            timestamp,
            stage: Stage::HelloSent,
            pending: Pending::Noise(noise, opened),
            message,
            accepted: [0; 32],
            peer: None,
            transport: None,
        })
    }

    /// Answers a hello: [`message`](Self::message) is the answer. Draws 32 bytes of randomness.
    ///
    /// Costs a verification, two X25519 operations and a signature, in this order. Whether the hello is worth it
    /// (it is new, its key welcome, its sender not too eager) is for the caller to see first.
    pub fn respond(
        local: &Local,
        now: Duration,
        hello: &InitHello<'_>,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, Error> {
        let key = PublicKey::from_der(hello.key)?;
        let verifier = local.registry.verifier(&key)?;
        presig::verify(&*verifier, TIMESTAMP, hello.timestamp.as_bytes(), hello.signature)?;

        let mut noise = noise::handshake(false, ephemeral(rng)).map_err(|error| internal(&error))?;
        let mut payload = vec![0; hello.packet.len()];
        noise
            .read_message(wire::body(hello.packet, INIT_HELLO)?, &mut payload)
            .map_err(|error| internal(&error))?;
        let signature = presig::sign(&*local.signer, CHANNEL_BINDING, noise.get_handshake_hash());
        let payload = RespHello::payload(local.public_key().as_der(), &signature);
        let message = write(&mut noise, RESP_HELLO, &payload)?;
        let binding = noise.get_handshake_hash().into();
        let accepted = digest(hello.packet);
        Ok(Self {
            id: SessionId(accepted),
            initiator: false,
            started: now,
            timestamp: hello.timestamp,
            stage: Stage::HelloAnswered,
            pending: Pending::Binding(binding, verifier),
            message,
            accepted,
            peer: Some(((local.fingerprint)(&key), key)),
            transport: Some(Arc::new(split(local, now, &mut noise, false)?)),
        })
    }

    /// Takes a handshake message. A message that changes nothing and has an answer gets it again.
    ///
    /// # Errors
    /// What is wrong with the message. The session is as it was, and the right message still works; except that an
    /// `InitDone` that authenticates and does not prove the initiator's key [ends](Self::has_failed) the session.
    pub fn handle(&mut self, local: &Local, now: Duration, packet: &[u8]) -> Result<Step, Error> {
        let expected = match &self.pending {
            Pending::Noise(_, opened) => opened.expected,
            _ => None,
        };
        let mut answers = Answers::new(|id| expected.is_none_or(|expected| expected == *id));
        self.handle_with(local, now, packet, &mut answers)
    }

    /// The same, where `answers` says whose answers are welcome, and learns who gave another one.
    pub(super) fn handle_with(
        &mut self,
        local: &Local,
        now: Duration,
        packet: &[u8],
        answers: &mut Answers<impl Fn(&PeerId) -> bool>,
    ) -> Result<Step, Error> {
        if now > self.expires(local) {
            return Err(Error::Expired);
        }
        if packet.len() < wire::HEADER {
            return Err(Error::Malformed("shorter than a counter"));
        }
        let (repeated, may_repeat) = match self.stage() {
            Stage::HelloAnswered | Stage::InitDoneSent | Stage::RespDoneSent => {
                (digest(packet) == self.accepted, true)
            }
            Stage::HelloSent => (false, false),
            Stage::RespDoneReceived | Stage::DataReceived => (false, true),
        };
        if repeated {
            return Ok(Step::Reply);
        }
        match (wire::counter(packet), self.stage()) {
            (Some(RESP_HELLO), Stage::HelloSent) if self.initiator => {
                self.handle_resp_hello(local, packet, answers)
            }
            (Some(INIT_DONE), Stage::HelloAnswered) => self.handle_init_done(now, packet),
            (Some(RESP_DONE), Stage::InitDoneSent) => self.handle_resp_done(now, packet),
            // Late copies of what this side has acted on already.
            (Some(INIT_HELLO | INIT_DONE), _) if !self.initiator && may_repeat => Ok(Step::Nothing),
            (Some(RESP_HELLO | RESP_DONE), _) if self.initiator && may_repeat => Ok(Step::Nothing),
            _ => Err(Error::Unexpected),
        }
    }

    fn handle_resp_hello(
        &mut self,
        local: &Local,
        packet: &[u8],
        answers: &mut Answers<impl Fn(&PeerId) -> bool>,
    ) -> Result<Step, Error> {
        let Pending::Noise(noise, opened) = &mut self.pending else {
            return Err(Error::Unexpected);
        };
        let body = wire::body(packet, RESP_HELLO)?;
        let binding: Box<[u8]> = noise.get_handshake_hash().into();
        let mut payload = vec![0; body.len()];
        // Snow takes the state back by itself if the message does not authenticate.
        let len = noise
            .read_message(body, &mut payload)
            .map_err(|error| match error {
                snow::Error::Dh => Error::LowOrder,
                _ => Error::Unauthenticated,
            })?;
        let payload = payload.get(..len).unwrap_or_default();
        let checked = check_resp_hello(local, &binding, payload, answers);
        let (peer, key) = match checked {
            Ok(peer) => peer,
            Err(error) => {
                (*noise, _) = opened.noise()?;
                return Err(error);
            }
        };
        let signature = presig::sign(&*local.signer, CHANNEL_BINDING, noise.get_handshake_hash());
        let transport = split(local, self.started, noise, true)?;
        let room = Headroom::new(wire::HEADER, wire::TAG);
        let mut done = Packet::new(room, &wire::init_done(&signature));
        transport.seal_at(INIT_DONE, &mut done)?;

        self.message = done.as_ref().into();
        self.accepted = digest(packet);
        self.peer = Some((peer, key));
        self.transport = Some(Arc::new(transport));
        self.pending = Pending::Nothing;
        self.stage = Stage::InitDoneSent;
        Ok(Step::Reply)
    }

    fn handle_init_done(&mut self, now: Duration, packet: &[u8]) -> Result<Step, Error> {
        let (Pending::Binding(binding, verifier), Some(transport)) = (&self.pending, &self.transport) else {
            return Err(Error::Unexpected);
        };
        wire::body(packet, INIT_DONE)?;
        let mut opened = Packet::from(packet);
        transport.open_at(INIT_DONE, &mut opened)?;
        // Only the maker of the hello has the keys, and it says this once: a second signature is not looked at.
        let proof = wire::parse_init_done(&opened)
            .and_then(|signature| Ok(presig::verify(&**verifier, CHANNEL_BINDING, binding, signature)?));
        if let Err(error) = proof {
            self.pending = Pending::Nothing;
            return Err(error);
        }

        let mut done = Packet::with_capacity(Headroom::new(wire::HEADER, wire::TAG), 0);
        transport.seal_at(RESP_DONE, &mut done)?;
        transport.hear(now);
        self.message = done.as_ref().into();
        self.accepted = digest(packet);
        self.pending = Pending::Nothing;
        self.stage = Stage::RespDoneSent;
        Ok(Step::Established)
    }

    fn handle_resp_done(&mut self, now: Duration, packet: &[u8]) -> Result<Step, Error> {
        let transport = self.transport.as_ref().ok_or(Error::Unexpected)?;
        wire::body(packet, RESP_DONE)?;
        transport.open_at(RESP_DONE, &mut Packet::from(packet))?;
        transport.hear(now);
        self.established();
        Ok(Step::Established)
    }

    /// The initiator's handshake ends with the responder's word or with its first data, whichever comes first.
    fn established(&mut self) {
        self.stage = Stage::RespDoneReceived;
        self.message = Box::default();
    }

    /// Data came under this initiator's keys before the responder's word did. Says whether that ends a handshake.
    pub(super) fn confirm_by_data(&mut self) -> bool {
        let confirmed = self.stage == Stage::InitDoneSent
            && self
                .transport
                .as_ref()
                .is_some_and(|transport| transport.heard_data());
        if confirmed {
            self.established();
        }
        confirmed
    }

    /// The session's name.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Whether this side sent the hello.
    pub fn is_initiator(&self) -> bool {
        self.initiator
    }

    /// How far the session has come.
    pub fn stage(&self) -> Stage {
        let heard_data = self
            .transport
            .as_ref()
            .is_some_and(|transport| transport.heard_data());
        match self.stage {
            Stage::RespDoneSent | Stage::RespDoneReceived | Stage::InitDoneSent if heard_data => {
                Stage::DataReceived
            }
            stage => stage,
        }
    }

    /// Whether both sides have proven their keys, so that data may flow.
    pub fn is_established(&self) -> bool {
        self.stage() >= Stage::RespDoneSent
    }

    /// Whether the initiator had its chance to prove its key, and did not: the session never will be established.
    pub fn has_failed(&self) -> bool {
        self.stage == Stage::HelloAnswered && matches!(self.pending, Pending::Nothing)
    }

    /// The handshake message to send, also again; empty if this side has no more to say.
    pub fn message(&self) -> &[u8] {
        if self.stage() == Stage::DataReceived {
            &[]
        } else {
            &self.message
        }
    }

    /// When the hello says that it was made.
    pub fn timestamp(&self) -> Tai64N {
        self.timestamp
    }

    /// When this side began the session, on the driver's clock.
    pub fn started(&self) -> Duration {
        self.started
    }

    /// The last moment at which the session is used.
    pub fn expires(&self, local: &Local) -> Duration {
        self.started.saturating_add(local.config.reject_after)
    }

    /// The peer's id and key as soon as it says them. Proven only once the session
    /// [is established](Self::is_established), or by the stage [`InitDoneSent`](Stage::InitDoneSent).
    pub fn peer(&self) -> Option<(PeerId, &PublicKey)> {
        self.peer.as_ref().map(|(id, key)| (*id, key))
    }

    /// The keys for data, if data may come: from the moment on that the peer has proven its own.
    pub fn transport(&self) -> Option<&Arc<Transport>> {
        self.transport
            .as_ref()
            .filter(|_| self.stage >= Stage::InitDoneSent)
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("initiator", &self.initiator)
            .field("stage", &self.stage())
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// Who the responder is, if that is proven and welcome.
fn check_resp_hello(
    local: &Local,
    binding: &[u8],
    payload: &[u8],
    answers: &mut Answers<impl Fn(&PeerId) -> bool>,
) -> Result<(PeerId, PublicKey), Error> {
    let hello = RespHello::parse(payload)?;
    let key = PublicKey::from_der(hello.key)?;
    let peer = (local.fingerprint)(&key);
    let welcome = (answers.welcome)(&peer);
    if welcome && !local.allows(&peer) {
        return Err(Error::Denied);
    }
    let verifier = local.registry.verifier(&key)?;
    presig::verify(&*verifier, CHANNEL_BINDING, binding, hello.signature)?;
    if !welcome {
        answers.other = Some(peer);
        return Err(Error::WrongPeer);
    }
    Ok((peer, key))
}

fn ephemeral(rng: &mut dyn CryptoRng) -> noise::Ephemeral {
    let mut bytes = Zeroizing::new([0; 32]);
    rng.fill_bytes(&mut *bytes);
    bytes
}

/// Writes a handshake message: the counter, then what Noise makes of the payload.
fn write(noise: &mut HandshakeState, counter: u32, payload: &[u8]) -> Result<Box<[u8]>, Error> {
    let mut message = vec![0; wire::HEADER + 32 + payload.len() + wire::TAG];
    let (header, body) = message.split_at_mut(wire::HEADER);
    header.copy_from_slice(&counter.to_be_bytes());
    let len = noise
        .write_message(payload, body)
        .map_err(|error| internal(&error))?;
    message.truncate(wire::HEADER + len);
    Ok(message.into())
}

/// The keys that come of a finished handshake.
fn split(
    local: &Local,
    started: Duration,
    noise: &mut HandshakeState,
    initiator: bool,
) -> Result<Transport, Error> {
    let (first, second) = noise.dangerously_get_raw_split();
    let (first, second) = (Zeroizing::new(first), Zeroizing::new(second));
    let (seal, open) = if initiator {
        (first, second)
    } else {
        (second, first)
    };
    match (aead_key(&seal), aead_key(&open)) {
        (Some(seal), Some(open)) => Ok(Transport::new(&local.config, started, initiator, seal, open)),
        _ => Err(Error::Malformed("keys that the cipher does not take")),
    }
}

/// The only error that Noise has for a message whose form was checked: its ephemeral key.
fn internal(error: &snow::Error) -> Error {
    match error {
        snow::Error::Dh => Error::LowOrder,
        _ => Error::Malformed("a message that Noise does not take"),
    }
}
