//! Stacks with a gossip node.

use std::time::Duration;

use p2p::{Addr as _, BoxAddr, Error, Packet, Swarm as _};
use p2p_formats::x509::PrivateKey;
use p2p_swarms::GossipAddr;
use p2p_swarms::stack::{Gossip, Overlay, Stack, StackNode, StackText};
use p2p_swarmtest::{Plain, Profile, Testbed, Verdict};
use tokio::time::{sleep, timeout};

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

async fn node(text: &StackText, number: u8) -> StackNode {
    let node = text.build_node(&PrivateKey::ed25519(&[number; 32])).await;
    node.unwrap_or_else(|error| panic!("{error}"))
}

fn gossip(node: &StackNode) -> &Gossip {
    match &node.overlays[..] {
        [.., Overlay::Gossip(gossip)] => gossip,
        other => panic!("{other:?}"),
    }
}

/// Waits until each node knows this many subscribers of a topic, and has a mesh: earlier messages are not
/// forwarded.
async fn met(nodes: &[StackNode], topic: &str, others: usize) {
    let has_met = |node: &StackNode| {
        let node = gossip(node);
        node.subscribers(topic).len() >= others && !node.mesh(topic).is_empty()
    };
    let all = async {
        while !nodes.iter().all(has_met) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, all).await.expect("they meet");
}

async fn received(node: &StackNode) -> (BoxAddr, Vec<u8>) {
    let message = timeout(PATIENCE, node.stack.receive()).await;
    let message = message.expect("a message in time").expect("open");
    (message.src, message.payload.to_vec())
}

/// Each node publishes one message of maximum length, and all others receive it from its author.
async fn publish_to_all(nodes: &[StackNode], topic: &str) {
    for (number, from) in nodes.iter().enumerate() {
        let to = from.stack.parse_addr(topic).expect("a topic");
        let payload = vec![number as u8; from.stack.mtu()];
        from.stack
            .tell(&to, Packet::from(payload.clone()))
            .await
            .expect("it leaves");
        for other in nodes
            .iter()
            .filter(|other| gossip(other).id() != gossip(from).id())
        {
            let (src, heard) = received(other).await;
            assert_eq!(src.peer_id(), gossip(from).id());
            assert_eq!(
                src.to_string(),
                format!("{topic}@{}", gossip(from).id().expect("it signs"))
            );
            assert!(heard == payload);
        }
    }
}

#[test]
fn errors_of_gossip_say_what_is_expected() {
    assert_eq!(parse("mem/gossip=news").to_string(), "mem/gossip=news");
    assert_eq!(
        parse("mem/gossip=news,peers=7;9").to_string(),
        "mem/gossip=news,peers=7;9"
    );
    assert!(parse("udp/gossip=news").takes_key());
    assert!(refused("mem/gossip", 10).contains("a topic"));
    assert!(refused("mem/gossip=", 11).contains("a topic"));
    assert!(refused("gossip=news", 0).contains("below"));
    assert!(refused("mem/gossip=news,peers=7;;9", 24).contains("an address"));
    assert!(refused("mem/gossip=news,peer=7", 16).contains("peers"));
    assert!(refused("mem/gossip=news/kad", 16).contains("gossip does not support them"));
    assert!(parse("mem/gossip=news").check_asks().is_err());
}

#[tokio::test]
async fn nodes_of_one_text_are_one_network() {
    for text in [
        "mem=gossip_one/gossip=news",
        "udp/p2pke/frag/gossip=news",
        "udp/quic/gossip=news",
        "udp/p2pke/mbapp/kad/gossip=news",
    ] {
        println!("{text}");
        let text = parse(text);
        let nodes = [node(&text, 1).await, node(&text, 2).await, node(&text, 3).await];
        met(&nodes, "news", 2).await;
        publish_to_all(&nodes, "news").await;
    }
}

#[tokio::test(start_paused = true)]
async fn named_nodes_become_peers_and_visitors_only_publish() {
    let first = node(&parse("mem=gossip_named/gossip=news"), 1).await;
    let at = gossip(&first).inner().local_addrs().remove(0);
    let text = parse(&format!("mem=gossip_named/gossip=news,peers={at}"));
    let second = node(&text.apart(), 2).await;
    let nodes = [first, second];
    met(&nodes, "news", 1).await;
    publish_to_all(&nodes, "news").await;
    let visitor = node(&text.visiting(), 3).await;
    assert!(gossip(&visitor).topics().is_empty());
    while gossip(&visitor).subscribers("news").is_empty() {
        sleep(Duration::from_millis(20)).await;
    }
    let to = GossipAddr::topic("news");
    gossip(&visitor)
        .tell(&to, "hello".into())
        .await
        .expect("it leaves");
    for node in &nodes {
        let (src, heard) = received(node).await;
        assert_eq!((src.peer_id(), &*heard), (gossip(&visitor).id(), &b"hello"[..]));
    }
    // Nodes of the same text that are apart do not know each other.
    let apart = node(&parse("mem=gossip_named/gossip=news"), 4).await;
    assert!(gossip(&apart).peers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_invalid_peer_address_is_an_error_at_its_position() {
    let error = parse("mem=gossip_no/gossip=news,peers=7;1x").build().await;
    let error = error.expect_err("no address");
    assert_eq!((error.at(), error.is_in_text()), (35, true), "{error}");
    let long = "x".repeat(2000);
    let error = parse(&format!("mem=gossip_no/gossip={long}")).build().await;
    assert_eq!(error.expect_err("too long").at(), 14);
    let stack = parse("mem=gossip_no/gossip=news").build().await.expect("a node");
    stack.close().await;
    let told = stack
        .tell(&stack.parse_addr("news").expect("a topic"), "hello".into())
        .await;
    assert!(matches!(told, Err(Error::Closed)), "{told:?}");
}

/// A topic addresses all subscribers; a node's best address must reach it alone.
#[tokio::test(start_paused = true)]
async fn the_best_address_of_a_node_reaches_it_alone_and_can_be_reopened() {
    let text = parse("mem=gossip_again/gossip=news");
    let nodes = [node(&text, 1).await, node(&text, 2).await, node(&text, 3).await];
    let at = nodes[1].stack.local_addrs().remove(0);
    assert_eq!(at.peer_id(), gossip(&nodes[1]).id());
    // Building has waited until the nodes know each other.
    nodes[0]
        .stack
        .tell(&at, "alone".into())
        .await
        .expect("it is sent");
    assert_eq!(received(&nodes[1]).await.1, b"alone");
    let other = timeout(Duration::from_secs(5), nodes[2].stack.receive()).await;
    assert!(other.is_err(), "{other:?}");
    nodes[1].stack.close().await;
    let key = PrivateKey::ed25519(&[2; 32]);
    let again = text.build_at(&at, &key).await.expect("its address is free");
    assert_eq!(again.local_addrs().remove(0), at);
    nodes[0].stack.tell(&at, "again".into()).await.expect("it leaves");
    let message = timeout(PATIENCE, again.receive()).await.expect("in time");
    assert_eq!(message.expect("open").payload, b"again");
}

/// The laws that need an address of a single node that can be restarted.
#[tokio::test(start_paused = true)]
async fn a_stack_that_ends_in_gossip_keeps_the_laws_of_addresses() {
    let needed = [
        "tell::a_message_reaches_its_destination_alone",
        "close::closing_frees_the_address",
        "close::dropping_frees_the_address",
    ];
    for text in ["mem=gossip_laws/gossip=x", "mem=gossip_laws/p2pke/gossip=x"] {
        let nodes = parse(text);
        let (again, keys) = (
            nodes.clone(),
            std::sync::Arc::new(std::sync::Mutex::new(Vec::new())),
        );
        let known = keys.clone();
        let plain = |stack: Stack| match stack {
            Stack::Plain(swarm) => swarm,
            _ => panic!("gossip has no asks"),
        };
        let profile = Profile {
            holds: 4096,
            ..Profile::default()
        };
        let bed = Testbed::new(Plain, move |count| {
            let (text, known) = (nodes.apart(), known.clone());
            async move {
                let mut made = Vec::new();
                for _ in 0..count {
                    let key = PrivateKey::ed25519(&rand::random());
                    let stack = plain(text.build_with(&key).await.map_err(p2p::Error::from)?);
                    let at = p2p::Swarm::local_addrs(&stack).remove(0);
                    known.lock().expect("no panic").push((at, key, text.clone()));
                    made.push(stack);
                }
                Ok(made)
            }
        });
        let bed = bed.profile(profile).rebind(move |addr: BoxAddr| {
            let known = keys.lock().expect("no panic");
            let made = known.iter().find(|(at, ..)| *at == addr);
            let made = made.map(|(_, key, text)| (key.clone(), text.clone()));
            let again = again.clone();
            async move {
                let (key, text) = made.unwrap_or_else(|| (PrivateKey::ed25519(&[1; 32]), again));
                Ok(text.build_at(&addr, &key).await?)
            }
        });
        for name in needed {
            let law = p2p_swarmtest::LAWS.iter().find(|law| law.name == name);
            let checked = bed.check(law.expect("a law of this name")).await;
            assert_eq!(checked.verdict, Verdict::Passed, "{text}: {checked}");
        }
    }
}
