//! The word `libp2p` of stacks as text.

use p2p::{Addr as _, AskSwarm as _, Swarm as _};
use p2p_libp2p::stack::{DEFAULT_PROTOCOL, Libp2pWord};
use p2p_libp2p::{HostAddr, HostSwarmConfig};
use p2p_swarms::stack::{Grammar, Layer, Stack, StackNode, StackText};

use crate::nodes::{dialling_host, private};

const PEER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

fn grammar() -> Grammar {
    Grammar::default().with_base(Libp2pWord).expect("a free word")
}

fn parse(text: &str) -> StackText {
    grammar().parse(text).unwrap_or_else(|error| panic!("{error}"))
}

async fn node(text: &StackText, seed: u8) -> StackNode {
    let node = text.build_node(&private(seed)).await;
    node.unwrap_or_else(|error| panic!("{error}"))
}

/// Returns the error of a text, checking its position.
#[track_caller]
fn refused(text: &str, at: usize) -> String {
    let error = grammar().parse(text).expect_err(text);
    assert_eq!(error.at(), at, "{error}");
    assert!(error.is_in_text());
    error.reason().to_owned()
}

async fn reaches(from: &Stack, to: &Stack) {
    let addr = to.local_addrs().remove(0);
    from.tell(&addr, from.packet(b"hello")).await.expect("a peer");
    let message = to.receive().await.expect("a message");
    assert_eq!(message.payload, b"hello");
    to.tell(&message.src, to.packet(b"back"))
        .await
        .expect("the source is reached");
    assert_eq!(from.receive().await.expect("a message").payload, b"back");
}

#[test]
fn a_multiaddr_is_one_value_and_layers_follow() {
    for (text, layers) in [
        ("libp2p", 1),
        ("libp2p=/ip4/127.0.0.1/tcp/0", 1),
        ("libp2p=/ip4/127.0.0.1/tcp/0/mux=chat", 2),
        ("libp2p=/ip6/::1/udp/0/quic-v1;/ip6/::1/tcp/0/frag/mux=a", 3),
        ("libp2p=/ip4/127.0.0.1/tcp/0,protocol=/my-app/1.0.0/mux=chat", 2),
        ("libp2p,protocol=/a/b/c/2.0/kad/mux=a", 3),
    ] {
        let stack = parse(text);
        assert_eq!((stack.layers().len(), stack.to_string().as_str()), (layers, text));
        assert!(matches!(stack.layers().next(), Some(Layer::Custom(_))));
        assert!(stack.takes_key() && stack.check_asks().is_err() == text.contains("frag"));
    }
    let peer = format!("/ip4/192.0.2.1/tcp/1/p2p/{PEER}");
    for layer in [
        format!("kad={peer};/p2p/{PEER}"),
        format!("gossip=t,peers={peer}"),
        format!("allow=/p2p/{PEER};{PEER}"),
    ] {
        let stack = parse(&format!("libp2p/{layer}/mux=a"));
        let layers: Vec<String> = stack.layers().map(ToString::to_string).collect();
        assert_eq!(layers, ["libp2p", &layer, "mux=a"]);
    }
}

#[test]
fn errors_name_the_position() {
    assert!(refused("libp3", 0).contains("mem, udp, libp2p"));
    assert!(refused("libp2p=/ip4/127.0.0.1/tcp/0/mxu=chat", 28).contains("there is no layer \"mxu\""));
    assert!(refused("libp2p=/ip4/127.0.0.1/tcp/mux=chat", 21).contains("invalid digit"));
    assert!(refused("libp2p=/ip4/127.0.0/tcp/0", 7).contains("IPv4"));
    assert!(refused("libp2p=/ip4/127.0.0.1/udp/0", 7).contains("/udp/PORT/quic-v1"));
    assert!(refused("libp2p=/ip4/127.0.0.1/tcp/0;/dns4/localhost/tcp/0", 28).contains("/tcp/PORT"));
    assert!(refused("libp2p=127.0.0.1:0", 7).contains("begins with '/'"));
    assert!(refused("libp2p=", 7).contains("a multiaddr"));
    assert!(refused("libp2p=/chat", 7).contains("a multiaddr"));
    assert!(refused("libp2p,protocol=chat", 16).contains("version"));
    assert!(refused("libp2p,protocol=/chat/mux=a", 16).contains("version"));
    assert!(refused("libp2p,port=1", 7).contains("protocol"));
    assert!(refused("mem/libp2p", 4).contains("must come first"));
    let many = vec!["/ip4/127.0.0.1/tcp/0"; 17].join(";");
    assert!(refused(&format!("libp2p={many}"), 7 + 16 * 21).contains("16 places"));
    let long = format!("libp2p,protocol=/{}/1", "a".repeat(500));
    assert!(refused(&long, 16).contains("500 bytes"));
}

#[tokio::test]
async fn nodes_tell_and_ask_over_quic_and_tcp() {
    for text in [
        "libp2p/mux=chat",
        "libp2p=/ip4/127.0.0.1/tcp/0,protocol=/test/1.0.0/mux=chat",
    ] {
        let text = parse(text);
        let (a, b) = (node(&text, 1).await.stack, node(&text, 2).await.stack);
        reaches(&a, &b).await;
        let (asks, serves) = (a.asks().expect("asks"), b.asks().expect("asks"));
        let to = b.local_addrs().remove(0);
        let serve = async {
            let request = serves.receive_ask().await.expect("asked");
            request.respond("pong".into()).await.expect("responded");
        };
        let (response, ()) = tokio::join!(asks.ask(&to, "ping".into()), serve);
        assert_eq!(response.expect("an answer"), b"pong");
    }
}

#[tokio::test]
async fn a_stack_reaches_programs_that_use_the_host_directly() {
    let text = parse("libp2p=/ip4/127.0.0.1/udp/0/quic-v1;/ip4/127.0.0.1/tcp/0");
    let stack = node(&text, 1).await.stack;
    let addrs = stack.local_addrs();
    assert_eq!(addrs.len(), 2);
    let host = dialling_host(2).await;
    let swarm = host
        .swarm(DEFAULT_PROTOCOL, HostSwarmConfig::default())
        .expect("a new protocol");
    let to: HostAddr = addrs[1].to_string().parse().expect("a host");
    swarm.tell(&to, "hello".into()).await.expect("a peer");
    let message = stack.receive().await.expect("a message");
    assert_eq!(message.src.to_string(), format!("/p2p/{}", host.peer_id()));
}

#[tokio::test]
async fn overlays_and_gossip_have_the_identity_of_the_host() {
    let first = node(&parse("libp2p/kad"), 1).await;
    let join = first.overlays[0].bootstraps().remove(0);
    let second = node(&parse(&format!("libp2p=/ip4/127.0.0.1/tcp/0/kad={join}")), 2).await;
    assert_eq!(first.stack.local_addrs()[0].peer_id(), join.peer_id());
    reaches(&second.stack, &first.stack).await;

    let text = parse("libp2p/gossip=news");
    let (a, b) = (node(&text, 1).await, node(&text, 2).await);
    let place = a.overlays[0].bootstraps().remove(0);
    assert_eq!(a.stack.local_addrs()[0].peer_id(), place.peer_id());
    reaches(&a.stack, &b.stack).await;
}

#[tokio::test]
async fn a_node_opens_at_the_address_of_a_closed_one() {
    for text in ["libp2p", "libp2p=/ip4/127.0.0.1/tcp/0/p2pke"] {
        let text = parse(text);
        let first = node(&text, 1).await.stack;
        let addr = first.local_addrs().remove(0);
        let taken = text
            .build_at(&addr, &private(1))
            .await
            .expect_err("the address is in use");
        assert!(taken.at() == 0 && !taken.is_in_text(), "{taken}");
        first.close().await;
        drop(first);
        let again = text
            .build_at(&addr, &private(1))
            .await
            .expect("the address is free");
        assert_eq!(again.local_addrs(), [addr]);
    }
}
