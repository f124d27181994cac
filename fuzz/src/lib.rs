//! Long sequences of steps from few bytes: first the steps that the fuzzer wrote, then steps drawn from a
//! generator that they seed.
//!
//! The fuzzer starts with short inputs, which alone would hardly get two nodes past their handshake.
#![forbid(unsafe_code)]

pub mod requests;

use std::hash::{DefaultHasher, Hasher as _};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use libfuzzer_sys::arbitrary::{Arbitrary, Result, Unstructured};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are drawn for each unit of the first byte of an input: up to some hundred steps.
const DRAWN: usize = 4;

/// Steps to take one after another, and a seed for other random choices.
#[derive(Debug)]
pub struct Steps<T> {
    /// Derived from the whole input.
    pub seed: u64,
    /// The steps.
    pub steps: Vec<T>,
}

impl<'a, T: for<'b> Arbitrary<'b>> Arbitrary<'a> for Steps<T> {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        let len = input.len();
        Ok(Self::read(input.bytes(len)?))
    }

    fn arbitrary_take_rest(input: Unstructured<'a>) -> Result<Self> {
        Ok(Self::read(input.take_rest()))
    }
}

impl<T: for<'b> Arbitrary<'b>> Steps<T> {
    fn read(input: &[u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(input);
        let seed = hasher.finish();
        let (drawn, written) = input
            .split_first()
            .map_or((0, input), |(first, rest)| (*first, rest));
        let mut bytes = written.to_vec();
        bytes.resize(written.len() + usize::from(drawn) * DRAWN, 0);
        StdRng::seed_from_u64(seed).fill_bytes(&mut bytes[written.len()..]);
        let mut bytes = Unstructured::new(&bytes);
        let mut steps = Vec::new();
        while !bytes.is_empty()
            && let Ok(step) = bytes.arbitrary()
        {
            steps.push(step);
        }
        Self { seed, steps }
    }
}

/// A byte stream whose peer has sent everything: it reads these bytes in pieces, then the end, and takes every write.
#[derive(Debug)]
pub struct Script {
    bytes: Vec<u8>,
    at: usize,
    piece: usize,
    /// What was written.
    pub written: Vec<u8>,
}

impl Script {
    /// Creates a stream that reads `bytes` in pieces of up to this many bytes.
    #[must_use]
    pub fn new(bytes: &[u8], piece: usize) -> Self {
        Self {
            bytes: bytes.to_vec(),
            at: 0,
            piece,
            written: Vec::new(),
        }
    }
}

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let len = self.piece.min(buf.remaining()).min(self.bytes.len() - self.at);
        buf.put_slice(&self.bytes[self.at..self.at + len]);
        self.at += len;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.written.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Returns the result of a future that has nothing to wait for.
///
/// # Panics
/// Panics if the future waits.
pub fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("it waits, and nothing more will happen"),
    }
}

/// Returns `good` with some bytes changed and at most 16 inserted, at places modulo its length.
///
/// Good bytes that were damaged get further into a parser than random bytes do.
#[must_use]
pub fn damaged(good: &[u8], changes: Vec<(u16, u8)>, inserts: Vec<(u16, u8)>) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for (at, change) in changes {
        let at = usize::from(at) % bytes.len();
        bytes[at] ^= change;
    }
    for (at, byte) in inserts.into_iter().take(16) {
        bytes.insert(usize::from(at) % (bytes.len() + 1), byte);
    }
    bytes
}
