//! P2PKE as a node uses it: handshakes happen by themselves, and end with an error that says why.

use std::net::SocketAddr;

use p2p::{Addr, Error, Packet, SecureSwarm as _, Swarm};
use p2p_formats::x509::PrivateKey;
use p2p_swarms::{KeyAddr, MemoryRealm, P2pkeSwarm, SwarmExt as _, UdpSwarm};

fn key(seed: u8) -> PrivateKey {
    PrivateKey::ed25519(&[seed; 32])
}

/// Two nodes on a medium.
fn pair<A: Addr, S: Swarm<A>>(open: impl Fn() -> S) -> [P2pkeSwarm<A, S>; 2] {
    [1, 2].map(|seed| open().p2pke(&key(seed)).expect("a node"))
}

fn addr<A: Addr, S: Swarm<A>>(node: &P2pkeSwarm<A, S>) -> KeyAddr<A> {
    node.local_addrs().remove(0)
}

async fn talk<A: Addr, S: Swarm<A>>([a, b]: [P2pkeSwarm<A, S>; 2]) {
    a.tell(&addr(&b), Packet::from("ping")).await.expect("a session");
    let message = b.receive().await.expect("open");
    assert_eq!((&message.src, &message.dst), (&addr(&a), &addr(&b)));
    assert_eq!(message.payload, b"ping");
    b.tell(&message.src, message.payload)
        .await
        .expect("the same session");
    assert_eq!(a.receive().await.expect("open").payload, b"ping");
    assert_eq!(
        a.lookup_public_key(&addr(&b)).await.expect("a key"),
        b.public_key()
    );
    assert_eq!((a.sessions(), b.sessions()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn two_nodes_talk_in_memory() {
    let realm = MemoryRealm::default();
    talk(pair(|| realm.open())).await;
}

#[tokio::test]
async fn two_nodes_talk_over_udp() {
    talk(pair(|| {
        UdpSwarm::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port")
    }))
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_tell_to_nobody_ends_with_a_timeout() {
    let realm = MemoryRealm::default();
    let [a, b] = pair(|| realm.open());
    let gone = addr(&b);
    drop(b);
    let told = a.tell(&gone, Packet::from("ping")).await;
    assert!(matches!(told, Err(Error::TimedOut { .. })), "{told:?}");
}
