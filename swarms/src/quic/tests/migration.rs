//! A session stays at the address at which it was established.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use p2p::{Packet, Result, Swarm as _};
use tokio::time::timeout;

use super::{addr, key};
use crate::memory::MemoryAddr;
use crate::quic::QuicSwarm;
use crate::{MemoryRealm, SwarmExt as _};

#[tokio::test(start_paused = true)]
async fn datagrams_of_a_session_from_another_address_are_dropped() {
    let realm = MemoryRealm::default();
    let memory = realm.open();
    let (home, elsewhere) = (memory.local_addr(), MemoryAddr::new(-1));
    let peer = QuicSwarm::new(memory, &key(2)).expect("a node");
    let has_moved = Arc::new(AtomicBool::new(false));
    let moved = has_moved.clone();
    // What the peer sends comes from another address once it has moved.
    let down = move |at: &MemoryAddr| Result::Ok(if *at == elsewhere { home } else { *at });
    let up = move |at: MemoryAddr| {
        let is_moved = at == home && moved.load(Relaxed);
        Some(if is_moved { elsewhere } else { at })
    };
    let hub = QuicSwarm::new(realm.open().map((down, up)), &key(1)).expect("a node");
    let to = addr(&hub);
    peer.tell(&to, Packet::from(b"before")).await.expect("a session");
    assert_eq!(hub.receive().await.expect("open").payload, b"before");

    has_moved.store(true, Relaxed);
    peer.tell(&to, Packet::from(b"after")).await.expect("room");
    let received = timeout(Duration::from_secs(5), hub.receive()).await;
    assert!(received.is_err(), "{received:?}");
    // The session is as it was.
    has_moved.store(false, Relaxed);
    let received = timeout(Duration::from_secs(20), hub.receive()).await;
    let message = received.expect("it is retransmitted").expect("open");
    assert_eq!(
        (message.payload.as_ref(), message.src),
        (&b"after"[..], addr(&peer))
    );
}
