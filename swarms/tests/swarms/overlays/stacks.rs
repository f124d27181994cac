//! Stacks with a Kademlia network or a Chord ring. What both overlays share beyond their words is tested with `kad`.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use p2p::{Addr as _, BoxAddr, BoxSecureAskSwarm, Error, Packet, PeerId, Result, Swarm as _};
use p2p_formats::x509::{PrivateKey, Registry, shake256};
use p2p_swarms::overlay::{Operation, Router};
use p2p_swarms::stack::{Chord, Kademlia, Overlay, Stack, StackNode, StackNodes, StackText};
use tokio::time::timeout;

/// Timeout for operations that must succeed.
const PATIENCE: Duration = Duration::from_secs(20);

fn parse(text: &str) -> StackText {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

/// Returns the error of a text, checking its position.
#[track_caller]
fn refused(text: &str, at: usize) -> String {
    let error = text.parse::<StackText>().expect_err(text);
    assert_eq!(error.at(), at, "{error}");
    error.reason().to_owned()
}

fn key(number: u8) -> PrivateKey {
    PrivateKey::ed25519(&[number; 32])
}

fn id(number: u8) -> PeerId {
    shake256(
        Registry::default()
            .signer(&key(number))
            .expect("a key")
            .public_key(),
    )
}

async fn node(text: &StackText, number: u8) -> StackNode {
    let node = text.build_node(&key(number)).await;
    node.unwrap_or_else(|error| panic!("{error}"))
}

/// Waits for the result of an operation, and passes its progress to `watch`.
async fn watched<R: Router<BoxAddr>, T>(
    operation: Result<Operation<BoxAddr, BoxSecureAskSwarm<BoxAddr>, R, T>>,
    watch: impl FnMut(R::Progress),
) -> T {
    operation.expect("open").watch(watch).await.expect("open")
}

fn kad(node: &StackNode) -> &Kademlia {
    match &node.overlays[..] {
        [Overlay::Kademlia(kad)] => kad,
        other => panic!("{other:?}"),
    }
}

fn chord(node: &StackNode) -> &Chord {
    match &node.overlays[..] {
        [Overlay::Chord(chord)] => chord,
        other => panic!("{other:?}"),
    }
}

/// Tells messages of MTU length by id, in both directions, with different contents each time: `frag` numbers
/// messages from 0, as go-p2p does, so a repeated message of a node that was restarted within a second could
/// be taken for a duplicate.
async fn talk(a: &Stack, b: &Stack) {
    static TALKS: AtomicU8 = AtomicU8::new(0);
    for (from, to) in [(a, b), (b, a)] {
        let dst = from.parse_addr(&to.local_addrs()[0].to_string()).expect("an id");
        let payload: Packet = vec![TALKS.fetch_add(1, Relaxed); from.mtu()].into();
        from.tell(&dst, payload.clone()).await.expect("it is reachable");
        let message = timeout(PATIENCE, to.receive())
            .await
            .expect("a message")
            .expect("open");
        assert_eq!((&message.src, &message.dst), (&from.local_addrs()[0], &dst));
        assert!(message.payload == payload);
    }
}

#[test]
fn the_word_of_an_overlay_parses_and_displays_and_its_errors_say_what_is_expected() {
    for word in ["kad", "chord"] {
        let bare = format!("mem/{word}");
        assert!(parse(&bare).layers().eq(parse(&format!("{bare}=")).layers()));
        assert_eq!(parse(&format!("{bare}=")).to_string(), bare);
        for text in [
            bare.clone(),
            format!("{bare}=7;9/frag"),
            format!("{bare}=7;9/frag=9000"),
            format!("udp/p2pke/mbapp/{word}/mux=a"),
        ] {
            assert_eq!(parse(&text).to_string(), text);
        }
        let argument = bare.len() + 1;
        assert!(refused(&format!("{bare}=7;;9"), argument + 2).contains("an address"));
        assert!(refused(&format!("{bare}=;"), argument).contains("an address"));
        assert!(refused(&format!("{bare},k=9"), argument).contains("none"));
        assert!(refused(word, 0).contains("below"));
        assert!(refused(&format!("udp/{word}"), 4).contains("udp does not support them"));
        assert!(refused(&format!("udp/{word}=127.0.0.1:9"), 4).contains("udp does not support them"));
        let reason = refused(&format!("udp/p2pke/mbapp/frag/mux=a/{word}/frag"), 27);
        assert!(
            reason.contains("frag does not support them") && reason.contains("mbapp"),
            "{reason}"
        );
        let many: Vec<String> = (0..17).map(|number| number.to_string()).collect();
        let at = argument + 2 * 10 + 3 * 6;
        assert!(refused(&format!("{bare}={}", many.join(";")), at).contains("16"));
    }
}

#[tokio::test]
async fn a_node_that_has_joined_is_reached_at_once() {
    reached_at_once(&["udp/mbapp/kad", "udp/mbapp/chord", "udp/p2pke/mbapp/kad"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_has_joined_is_reached_at_once_where_delays_vary() {
    reached_at_once(&[
        "mem/faulty,delay=11,jitter=20,seed=SEED/kad",
        "mem/faulty,delay=11,jitter=20,seed=SEED/chord",
    ])
    .await;
}

/// Checks that each node reaches those that joined after it. `SEED` stands for the number of the trial.
async fn reached_at_once(texts: &[&str]) {
    for text in texts {
        for trial in 0..40 {
            let text = text.replace("SEED", &trial.to_string());
            let made = StackNodes::new(parse(&text))
                .open(2 + trial % 3)
                .await
                .expect("opens");
            for (at, to) in made.iter().enumerate().rev() {
                let dst = to.local_addrs().swap_remove(0);
                for from in made.iter().take(at) {
                    let told = from.tell(&dst, Packet::from(&b"hello"[..])).await;
                    told.unwrap_or_else(|error| panic!("{text}, trial {trial}: {error}"));
                }
            }
        }
    }
}

#[tokio::test]
async fn an_overlay_has_asks_and_keys_where_the_layers_below_have_them() {
    for (text, expected) in [
        ("mem=has/kad", (true, true)),
        ("udp/mbapp/kad", (true, false)),
        ("udp/p2pke/mbapp/kad", (true, true)),
        ("udp/p2pke/mbapp/kad/frag/mux=x", (false, true)),
        ("udp/quic/kad/mux=x", (true, true)),
        ("udp/mbapp/kad/p2pke", (false, true)),
    ] {
        assert!(parse(text).takes_key());
        let stack = node(&parse(text), 1).await.stack;
        assert_eq!(
            (stack.asks().is_some(), stack.keys().is_some()),
            expected,
            "{text}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_has_the_identity_of_the_layers_below_or_else_of_its_key() {
    for text in [
        "mem=ids/kad",
        "mem=ids/mbapp/kad",
        "mem=ids/p2pke/mbapp/kad",
        "mem=ids/kad/kad",
    ] {
        let node = node(&parse(text), 1).await;
        assert_eq!(node.stack.local_addrs(), [BoxAddr::new(id(1))], "{text}");
    }
    let quic = node(&parse("mem=ids/quic/kad"), 1).await;
    let below = kad(&quic).bootstraps().remove(0);
    assert_eq!(quic.stack.local_addrs()[0].peer_id(), below.peer_id());
}

#[tokio::test]
async fn nodes_of_one_text_are_one_network() {
    for text in [
        "mem=one_network/kad",
        "udp/mbapp/kad",
        "udp/p2pke/mbapp/kad/frag/mux=x",
        "udp/quic/kad",
        "udp/p2pke/mbapp/kad/p2pke/mbapp",
        "udp/p2pke/mbapp/kad/quic",
        "mem=one_network/kad/kad",
    ] {
        let text = parse(text);
        let (a, b, c) = (
            node(&text, 1).await,
            node(&text.clone(), 2).await,
            node(&text, 3).await,
        );
        talk(&b.stack, &c.stack).await;
        talk(&a.stack, &c.stack).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_of_another_text_join_through_its_addresses() {
    let first = node(&parse("mem=named/p2pke/mbapp/kad"), 1).await;
    let known = kad(&first).bootstraps().remove(0);
    let second = node(&parse(&format!("mem=named/p2pke/mbapp/kad={known}")), 2).await;
    let absent = known.to_string().replace('@', "@7777");
    let third = parse(&format!("mem=named/p2pke/mbapp/kad={absent};{known}"));
    let third = node(&third, 3).await;
    talk(&second.stack, &third.stack).await;
    // Nodes of the same text that are apart do not know each other.
    let text = parse("mem=named/p2pke/mbapp/kad");
    let (one, other) = (node(&text, 4).await, node(&text.apart(), 5).await);
    let told = one
        .stack
        .tell(&other.stack.local_addrs()[0], "hello".into())
        .await;
    assert!(matches!(told, Err(Error::Unreachable { .. })), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn an_overlay_that_cannot_be_built_is_an_error_at_its_position() {
    let error = parse("mem=cannot/kad=7;1x")
        .build()
        .await
        .expect_err("no address");
    assert_eq!((error.at(), error.is_in_text()), (18, true), "{error}");
    let error = parse(&format!("mem=cannot/p2pke/mbapp/kad={}", id(1)))
        .build()
        .await;
    let error = error.expect_err("an id alone is no address below");
    assert!(error.at() > 27 && error.is_in_text(), "{error}");
    let error = parse("mem=cannot/mbapp=512/kad")
        .build()
        .await
        .expect_err("too little");
    assert_eq!((error.at(), error.is_in_text()), (21, true), "{error}");
    assert!(error.reason().contains("513"), "{error}");
    node(&parse("mem=cannot/mbapp=513/kad"), 1).await;
    for (text, at) in [
        ("mem=cannot/kad=7777;8888".to_owned(), 15),
        (format!("mem=cannot/p2pke/mbapp/kad={}@7777", id(1)), 27),
    ] {
        let error = parse(&text).build().await.expect_err("no node is there");
        assert_eq!((error.at(), error.is_in_text()), (at, false), "{error}");
        assert!(error.reason().contains("no node answered"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_finds_others_and_records_and_reports_progress() {
    let text = parse("mem=records/p2pke/mbapp/kad");
    let mut nodes = Vec::new();
    for number in 1..=9 {
        nodes.push(node(&text, number).await);
    }
    let steps = std::cell::Cell::new(0);
    let mut watch = |_| steps.set(steps.get() + 1);
    let found = watched(kad(&nodes[8]).swarm().find_node(id(2)), &mut watch).await;
    assert_eq!(
        (found[0].id, &found[0].addr),
        (id(2), &kad(&nodes[1]).bootstraps()[0])
    );
    assert!(kad(&nodes[8]).swarm().contacts().expect("open") >= 3);
    let (key, hour) = (PeerId::new([5; 32]), Duration::from_hours(1));
    assert_eq!(watched(kad(&nodes[3]).swarm().get(key), &mut watch).await, None);
    let copies = watched(kad(&nodes[4]).swarm().put(key, b"first", hour), &mut watch).await;
    assert_eq!(copies, 8);
    let record = watched(kad(&nodes[6]).swarm().get(key), &mut watch).await;
    let record = record.expect("a record");
    assert_eq!(record.value, b"first");
    assert!(steps.get() >= 4, "{steps:?}");
    // The first record stays.
    let copies = watched(kad(&nodes[5]).swarm().put(key, b"second", hour), &mut watch).await;
    assert_eq!(copies, 0);
}

/// Opens a node at `addr` as soon as it is free: tasks of the former node may have to end first.
async fn built_again(text: &StackText, addr: &BoxAddr, key: &PrivateKey) -> Stack {
    let free = async {
        loop {
            match text.build_at(addr, key).await {
                Ok(node) => return node,
                Err(error) => assert_eq!(error.at(), 0, "the base is not free: {error}"),
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, free).await.expect("the address is released")
}

#[tokio::test]
async fn a_node_restarts_at_its_address_and_is_found_there() {
    for text in [
        "mem=again/mbapp/kad/mux=x",
        "udp/p2pke/mbapp/kad/frag/mux=x",
        "udp/quic/kad/p2pke",
    ] {
        println!("{text}");
        let text = parse(text);
        let (first, other) = (node(&text, 1).await, node(&text, 2).await);
        talk(&first.stack, &other.stack).await;
        let (addr, below) = (first.stack.local_addrs().remove(0), kad(&first).bootstraps());
        first.stack.close().await;
        drop(first);
        let again = built_again(&text, &addr, &key(1)).await;
        assert_eq!(again.local_addrs(), [addr]);
        talk(&again, &other.stack).await;
        let found = watched(kad(&other).swarm().find_node(id(1)), |_| ()).await;
        assert!(
            found.iter().any(|contact| below.contains(&contact.addr)),
            "{found:?}"
        );
    }
}

#[tokio::test]
async fn nodes_of_a_ring_tell_each_other_by_id_and_store_records() {
    let texts = ["udp/p2pke/mbapp/chord", "mem=ring/chord/frag/mux=a"];
    for text in texts {
        let text = parse(text);
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

        let found = watched(chord(last).swarm().lookup(id(2)), |_| ()).await;
        assert_eq!(
            found.owner.map(|owner| owner.id),
            Some(id(2)),
            "an id is its own successor"
        );
        let ttl = Duration::from_mins(10);
        watched(chord(first).swarm().put(id(9), b"a record", ttl), |_| ()).await;
        let value = watched(chord(last).swarm().get(id(9)), |_| ()).await;
        assert_eq!(value.as_deref(), Some(&b"a record"[..]));
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
