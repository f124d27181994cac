//! Stacks with a Chord ring. Features that all overlays in stacks share are tested with `kad`, in
//! `stack_kad.rs`.

use std::time::Duration;

use p2p::{PeerId, Swarm as _};
use p2p_formats::x509::{PrivateKey, Registry, shake256};
use p2p_swarms::stack::{Chord, Overlay, StackNode, StackText};
use tokio::time::timeout;

/// Timeout for operations that must succeed.
const PATIENCE: Duration = Duration::from_secs(20);

fn key(number: u8) -> PrivateKey {
    PrivateKey::ed25519(&[number; 32])
}

fn id(number: u8) -> PeerId {
    let signer = Registry::default().signer(&key(number));
    shake256(signer.expect("a key").public_key())
}

async fn node(text: &StackText, number: u8) -> StackNode {
    let node = timeout(PATIENCE, text.build_node(&key(number))).await;
    node.expect("in time").unwrap_or_else(|error| panic!("{error}"))
}

fn chord(node: &StackNode) -> &Chord {
    match &node.overlays[..] {
        [Overlay::Chord(chord)] => chord,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_word_parses_and_displays_and_its_errors_say_what_is_expected() {
    let parse = |text: &str| text.parse::<StackText>();
    for text in [
        "mem/chord",
        "mem/chord=7;9/frag=9000",
        "udp/p2pke/mbapp/chord/mux=a",
    ] {
        assert_eq!(parse(text).expect("a stack").to_string(), text);
    }
    for (text, at) in [
        ("mem/chord=7;;9", 12),
        ("chord", 0),
        ("udp/chord", 4),
        ("mem/chord,k=9", 10),
    ] {
        assert_eq!(parse(text).expect_err(text).at(), at, "{text}");
    }
}

#[tokio::test]
async fn nodes_of_a_ring_tell_each_other_by_id_and_store_records() {
    let texts = ["udp/p2pke/mbapp/chord", "mem=ring/chord/frag/mux=a"];
    for text in texts {
        let text: StackText = text.parse().expect("a stack");
        let mut nodes = Vec::new();
        for number in 1..=5 {
            nodes.push(node(&text, number).await);
        }
        let (first, last) = (&nodes[0], &nodes[4]);
        let to = first.stack.parse_addr(&id(5).to_string()).expect("an id");
        let telling = first.stack.tell(&to, first.stack.packet(b"hello"));
        timeout(PATIENCE, telling)
            .await
            .expect("in time")
            .expect("it is reachable");
        let message = timeout(PATIENCE, last.stack.receive())
            .await
            .expect("in time")
            .expect("open");
        assert_eq!(
            (&message.payload[..], message.src.to_string()),
            (&b"hello"[..], id(1).to_string())
        );

        let found = chord(last).lookup(id(2), |_| {}).await.expect("a node answers");
        assert_eq!(
            found.owner.map(|owner| owner.id),
            Some(id(2)),
            "an id is its own successor"
        );
        let ttl = Duration::from_mins(10);
        chord(first)
            .put(id(9), b"a record", ttl, |_| {})
            .await
            .expect("room");
        assert_eq!(
            chord(last)
                .get(id(9), |_| {})
                .await
                .expect("it answers")
                .as_deref(),
            Some(&b"a record"[..])
        );
        for node in &nodes {
            node.stack.close().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_ring_is_an_error_at_its_position() {
    let text: StackText = "mem=alone/chord=77".parse().expect("a stack");
    let error = timeout(Duration::from_mins(1), text.build_node(&key(1)))
        .await
        .expect("within a bound");
    let error = error.map(drop).expect_err("no node is there");
    assert_eq!(error.at(), "mem=alone/".len(), "{error}");
}
