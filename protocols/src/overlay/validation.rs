//! Address validation: an unauthenticated source must show that it receives packets at its address.
//!
//! UDP sources can be forged, and an answer of an overlay is longer than its request. So on a swarm with
//! addresses that do not authenticate ids, a node answers the first request of an address with a token only,
//! like QUIC's Retry (RFC 9000, section 8.1). The sender repeats the request with the token in front. A
//! forged source thus gets a fraction of the bytes that were sent in its name.
//!
//! # Protocol
//! A challenge is the byte 2 and an 8-byte token; a request with a token is the challenge followed by the
//! request. Messages of engines start with their version, 1, so the two are distinct. A token is a keyed hash
//! of the address, so a node keeps no state for an address before its validation.
//!
//! # Limits
//! 1,024 validated addresses are remembered, a quarter of them for one network (see [`Prefix`]). At the limit
//! the oldest is forgotten, or the oldest of the newcomer's network if that has its quarter. A forgotten
//! address must return a token again, which costs it a round trip.

use std::collections::VecDeque;

use p2p::Addr;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::Prefix;
use crate::hash::HashSet;

/// The first byte of a challenge, and of a request with a token.
const TOKEN: u8 = 2;
/// Length of a token in bytes.
const LEN: usize = 8;
/// Maximum number of remembered addresses.
const ADDRESSES: usize = 1024;

/// Number of bytes that a token adds in front of a request.
pub const TOKEN_BYTES: usize = 1 + LEN;

/// A token with its leading type byte.
pub(crate) type Challenge = [u8; TOKEN_BYTES];

/// The set of validated addresses.
#[derive(Debug)]
pub(crate) struct AddressValidator<A> {
    is_on: bool,
    key: [u8; 32],
    validated: HashSet<A>,
    /// The same addresses, the oldest first.
    order: VecDeque<A>,
}

impl<A: Addr> AddressValidator<A> {
    /// Creates a validator without addresses, for an engine with this seed. It has no effect unless `is_on`.
    pub(crate) fn new(seed: u64, is_on: bool) -> Self {
        Self {
            is_on,
            // A separate random stream, so that the engine's jitter for a seed does not change.
            key: StdRng::seed_from_u64(!seed).random(),
            validated: HashSet::default(),
            order: VecDeque::new(),
        }
    }

    /// Returns whether an address needs validation: it can be forged, because its base address is an IP
    /// address and it authenticates no id.
    fn applies_to(&self, addr: &A) -> bool {
        self.is_on && addr.peer_id().is_none() && addr.socket_addr().is_some()
    }

    /// Copies a request if `to` may ask for a token.
    pub(crate) fn copy(&self, to: &A, request: &[u8]) -> Option<Box<[u8]>> {
        self.applies_to(to).then(|| request.into())
    }

    /// Returns the request to serve, without its token, if the source receives packets at its address.
    ///
    /// # Errors
    /// Returns the challenge to answer with, in place of serving.
    pub(crate) fn admit<'a>(&mut self, from: &A, request: &'a [u8]) -> Result<&'a [u8], Challenge> {
        if !self.applies_to(from) {
            return Ok(request);
        }
        let own = self.challenge(from);
        match request.split_first_chunk::<TOKEN_BYTES>() {
            Some((challenge, rest)) if request.first() == Some(&TOKEN) => {
                let differs = challenge
                    .iter()
                    .zip(own)
                    .fold(0, |differs, (a, b)| differs | (a ^ b));
                if differs == 0 {
                    self.validate(from);
                    return Ok(rest);
                }
            }
            _ if self.validated.contains(from) => return Ok(request),
            _ => {}
        }
        Err(own)
    }

    /// Records that an address has answered a request of this node, or asked for a token.
    pub(crate) fn validate(&mut self, addr: &A) {
        if !self.applies_to(addr) || self.validated.contains(addr) {
            return;
        }
        let prefix = Prefix::of(addr);
        let is_of_it = |other: &&A| Prefix::of(*other) == prefix;
        let of_it = self.order.iter().filter(is_of_it).count();
        let leaves = if prefix.is_some_and(|prefix| of_it >= prefix.limit(ADDRESSES / 4).min(ADDRESSES)) {
            self.order.iter().position(|other| is_of_it(&other))
        } else {
            (self.order.len() >= ADDRESSES).then_some(0)
        };
        if let Some(gone) = leaves.and_then(|at| self.order.remove(at)) {
            self.validated.remove(&gone);
        }
        self.validated.insert(addr.clone());
        self.order.push_back(addr.clone());
    }

    fn challenge(&self, addr: &A) -> Challenge {
        let text = addr.to_string();
        let mut params = blake2b_simd::Params::new();
        let hash = params.hash_length(LEN).key(&self.key).hash(text.as_bytes());
        let mut challenge = [TOKEN; TOKEN_BYTES];
        for (byte, hashed) in challenge.iter_mut().skip(1).zip(hash.as_bytes()) {
            *byte = *hashed;
        }
        challenge
    }
}

/// Returns the challenge in an answer, if the answer is one.
pub(crate) fn as_challenge(answer: &[u8]) -> Option<Challenge> {
    let challenge = Challenge::try_from(answer).ok()?;
    (challenge.first() == Some(&TOKEN)).then_some(challenge)
}

/// Returns a request with the requested token, which replaces an earlier one.
pub(crate) fn with_token(challenge: &Challenge, request: &[u8]) -> Vec<u8> {
    let bare = match request.split_first_chunk::<TOKEN_BYTES>() {
        Some(([TOKEN, ..], bare)) => bare,
        _ => request,
    };
    [&challenge[..], bare].concat()
}
