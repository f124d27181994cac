//! What the core crate gives every swarm: header layers, boxes, serving asks, streams, metrics.

use std::cell::Cell;
use std::sync::Arc;

use futures_util::future::{join, join_all};
use futures_util::{FutureExt as _, StreamExt as _};
use metrics_util::MetricKind;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use p2p::{
    AskService, AskSwarm as _, BoxAskSwarm, BoxSwarm, Error, Header, HeaderSwarm, Packet, Reason, Rejection,
    Swarm as _, messages, serve_asks,
};
use p2p_swarms::memory::{MemoryAddr, MemoryRealm, MemorySwarm};
use tower_service::Service as _;

/// A network's tag in front of each message.
#[derive(Debug)]
struct Tag([u8; 4]);

impl Header for Tag {
    const LAYER: &'static str = "tag";

    fn len(&self) -> usize {
        4
    }

    fn write(&self, packet: &mut Packet) {
        packet.push_front(&self.0);
    }

    fn read(&self, packet: &mut Packet) -> Result<(), Reason> {
        (packet.pop_front() == Some(self.0))
            .then_some(())
            .ok_or(Reason::Malformed)
    }
}

type Tagged = HeaderSwarm<MemoryAddr, MemorySwarm, Tag>;

fn tagged(realm: &MemoryRealm, tag: [u8; 4]) -> Tagged {
    HeaderSwarm::new(realm.open(), Tag(tag))
}

fn addr(swarm: &Tagged) -> MemoryAddr {
    swarm.inner().local_addr()
}

#[tokio::test]
async fn a_header_layer_carries_singles_batches_and_asks() {
    let realm = MemoryRealm::default();
    let (one, two) = (tagged(&realm, *b"net1"), tagged(&realm, *b"net1"));
    one.tell(&addr(&two), Packet::from(b"single")).await.unwrap();
    assert_eq!(two.receive().await.unwrap().payload, b"single");

    let mut batch: Vec<_> = (0..3_u8)
        .map(|byte| (addr(&two), Packet::from(&[byte])))
        .collect();
    one.tell_batch(&mut batch).await.unwrap();
    assert!(batch.is_empty());
    let mut got = Vec::new();
    assert_eq!(two.receive_batch(&mut got, 2).await.unwrap(), 2);
    assert_eq!(two.receive_batch(&mut got, 2).await.unwrap(), 1);
    let payloads: Vec<&[u8]> = got.iter().map(|message| &*message.payload).collect();
    assert_eq!(payloads, [[0], [1], [2]]);

    let to = addr(&two);
    let (answer, ()) = join(one.ask(&to, Packet::from(b"question")), async {
        let request = two.receive_ask().await.unwrap();
        assert_eq!(request.payload, b"question");
        request.respond(Packet::from(b"answer")).await.unwrap();
    })
    .await;
    assert_eq!(answer.unwrap(), b"answer");
}

#[tokio::test]
async fn a_header_layer_drops_and_counts_what_is_not_its_own() {
    let realm = MemoryRealm::default();
    let (ours, theirs) = (tagged(&realm, *b"ours"), tagged(&realm, *b"them"));
    let mut batch: Vec<_> = (0..5).map(|_| (addr(&ours), Packet::from(b"x"))).collect();
    theirs.tell_batch(&mut batch).await.unwrap();
    let raw = realm.open();
    raw.tell(&addr(&ours), Packet::from(b"abc")).await.unwrap();
    raw.tell(&addr(&ours), Packet::from(b"oursgood")).await.unwrap();
    let mut got = Vec::new();
    assert_eq!(ours.receive_batch(&mut got, 100).await.unwrap(), 1);
    assert_eq!(got[0].payload, b"good");
    let mut dropped = None;
    ours.visit_counters(&mut |counters| {
        if counters.layer() == "tag" {
            dropped = Some(counters.snapshot().dropped(Reason::Malformed));
        }
    });
    assert_eq!(dropped, Some(6));

    let to = addr(&ours);
    let (answer, request) = join(
        theirs.ask(&to, Packet::from(b"?")),
        ours.receive_ask().now_or_never_after(),
    )
    .await;
    assert!(
        matches!(answer, Err(Error::Rejected(Rejection::NO_CHANNEL))),
        "{answer:?}"
    );
    assert!(request, "the ask of another network is not received");
}

/// Polls a future until its counterpart had its turn, and says whether it is still pending.
trait NowOrNeverAfter: Future + Sized {
    async fn now_or_never_after(self) -> bool {
        let mut future = std::pin::pin!(self);
        for _ in 0..10 {
            if (&mut future).now_or_never().is_some() {
                return false;
            }
            tokio::task::yield_now().await;
        }
        true
    }
}

impl<F: Future> NowOrNeverAfter for F {}

#[tokio::test]
async fn one_message_of_a_batch_over_the_mtu_holds_up_none_behind_it() {
    let realm = MemoryRealm::default();
    let (one, two) = (tagged(&realm, *b"net1"), tagged(&realm, *b"net1"));
    let mtu = one.mtu();
    assert_eq!(mtu, one.inner().mtu() - 4);
    let mut batch = [mtu + 1, 1, mtu, mtu + 9]
        .map(|size| (addr(&two), Packet::from(vec![7; size])))
        .into();
    let error = one.tell_batch(&mut batch).await.unwrap_err();
    assert_eq!((error.sent, error.refused), (2, 2));
    assert!(
        matches!(error.first, Error::MtuExceeded { size, mtu: limit } if size == mtu + 1 && limit == mtu)
    );
    assert_eq!(two.receive().await.unwrap().payload.len(), 1);
    assert_eq!(two.receive().await.unwrap().payload.len(), mtu);
}

#[tokio::test]
async fn a_boxed_swarm_is_the_same_swarm() {
    let realm = MemoryRealm::default();
    let (one, two) = (
        BoxAskSwarm::new(tagged(&realm, *b"net1")),
        BoxAskSwarm::new(tagged(&realm, *b"net1")),
    );
    let (plain, to) = (BoxSwarm::from(two.clone()), two.local_addrs()[0]);
    assert_eq!(
        (one.mtu(), one.headroom()),
        (two.mtu(), tagged(&realm, *b"net1").headroom())
    );
    one.tell(&to, one.packet(b"hello")).await.unwrap();
    assert_eq!(plain.receive().await.unwrap().payload, b"hello");
    assert_eq!(two.parse_addr(&to.to_string()).unwrap(), to);
    plain.close().await;
    assert!(matches!(two.receive_ask().await, Err(Error::Closed)));
}

#[tokio::test]
async fn asks_are_served_at_most_so_many_at_a_time() {
    const LIMIT: usize = 4;
    const ASKS: usize = 20;
    let realm = MemoryRealm::default();
    let (client, server) = (realm.open(), realm.open());
    let to = server.local_addr();
    let (running, most, done) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let handler = async |asked: p2p::Asked<MemoryAddr>| {
        running.set(running.get() + 1);
        most.set(most.get().max(running.get()));
        for _ in 0..5 {
            tokio::task::yield_now().await;
        }
        running.set(running.get() - 1);
        done.set(done.get() + 1);
        if asked.payload[0].is_multiple_of(2) {
            Ok(asked.payload)
        } else {
            Err(Rejection::BUSY)
        }
    };
    let ask = async |number: u8| match client.ask(&to, Packet::from(&[number])).await {
        Ok(answer) => assert!(number.is_multiple_of(2) && answer == &[number]),
        Err(error) => {
            assert!(
                !number.is_multiple_of(2) && matches!(error, Error::Rejected(Rejection::BUSY)),
                "{error}"
            );
        }
    };
    let (result, ()) = join(serve_asks(&server, LIMIT, handler), async {
        join_all((0..ASKS as u8).map(ask)).await;
        server.close().await;
    })
    .await;
    assert!(result.is_ok(), "closing ends serving without an error");
    assert_eq!((most.get(), done.get()), (LIMIT, ASKS));
}

#[tokio::test]
async fn a_stream_of_messages_ends_when_the_swarm_is_closed() {
    let realm = MemoryRealm::default();
    let (one, two) = (realm.open(), Arc::new(realm.open()));
    let mut stream = std::pin::pin!(messages(two.clone()));
    assert!(stream.next().now_or_never().is_none());
    for byte in 0..3_u8 {
        one.tell(&two.local_addr(), Packet::from(&[byte])).await.unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap().payload, &[byte]);
    }
    two.close().await;
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn an_ask_side_is_a_tower_service() {
    let realm = MemoryRealm::default();
    let (client, server) = (Arc::new(realm.open()), realm.open());
    let mut service = AskService::new(client);
    std::future::poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
    let to = server.local_addr();
    let (answer, _) = join(service.call((to, Packet::from(b"up"))), async {
        let request = server.receive_ask().await.unwrap();
        let echo = request.payload.clone();
        request.respond(echo).await
    })
    .await;
    assert_eq!(answer.unwrap(), b"up");
}

#[test]
fn counters_reach_the_metrics_facade_with_layer_depth_and_reason() {
    let recorder = DebuggingRecorder::new();
    let seen = recorder.snapshotter();
    let realm = MemoryRealm::default();
    let (one, two) = (tagged(&realm, *b"net1"), tagged(&realm, *b"net2"));
    one.tell(&addr(&two), Packet::from(b"x"))
        .now_or_never()
        .unwrap()
        .unwrap();
    assert!(two.receive().now_or_never().is_none());
    metrics::with_local_recorder(&recorder, || p2p_swarms::metrics::export(&two, "two"));
    let mut dropped = Vec::new();
    for (key, _, _, value) in seen.snapshot().into_vec() {
        let label = |name| {
            key.key()
                .labels()
                .find(|label| label.key() == name)
                .map(|label| label.value().to_owned())
        };
        assert_eq!(
            (key.kind(), label("node").as_deref()),
            (MetricKind::Counter, Some("two"))
        );
        if key.key().name() == "p2p_dropped_total" && value != DebugValue::Counter(0) {
            dropped.push((label("layer"), label("depth"), label("reason"), value));
        }
    }
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        dropped,
        [(some("tag"), some("0"), some("malformed"), DebugValue::Counter(1))]
    );
}
