//! Floods of a full inbox, from one source, from one network and from many networks.

use std::net::{Ipv4Addr, SocketAddr};

use p2p::{Addr, Message, Packet, PeerId};

use super::*;
use crate::KeyAddr;

const FLOOD: u32 = 10_000;

fn addr(ip: [u8; 4], port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::from(ip), port))
}

fn message<A: Addr>(src: &A, payload: &[u8]) -> Message<A> {
    Message {
        src: src.clone(),
        dst: src.clone(),
        payload: Packet::from(payload),
    }
}

/// An inbox after a flood of messages from these sources, which no reader takes.
fn flooded<A: Addr>(sources: impl IntoIterator<Item = A>) -> Inbox<Message<A>> {
    let inbox = Inbox::new(Limits::default());
    let mut dropped = 0;
    for source in sources {
        if let Err(refused) = inbox.push(message(&source, b"flood")) {
            assert_eq!(refused.reason, DropReason::QueueFull);
            dropped += refused.items.len();
        }
    }
    assert_eq!((inbox.len(), dropped), (1024, FLOOD as usize - 1024));
    inbox
}

/// Sends `count` messages of an honest peer, and returns those that a reader then gets.
fn honest<A: Addr>(inbox: &Inbox<Message<A>>, source: &A, count: u32) -> Vec<Packet> {
    for number in 0..count {
        if let Err(refused) = inbox.push(message(source, &number.to_be_bytes())) {
            let evicted = refused.items.iter().filter(|item| item.payload == b"flood");
            assert_eq!((evicted.count(), refused.items.len()), (1, 1), "message {number}");
        }
    }
    assert_eq!(inbox.len(), 1024);
    let mut read = Vec::new();
    assert_eq!(inbox.try_pop_batch(&mut read, usize::MAX).expect("open"), 1024);
    assert_eq!(inbox.held(), 0);
    let of_source = read.into_iter().filter(|message| message.src == *source);
    of_source.map(|message| message.payload).collect()
}

fn numbered(count: u32) -> Vec<Packet> {
    (0..count)
        .map(|number| Packet::from(&number.to_be_bytes()))
        .collect()
}

#[test]
fn a_source_that_floods_leaves_room_for_another_one() {
    let inbox = flooded((0..FLOOD).map(|_| addr([8, 8, 1, 1], 1)));
    let read = honest(&inbox, &addr([8, 8, 2, 1], 1), 200);
    assert_eq!(read, numbered(200), "all, in their order");
}

#[test]
fn an_identity_that_floods_from_many_ports_leaves_room_for_a_neighbour() {
    let flooder = PeerId::from([1; 32]);
    let at = |number: u32| KeyAddr::new(flooder, addr([8, 8, 1, 1], number as u16));
    let inbox = flooded((0..FLOOD).map(at));
    let neighbour = KeyAddr::new(PeerId::from([2; 32]), addr([8, 8, 1, 2], 1));
    assert_eq!(honest(&inbox, &neighbour, 200), numbered(200));
}

#[test]
fn a_network_whose_nodes_flood_leaves_room_for_another_network() {
    let at = |number: u32| addr([8, 8, 1, number as u8], (number >> 8) as u16 + 1);
    let inbox = flooded((0..FLOOD).map(at));
    assert_eq!(honest(&inbox, &addr([8, 8, 2, 1], 1), 200), numbered(200));
}

#[test]
fn one_node_that_floods_a_host_takes_no_more_than_its_share_of_the_hosts() {
    let inbox = flooded((0..FLOOD).map(|_| addr([127, 0, 0, 1], 1)));
    assert_eq!(honest(&inbox, &addr([127, 0, 0, 1], 2), 300), numbered(300));
}

#[test]
fn a_flood_from_as_many_networks_as_there_are_places_does_not_decide_by_arrival_alone() {
    let mut flood = (0..u32::MAX).map(|number| {
        let [_, b, c, d] = number.to_be_bytes();
        addr([20 + b, c, d, 1], 1)
    });
    let inbox = Inbox::new(Limits {
        items: 128,
        ..Limits::default()
    });
    for flooder in flood.by_ref().take(1000) {
        let _ = inbox.push(message(&flooder, b"flood"));
    }
    let source = addr([8, 8, 8, 8], 1);
    // For each message that is read ten more of the flood come first, and then one of the honest peer.
    let mut served = 0;
    for _ in 0..2000 {
        let read = inbox.try_pop().expect("open").expect("a message");
        served += u32::from(read.src == source);
        for flooder in flood.by_ref().take(10) {
            let _ = inbox.push(message(&flooder, b"flood"));
        }
        let _ = inbox.push(message(&source, b"honest"));
    }
    println!("{served} of 2000 messages read are the honest peer's, one of each eleven that came");
    assert!(served >= 15, "{served} of 2000 messages read");
}

#[test]
fn a_flood_of_long_messages_leaves_room_for_a_long_message_of_another_source() {
    let inbox = Inbox::new(Limits {
        bytes: 1 << 20,
        ..Limits::default()
    });
    let (flooder, peer) = (addr([8, 8, 1, 1], 1), addr([8, 8, 2, 1], 1));
    for _ in 0..FLOOD {
        let _ = inbox.push(message(&flooder, &[1; 4000]));
    }
    let dropped = inbox
        .push(message(&peer, &vec![2; 60_000]))
        .expect_err("room was made")
        .items;
    assert!(dropped.len() > 10 && dropped.iter().all(|dropped| dropped.src == flooder));
    assert!(inbox.held() <= 1 << 20);
    let waiting = inbox.len();
    // What is longer than the whole inbox makes no room for itself.
    let refused = inbox
        .push(message(&peer, &vec![3; 2 << 20]))
        .expect_err("too long")
        .items;
    assert!(refused.len() == 1 && refused[0].src == peer);
    assert_eq!(inbox.len(), waiting);
}

#[test]
fn shares_follow_the_queue_over_any_exchange() {
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};
    let seed = rand::random();
    println!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let limits = Limits {
        items: 50,
        bytes: 20_000,
        copy_below: 0,
    };
    let inbox = Inbox::new(limits);
    let mut balance = 0;
    for _ in 0..5000 {
        match rng.random_range(0..10) {
            0..7 => {
                let src = addr([8, rng.random_range(0..3), 1, rng.random_range(0..3)], 1);
                let payload = vec![0; rng.random_range(0..3000)];
                balance += 1;
                if let Err(refused) = inbox.push(message(&src, &payload)) {
                    balance -= refused.items.len();
                }
            }
            7 => balance -= usize::from(inbox.try_pop().expect("open").is_some()),
            8 => {
                balance -= inbox
                    .try_pop_batch(&mut Vec::new(), rng.random_range(0..30))
                    .expect("open");
            }
            _ => balance -= inbox.remove(|message| message.payload.len() < 40).len(),
        }
        assert_eq!(inbox.len(), balance);
        assert!(inbox.len() <= limits.items && inbox.held() <= limits.bytes);
        let state = inbox.lock();
        assert_eq!(state.bytes, state.queue.iter().map(charge).sum::<usize>());
        if let Some(shares) = &state.shares {
            shares.check(&state.queue, &limits);
        }
    }
}
