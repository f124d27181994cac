//! The toy's cryptography: a handshake of three Diffie-Hellman agreements, and sealed packets with counters.
//!
//! The primitives are real, the way they are put together is this file's own. It has no identity hiding,
//! no cookies and no proofs. It is here to be broken in known ways, and must not be used for anything else.

use std::collections::{BTreeSet, HashMap};

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::digest::{SHA256, digest};
use p2p::PeerId;

/// Bytes behind what is sealed.
pub(crate) const TAG: usize = 16;

/// Counters that are told apart behind the newest.
pub(crate) const SPAN: u64 = 1024;

/// The counter under which the responder proves that it has the keys.
pub(crate) const PROOF: u64 = u64::MAX;

pub(crate) type Public = [u8; 32];

pub(crate) fn id_of(key: &Public) -> PeerId {
    PeerId::new(hash(&[b"id", key]))
}

pub(crate) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let digest = digest(&SHA256, &parts.concat());
    *digest.as_ref().first_chunk().expect("32 bytes")
}

/// A key pair.
pub(crate) struct Pair {
    private: PrivateKey,
    pub(crate) public: Public,
}

impl Pair {
    pub(crate) fn new() -> Self {
        Self::of(PrivateKey::generate(&X25519).expect("randomness"))
    }

    /// The pair that follows from these bytes.
    pub(crate) fn from_seed(seed: &[u8; 32]) -> Self {
        Self::of(PrivateKey::from_private_key(&X25519, seed).expect("32 bytes"))
    }

    fn of(private: PrivateKey) -> Self {
        let public = private.compute_public_key().expect("a key");
        let public = *public.as_ref().first_chunk().expect("32 bytes");
        Self { private, public }
    }

    /// `None` for a key that is none.
    fn agree(&self, other: &Public) -> Option<[u8; 32]> {
        let other = UnparsedPublicKey::new(&X25519, other);
        agree(&self.private, other, (), |shared| Ok(hash(&[shared]))).ok()
    }
}

/// What both sides of a handshake have said.
pub(crate) struct Transcript<'a> {
    pub(crate) hello: &'a [u8],
    pub(crate) answer: &'a [u8],
}

/// The keys of a session: one for each direction.
pub(crate) fn keys(
    own: (&Pair, &Pair),
    other: (&Public, &Public),
    initiator: bool,
    said: &Transcript<'_>,
) -> Option<[AeadKey; 2]> {
    let (long_own, short_own) = own;
    let (long_other, short_other) = other;
    let both = short_own.agree(short_other)?;
    let (one, two) = (long_own.agree(short_other)?, short_own.agree(long_other)?);
    let (by_initiator, by_responder) = if initiator { (one, two) } else { (two, one) };
    let shared = hash(&[&both, &by_initiator, &by_responder, said.hello, said.answer]);
    let [to_responder, to_initiator] = [b"1", b"2"].map(|way| AeadKey::new(hash(&[way, &shared])));
    Some(if initiator {
        [to_responder, to_initiator]
    } else {
        [to_initiator, to_responder]
    })
}

/// One direction's key.
#[derive(Clone)]
pub(crate) struct AeadKey([u8; 32]);

impl AeadKey {
    pub(crate) fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A key that follows from two, in either order.
    pub(crate) fn of_both(one: &Self, other: &Self) -> Self {
        let (first, second) = (one.0.min(other.0), one.0.max(other.0));
        Self(hash(&[b"both", &first, &second]))
    }

    fn key(&self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &self.0).expect("32 bytes"))
    }

    fn nonce(counter: u64) -> Nonce {
        let mut bytes = [0; 12];
        bytes[4..].copy_from_slice(&counter.to_be_bytes());
        Nonce::assume_unique_for_key(bytes)
    }

    pub(crate) fn seal(&self, counter: u64, header: &[u8], text: &[u8]) -> Vec<u8> {
        let mut sealed = text.to_vec();
        let sealing =
            self.key()
                .seal_in_place_append_tag(Self::nonce(counter), Aad::from(header), &mut sealed);
        sealing.expect("less than the cipher's limit");
        sealed
    }

    pub(crate) fn open(&self, counter: u64, header: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let mut text = sealed.to_vec();
        let opening = self
            .key()
            .open_in_place(Self::nonce(counter), Aad::from(header), &mut text);
        let len = opening.ok()?.len();
        text.truncate(len);
        Some(text)
    }

    /// `text` added to the stream of key that belongs to this counter, for faults.
    pub(crate) fn stream(&self, counter: u64, text: &[u8]) -> Vec<u8> {
        let stream = Self(hash(&[b"stream", &self.0])).seal(counter, b"", &vec![0; text.len()]);
        text.iter().zip(stream).map(|(text, key)| text ^ key).collect()
    }
}

/// Which counters were seen.
#[derive(Default)]
pub(crate) struct Window {
    seen: BTreeSet<u64>,
    newest: u64,
}

impl Window {
    /// Whether a packet with this counter is too old to be told from one that was seen.
    pub(crate) fn is_past(&self, counter: u64) -> bool {
        counter.saturating_add(SPAN) <= self.newest
    }

    pub(crate) fn is_new(&self, counter: u64) -> bool {
        !self.is_past(counter) && !self.seen.contains(&counter)
    }

    pub(crate) fn add(&mut self, counter: u64) {
        self.newest = self.newest.max(counter);
        self.seen.insert(counter);
        self.seen = self.seen.split_off(&(self.newest + 1).saturating_sub(SPAN));
    }
}

/// A session with one peer.
pub(crate) struct Session {
    pub(crate) peer: Name,
    pub(crate) peer_key: Public,
    /// How the peer calls this session.
    pub(crate) theirs: u64,
    pub(crate) seal: AeadKey,
    pub(crate) open: AeadKey,
    pub(crate) next: u64,
    pub(crate) window: Window,
    /// Whether the peer has shown that it has the keys.
    pub(crate) confirmed: bool,
    /// Packets that were refused, for faults.
    pub(crate) refused: usize,
    /// Nothing comes through any more, by a fault.
    pub(crate) dead: bool,
}

/// Sessions by the number that this node calls them, the oldest first out.
#[derive(Default)]
pub(crate) struct Sessions {
    by_number: HashMap<u64, Session>,
    /// Numbers of those that are not confirmed and of those that are, in order.
    order: [Vec<u64>; 2],
}

impl Sessions {
    const MOST: [usize; 2] = [64, 256];

    pub(crate) fn get(&mut self, number: u64) -> Option<&mut Session> {
        self.by_number.get_mut(&number)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Session> {
        self.by_number.values()
    }

    pub(crate) fn insert(&mut self, number: u64, session: Session) {
        let kind = usize::from(session.confirmed);
        self.by_number.insert(number, session);
        self.enqueue(kind, number);
    }

    pub(crate) fn confirm(&mut self, number: u64) {
        if let Some(session) = self.by_number.get_mut(&number) {
            session.confirmed = true;
            self.order[0].retain(|other| *other != number);
            self.enqueue(1, number);
        }
    }

    fn enqueue(&mut self, kind: usize, number: u64) {
        let order = &mut self.order[kind];
        order.push(number);
        if order.len() > Self::MOST[kind] {
            self.by_number.remove(&order.remove(0));
        }
    }
}

/// An identity at a port of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name {
    pub(crate) id: PeerId,
    pub(crate) at: p2p_swarmtest::wire::Port,
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.id, self.at)
    }
}

impl p2p::Addr for Name {
    fn peer_id(&self) -> Option<PeerId> {
        Some(self.id)
    }
}
