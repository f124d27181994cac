//! Any bytes are a negotiation, a refusal or a typed error, in both roles and in pieces of any size, and what follows the
//! negotiation is read as it was sent.
#![no_main]
#![forbid(unsafe_code)]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use p2p_fuzz::{Script, now};
use p2p_libp2p::negotiate::{MAX_LINE, MAX_PROPOSALS, NegotiateError, Negotiated};
use tokio::io::AsyncReadExt as _;

const OFFERED: [&str; 2] = ["/a/1", "/b/1"];

/// A message, or bytes that are none.
#[derive(Arbitrary, Debug)]
enum Line {
    Header,
    Refusal,
    Ls,
    Known(bool),
    Unknown(String),
    Bytes(Vec<u8>),
}

#[derive(Arbitrary, Debug)]
struct Input {
    piece: u8,
    lines: Vec<Line>,
    behind: Vec<u8>,
}

fn encode(lines: &[Line]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in lines {
        let text = match line {
            Line::Header => "/multistream/1.0.0",
            Line::Refusal => "na",
            Line::Ls => "ls",
            Line::Known(first) => OFFERED[usize::from(!first)],
            Line::Unknown(text) => text,
            Line::Bytes(more) => {
                bytes.extend_from_slice(more);
                continue;
            }
        };
        let len = text.len() as u64 + 1;
        bytes.extend_from_slice(p2p_formats::varint::write(len, &mut [0; 10]));
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(b'\n');
    }
    bytes
}

/// Reads everything, and checks that it is the end of what was sent.
fn check_rest(negotiated: &mut Negotiated<Script>, bytes: &[u8]) {
    let mut rest = Vec::new();
    now(negotiated.read_to_end(&mut rest)).expect("the rest is here");
    assert!(bytes.ends_with(&rest));
}

fuzz_target!(|input: Input| {
    let piece = usize::from(input.piece).max(1);
    let bytes = [encode(&input.lines), input.behind].concat();

    let mut listener = Negotiated::new(Script::new(&bytes, piece));
    let mut proposals = 0;
    let accepted = now(listener.listen(|protocol| {
        proposals += 1;
        OFFERED.iter().position(|offered| *offered == protocol)
    }));
    assert!(proposals <= MAX_PROPOSALS);
    assert!(listener.get_ref().written.len() <= (MAX_PROPOSALS + 1) * (MAX_LINE + 2));
    if let Ok(index) = accepted {
        let echo = encode(&[Line::Known(index == 0)]);
        assert!(listener.get_ref().written.ends_with(&echo));
        check_rest(&mut listener, &bytes);
    }

    let mut dialler = Negotiated::new(Script::new(&bytes, piece));
    match now(dialler.dial(&OFFERED)) {
        Ok(index) => {
            assert!(index < OFFERED.len());
            check_rest(&mut dialler, &bytes);
        }
        Err(NegotiateError::TooMany) => panic!("a dialler answers no proposals"),
        Err(_) => {}
    }

    let mut lazy = Negotiated::new(Script::new(&bytes, piece));
    now(lazy.dial_lazily(OFFERED[0].into())).expect("a short id");
    let mut read = Vec::new();
    if now(lazy.read_to_end(&mut read)).is_ok() {
        assert!(bytes.ends_with(&read) || read.is_empty());
    } else {
        assert!(now(lazy.read_u8()).is_err(), "it fails again");
    }
});
