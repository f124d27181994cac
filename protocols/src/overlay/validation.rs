//! Address validation: a source that proves no id first shows that it receives what is sent to its address.
//!
//! UDP sources can be forged, and an answer of an overlay is longer than its request. On a swarm whose addresses prove no ids a
//! node therefore answers the first request of an address by a token alone, as QUIC does by Retry (RFC 9000, section 8.1). The
//! asker sends the request again with the token in front. What is sent to a forged source is thus a fraction of what came.
//!
//! # Protocol
//! The challenge is the byte 2 and 8 bytes of token; a request with a token is the challenge with the request behind it. Messages
//! of engines begin with their version, 1, so the two cannot be confused. A token is a keyed hash of the address, so a node keeps
//! nothing for an address before it has shown that it receives.
//!
//! # Limits
//! 1,024 validated addresses are remembered, a quarter of them for one network (see [`Prefix`]). At the limit the oldest leaves,
//! of the newcomer's network if that has its part. It is asked for the token once more, which costs it a round trip.

use std::collections::VecDeque;

use p2p::Addr;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::Prefix;
use crate::hash::HashSet;

/// The first byte of a challenge, and of a request with a token.
const TOKEN: u8 = 2;
/// Bytes of a token.
const LEN: usize = 8;
/// Addresses that are remembered.
const ADDRESSES: usize = 1024;

/// Bytes that a token adds in front of a request.
pub const TOKEN_BYTES: usize = 1 + LEN;

/// A token with the byte in front that says what it is.
pub(crate) type Challenge = [u8; TOKEN_BYTES];

/// Which addresses are validated.
#[derive(Debug)]
pub(crate) struct AddressValidator<A> {
    is_on: bool,
    key: [u8; 32],
    validated: HashSet<A>,
    /// The same, the oldest first.
    order: VecDeque<A>,
}

/// What is to be done with a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission<'a> {
    /// Serve this request: the source receives what is sent to it.
    Serve(&'a [u8]),
    /// Answer this and nothing else.
    Challenge(Challenge),
}

impl<A: Addr> AddressValidator<A> {
    /// A validator without addresses, for an engine that is seeded by `seed`; does nothing unless it `is_on`.
    pub(crate) fn new(seed: u64, is_on: bool) -> Self {
        Self {
            is_on,
            // Not from the randomness that decides jitter, so that what a seed leads to stays the same.
            key: StdRng::seed_from_u64(!seed).random(),
            validated: HashSet::default(),
            order: VecDeque::new(),
        }
    }

    /// Whether an address must be validated: it can be forged, as it has an IP address at its bottom and proves no id.
    fn applies_to(&self, addr: &A) -> bool {
        self.is_on && addr.peer_id().is_none() && addr.socket_addr().is_some()
    }

    /// The copy of a request that is kept in case that `to` asks for a token.
    pub(crate) fn copy(&self, to: &A, request: &[u8]) -> Option<Box<[u8]>> {
        self.applies_to(to).then(|| request.into())
    }

    /// Decides on a request.
    pub(crate) fn admit<'a>(&mut self, from: &A, request: &'a [u8]) -> Admission<'a> {
        if !self.applies_to(from) {
            return Admission::Serve(request);
        }
        let own = self.challenge(from);
        match request.split_first_chunk::<TOKEN_BYTES>() {
            Some((challenge, rest)) if request.first() == Some(&TOKEN) => {
                let differs = challenge
                    .iter()
                    .zip(own)
                    .fold(0, |differs, (a, b)| differs | (a ^ b));
                if differs != 0 {
                    return Admission::Challenge(own);
                }
                self.validate(from);
                Admission::Serve(rest)
            }
            _ if self.validated.contains(from) => Admission::Serve(request),
            _ => Admission::Challenge(own),
        }
    }

    /// Notes that an address has answered a request of this node.
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

/// The challenge that an answer is, if it is one.
pub(crate) fn as_challenge(answer: &[u8]) -> Option<Challenge> {
    let challenge = Challenge::try_from(answer).ok()?;
    (challenge.first() == Some(&TOKEN)).then_some(challenge)
}

/// A request with the token that was asked for, in place of one that it has.
pub(crate) fn with_token(challenge: &Challenge, request: &[u8]) -> Vec<u8> {
    let bare = match request.split_first_chunk::<TOKEN_BYTES>() {
        Some(([TOKEN, ..], bare)) => bare,
        _ => request,
    };
    [&challenge[..], bare].concat()
}
