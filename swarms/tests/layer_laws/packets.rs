//! A packet equals its bytes after any operation, and keeps the room that it reports.

use std::collections::BTreeSet;

use p2p::{Error, Headroom, Packet};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

const SEED: u64 = 7;

fn bytes(rng: &mut StdRng, len: usize) -> Vec<u8> {
    (0..len).map(|_| rng.random()).collect()
}

/// Applies one operation to a packet and to a plain vector of bytes.
fn change(rng: &mut StdRng, packet: &mut Packet, model: &mut Vec<u8>) {
    let len = rng.random_range(0..100_usize);
    let cut = len.min(model.len());
    let room = packet.room();
    match rng.random_range(0..10) {
        0 => {
            let header = bytes(rng, len);
            let at = packet.as_ptr();
            packet.push_front(&header);
            if len <= room.front {
                assert_eq!(packet.room().front, room.front - len);
                assert_eq!(packet[len..].as_ptr(), at, "the payload did not move");
            } else {
                assert_eq!(packet.room(), Headroom::new(64, packet.room().back));
            }
            model.splice(..0, header);
        }
        1 => {
            let tail = bytes(rng, len);
            let at = packet.as_ptr();
            packet.push_back(&tail);
            if len <= room.back {
                assert_eq!(packet.room().front, room.front);
                assert_eq!(packet.as_ptr(), at, "the payload did not move");
            } else {
                let Headroom { front, back } = packet.room();
                assert!(front >= 64 && (32..32 + 2048).contains(&back), "{front}, {back}");
            }
            model.extend(tail);
        }
        2 => {
            let due = model.first_chunk::<3>().copied();
            assert_eq!(packet.pop_front::<3>(), due);
            model.drain(..if due.is_some() { 3 } else { 0 });
            let more = if due.is_some() { 3 } else { 0 };
            assert_eq!(packet.room(), Headroom::new(room.front + more, room.back));
        }
        3 => {
            let due = model.last_chunk::<3>().copied();
            assert_eq!(packet.pop_back::<3>(), due);
            model.truncate(model.len() - if due.is_some() { 3 } else { 0 });
            assert_eq!(packet.room().front, room.front);
        }
        4 => {
            packet.advance(len);
            model.drain(..cut);
            assert_eq!(packet.room(), Headroom::new(room.front + cut, room.back));
        }
        5 => {
            packet.truncate(len);
            model.truncate(len);
            assert_eq!(packet.room().front, room.front);
        }
        6 => {
            let front = packet.split_front(len);
            assert_eq!(front, model[..cut]);
            assert_eq!(front.room().front, room.front);
            assert_eq!(packet.room().front, 0);
            model.drain(..cut);
        }
        7 => {
            let asked = Headroom::new(len, rng.random_range(0..100));
            packet.reallocate(asked);
            assert_eq!(packet.room().front, asked.front);
            assert!(packet.room().back >= asked.back);
        }
        8 => {
            packet.grow_front(2).copy_from_slice(b"up");
            model.splice(..0, *b"up");
        }
        _ => {
            for byte in packet.iter_mut() {
                *byte ^= 0x55;
            }
            for byte in model {
                *byte ^= 0x55;
            }
        }
    }
}

#[test]
fn a_packet_is_its_bytes() {
    println!("seed {SEED}");
    let mut rng = StdRng::seed_from_u64(SEED);
    for round in 0..1000 {
        // Includes lengths around those of the pooled buffers.
        let len = match round % 4 {
            0 => rng.random_range(650..780),
            1 => rng.random_range(1900..2100),
            _ => rng.random_range(0..80),
        };
        let mut model = bytes(&mut rng, len);
        let room = Headroom::new(rng.random_range(0..80), rng.random_range(0..80));
        let mut packet = match rng.random_range(0..3) {
            0 => Packet::new(room, &model),
            1 => Packet::from(&model[..]),
            _ => Packet::from(model.clone()),
        };
        for _ in 0..20 {
            change(&mut rng, &mut packet, &mut model);
            assert_eq!(*packet, *model);
            assert_eq!((packet.len(), packet.is_empty()), (model.len(), model.is_empty()));
            let Headroom { front, back } = packet.room();
            assert_eq!(packet.capacity(), front + packet.len() + back);
            assert!(packet.check_mtu(model.len()).is_ok());
            if let Some(less) = model.len().checked_sub(1) {
                let error = packet.check_mtu(less);
                let exact = matches!(error, Err(Error::MtuExceeded { size, mtu }) if size == model.len() && mtu == less);
                assert!(exact, "{error:?}");
            }
            let copy = packet.clone();
            assert_eq!(copy, packet);
            assert_eq!(copy.room().front, packet.room().front);
            assert!(copy.room().back >= packet.room().back.min(32));
        }
        let (buffer, start) = packet.clone().into_buffer();
        assert_eq!(&buffer[start..], &model[..]);
        assert_eq!(packet.into_bytes(), &model[..]);
    }
}

#[test]
fn a_packet_has_the_room_that_was_asked_for() {
    for (room, len) in [
        (Headroom::new(7, 9), 5),
        (Headroom::new(20, 30), 1000),
        (Headroom::default(), 5000),
    ] {
        let packet = Packet::new(room, &vec![1; len]);
        assert_eq!(packet.room().front, room.front);
        assert!(packet.room().back >= room.back);
        let mut empty = Packet::with_capacity(room, len);
        assert!(empty.is_empty());
        assert_eq!(empty.room().front, room.front);
        assert!(empty.room().back >= len + room.back);
        let at = empty.as_ptr();
        empty.push_back(&vec![2; len + room.back]);
        assert_eq!(empty.as_ptr(), at);
    }
    assert_eq!(
        Headroom::new(1, 2).plus(Headroom::new(10, 20)),
        Headroom::new(11, 22)
    );
    let taken = Packet::from(vec![1, 2, 3]);
    assert_eq!((taken.room().front, &*taken), (0, &[1, 2, 3][..]));
    assert!(Packet::from_buffer(b"abc"[..].into(), 9).is_empty());
    assert_eq!(Packet::from_buffer(b"abc"[..].into(), 1), b"bc");
}

/// All ways to compare.
#[test]
fn packets_are_equal_if_their_bytes_are() {
    let packet = Packet::from("abc");
    for (other, equal) in [
        ("abc", true),
        ("abd", false),
        ("ab", false),
        ("abcd", false),
        ("", false),
    ] {
        let bytes = other.as_bytes();
        assert_eq!(packet == Packet::from(other), equal);
        assert_eq!(packet == *bytes, equal);
        assert_eq!(packet == bytes, equal);
        assert_eq!(packet.as_ref() == bytes, equal);
        assert_eq!(<Packet as AsRef<[u8]>>::as_ref(&packet) == bytes, equal);
    }
    assert!(packet == b"abc" && packet != b"abd" && packet != b"ab");
    assert_eq!(Packet::from(b"abc"), packet);
    assert_eq!(Packet::from(bytes::BytesMut::from("abc")), packet);
}

#[test]
fn debug_output_shows_the_length_and_the_first_bytes() {
    assert_eq!(format!("{:?}", Packet::from(&[1, 0xab])), "Packet(2 bytes: 01ab)");
    let long = format!("{:?}", Packet::from(&[7; 17]));
    assert_eq!(long, format!("Packet(17 bytes: {}…)", "07".repeat(16)));
    assert_eq!(
        format!("{:?}", Packet::from(&[7; 16])),
        format!("Packet(16 bytes: {})", "07".repeat(16))
    );
}

/// Uses a thread's own list, so it runs in a thread of its own.
#[test]
fn the_buffers_of_dropped_datagrams_are_those_of_the_next_ones() {
    let test = || {
        let datagrams = || (0..128).map(|_| Packet::new(Headroom::default(), &[7; 1200]));
        let places = |packets: &[Packet]| {
            packets
                .iter()
                .map(|packet| packet.as_ptr())
                .collect::<BTreeSet<_>>()
        };
        let all: Vec<_> = datagrams().collect();
        let before = places(&all);
        drop(all);
        let short = Packet::new(Headroom::default(), &[7; 767]);
        assert!(short.capacity() < 2048, "a short packet is charged its length");
        assert_eq!(places(&datagrams().collect::<Vec<_>>()), before);
        let mut room = Packet::new(Headroom::new(68, 700), &[]);
        room.grow_front(68);
        assert!(before.contains(&room.as_ptr()), "room counts");
        // Buffers beyond what a thread keeps go to other threads or are freed.
        let all: Vec<_> = (0..600_u32)
            .map(|number| Packet::new(Headroom::default(), &[number as u8; 1200]))
            .collect();
        let whole = |(number, packet): (usize, &Packet)| *packet == &[number as u8; 1200];
        assert!(all.iter().enumerate().all(whole));
        drop(all);
        assert!(datagrams().all(|packet| packet == &[7; 1200]));
    };
    std::thread::spawn(test).join().expect("it holds");
}
