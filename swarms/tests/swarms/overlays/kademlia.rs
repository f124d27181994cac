//! Tests of Kademlia alone.

use std::time::Duration;

use p2p::{Addr as _, AskSwarm as _, Error, Packet, PeerId, Swarm as _};
use p2p_protocols::kademlia::wire as kad_wire;
use p2p_protocols::overlay::wire::Header;
use p2p_swarms::udp::has_zone;
use p2p_swarms::{KeyAddr, LinkFaults};
use tokio::time::Instant;

use crate::overlays::net::{Net, place, received};
use crate::overlays::node::{Inner, Kademlia};

const HOUR: Duration = Duration::from_hours(1);

/// A node in a response.
type Named<'a> = kad_wire::Node<'a>;
/// A request of the engine.
type AskMessage<'a> = kad_wire::Message<kad_wire::Ask<'a>>;

#[tokio::test(start_paused = true)]
async fn records_and_providers_are_found_with_progress() {
    let net = Net::<Kademlia>::joined(12).await;
    let (a, b, key) = (&net.nodes[1], &net.nodes[9], PeerId::new([7; 32]));
    assert_eq!(
        a.put(key, b"good news", HOUR)
            .expect("room")
            .finish()
            .await
            .expect("open"),
        11
    );
    assert!(a.put(key, b"bad news", HOUR).is_err());
    let mut getting = b.find_node(key).expect("room");
    let mut seen = Vec::new();
    while let Some(progress) = getting.progressed().await {
        seen.push(progress.answered);
    }
    assert!(!seen.is_empty() && seen.is_sorted(), "{seen:?}");
    assert_eq!(getting.finish().await.expect("open").len(), 11);
    let record = b.get(key).expect("room").finish().await.expect("open");
    assert_eq!(record.expect("a record").value, b"good news");
    assert_eq!(b.provide(key).expect("room").finish().await.expect("open"), 11);
    let providers = a.providers(key).expect("room").finish().await.expect("open");
    assert_eq!(providers.iter().map(|node| node.id).collect::<Vec<_>>(), [b.id()]);
    let getting = a.get(key).expect("room");
    a.close().await;
    assert!(matches!(getting.finish().await, Err(Error::Closed)));
    assert!(matches!(a.get(key), Err(Error::Closed)));
}

/// Answers the engine's lookups with `tell`, pings as an honest node does, and nothing else.
async fn lie(liar: &Inner, tell: impl Fn(PeerId) -> Vec<Named<'static>>) {
    let own = liar
        .local_addrs()
        .remove(0)
        .peer_id()
        .expect("the address proves an id");
    while let Ok(request) = liar.receive_ask().await {
        let mut payload = Packet::from(request.message.payload.to_vec());
        let Some(Header::Engine) = Header::pop(&mut payload) else {
            continue;
        };
        let answer = match AskMessage::parse(&payload).map(|message| message.body) {
            Some(kad_wire::Ask::FindNode(target)) => kad_wire::Answer::Nodes(tell(PeerId::new(target))),
            _ => kad_wire::Answer::Pong,
        };
        let answer = kad_wire::Message::new(*own.as_bytes(), answer).emit();
        let _ = request.respond(Packet::from(answer)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_false_id_at_a_nodes_true_address_does_not_make_it_unreachable() {
    let net = Net::<Kademlia>::joined(1).await;
    let slow = LinkFaults {
        delay: Duration::from_millis(20),
        ..LinkFaults::default()
    };
    net.faults.set_all(slow).expect("good faults");
    let (victim, liar) = (&net.nodes[0], net.sealed(99));
    let (id, at) = (victim.id(), place(victim));
    let named = |id: PeerId| Named {
        id: *id.as_bytes(),
        addr: KeyAddr::new(id, at).to_string().into(),
    };
    // Two of them, asked at the same time: one names the node, the other false ids at its address.
    let honest = net.sealed(98);
    let lies = lie(&liar, |target| {
        let made_up = (1..20).map(|bits| {
            let mut made_up = *id.as_bytes();
            made_up[31] ^= bits;
            named(PeerId::new(made_up))
        });
        made_up.filter(|_| target == id).collect()
    });
    let honesty = lie(&honest, |target| {
        (target == id).then(|| named(id)).into_iter().collect()
    });
    let asking = async {
        let a = net.node(50);
        let both = [liar.local_addrs(), honest.local_addrs()].concat();
        let joining = a.join(&both).expect("room");
        assert_eq!(joining.finish().await.expect("open"), 2);
        let start = Instant::now();
        let told = a.tell(&id, a.packet(b"hello")).await;
        told.expect("it is reachable");
        assert_eq!(received(victim).await, (a.id(), b"hello".to_vec()));
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    };
    tokio::select! {
        () = asking => {}
        () = lies => panic!("closed"),
        () = honesty => panic!("closed"),
    }
}

#[test]
fn an_address_with_a_zone_is_detected() {
    for zoned in [
        "[fe80::1%lo]:1",
        "[fe80::1%2]:1",
        "ID@[fe80::1%eth0]:9",
        "a|[::1]:1|[%]:2",
    ] {
        assert!(has_zone(zoned), "{zoned}");
    }
    for other in [
        "[fe80::1]:1",
        "127.0.0.1:1",
        "100%",
        "a%b@[::1]:1",
        "[::1]:1%2",
        "",
    ] {
        assert!(!has_zone(other), "{other}");
    }
}
