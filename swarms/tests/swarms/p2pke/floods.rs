//! Floods of a node's queues by authenticated peers.

use std::time::Duration;

use p2p::{AskSwarm as _, Swarm as _};
use p2p_formats::x509::PrivateKey;
use p2p_swarms::{MemoryRealm, SwarmExt as _};
use tokio::time::timeout;

/// Messages of a flood.
const FLOOD: usize = 5000;

/// A peer with a session that tells without end fills the message queue, and affects neither handshakes nor
/// asks nor the node's own tells.
#[tokio::test(start_paused = true)]
async fn peers_that_flood_a_stopped_reader_do_not_affect_others() {
    for sources in [1, 20_u8] {
        let realm = MemoryRealm::default();
        let key = |seed: u8| PrivateKey::ed25519(&[seed; 32]);
        let node = realm.open().p2pke(&key(255)).expect("a node").mbapp(1 << 16);
        let to = node.local_addrs().remove(0);
        let attackers: Vec<_> = (0..sources)
            .map(|seed| realm.open().p2pke(&key(seed)).expect("a node").mbapp(1 << 16))
            .collect();
        for number in 0..FLOOD {
            let attacker = &attackers[number % attackers.len()];
            attacker
                .tell(&to, attacker.packet(b"flood"))
                .await
                .expect("a session");
            if number % 64 == 0 {
                tokio::task::yield_now().await;
            }
        }
        // A new peer, with an inbound and an outbound handshake.
        let honest = realm.open().p2pke(&key(254)).expect("a node").mbapp(1 << 16);
        let back = honest.local_addrs().remove(0);
        let answer = async {
            node.receive_ask()
                .await
                .expect("open")
                .respond("served".into())
                .await
        };
        let (asked, answered) = tokio::join!(honest.ask(&to, honest.packet(b"honest")), answer);
        assert_eq!(&*asked.expect("answered"), b"served");
        answered.expect("the asker is waiting");
        node.tell(&back, node.packet(b"own")).await.expect("a session");
        assert_eq!(&*honest.receive().await.expect("open").payload, b"own");
        // Once the queue is read, tells arrive as well.
        let mut kept = Vec::new();
        while timeout(Duration::from_millis(10), node.receive_batch(&mut kept, 64))
            .await
            .is_ok()
        {}
        assert!(!kept.is_empty() && kept.len() < FLOOD, "{} were kept", kept.len());
        honest
            .tell(&to, honest.packet(b"honest"))
            .await
            .expect("a session");
        assert_eq!(&*node.receive().await.expect("open").payload, b"honest");
    }
}
