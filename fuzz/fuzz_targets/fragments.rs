//! Any packets from any sources at any times keep the reassembler within its limits.
#![no_main]
#![forbid(unsafe_code)]

use std::time::Duration;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use p2p::{Headroom, Packet};
use p2p_fuzz::Steps;
use p2p_protocols::fragment::{Handled, Header, Limits, MAX_HEADER, Reassembler};

const MTU: usize = 2000;

#[derive(Arbitrary, Debug)]
enum Step {
    /// Arbitrary bytes.
    Raw {
        src: u8,
        bytes: Vec<u8>,
    },
    /// A valid header, so that reassembly itself is reached.
    Fragment {
        src: u8,
        id: u8,
        part: u8,
        total: u8,
        len: u16,
        fill: u8,
    },
    Wait {
        millis: u16,
    },
}

fuzz_target!(|steps: Steps<Step>| {
    let limits = Limits {
        bytes: 20_000,
        source_bytes: 8_000,
        source_messages: 4,
        ..Limits::default()
    };
    let mut reassembler = Reassembler::new(limits, MTU, Headroom::new(16, 16));
    let mut now = Duration::ZERO;
    for step in steps.steps {
        let handled = match step {
            Step::Raw { src, bytes } => reassembler.handle(now, &src, Packet::from(bytes)),
            Step::Fragment {
                src,
                id,
                part,
                total,
                len,
                fill,
            } => {
                let Ok(header) = Header::new(id.into(), part, total) else {
                    continue;
                };
                let mut packet = Packet::from(vec![fill; usize::from(len)]);
                packet.push_front(header.write(&mut [0; MAX_HEADER]));
                reassembler.handle(now, &(src % 4), packet)
            }
            Step::Wait { millis } => {
                now += Duration::from_millis(millis.into());
                reassembler.handle_timeout(now);
                continue;
            }
        };
        if let Handled::Whole { message, parts } = handled {
            assert!(message.len() <= MTU && parts > 0);
        }
        while reassembler.poll_given_up().is_some() {}
        assert!(reassembler.held() <= reassembler.limits().bytes);
    }
    // All state expires.
    now += limits.timeout + limits.linger;
    reassembler.handle_timeout(now);
    reassembler.handle_timeout(now + limits.linger);
    assert_eq!((reassembler.held(), reassembler.in_flight()), (0, 0));
});
