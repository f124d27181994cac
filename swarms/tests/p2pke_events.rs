//! Everything that P2PKE drops or abandons is counted and traced with the layer, the peer and the cause.
//!
//! The only test has a program of its own. `tracing` asks the first thread that reaches an event whether any
//! subscriber wants it, and caches the answer for all threads: a concurrent test without a subscriber would
//! disable events.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use p2p::{Counters, DropReason, Error, Packet, Swarm};
use p2p_formats::x509::PrivateKey;
use p2p_swarms::{KeyAddr, MemoryAddr, MemoryRealm, MemorySwarm, P2pkeConfig, P2pkeSwarm, SwarmExt as _};
use tokio::time::{sleep, timeout};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Stores every event of this layer as text.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<BTreeMap<&'static str, String>>>>);

struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl Subscriber for Events {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields(BTreeMap::new());
        event.record(&mut fields);
        if fields
            .0
            .get("layer")
            .is_some_and(|layer| layer.starts_with("p2pke"))
        {
            self.0.lock().expect("no thread panicked").push(fields.0);
        }
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

impl Events {
    /// Returns whether there was an event with these fields, and clears all events.
    fn had(&self, fields: &[(&str, &str)]) -> bool {
        let events = std::mem::take(&mut *self.0.lock().expect("no thread panicked"));
        let found = events.iter().any(|event| {
            fields
                .iter()
                .all(|(name, value)| event.get(name).is_some_and(|field| field == value))
        });
        if !found {
            println!("{events:#?}");
        }
        found
    }
}

type Node = P2pkeSwarm<MemoryAddr, MemorySwarm>;

fn node(inner: MemorySwarm, seed: u8, change: impl FnOnce(&mut P2pkeConfig)) -> Node {
    let mut config = P2pkeConfig::default();
    change(&mut config);
    P2pkeSwarm::with_config(inner, &PrivateKey::ed25519(&[seed; 32]), config).expect("a node")
}

fn addr(node: &Node) -> KeyAddr<MemoryAddr> {
    node.local_addrs().remove(0)
}

/// Returns the drops of this layer for this reason.
fn dropped(node: &Node, layer: &str, reason: DropReason) -> u64 {
    let mut dropped = 0;
    node.visit_counters(&mut |counters: &Counters| {
        if counters.layer() == layer {
            dropped = counters.snapshot().dropped(reason);
        }
    });
    dropped
}

#[tokio::test(start_paused = true)]
async fn every_drop_is_counted_and_traced_with_the_peer_and_the_cause() {
    let events = Events::default();
    let _guard = tracing::subscriber::set_default(events.clone());
    let realm = MemoryRealm::default();
    let b = node(realm.open(), 1, |config| config.messages.items = 1);
    let [raw, other] = [realm.open(), realm.open()];
    let from_raw = raw.local_addr().to_string();
    let to = addr(&b).addr;

    // An unknown peer, and invalid packets.
    let cases: [(&[u8], &str, DropReason, &str); 4] = [
        (&[0, 0], "p2pke", DropReason::NoPeer, "no session is established"),
        (
            &[0, 0, 0, 16, 1, 2, 3],
            "p2pke",
            DropReason::NoPeer,
            "no session is established",
        ),
        (
            &[0, 0, 0, 0, 9],
            "p2pke-handshake",
            DropReason::Malformed,
            "malformed packet: a hello without an ephemeral key",
        ),
        (
            &[0, 0, 0, 2, 9],
            "p2pke-handshake",
            DropReason::NoPeer,
            "no session is established",
        ),
    ];
    for (bytes, layer, reason, error) in cases {
        let before = dropped(&b, layer, reason);
        raw.tell(&to, Packet::from(bytes)).await.expect("room");
        assert!(timeout(Duration::from_millis(10), b.receive()).await.is_err());
        assert_eq!(dropped(&b, layer, reason), before + 1, "{error}");
        let expected = [
            ("layer", layer),
            ("reason", reason.as_str()),
            ("peer", &from_raw),
            ("error", error),
        ];
        assert!(events.had(&expected), "{error}");
    }

    // A known peer: packets that do not authenticate, and replays, sent by another node of the medium.
    let recorded = realm.open();
    let (at, mitm) = (recorded.local_addr(), Arc::new(recorded));
    let a = mitm
        .clone()
        .p2pke(&PrivateKey::ed25519(&[2; 32]))
        .expect("a node");
    a.tell(&addr(&b), a.packet(b"one")).await.expect("a session");
    assert_eq!(b.receive().await.expect("open").payload, b"one");
    assert!(events.had(&[
        ("layer", "p2pke"),
        ("peer", &a.id().to_string()),
        ("message", "session established")
    ]));
    mitm.tell(
        &to,
        Packet::from(&[
            0, 0, 0, 99, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17,
        ]),
    )
    .await
    .expect("room");
    assert!(timeout(Duration::from_millis(10), b.receive()).await.is_err());
    assert_eq!(dropped(&b, "p2pke", DropReason::Unauthenticated), 1);
    let peer = at.to_string();
    assert!(events.had(&[
        ("layer", "p2pke"),
        ("peer", &peer),
        ("error", "the packet does not authenticate")
    ]));

    // A reader without room.
    for _ in 0..3 {
        a.tell(&addr(&b), a.packet(b"two")).await.expect("it leaves");
    }
    sleep(Duration::from_millis(100)).await;
    assert_eq!(dropped(&b, "p2pke", DropReason::QueueFull), 2);
    assert!(events.had(&[
        ("layer", "p2pke"),
        ("reason", "queue_full"),
        ("peer", &a.local_addrs()[0].to_string())
    ]));

    // A handshake that is not answered.
    let absent = KeyAddr::new(a.id(), other.local_addr());
    let told = b.tell(&absent, b.packet(b"three")).await;
    assert!(matches!(told, Err(Error::TimedOut { .. })));
    let at = absent.addr.to_string();
    assert!(events.had(&[
        ("layer", "p2pke"),
        ("addr", &at),
        ("error", "the handshake went unanswered")
    ]));
}
