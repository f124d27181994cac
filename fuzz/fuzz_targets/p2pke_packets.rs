//! Any packets from any sources: no panic, no session, no data is delivered, and channels and answers stay
//! within their limits.
#![no_main]
#![forbid(unsafe_code)]

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use p2p::Packet;
use p2p_formats::x509::PrivateKey;
use p2p_fuzz::Steps;
use p2p_protocols::p2pke::wire::{self, InitHello};
use p2p_protocols::p2pke::{Config, Endpoint, Event, Local};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

const START: Duration = Duration::from_secs(1_700_000_000);

#[derive(Arbitrary, Debug)]
enum Step {
    /// Arbitrary bytes.
    Raw {
        src: u8,
        bytes: Vec<u8>,
    },
    /// Arbitrary bytes after one of the first counters, so that the parsers of messages are reached.
    Body {
        src: u8,
        counter: u8,
        bytes: Vec<u8>,
    },
    /// A hello of valid form, authentic or not.
    Hello {
        src: u8,
        of: u8,
        millis: u16,
        flips: Vec<(u16, u8)>,
    },
    /// A hello of valid form with arbitrary parts.
    Made {
        src: u8,
        version: u8,
        stamp: [u8; 12],
        key: Vec<u8>,
        signature: Vec<u8>,
    },
    /// A packet of this node, delivered to another address.
    Echo {
        src: u8,
        nth: u8,
        flips: Vec<(u16, u8)>,
    },
    Connect {
        addr: u8,
        expected: Option<u8>,
    },
    Wait {
        millis: u32,
    },
}

fn local(seed: u8) -> Local {
    let config = Config {
        channels: 24,
        half_open: 6,
        half_open_per_channel: 3,
        ..Config::default()
    };
    Local::new(&PrivateKey::ed25519(&[seed; 32]), config).expect("a good key")
}

/// A hello of each of some nodes, which never continue their handshakes.
static HELLOS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let hello = |seed| {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut endpoint = Endpoint::<u8>::new(Arc::new(local(seed as u8 + 100)), &mut rng);
        let now = START + Duration::from_millis(seed);
        let begun = endpoint.connect(now, &0, None, &mut rng);
        assert!(begun.is_ok_and(|path| path.is_none()));
        endpoint.poll_transmit().expect("a hello").1.to_vec()
    };
    (0..8).map(hello).collect()
});

fn flip(bytes: &mut [u8], flips: &[(u16, u8)]) {
    let len = bytes.len().max(1);
    for (at, bits) in flips {
        if let Some(byte) = bytes.get_mut(usize::from(*at) % len) {
            *byte ^= bits;
        }
    }
}

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut len = bytes.len();
    while len >= 0x80 {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
    [&out[..], bytes].concat()
}

fn made(version: u8, stamp: &[u8], key: &[u8], signature: &[u8]) -> Vec<u8> {
    let body = [
        vec![1 << 3, version & 0x7f],
        field(2, stamp),
        field(3, key),
        field(4, signature),
    ]
    .concat();
    let len = (body.len() as u16).to_be_bytes();
    [&[0; 4][..], &[9; 32], &body, &len].concat()
}

fuzz_target!(|steps: Steps<Step>| {
    let mut rng = StdRng::seed_from_u64(1);
    let mut endpoint = Endpoint::<u8>::new(Arc::new(local(1)), &mut rng);
    let ids: Vec<_> = (0..4).map(|seed| local(seed + 100).id()).collect();
    let (mut now, mut said) = (START, Vec::<Vec<u8>>::new());
    for step in steps.steps.into_iter().take(500) {
        let (src, bytes) = match step {
            Step::Raw { src, bytes } => (src, bytes),
            Step::Body { src, counter, bytes } => {
                (src, [&u32::from(counter % 20).to_be_bytes()[..], &bytes].concat())
            }
            Step::Hello {
                src,
                of,
                millis,
                flips,
            } => {
                now += Duration::from_millis(millis.into());
                let mut bytes = HELLOS[usize::from(of) % HELLOS.len()].clone();
                flip(&mut bytes, &flips);
                (src, bytes)
            }
            Step::Made {
                src,
                version,
                stamp,
                key,
                signature,
            } => (src, made(version, &stamp, &key, &signature)),
            Step::Echo { src, nth, flips } => {
                let Some(mut bytes) = said.get(usize::from(nth) % said.len().max(1)).cloned() else {
                    continue;
                };
                flip(&mut bytes, &flips);
                (src, bytes)
            }
            Step::Connect { addr, expected } => {
                let expected = expected.map(|nth| ids[usize::from(nth) % ids.len()]);
                // It may be refused: the number of channels is limited.
                let _ = endpoint.connect(now, &addr, expected, &mut rng);
                (addr, Vec::new())
            }
            Step::Wait { millis } => {
                now += Duration::from_millis((millis % 300_000).into());
                endpoint.handle_timeout(now, &mut rng);
                (0, Vec::new())
            }
        };
        let _ = (wire::counter(&bytes), wire::is_init_hello(&bytes));
        if let Ok(hello) = InitHello::parse(&bytes) {
            assert!(hello.key.len() + hello.signature.len() <= bytes.len());
        }
        if let Ok(Some((peer, data))) = endpoint.handle(now, &src, Packet::from(bytes), &mut rng) {
            panic!("{data:?} was read, of {peer}");
        }
        let mut answers = 0;
        while let Some((_, packet)) = endpoint.poll_transmit() {
            answers += 1;
            if said.len() < 64 {
                said.push(packet.to_vec());
            }
        }
        // At most one for each channel with an expired timer.
        assert!(answers <= 24, "{answers} packets were sent at once");
        while let Some((_, event)) = endpoint.poll_event() {
            assert!(
                !matches!(event, Event::Established(_) | Event::Changed(_)),
                "a session without a peer"
            );
        }
        assert!(endpoint.channels() <= 24);
        assert!(endpoint.path(&src).is_none());
    }
    // All state expires.
    for _ in 0..4 {
        now += Duration::from_mins(10);
        endpoint.handle_timeout(now, &mut rng);
    }
    assert_eq!((endpoint.channels(), endpoint.poll_timeout()), (0, None));
});
