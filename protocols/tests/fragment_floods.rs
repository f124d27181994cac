//! Floods of every limit of reassembly: from one source, and from as many as an attacker can forge.

use std::time::Duration;

use p2p::{DropReason, Headroom, Packet};
use p2p_protocols::fragment::{Handled, Header, Limits, MAX_HEADER, Reassembler};

/// The source of an honest peer's fragments.
const HONEST: u32 = 0;
/// Length of each fragment in bytes.
const CHUNK: usize = 1000;
/// Parts of an honest message.
const PARTS: u8 = 100;

fn fragment(id: u32, part: u8, total: u8) -> Packet {
    let mut packet = Packet::from(&[part; CHUNK][..]);
    let header = Header::new(id, part, total).expect("part < total");
    packet.push_front(header.write(&mut [0; MAX_HEADER]));
    packet
}

fn engine() -> Reassembler<u32> {
    let limits = Limits {
        bytes: 1 << 20,
        source_bytes: 300 << 10,
        ..Limits::default()
    };
    Reassembler::new(limits, usize::from(PARTS) * CHUNK, Headroom::default())
}

/// Checks that an honest message completes although `flood` runs before each of its fragments.
fn arrives_beside(engine: &mut Reassembler<u32>, id: u32, mut flood: impl FnMut(&mut Reassembler<u32>)) {
    for part in 0..PARTS {
        flood(engine);
        match engine.handle(Duration::ZERO, &HONEST, fragment(id, part, PARTS)) {
            Handled::Whole { message, parts } => {
                assert_eq!((part, parts), (PARTS - 1, usize::from(PARTS)));
                assert_eq!(message.len(), usize::from(PARTS) * CHUNK);
                return;
            }
            Handled::Kept { first } => {
                assert_eq!(first, part == 0, "the message was dropped before part {part}");
            }
            Handled::Dropped(reason) => panic!("part {part} of an honest message was dropped: {reason:?}"),
        }
        assert!(engine.held() <= engine.limits().bytes);
    }
    panic!("all parts arrived without a message");
}

#[test]
fn a_message_in_progress_survives_a_flood_of_first_fragments_from_forged_sources() {
    let (mut engine, mut source) = (engine(), HONEST);
    arrives_beside(&mut engine, 7, |engine| {
        for _ in 0..200 {
            source += 1;
            engine.handle(Duration::ZERO, &source, fragment(0, 0, 255));
        }
    });
    let up = engine.poll_given_up().expect("a message that never completes");
    assert!(up.src != HONEST && up.reason == DropReason::Budget, "{up:?}");
}

#[test]
fn a_flood_with_two_fragments_per_message_gets_no_more_room() {
    let (mut engine, mut source) = (engine(), HONEST);
    arrives_beside(&mut engine, 7, |engine| {
        // The buffer of each has room for eight fragments.
        for _ in 0..20 {
            source += 1;
            for part in 0..2 {
                engine.handle(Duration::ZERO, &source, fragment(0, part, 255));
            }
        }
    });
}

#[test]
fn a_source_that_fills_its_share_displaces_no_other() {
    let (mut engine, mut id) = (engine(), 0);
    arrives_beside(&mut engine, 7, |engine| {
        for _ in 0..50 {
            id += 1;
            engine.handle(Duration::ZERO, &1, fragment(id, 0, 255));
        }
        // The honest message, and what fits into the share of the flooding source.
        let most = engine.limits().source_bytes / CHUNK + 1;
        assert!(engine.in_flight() <= most, "{} messages", engine.in_flight());
    });
    while let Some(up) = engine.poll_given_up() {
        assert_eq!((up.src, up.reason), (1, DropReason::Budget));
    }
}

#[test]
fn records_of_ended_messages_are_evicted_before_incomplete_messages() {
    let (mut engine, mut source) = (engine(), HONEST);
    // Complete messages of a flood are remembered for a while, so that their copies are recognised.
    arrives_beside(&mut engine, 7, |engine| {
        for _ in 0..100 {
            source += 1;
            for part in 0..2 {
                engine.handle(Duration::ZERO, &source, fragment(0, part, 2));
            }
        }
    });
    assert_eq!(engine.poll_given_up(), None);
}

#[test]
fn an_honest_source_is_served_right_after_a_flood() {
    let mut engine = engine();
    for source in 1..5000 {
        engine.handle(Duration::ZERO, &source, fragment(0, 0, 255));
        assert!(engine.held() <= engine.limits().bytes);
    }
    arrives_beside(&mut engine, 7, |_| {});
    // The messages of the flood have timed out.
    engine.handle_timeout(engine.limits().timeout);
    assert_eq!(engine.in_flight(), 0);
}
