//! Multicast DNS on the loopback interface: between nodes, and with a responder made of bare packets.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use p2p::PeerId;
use p2p_discovery::laws::{self, Member, Testbed, Timing};
use p2p_discovery::{Addrs, Change, Discovery as _, Error, Mdns, MdnsConfig, Node, Topic};
use tokio::time::timeout;

use crate::dns::{self, Peer};
use crate::testbeds::addrs;

/// A currently unused port, so that concurrent tests are separate.
fn port() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.local_addr().expect("it has one").port()
}

fn config(port: u16) -> MdnsConfig {
    MdnsConfig {
        loopback: true,
        port,
        ..MdnsConfig::default()
    }
}

fn topic() -> Topic {
    "chat".parse().expect("a topic")
}

struct MdnsTestbed {
    port: u16,
    nodes: AtomicU8,
}

#[async_trait]
impl Testbed for MdnsTestbed {
    async fn member(&self) -> Member {
        let seed = self.nodes.fetch_add(1, Ordering::Relaxed);
        let node = Mdns::new(PeerId::new([seed; 32]), config(self.port)).expect("a responder");
        Member {
            id: node.id(),
            discovery: Arc::new(node),
            addrs: addrs(seed),
            others: Some(addrs(seed ^ 0x80)),
        }
    }

    fn timing(&self) -> Timing {
        // Three probes and two announcements take 2 s, and a withdrawn instance is removed after 1 s (RFC
        // 6762, sections 8 and 10.1).
        Timing {
            ttl: Duration::from_secs(6),
            propagation: Duration::from_secs(5),
            staleness: Duration::from_secs(2),
        }
    }
}

#[tokio::test]
async fn multicast_dns_keeps_the_laws() {
    let testbed = MdnsTestbed {
        port: port(),
        nodes: AtomicU8::new(1),
    };
    assert_eq!(laws::check(&testbed).await, Ok(()));
}

#[tokio::test]
async fn another_responder_queries_a_node_and_reads_its_response() {
    let port = port();
    let mut peer = Peer::join(port);
    let node = Mdns::new(PeerId::new([9; 32]), config(port)).expect("a responder");
    let told = Addrs::new(["-id@127.0.0.1:4009", "mem 7"]).expect("addresses");
    node.announce(&topic(), &told, Duration::from_mins(1))
        .await
        .expect("announced");
    let records = peer.ask_until("_p2p._udp.local.", |records| {
        records.iter().any(|record| record.kind == dns::TXT)
            && records.iter().any(|record| record.kind == dns::SRV)
    });
    let of = |kind| {
        records
            .iter()
            .find(|record| record.kind == kind)
            .expect("there is one")
    };
    let instance = of(dns::PTR).target.clone();
    assert_eq!(of(dns::PTR).name, "_p2p._udp.local.");
    assert!(instance.ends_with("._p2p._udp.local."), "{instance}");
    assert_eq!((&of(dns::SRV).name, of(dns::SRV).port), (&instance, 4009));
    assert_eq!(of(dns::TXT).name, instance);
    let id = format!("id={}", PeerId::new([9; 32]));
    let txt = [&*id, "topic=chat", "addr0=-id@127.0.0.1:4009", "addr1=mem 7"];
    assert_eq!(of(dns::TXT).strings, txt);
    // It sends a goodbye with a lifetime of zero (RFC 6762, section 10.1).
    node.withdraw(&topic()).await.expect("withdrawn");
    let records = peer.listen_until(|records| {
        records
            .iter()
            .any(|record| record.kind == dns::PTR && record.ttl == 0)
    });
    assert!(records.iter().any(|record| record.target == instance));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_finds_announcements_of_another_responder_and_ignores_invalid_ones() {
    let port = port();
    let mut peer = Peer::join(port);
    let node = Mdns::new(PeerId::new([9; 32]), config(port)).expect("a responder");
    let mut watch = node.watch(&topic());
    // It sends a question by itself.
    peer.hear_question("_p2p._udp.local.");
    let other = PeerId::new([8; 32]);
    let id = format!("id={other}");
    let bad: [&[&[u8]]; 7] = [
        &[],
        &[b"id=nobody", b"topic=chat", b"addr0=a"],
        &[id.as_bytes(), b"topic=Chat Room", b"addr0=a"],
        &[id.as_bytes(), b"topic=chat"],
        &[id.as_bytes(), b"topic=chat", b"addr1=a"],
        &[id.as_bytes(), b"topic=chat", b"addr0=a\x07b"],
        &[id.as_bytes(), b"topic=chat", b"addr0=\xff\xfe"],
    ];
    for (number, txt) in bad.iter().enumerate() {
        peer.announce("_p2p._udp.local.", &format!("bad{number}"), txt, 4000, 120);
    }
    peer.announce(
        "_p2p._udp.local.",
        "good",
        &[id.as_bytes(), b"topic=chat", b"addr0=127.0.0.1:4000", b"more=x"],
        4000,
        120,
    );
    let found = timeout(Duration::from_secs(30), watch.next())
        .await
        .expect("in time");
    let expected = Node {
        id: other,
        addrs: Addrs::new(["127.0.0.1:4000"]).expect("addresses"),
    };
    assert_eq!(
        found.expect("no end").expect("no error"),
        Change::Found(expected.clone())
    );
    assert_eq!(node.find(&topic()).await.expect("it listens"), [expected]);
    peer.announce(
        "_p2p._udp.local.",
        "good",
        &[id.as_bytes(), b"topic=chat", b"addr0=127.0.0.1:4000"],
        4000,
        0,
    );
    let lost = timeout(Duration::from_secs(30), watch.next())
        .await
        .expect("in time");
    assert_eq!(lost.expect("no end").expect("no error"), Change::Lost(other));
}

#[tokio::test(flavor = "multi_thread")]
async fn announcements_of_others_are_bounded() {
    let port = port();
    let mut peer = Peer::join(port);
    let config = MdnsConfig {
        known: 3,
        ..config(port)
    };
    let node = Mdns::new(PeerId::new([9; 32]), config).expect("a responder");
    peer.hear_question("_p2p._udp.local.");
    for number in 0..8_u8 {
        let id = format!("id={}", PeerId::new([number; 32]));
        peer.announce(
            "_p2p._udp.local.",
            &format!("n{number}"),
            &[id.as_bytes(), b"topic=chat", b"addr0=a"],
            4000,
            120,
        );
    }
    assert_eq!(
        timeout(Duration::from_secs(30), node.watch(&topic()).take(3).count()).await,
        Ok(3)
    );
    assert_eq!(node.find(&topic()).await.expect("it listens").len(), 3);
}

#[tokio::test]
async fn an_invalid_service_name_is_an_error() {
    for service in [
        "",
        "p2p",
        "_p2p",
        "_p2p._sctp",
        "_._udp",
        "_much-too-long-for-it._udp",
        "_a.b._udp",
        "_ä._udp",
    ] {
        let config = MdnsConfig {
            service: service.to_owned(),
            ..config(port())
        };
        let made = Mdns::new(PeerId::ZERO, config);
        assert!(
            matches!(made, Err(Error::Invalid { what: "service", .. })),
            "{service}"
        );
    }
}
