//! Any bytes of an mplex peer, in pieces of any size: streams read what a naive model says, to the same end, and nothing
//! panics or waits.
#![no_main]
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use p2p_formats::varint;
use p2p_fuzz::{Script, Steps, now};
use p2p_libp2p::mplex::{Mplex, MplexStream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Streams that the host opens before it reads.
const OURS: u64 = 2;
/// Streams of the peer that the host accepts.
const MAX_INBOUND: usize = 256;
/// The longest data of a frame.
const MAX_DATA: u64 = 1 << 20;

#[derive(Arbitrary, Debug)]
enum Step {
    /// A frame of one of a few streams, so that streams are used more than once.
    Frame {
        stream: u8,
        flag: u8,
        data: Vec<u8>,
    },
    /// The next stream that the peer opens.
    Open,
    Bytes(Vec<u8>),
}

/// What a stream reads.
#[derive(Default)]
struct Expected {
    data: Vec<u8>,
    is_closed: bool,
    is_reset: bool,
}

/// The streams after all bytes: those of the host, and those of the peer in the order in which it opened them.
#[derive(Default)]
struct Model {
    ours: BTreeMap<u64, Expected>,
    theirs: BTreeMap<u64, Expected>,
    opened: Vec<u64>,
}

impl Model {
    fn new(mut bytes: &[u8]) -> Self {
        let mut model = Self::default();
        for number in 0..OURS {
            model.ours.insert(number, Expected::default());
        }
        while let Ok((header, len)) = varint::read(bytes)
            && let Ok((size, second)) = varint::read(&bytes[len..])
            && size <= MAX_DATA
        {
            bytes = &bytes[len + second..];
            let here = bytes.len().min(size as usize);
            let (data, rest) = bytes.split_at(here);
            if !model.frame(header >> 3, header & 7, data) {
                break;
            }
            bytes = rest;
        }
        model
    }

    /// Applies a frame. Returns whether it is permitted.
    fn frame(&mut self, number: u64, flag: u64, data: &[u8]) -> bool {
        if flag == 0 {
            if self.theirs.contains_key(&number) {
                return false;
            }
            if self.opened.len() < MAX_INBOUND {
                self.theirs.insert(number, Expected::default());
                self.opened.push(number);
            }
            return true;
        }
        let streams = if flag % 2 == 1 {
            &mut self.ours
        } else {
            &mut self.theirs
        };
        let stream = streams.get_mut(&number);
        // The first of both ends is final.
        let stream = stream.filter(|stream| !stream.is_closed && !stream.is_reset);
        match (flag, stream) {
            (7, _) => return false,
            (1 | 2, Some(stream)) => stream.data.extend_from_slice(data),
            (3 | 4, Some(stream)) => stream.is_closed = true,
            (5 | 6, Some(stream)) => {
                *stream = Expected {
                    is_reset: true,
                    ..Expected::default()
                }
            }
            _ => {}
        }
        true
    }
}

fn encode(steps: &[Step]) -> Vec<u8> {
    let (mut bytes, mut next) = (Vec::new(), 0);
    let head = |bytes: &mut Vec<u8>, header: u64, len: usize| {
        for value in [header, len as u64] {
            bytes.extend_from_slice(varint::write(value, &mut [0; varint::MAX_LEN]));
        }
    };
    for step in steps {
        match step {
            Step::Frame { stream, flag, data } => {
                head(
                    &mut bytes,
                    u64::from(stream % 4) << 3 | u64::from(flag % 7),
                    data.len(),
                );
                bytes.extend_from_slice(data);
            }
            Step::Open => {
                head(&mut bytes, next << 3, 0);
                next += 1;
            }
            Step::Bytes(more) => bytes.extend_from_slice(more),
        }
    }
    bytes
}

/// Reads a stream to its end, and compares it with what the model says.
fn check(mut stream: MplexStream, expected: &Expected) {
    let mut data = Vec::new();
    let ended = now(stream.read_to_end(&mut data));
    assert_eq!((data, ended.is_ok()), (expected.data.clone(), expected.is_closed));
}

fuzz_target!(|steps: Steps<Step>| {
    let bytes = encode(&steps.steps);
    let model = Model::new(&bytes);
    let piece = steps.seed as usize % 255 + 1;
    let (mut mplex, handle) = Mplex::new(Script::new(&bytes, piece));
    let ours: Vec<_> = (0..OURS)
        .map(|_| handle.open().expect("an open connection"))
        .collect();
    let mut accepted = Vec::new();
    while let Some(Ok(mut stream)) = now(mplex.accept()) {
        // The peer may have reset it.
        let _ = now(stream.write_all(b"hello"));
        if accepted.len() % 2 == 0 {
            let _ = now(stream.shutdown());
        }
        accepted.push(stream);
    }
    drop(mplex);
    assert!(handle.is_ended() && accepted.len() <= model.opened.len());
    // After an error, the last streams are not accepted.
    for (stream, number) in accepted.into_iter().zip(&model.opened) {
        check(stream, &model.theirs[number]);
    }
    for (stream, expected) in ours.into_iter().zip(model.ours.values()) {
        check(stream, expected);
    }
});
