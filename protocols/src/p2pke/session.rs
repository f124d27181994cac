//! One handshake and the resulting keys.
//!
//! A session begins with the first message and lives until its keys expire. Each handshake message changes it
//! once; a repeated message gets the same answer again, which replaces a lost answer. No message is verified
//! twice.

use std::sync::Arc;
use std::time::Duration;

use p2p::{Headroom, Packet, PeerId};
use p2p_formats::x509::{PublicKey, Verifier};
use rand::CryptoRng;
use snow::HandshakeState;
use zeroize::Zeroizing;

use super::signing_digest::{self, CHANNEL_BINDING, TIMESTAMP};
use super::transport::Transport;
use super::wire::{self, INIT_DONE, INIT_HELLO, InitHello, RESP_DONE, RESP_HELLO, RespHello};
use super::{Error, Local, Tai64N, noise};
use crate::noise::{Ephemeral, aead_key};

/// Identifies a session: the BLAKE2b-256 hash of its `InitHello`. Of two hellos that cross, the lower one has
/// precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub [u8; 32]);

impl SessionId {
    /// Returns the id of the session that this `InitHello` begins.
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

/// The stage of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The initiator has sent its hello.
    HelloSent,
    /// The responder has answered a hello. The initiator has proven nothing that a replay could not.
    HelloAnswered,
    /// The initiator has verified the responder, and has sent its own proof.
    InitDoneSent,
    /// The responder has verified the initiator, and has confirmed it.
    RespDoneSent,
    /// The initiator has received the confirmation.
    RespDoneReceived,
    /// Data arrived: both sides have verified each other.
    DataReceived,
}

/// The result of a handshake message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// Send [`Session::message`].
    Reply,
    /// The session is established. Send [`Session::message`] if it is not empty.
    Established,
    /// No action is needed.
    Nothing,
}

/// The peers that may answer a hello.
pub(super) struct Answers<F> {
    welcome: F,
    /// A peer that proved its key in an answer, and is not accepted.
    pub(super) other: Option<PeerId>,
}

impl<F: Fn(&PeerId) -> bool> Answers<F> {
    pub(super) fn new(welcome: F) -> Self {
        Self { welcome, other: None }
    }
}

/// The state that only one of the two sides keeps during the handshake.
enum Pending {
    /// The initiator before the responder's hello, with the inputs for a restart: an attacker on the path can
    /// send an answer that authenticates but is invalid, and Noise cannot undo such a message.
    Noise(Box<HandshakeState>, Opened),
    /// The responder before the initiator's proof: the hash that the proof must sign, and the key.
    Binding(Box<[u8]>, Box<dyn Verifier>),
    Nothing,
}

/// The inputs of a hello.
struct Opened {
    ephemeral: Ephemeral,
    payload: Box<[u8]>,
    expected: Option<PeerId>,
}

impl Opened {
    /// Returns the state of the handshake and the hello, the same each time.
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
    /// The handshake message for retransmission.
    message: Box<[u8]>,
    /// The digest of the last accepted handshake message.
    accepted: [u8; 32],
    peer: Option<(PeerId, PublicKey)>,
    transport: Option<Arc<Transport>>,
}

impl Session {
    /// Begins a session: [`message`](Self::message) is the hello to send. Draws 32 bytes of randomness.
    ///
    /// With an `expected` peer, answers of other peers are errors, and the session keeps waiting.
    pub fn initiate(
        local: &Local,
        now: Duration,
        timestamp: Tai64N,
        expected: Option<PeerId>,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, Error> {
        let signature = signing_digest::sign(&*local.signer, TIMESTAMP, timestamp.as_bytes());
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
    /// Costs a verification, two X25519 operations and a signature, in this order. The caller must check
    /// first that the hello is new, its key is allowed, and its source is within the rate limits.
    pub fn respond(
        local: &Local,
        now: Duration,
        hello: &InitHello<'_>,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, Error> {
        let key = PublicKey::from_der(hello.key)?;
        let verifier = local.registry.verifier(&key)?;
        signing_digest::verify(&*verifier, TIMESTAMP, hello.timestamp.as_bytes(), hello.signature)?;

        let mut noise = noise::handshake(false, ephemeral(rng)).map_err(|error| internal(&error))?;
        let mut payload = vec![0; hello.packet.len()];
        noise
            .read_message(wire::body(hello.packet, INIT_HELLO)?, &mut payload)
            .map_err(|error| internal(&error))?;
        let signature = signing_digest::sign(&*local.signer, CHANNEL_BINDING, noise.get_handshake_hash());
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

    /// Processes a handshake message. A repeated message is answered again if it has an answer.
    ///
    /// # Errors
    /// The fault of the message. The session is unchanged and still accepts the correct message, with one
    /// exception: an `InitDone` that authenticates and does not prove the initiator's key
    /// [ends](Self::has_failed) the session.
    pub fn handle(&mut self, local: &Local, now: Duration, packet: &[u8]) -> Result<Step, Error> {
        let expected = match &self.pending {
            Pending::Noise(_, opened) => opened.expected,
            _ => None,
        };
        let mut answers = Answers::new(|id| expected.is_none_or(|expected| expected == *id));
        self.handle_with(local, now, packet, &mut answers)
    }

    /// Does the same, with the accepted peers in `answers`, which also records a peer that is not accepted.
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
            // Late copies of messages that were already processed.
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
        // Snow restores its state if the message does not authenticate.
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
        let signature = signing_digest::sign(&*local.signer, CHANNEL_BINDING, noise.get_handshake_hash());
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
        // Only the sender of the hello has these keys, and it sends one signature: another one is not
        // verified.
        let proof = wire::parse_init_done(&opened).and_then(|signature| {
            Ok(signing_digest::verify(
                &**verifier,
                CHANNEL_BINDING,
                binding,
                signature,
            )?)
        });
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

    /// The initiator's handshake ends with the responder's confirmation or its first data.
    fn established(&mut self) {
        self.stage = Stage::RespDoneReceived;
        self.message = Box::default();
    }

    /// Processes data that arrived before the responder's confirmation. Returns whether this completes the
    /// handshake.
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

    /// Returns the id of the session.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Returns whether this side sent the hello.
    pub fn is_initiator(&self) -> bool {
        self.initiator
    }

    /// Returns the stage of the session.
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

    /// Returns whether both sides have proven their keys, so that data can be sent.
    pub fn is_established(&self) -> bool {
        self.stage() >= Stage::RespDoneSent
    }

    /// Returns whether the initiator's proof was invalid: the session can never be established.
    pub fn has_failed(&self) -> bool {
        self.stage == Stage::HelloAnswered && matches!(self.pending, Pending::Nothing)
    }

    /// Returns the handshake message to send or retransmit; empty if there is none.
    pub fn message(&self) -> &[u8] {
        if self.stage() == Stage::DataReceived {
            &[]
        } else {
            &self.message
        }
    }

    /// Returns the time stamp of the hello.
    pub fn timestamp(&self) -> Tai64N {
        self.timestamp
    }

    /// Returns the time at which this side began the session, on the driver's clock.
    pub fn started(&self) -> Duration {
        self.started
    }

    /// Returns the last time at which the session is used.
    pub fn expires(&self, local: &Local) -> Duration {
        self.started.saturating_add(local.config.reject_after)
    }

    /// Returns the peer's id and key once it has sent them. They are proven only if the session [is
    /// established](Self::is_established), or at the stage [`InitDoneSent`](Stage::InitDoneSent).
    pub fn peer(&self) -> Option<(PeerId, &PublicKey)> {
        self.peer.as_ref().map(|(id, key)| (*id, key))
    }

    /// Returns the keys for data, once the peer has proven its key.
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

/// Returns the responder's id and key, if they are proven and accepted.
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
    signing_digest::verify(&*verifier, CHANNEL_BINDING, binding, hello.signature)?;
    if !welcome {
        answers.other = Some(peer);
        return Err(Error::WrongPeer);
    }
    Ok((peer, key))
}

fn ephemeral(rng: &mut dyn CryptoRng) -> Ephemeral {
    let mut bytes = Zeroizing::new([0; 32]);
    rng.fill_bytes(&mut *bytes);
    bytes
}

/// Encodes a handshake message: the counter, then the Noise message with the payload.
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

/// Derives the data keys of a completed handshake.
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
        _ => Err(Error::Malformed("keys that the cipher rejects")),
    }
}

/// Converts a Noise error. A message of valid form can only have an invalid ephemeral key.
fn internal(error: &snow::Error) -> Error {
    match error {
        snow::Error::Dh => Error::LowOrder,
        _ => Error::Malformed("a message that Noise rejects"),
    }
}
