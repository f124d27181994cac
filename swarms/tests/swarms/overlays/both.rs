//! Tests that are the same for both overlays: nodes by id, directly or over relays, and the effects of hostile packets.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use p2p::{AskSwarm as _, DropReason, Error, Packet, PeerId, Swarm as _};
use p2p_protocols::overlay::wire::Header;
use p2p_protocols::p2pke::{self, Endpoint, Local};
use p2p_swarms::overlay::Identity;
use p2p_swarms::{Faults, MemoryRealm, SwarmExt as _};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::time::{Instant, timeout};

use crate::overlays::net::{Net, counts, key, place, received, receives_nothing, relayed, tell_raw};
use crate::overlays::node::{Node, boxed};

/// Makes a test for each overlay of each function: in paused time, then in real time.
macro_rules! for_both {
    (paused: $($paused:ident)* ; real: $($real:ident)*) => {
        for_both!(kademlia: Kademlia, [$($paused)*], [$($real)*]);
        for_both!(chord: Chord, [$($paused)*], [$($real)*]);
    };
    ($module:ident: $node:ident, [$($paused:ident)*], [$($real:ident)*]) => {
        mod $module {
            use crate::overlays::node::$node;
            $(
                #[tokio::test(start_paused = true)]
                async fn $paused() {
                    super::$paused::<$node>().await;
                }
            )*
            $(
                #[tokio::test]
                async fn $real() {
                    super::$real::<$node>().await;
                }
            )*
        }
    };
}

for_both! {
    paused:
        a_node_is_told_and_asked_by_its_id
        an_unknown_id_is_an_error_in_time
        a_node_without_a_network_reaches_no_node
        a_node_without_a_direct_path_is_told_and_asked_over_relays
        a_node_that_is_reachable_again_is_told_directly
        relaying_can_be_switched_off
        a_node_that_moves_is_known_at_its_new_address_with_its_first_message
        a_node_that_moves_silently_is_found_again_within_minutes
        no_node_can_send_in_the_name_of_another
        invalid_messages_are_dropped_and_counted
        relaying_has_a_budget_and_a_hop_limit
        a_relayed_message_with_a_spoofed_source_starts_no_lookup_and_is_answered_over_its_neighbour
        relayed_messages_for_this_node_have_a_budget
        messages_told_before_close_arrive_directly_and_over_relays
        nodes_without_keys_reach_each_other_over_relays
    ;
    real:
        quic_runs_over_a_route_over_relays
        an_invalid_configuration_is_refused
}

async fn a_node_is_told_and_asked_by_its_id<N: Node>() {
    let net = Net::<N>::joined(10).await;
    let (a, b) = (&net.nodes[4], &net.nodes[8]);
    a.tell(&b.id(), a.packet(b"hello"))
        .await
        .expect("it is reachable");
    assert_eq!(received(b).await, (a.id(), b"hello".to_vec()));
    let serving = async {
        let request = b.receive_ask().await.expect("open");
        assert_eq!((request.message.src, request.message.dst), (a.id(), b.id()));
        request.respond(Packet::from(b"answer")).await.expect("it fits");
    };
    let id = b.id();
    let (answer, ()) = tokio::join!(a.ask(&id, a.packet(b"ask")), serving);
    assert_eq!(answer.expect("an answer"), b"answer");
    assert_eq!(a.lookup_public_key(&b.id()).await.expect("a key"), b.public_key());
    let others: Vec<&N> = net.nodes.iter().collect();
    assert_eq!(relayed(&others), 0);
}

async fn an_unknown_id_is_an_error_in_time<N: Node>() {
    let net = Net::<N>::joined(6).await;
    let (a, absent) = (&net.nodes[0], PeerId::new([9; 32]));
    let start = Instant::now();
    let told = a.tell(&absent, a.packet(b"hello")).await;
    assert!(matches!(told, Err(Error::Unreachable { .. })), "{told:?}");
    let asked = a.ask(&absent, a.packet(b"hello")).await;
    assert!(matches!(asked, Err(Error::Unreachable { .. })), "{asked:?}");
    assert!(a.lookup_public_key(&absent).await.is_err());
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    // A closed node takes as long as a request to it, and an attempt to reach it over relays.
    let gone = net.nodes[3].id();
    net.nodes[3].close().await;
    let told = a.tell(&gone, a.packet(b"hello")).await;
    assert!(told.is_err());
    assert!(start.elapsed() < Duration::from_mins(1), "{:?}", start.elapsed());
}

async fn a_node_without_a_network_reaches_no_node<N: Node>() {
    let net = Net::<N>::joined(1).await;
    let (a, other) = (&net.nodes[0], PeerId::new([9; 32]));
    assert!(matches!(
        a.tell(&other, a.packet(b"hello")).await,
        Err(Error::Unreachable { .. })
    ));
    a.tell(&a.id(), a.packet(b"hello")).await.expect("itself");
    assert_eq!(received(a).await, (a.id(), b"hello".to_vec()));
}

async fn a_node_without_a_direct_path_is_told_and_asked_over_relays<N: Node>() {
    let net = Net::<N>::joined(8).await;
    let (a, b) = (&net.nodes[3], &net.nodes[6]);
    net.cut(a, b);
    a.tell(&b.id(), a.packet(b"hello"))
        .await
        .expect("a route over relays");
    assert_eq!(received(b).await, (a.id(), b"hello".to_vec()));
    b.tell(&a.id(), b.packet(b"hello, too"))
        .await
        .expect("a route over relays");
    assert_eq!(received(a).await, (b.id(), b"hello, too".to_vec()));
    // As long as the MTU permits, in both directions.
    let long = vec![7; a.mtu()];
    let serving = async {
        let request = b.receive_ask().await.expect("open");
        assert_eq!((request.message.src, &*request.message.payload), (a.id(), &*long));
        let response = request.message.payload.to_vec();
        request.respond(Packet::from(response)).await.expect("it fits");
    };
    let id = b.id();
    let (answer, ()) = tokio::join!(a.ask(&id, a.packet(&long)), serving);
    assert_eq!(answer.expect("an answer"), *long);
    let others: Vec<&N> = net
        .nodes
        .iter()
        .filter(|node| ![a.id(), b.id()].contains(&node.id()))
        .collect();
    assert!(relayed(&others) > 8);
    // Keys of the swarm below cannot be looked up over relays.
    assert!(a.lookup_public_key(&b.id()).await.is_err());
}

async fn a_node_that_is_reachable_again_is_told_directly<N: Node>() {
    let net = Net::<N>::joined(8).await;
    let (a, b) = (&net.nodes[3], &net.nodes[6]);
    net.cut(a, b);
    a.tell(&b.id(), a.packet(b"1"))
        .await
        .expect("a route over relays");
    assert_eq!(received(b).await.1, b"1");
    net.faults.heal();
    // It is looked up again, concurrently with the first message after some time.
    tokio::time::sleep(Duration::from_secs(61)).await;
    a.tell(&b.id(), a.packet(b"2")).await.expect("a route");
    assert_eq!(received(b).await.1, b"2");
    tokio::time::sleep(Duration::from_secs(20)).await;
    let others: Vec<&N> = net.nodes.iter().filter(|node| node.id() != a.id()).collect();
    let before = relayed(&others);
    for _ in 0..10 {
        a.tell(&b.id(), a.packet(b"3")).await.expect("a route");
        assert_eq!(received(b).await.1, b"3");
    }
    assert_eq!(relayed(&others), before);
}

async fn relaying_can_be_switched_off<N: Node>() {
    let net = Net::<N>::joined_as(6, |config| config.relay = false).await;
    let (a, b) = (&net.nodes[2], &net.nodes[5]);
    net.cut(a, b);
    let start = Instant::now();
    let told = a.tell(&b.id(), a.packet(b"hello")).await;
    assert!(told.is_err(), "{told:?}");
    assert!(start.elapsed() < Duration::from_mins(1), "{:?}", start.elapsed());
    let others: Vec<&N> = net.nodes.iter().filter(|node| node.id() != a.id()).collect();
    assert_eq!(relayed(&others), 0);
    let refused = others
        .iter()
        .map(|node| counts(*node, N::LAYERS[2]).dropped(DropReason::Denied));
    assert!(refused.sum::<u64>() > 0);
}

async fn a_node_that_moves_is_known_at_its_new_address_with_its_first_message<N: Node>() {
    let mut net = Net::<N>::joined(6).await;
    let b = net.nodes.pop().expect("six nodes");
    let a = &net.nodes[2];
    a.tell(&b.id(), a.packet(b"1")).await.expect("it is reachable");
    assert_eq!(received(&b).await.1, b"1");
    let id = b.id();
    drop(b);
    let b = net.node(5);
    assert_eq!(b.id(), id);
    net.join(&b).await;
    b.tell(&a.id(), b.packet(b"2")).await.expect("it is reachable");
    assert_eq!(received(a).await, (id, b"2".to_vec()));
    a.tell(&id, a.packet(b"3")).await.expect("it is reachable");
    assert_eq!(received(&b).await.1, b"3");
}

async fn a_node_that_moves_silently_is_found_again_within_minutes<N: Node>() {
    let mut net = Net::<N>::joined(6).await;
    let b = net.nodes.pop().expect("six nodes");
    let a = &net.nodes[2];
    a.tell(&b.id(), a.packet(b"1")).await.expect("it is reachable");
    assert_eq!(received(&b).await.1, b"1");
    drop(b);
    let b = net.node(5);
    net.join(&b).await;
    let mut rounds = 0;
    loop {
        let _ = a.tell(&b.id(), a.packet(b"2")).await;
        if let Ok(message) = timeout(Duration::from_secs(20), b.receive()).await {
            assert_eq!(message.expect("open").src, a.id());
            break;
        }
        rounds += 1;
        assert!(rounds < 12, "the node is not found again");
    }
}

async fn no_node_can_send_in_the_name_of_another<N: Node>() {
    let net = Net::<N>::joined(4).await;
    let (a, b) = (&net.nodes[1], &net.nodes[2]);
    let stranger = net.sealed(99);
    let (src, dst) = (b.id(), a.id());
    tell_raw(&stranger, a, Header::Named { src, dst }, b"I am b").await;
    for at in 0..100 {
        tell_raw(&stranger, a, Header::Relayed { hops: 9, src, dst }, &[at; 100]).await;
    }
    receives_nothing(a).await;
    assert_eq!(counts(a, N::LAYERS[0]).dropped(DropReason::Malformed), 1);
    // Messages that b itself sends still arrive.
    b.tell(&a.id(), b.packet(b"I am b"))
        .await
        .expect("it is reachable");
    assert_eq!(received(a).await, (b.id(), b"I am b".to_vec()));
}

async fn invalid_messages_are_dropped_and_counted<N: Node>() {
    let net = Net::<N>::joined(2).await;
    let (a, stranger) = (&net.nodes[0], net.sealed(99));
    let to = a.place();
    let odd: [&[u8]; 5] = [b"", &[9, 1, 2], &[2; 10], &[3; 65], &[1, 1]];
    for bytes in odd {
        stranger
            .tell(&to, Packet::from(bytes))
            .await
            .expect("it is reachable");
        let asked = stranger.ask(&to, Packet::from(bytes)).await;
        assert!(matches!(asked, Err(Error::Rejected(_))), "{asked:?}");
    }
    receives_nothing(a).await;
    assert_eq!(counts(a, N::LAYERS[0]).dropped(DropReason::Malformed), 5);
    assert_eq!(counts(a, N::LAYERS[1]).dropped(DropReason::Malformed), 4);
    assert_eq!(counts(a, N::LAYERS[3]).dropped(DropReason::Refused), 1);
}

async fn relaying_has_a_budget_and_a_hop_limit<N: Node>() {
    let net = Net::<N>::joined_as(4, |config| {
        config.relay_bytes_each = 1000;
        config.relay_bytes = 1500;
    })
    .await;
    let (a, b) = (&net.nodes[1], &net.nodes[2]);
    let (one, two) = (net.sealed(98), net.sealed(99));
    let (src, dst) = (PeerId::new([3; 32]), b.id());
    let header = |hops| Header::Relayed { hops, src, dst };
    tell_raw(&one, a, header(0), &[0; 100]).await;
    for _ in 0..100 {
        tell_raw(&one, a, header(9), &[0; 100]).await;
    }
    for _ in 0..100 {
        tell_raw(&two, a, header(9), &[0; 100]).await;
    }
    receives_nothing(b).await;
    let relays = counts(a, N::LAYERS[2]);
    assert_eq!((relays.received, relays.sent), (201, 15));
    assert_eq!(relays.dropped(DropReason::Expired), 1);
    assert_eq!(relays.dropped(DropReason::Budget), 185);
    // A message to an unknown id is dropped, or goes to a nearer node, which knows no nearer one.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before: u64 = relayed(&net.nodes.iter().collect::<Vec<_>>());
    let dst = PeerId::new([77; 32]);
    tell_raw(&one, a, Header::Relayed { hops: 255, src, dst }, &[0; 100]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after: u64 = relayed(&net.nodes.iter().collect::<Vec<_>>());
    assert!(after - before < 4, "{} times", after - before);
}

/// A P2PKE hello, signed with a key of its own.
fn hello(number: u8) -> Vec<u8> {
    let mut rng = StdRng::seed_from_u64(number.into());
    let local = Local::new(&key(number), p2pke::Config::default()).expect("a good key");
    let mut endpoint = Endpoint::<u8>::new(Arc::new(local), &mut rng);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let begun = endpoint.connect(now.expect("after 1970"), &0, None, &mut rng);
    assert!(begun.is_ok_and(|path| path.is_none()));
    endpoint.poll_transmit().expect("a hello").1.to_vec()
}

async fn a_relayed_message_with_a_spoofed_source_starts_no_lookup_and_is_answered_over_its_neighbour<
    N: Node,
>() {
    let net = Net::<N>::joined(10).await;
    let a = &net.nodes[4];
    let stranger = net.sealed(99);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = counts(a, N::LAYERS[3]).sent;
    let mut brought = 0;
    for number in 100..140 {
        let (src, dst) = (PeerId::new([number; 32]), a.id());
        let hello = hello(number);
        brought += hello.len() + Header::Relayed { hops: 0, src, dst }.len();
        tell_raw(&stranger, a, Header::Relayed { hops: 0, src, dst }, &hello).await;
        tokio::time::sleep(Duration::from_millis(70)).await;
    }
    let (mut answered, mut bytes) = (HashSet::new(), 0);
    while let Ok(answer) = timeout(Duration::from_secs(1), stranger.receive()).await {
        let mut packet = answer.expect("open").payload;
        bytes += packet.len();
        match Header::pop(&mut packet) {
            Some(Header::Relayed { src, dst, .. }) if src == a.id() => answered.insert(dst),
            other => panic!("{other:?}"),
        };
    }
    let requests = counts(a, N::LAYERS[3]).sent - before;
    // Maintenance may send requests meanwhile; each lookup would be about twenty.
    assert!(requests < 10, "{requests} requests");
    assert!(answered.len() > 30, "{} are answered", answered.len());
    assert!(bytes <= 2 * brought, "{bytes} B in response to {brought} B");
    // Nodes that this node itself wants to reach over relays are found as before.
    let b = &net.nodes[7];
    net.cut(a, b);
    a.tell(&b.id(), a.packet(b"hello"))
        .await
        .expect("a route over relays");
    assert_eq!(received(b).await, (a.id(), b"hello".to_vec()));
}

async fn relayed_messages_for_this_node_have_a_budget<N: Node>() {
    let net = Net::<N>::joined_as(3, |config| {
        config.arriving_bytes_each = 1000;
        config.arriving_bytes = 1500;
    })
    .await;
    let a = &net.nodes[1];
    let (one, two) = (net.sealed(98), net.sealed(99));
    let (src, dst) = (PeerId::new([3; 32]), a.id());
    for _ in 0..100 {
        tell_raw(&one, a, Header::Relayed { hops: 0, src, dst }, &[0; 100]).await;
    }
    for _ in 0..100 {
        tell_raw(&two, a, Header::Relayed { hops: 0, src, dst }, &[0; 100]).await;
    }
    receives_nothing(a).await;
    let relays = counts(a, N::LAYERS[2]);
    assert_eq!(relays.received, 200);
    assert_eq!(relays.dropped(DropReason::Budget), 185);
    // Any number of spoofed sources: 16 per second are accepted.
    tokio::time::sleep(Duration::from_secs(1)).await;
    for number in 0..200 {
        let src = PeerId::new([number; 32]);
        tell_raw(&one, a, Header::Relayed { hops: 0, src, dst }, &[0; 1]).await;
    }
    receives_nothing(a).await;
    let more = counts(a, N::LAYERS[2]).dropped(DropReason::Budget) - 185;
    assert!((183..=184).contains(&more), "{more}");
}

async fn messages_told_before_close_arrive_directly_and_over_relays<N: Node>() {
    for over_others in [false, true] {
        let net = Net::<N>::joined(8).await;
        let (a, b) = (&net.nodes[3], &net.nodes[6]);
        if over_others {
            net.cut(a, b);
        }
        for number in 0..50_u8 {
            a.tell(&b.id(), a.packet(&[number])).await.expect("a route");
        }
        a.close().await;
        assert!(matches!(
            a.tell(&b.id(), a.packet(b"late")).await,
            Err(Error::Closed)
        ));
        let mut arrived = Vec::new();
        for _ in 0..50 {
            arrived.extend(received(b).await.1);
        }
        arrived.sort_unstable();
        assert_eq!(
            arrived,
            (0..50).collect::<Vec<u8>>(),
            "over others: {over_others}"
        );
    }
}

async fn nodes_without_keys_reach_each_other_over_relays<N: Node>() {
    let (realm, faults) = (MemoryRealm::default(), Faults::seeded(1));
    let mut nodes = Vec::new();
    for number in 0..6_u8 {
        let inner = boxed(realm.open().faulty(faults.clone()));
        let identity = Identity::Unproven(PeerId::new([number.wrapping_mul(41); 32]));
        nodes.push(N::new(inner, identity).expect("a node"));
    }
    let first = [nodes[0].place()];
    for node in &nodes[1..] {
        node.join(&first).await.expect("a member answers");
    }
    let (a, b) = (&nodes[2], &nodes[4]);
    faults.partition(&[place(a)], &[place(b)]);
    a.tell(&b.id(), a.packet(b"hello"))
        .await
        .expect("a route over relays");
    let message = timeout(Duration::from_mins(1), b.receive()).await;
    let message = message.expect("in time").expect("open");
    assert_eq!((message.src, &*message.payload), (a.id(), &b"hello"[..]));
}

async fn quic_runs_over_a_route_over_relays<N: Node>() {
    let net = Net::<N>::joined(5).await;
    let (cut, mut quic) = ([1, 3], Vec::new());
    net.cut(&net.nodes[cut[0]], &net.nodes[cut[1]]);
    let Net { nodes, .. } = net;
    let mut others = Vec::new();
    for (at, node) in nodes.into_iter().enumerate() {
        if cut.contains(&at) {
            quic.push(node.quic(&key(200 + at as u8)).expect("a node"));
        } else {
            others.push(node);
        }
    }
    let [a, b] = <[_; 2]>::try_from(quic).expect("two nodes");
    let to = b.local_addrs().remove(0);
    let long = vec![7; 100_000];
    let serving = async {
        let request = b.receive_ask().await.expect("open");
        assert_eq!(*request.message.payload, *long);
        request.respond(Packet::from(b"answer")).await.expect("it fits");
    };
    let asking = async {
        // The first handshakes may end before the route over relays is found.
        for _ in 0..10 {
            if let Ok(answer) = a.ask(&to, Packet::from(long.clone())).await {
                return answer;
            }
        }
        panic!("no answer");
    };
    let (answer, ()) = tokio::join!(asking, serving);
    assert_eq!(answer, b"answer");
    assert!(relayed(&others.iter().collect::<Vec<_>>()) > 10);
}

#[expect(clippy::unused_async, reason = "all tests of both overlays are called alike")]
async fn an_invalid_configuration_is_refused<N: Node>() {
    let realm = MemoryRealm::default();
    let no_id = N::new(boxed(realm.open()), Identity::Proven);
    assert!(matches!(
        no_id,
        Err(Error::Invalid {
            what: "inner swarm",
            ..
        })
    ));
    let sealed = realm.open().p2pke(&key(1)).expect("a node").mbapp(9000);
    let other_key = N::new(boxed(sealed), Identity::Key(&key(2)));
    assert!(matches!(
        other_key,
        Err(Error::Invalid {
            what: "private key",
            ..
        })
    ));
    let narrow = realm.open().p2pke(&key(1)).expect("a node").mbapp(500);
    let narrow = N::new(boxed(narrow), Identity::Key(&key(1)));
    assert!(matches!(
        narrow,
        Err(Error::Invalid {
            what: "inner swarm",
            ..
        })
    ));
}
