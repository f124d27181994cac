//! Features of the core crate for every swarm: header layers, boxes, serving asks, streams, metrics.

use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::{join, join_all};
use futures_util::{FutureExt as _, StreamExt as _};
use metrics_util::MetricKind;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use p2p::{
    Addr, AskService, AskSwarm as _, BoxAddr, BoxAskSwarm, BoxSecureAskSwarm, BoxSecureSwarm, BoxSwarm,
    DropReason, Error, Filter, FilterSwarm, Headroom, Message, Packet, PeerId, Rejection, Request,
    SecureSwarm as _, Swarm, messages, serve_asks,
};
use p2p_swarms::memory::{MemoryAddr, MemoryRealm, MemorySwarm};
use p2p_swarms::{EraseSwarm, FragmentSwarm};
use p2p_swarmtest::{Plain, SecureAsk};
use tower_service::Service as _;

use crate::{counted, hears, keeps_all_laws, over_memory, pair, poll_once};

/// A network's tag in front of each message.
#[derive(Debug)]
struct Tag([u8; 4]);

impl<A: Addr> Filter<A> for Tag {
    const LAYER: &'static str = "tag";

    fn overhead(&self) -> Headroom {
        Headroom::new(4, 0)
    }

    fn outgoing(&self, _: &A, packet: &mut Packet) -> p2p::Result<()> {
        packet.push_front(&self.0);
        Ok(())
    }

    fn incoming(&self, _: &A, packet: &mut Packet) -> Result<(), DropReason> {
        (packet.pop_front() == Some(self.0))
            .then_some(())
            .ok_or(DropReason::Malformed)
    }
}

type Tagged = FilterSwarm<MemoryAddr, MemorySwarm, Tag>;

fn tagged(realm: &MemoryRealm, tag: [u8; 4]) -> Tagged {
    FilterSwarm::new(realm.open(), Tag(tag))
}

fn addr(swarm: &Tagged) -> MemoryAddr {
    swarm.inner().local_addr()
}

#[tokio::test(start_paused = true)]
async fn a_header_layer_keeps_all_laws() {
    let layer = |swarm| Ok(FilterSwarm::new(swarm, Tag(*b"test")));
    keeps_all_laws(over_memory!(SecureAsk, layer)).await;
}

#[tokio::test(start_paused = true)]
async fn boxed_swarms_keep_all_laws() {
    let boxed = |swarm| Ok(BoxSecureAskSwarm::new(swarm));
    keeps_all_laws(over_memory!(SecureAsk, boxed)).await;
    // A layer above need not know the type of addresses either.
    let erased = |swarm| {
        Ok(FragmentSwarm::new(
            BoxSwarm::new(EraseSwarm::erase(swarm)),
            100 << 10,
        ))
    };
    let again = |addr: &BoxAddr| {
        addr.downcast_ref::<MemoryAddr>()
            .copied()
            .expect("an address of memory")
    };
    let realm = MemoryRealm::default();
    let free = realm.clone();
    let bed = p2p_swarmtest::Testbed::new(Plain, move |count| {
        let nodes = (0..count).map(|_| erased(realm.open()));
        std::future::ready(nodes.collect::<p2p::Result<Vec<_>>>())
    });
    let bed =
        bed.rebind(move |addr: BoxAddr| std::future::ready(free.open_at(again(&addr)).and_then(erased)));
    keeps_all_laws(bed.profile(crate::profile())).await;
}

#[test]
fn a_filter_takes_its_overhead_from_the_mtu() {
    #[derive(Debug)]
    struct Overhead(Headroom);
    impl<A: Addr> Filter<A> for Overhead {
        const LAYER: &'static str = "overhead";
        fn overhead(&self) -> Headroom {
            self.0
        }
        fn outgoing(&self, _: &A, _: &mut Packet) -> p2p::Result<()> {
            Ok(())
        }
        fn incoming(&self, _: &A, _: &mut Packet) -> Result<(), DropReason> {
            Ok(())
        }
    }
    for room in [Headroom::default(), Headroom::new(4, 0), Headroom::new(3, 16)] {
        let swarm = FilterSwarm::new(MemorySwarm::new(), Overhead(room));
        assert_eq!(swarm.mtu(), swarm.inner().mtu() - room.front - room.back);
        assert_eq!(swarm.headroom(), room.plus(swarm.inner().headroom()));
        assert_eq!(swarm.packet(b"hello").room().front, swarm.headroom().front);
    }
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
        assert_eq!(request.message.payload, b"question");
        request.respond(Packet::from(b"answer")).await.unwrap();
    })
    .await;
    assert_eq!(answer.unwrap(), b"answer");
}

#[tokio::test]
async fn a_header_layer_drops_and_counts_foreign_messages() {
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
    let counts = counted(&ours, "tag");
    assert_eq!(
        (
            counts.received,
            counts.delivered,
            counts.dropped(DropReason::Malformed)
        ),
        (7, 1, 6)
    );

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
    // A batch of such messages does not end a receive.
    let mut batch = (0..5).map(|_| (addr(&ours), Packet::from(b"x"))).collect();
    theirs.tell_batch(&mut batch).await.unwrap();
    assert!(poll_once(ours.receive_batch(&mut got, 100)).is_pending());
    assert_eq!(counted(&ours, "tag").received, 12);
}

/// Polls a future until its counterpart has run, and returns whether it is still pending.
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
async fn an_oversize_message_in_a_batch_does_not_block_the_following_ones() {
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
    assert_eq!(
        (counted(&one, "tag").sent, counted(&plain, "tag").delivered),
        (1, 1)
    );
    assert_eq!(two.parse_addr(&to.to_string()).unwrap(), to);
    plain.close().await;
    assert!(matches!(two.receive_ask().await, Err(Error::Closed)));
}

#[tokio::test]
async fn concurrent_serving_of_asks_is_bounded() {
    const LIMIT: usize = 4;
    const ASKS: usize = 20;
    let realm = MemoryRealm::default();
    let (client, server) = (realm.open(), realm.open());
    let to = server.local_addr();
    let (running, most, done) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let handler = async |request: p2p::Message<MemoryAddr>| {
        running.set(running.get() + 1);
        most.set(most.get().max(running.get()));
        for _ in 0..5 {
            tokio::task::yield_now().await;
        }
        running.set(running.get() - 1);
        done.set(done.get() + 1);
        if request.payload[0].is_multiple_of(2) {
            Ok(request.payload)
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
        one.tell(&two.as_ref().local_addr(), Packet::from(&[byte]))
            .await
            .unwrap();
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
    assert_eq!(format!("{:?}", service.clone()), "AskService");
    std::future::poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
    let to = server.local_addr();
    let (answer, _) = join(service.call((to, Packet::from(b"up"))), async {
        let request = server.receive_ask().await.unwrap();
        let echo = request.message.payload.clone();
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

/// A swarm that implements only the required methods.
struct Least(MemorySwarm);

impl Swarm<MemoryAddr> for Least {
    async fn tell(&self, dst: &MemoryAddr, packet: Packet) -> p2p::Result<()> {
        self.0.tell(dst, packet).await
    }
    async fn receive(&self) -> p2p::Result<Message<MemoryAddr>> {
        self.0.receive().await
    }
    fn mtu(&self) -> usize {
        self.0.mtu()
    }
    fn local_addrs(&self) -> Vec<MemoryAddr> {
        self.0.local_addrs()
    }
    fn parse_addr(&self, text: &str) -> p2p::Result<MemoryAddr> {
        self.0.parse_addr(text)
    }
    async fn close(&self) {
        self.0.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn default_methods_keep_all_laws() {
    let bed = over_memory!(Plain, |swarm| Ok(Least(swarm)));
    keeps_all_laws(bed).await;
    let swarm = Least(MemorySwarm::new());
    assert_eq!(swarm.headroom(), Headroom::default());
    assert_eq!(swarm.packet(b"hello"), b"hello");
    swarm.visit_counters(&mut |counters| panic!("{}", counters.layer()));
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Number(u16);

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl Addr for Number {}

#[test]
fn boxed_addresses_behave_like_typed_ones() {
    let socket = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let id = |byte| PeerId::new([byte; 32]);
    assert_eq!((Number(1).peer_id(), Number(1).socket_addr()), (None, None));
    assert_eq!((id(1).peer_id(), id(1).socket_addr()), (Some(id(1)), None));
    assert_eq!(
        (socket(1).peer_id(), socket(1).socket_addr()),
        (None, Some(socket(1)))
    );
    let boxed = |byte: u8| {
        [
            BoxAddr::new(Number(byte.into())),
            BoxAddr::new(id(byte)),
            BoxAddr::new(socket(byte.into())),
        ]
    };
    let [number, peer, local] = boxed(1);
    assert_eq!((number.peer_id(), number.socket_addr()), (None, None));
    assert_eq!((peer.peer_id(), peer.socket_addr()), (Some(id(1)), None));
    assert_eq!((local.peer_id(), local.socket_addr()), (None, Some(socket(1))));
    assert_eq!(
        (number.to_string(), format!("{number:?}")),
        ("#1".to_owned(), "Number(1)".to_owned())
    );
    assert_eq!(number.downcast_ref(), Some(&Number(1)));
    assert_eq!(number.downcast_ref::<PeerId>(), None);
    // Equality, order and hash are by kind and by inner address.
    let all: Vec<_> = (0..20).flat_map(boxed).collect();
    for (at, one) in all.iter().enumerate() {
        for (other_at, other) in all.iter().enumerate() {
            assert_eq!(one == other, at == other_at);
            assert_eq!(one.cmp(other), other.cmp(one).reverse());
            assert_eq!(one.partial_cmp(other), Some(one.cmp(other)));
            assert_eq!(one.cmp(other) == Ordering::Equal, at == other_at);
            if at % 3 == other_at % 3 {
                assert_eq!(one.cmp(other), at.cmp(&other_at), "the order of its kind");
            }
        }
    }
    let hashes = |addrs: &[BoxAddr]| {
        let hash = |addr| {
            std::hash::BuildHasher::hash_one(
                &std::hash::BuildHasherDefault::<std::hash::DefaultHasher>::default(),
                addr,
            )
        };
        addrs.iter().map(hash).collect::<Vec<_>>()
    };
    assert_eq!(hashes(&all), hashes(&(0..20).flat_map(boxed).collect::<Vec<_>>()));
    assert_eq!(
        hashes(&all).into_iter().collect::<HashSet<_>>().len(),
        all.len(),
        "few share a hash bucket"
    );
}

#[tokio::test]
async fn boxed_keys_are_the_bytes_of_typed_ones() {
    let [one, two] = pair();
    let (key, to) = (one.public_key(), one.local_addr());
    let bytes: &[u8] = key.as_ref();
    let text = bytes
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .concat();
    let (one, two) = (BoxSecureSwarm::new(one), BoxSecureSwarm::new(two));
    assert_eq!(one.public_key().as_ref(), bytes);
    assert_eq!(two.lookup_public_key(&to).await.unwrap().as_ref(), bytes);
    assert_eq!(format!("{:?}", one.public_key()), format!("BoxKey({text})"));
    // Another handle on the same swarm, which may also hide capabilities.
    two.tell(&to, two.packet(b"secure")).await.unwrap();
    hears(&BoxSwarm::from(one.clone()), b"secure").await;
    one.close().await;
    assert!(matches!(
        poll_once(BoxSwarm::from(one).receive()),
        std::task::Poll::Ready(Err(Error::Closed))
    ));
}

/// A dropped request, a dropped responder, and a rejected request; the asker learns of each at once.
#[tokio::test(start_paused = true)]
async fn a_dropped_request_is_rejected() {
    type LetGo = fn(Request<MemoryAddr>);
    let [one, two] = pair();
    let to = two.local_addr();
    let lets_go: [(LetGo, Rejection); 3] = [
        (drop, Rejection::DROPPED),
        (|request| drop(request.responder), Rejection::DROPPED),
        (|request| request.reject(Rejection::BUSY), Rejection::BUSY),
    ];
    for (let_go, due) in lets_go {
        let asking = tokio::time::timeout(crate::SOON, one.ask(&to, Packet::from("?")));
        let (answer, ()) = join(asking, async { let_go(two.receive_ask().await.unwrap()) }).await;
        let answer = answer.expect("it ends at once");
        assert!(
            matches!(answer, Err(Error::Rejected(why)) if why == due),
            "{answer:?}"
        );
    }
    let asking = one.ask(&to, Packet::from("?"));
    let (answer, ()) = join(asking, async {
        let request = two.receive_ask().await.unwrap();
        let shown = format!("{request:?}");
        assert!(
            shown.starts_with("Request { message: Message { src: ") && shown.contains("Packet(1 bytes: 3f)"),
            "{shown}"
        );
        let request = request.limit_response(3).limit_response(10);
        let Request { message, responder } = request;
        let (src, dst) = (message.src, message.dst);
        assert_eq!((src, dst, &*message.payload), (one.local_addr(), to, &b"?"[..]));
        assert_eq!(format!("{responder:?}"), "Responder");
        let error = responder.respond(Packet::from("long")).await;
        assert!(
            matches!(error, Err(Error::MtuExceeded { size: 4, mtu: 3 })),
            "{error:?}"
        );
    })
    .await;
    assert!(
        matches!(answer, Err(Error::Rejected(Rejection::OVERSIZE))),
        "{answer:?}"
    );
}

/// Records the fate of a request.
struct Fate(Arc<std::sync::Mutex<Vec<String>>>);

#[async_trait::async_trait]
impl p2p::Respond for Fate {
    async fn respond(self: Box<Self>, response: Packet) -> p2p::Result<()> {
        self.0.lock().unwrap().push(format!("{response:?}"));
        Ok(())
    }
    fn reject(self: Box<Self>, why: Rejection) {
        self.0.lock().unwrap().push(why.to_string());
    }
}

#[tokio::test]
async fn each_request_has_one_fate() {
    let fates = Arc::default();
    let message = p2p::Message {
        src: (),
        dst: (),
        payload: Packet::default(),
    };
    let request = || Request::new(message.clone(), Fate(Arc::clone(&fates)));
    request().respond(Packet::from(b"!")).await.unwrap();
    request().reject(Rejection::BUSY);
    drop(request());
    drop(request().responder);
    drop(request().respond(Packet::from(b"never polled")));
    request()
        .limit_response(0)
        .respond(Packet::from(b"!"))
        .await
        .unwrap_err();
    let dropped = "dropped without an answer";
    let over = "the request or the response exceeds the MTU";
    let due = [
        "Packet(1 bytes: 21)",
        "the node is busy",
        dropped,
        dropped,
        dropped,
        over,
    ];
    assert_eq!(*fates.lock().unwrap(), due);
}

#[test]
fn peer_ids_are_their_bytes() {
    let bytes: [u8; 32] = std::array::from_fn(|at| at as u8);
    let id = PeerId::from(bytes);
    assert_eq!(
        (id, id.as_bytes(), id.as_ref()),
        (PeerId::new(bytes), &bytes, &bytes[..])
    );
    let text = id.to_string();
    assert_eq!(
        (format!("{id:?}"), format!("{id:>45}")),
        (format!("PeerId({text})"), format!("  {text}"))
    );
    let wrong = |text: &str| match text.parse::<PeerId>() {
        Err(Error::InvalidAddr { at, .. }) => at,
        other => panic!("{text}: {other:?}"),
    };
    let odd_end = format!("{}0", &text[..42]);
    assert_eq!(
        (
            wrong("a!b"),
            wrong("abc"),
            wrong(&format!("{text}a")),
            wrong(&odd_end)
        ),
        (1, 3, 43, 42)
    );
}
