//! What a swarm under other addresses passes, and what it drops.

use std::sync::Mutex;

use p2p::{Addr, AskSwarm, BatchError, BoxAddr, DropReason, Error, Packet, SecureSwarm, Swarm};
use p2p_swarms::map::{EraseSwarm, MapSwarm, Translate};
use p2p_swarms::{MemoryAddr, MemoryRealm, MemorySwarm};
use p2p_swarmtest::{SecureAsk, Testbed};

use crate::{counted, keeps_all_laws, poll_once, profile};

/// Shows only even memory addresses, as half their value with a leading `h`.
struct Halves;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Half(i64);

impl std::fmt::Display for Half {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "h{}", self.0)
    }
}

impl Addr for Half {}

impl Translate<Half, MemoryAddr> for Halves {
    fn down(&self, addr: &Half) -> p2p::Result<MemoryAddr> {
        let double = addr.0.checked_mul(2);
        double
            .map(MemoryAddr::new)
            .ok_or_else(|| Error::addr(&addr.to_string(), 1, "its double does not fit into 64 bits"))
    }

    fn up(&self, addr: MemoryAddr) -> Option<Half> {
        (addr.number() % 2 == 0).then(|| Half(addr.number() / 2))
    }

    fn parse(&self, text: &str, _: impl Fn(&str) -> p2p::Result<MemoryAddr>) -> p2p::Result<Half> {
        let number = text
            .strip_prefix('h')
            .ok_or_else(|| Error::addr(text, 0, "expected an h"))?;
        let fits = |half: &i64| half.checked_mul(2).is_some() && half.to_string() == number;
        let half = number.parse().ok().filter(fits).map(Half);
        half.ok_or_else(|| Error::addr(text, 1, "expected half of a number"))
    }
}

type Halved = MapSwarm<Half, MemoryAddr, MemorySwarm, Halves>;

/// Nodes 0 and 2 under halves, and node 1, which has no half.
fn halves() -> (Halved, MemorySwarm, Halved) {
    let realm = MemoryRealm::default();
    let (zero, one, two) = (realm.open(), realm.open(), realm.open());
    (MapSwarm::new(zero, Halves), one, MapSwarm::new(two, Halves))
}

fn dropped(swarm: &impl Swarm<Half>) -> u64 {
    counted(swarm, "map").dropped(DropReason::NoAddr)
}

#[tokio::test(start_paused = true)]
async fn a_translated_swarm_keeps_all_laws() {
    let realm = MemoryRealm::default();
    let again = realm.clone();
    let bed = Testbed::new(SecureAsk, move |count| {
        let made = (0..count).map(|_| {
            let even = realm.open();
            // The next number is odd, and belongs to no node.
            drop(realm.open());
            MapSwarm::new(even, Halves)
        });
        std::future::ready(Ok(made.collect::<Vec<_>>()))
    })
    .rebind(move |half: Half| {
        let node = Halves.down(&half).and_then(|addr| again.open_at(addr));
        std::future::ready(node.map(|node| MapSwarm::new(node, Halves)))
    });
    // Nodes that are created concurrently would get each other's numbers.
    keeps_all_laws(bed.parallel(1).profile(profile())).await;
}

#[tokio::test]
async fn messages_and_asks_pass_under_translated_addresses() {
    let (zero, _one, two) = halves();
    assert_eq!(zero.local_addrs(), [Half(0)]);
    zero.tell(&Half(1), "hello".into()).await.expect("told");
    let message = two.receive().await.expect("received");
    assert_eq!((message.src, message.dst), (Half(0), Half(1)));
    assert_eq!(&*message.payload, b"hello");
    let answer = async {
        let request = zero.receive_ask().await.expect("asked");
        assert_eq!((request.message.src, request.message.dst), (Half(1), Half(0)));
        request.respond("pong".into()).await.expect("responded");
    };
    let (response, ()) = tokio::join!(two.ask(&Half(0), "ping".into()), answer);
    assert_eq!(&*response.expect("answered"), b"pong");
    assert_eq!(
        two.lookup_public_key(&Half(0)).await.expect("known"),
        zero.public_key()
    );
}

#[tokio::test]
async fn a_message_without_a_translation_is_counted_and_dropped() {
    let (zero, one, two) = halves();
    let to = MemoryAddr::new(2);
    one.tell(&to, "no half".into()).await.expect("told");
    zero.tell(&Half(1), "a half".into()).await.expect("told");
    let mut out = Vec::new();
    assert_eq!(two.receive_batch(&mut out, 10).await.expect("received"), 1);
    assert_eq!(&*out[0].payload, b"a half");
    let counts = counted(&two, "map");
    assert_eq!(
        (
            counts.received,
            counts.delivered,
            counts.dropped(DropReason::NoAddr)
        ),
        (2, 1, 1)
    );
    // An ask without a translation is rejected at once, while the reader continues to wait.
    let ask = one.ask(&to, Packet::default());
    let rejected = tokio::select! {
        rejected = ask => rejected,
        request = two.receive_ask() => panic!("{request:?} has no half"),
    };
    assert!(matches!(rejected, Err(Error::Rejected(_))), "{rejected:?}");
    assert_eq!(dropped(&two), 2);
    // A batch of such messages does not end a receive, and earlier contents of the buffer stay.
    one.tell(&to, "no half".into()).await.expect("told");
    assert!(poll_once(two.receive_batch(&mut out, 10)).is_pending());
    assert_eq!((out.len(), dropped(&two)), (1, 3));
    one.tell(&to, "no half".into()).await.expect("told");
    zero.tell(&Half(1), "single".into()).await.expect("told");
    assert_eq!(&*two.receive().await.expect("received").payload, b"single");
    assert_eq!(two.receive_batch(&mut out, 0).await.expect("at once"), 0);
}

#[tokio::test]
async fn a_destination_without_a_translation_is_a_typed_error_and_blocks_nothing() {
    let (zero, _one, two) = halves();
    let error = zero.tell(&Half(i64::MAX), Packet::default()).await;
    assert!(
        matches!(error, Err(Error::InvalidAddr { at: 1, .. })),
        "{error:?}"
    );
    let mut batch = vec![
        (Half(1), "first".into()),
        (Half(i64::MAX), "lost".into()),
        (Half(1), "last".into()),
    ];
    let error = zero.tell_batch(&mut batch).await.expect_err("one is refused");
    assert_eq!((error.sent, error.refused, batch.len()), (2, 1, 0));
    assert_eq!(counted(&zero, "map").sent, 2);
    let mut out = Vec::new();
    assert_eq!(
        two.receive_batch(&mut out, 10).await.expect("received"),
        2,
        "one piece"
    );
    assert_eq!(&*out[1].payload, b"last");
}

/// Records the addresses and capacities of the batches that it receives.
struct Below {
    inner: MemorySwarm,
    batches: Mutex<Vec<(usize, usize)>>,
}

type A = MemoryAddr;

impl Swarm<A> for Below {
    p2p::pass_through!(inner: tell, receive, mtu, local_addrs, parse_addr, close);

    async fn tell_batch(&self, batch: &mut Vec<(A, Packet)>) -> Result<(), BatchError> {
        let place = (batch.as_ptr().addr(), batch.capacity());
        self.batches.lock().expect("no panic").push(place);
        self.inner.tell_batch(batch).await
    }
}

#[tokio::test]
async fn batches_of_usual_length_share_a_buffer() {
    let below = Below {
        inner: MemorySwarm::new(),
        batches: Mutex::default(),
    };
    let swarm = MapSwarm::new(below, Halves);
    let tell = async |count: usize, half: i64| {
        let mut batch = (0..count).map(|_| (Half(half), Packet::default())).collect();
        let told = swarm.tell_batch(&mut batch).await;
        assert_eq!(told.is_ok(), half == 0);
        std::mem::take(&mut *swarm.inner().batches.lock().expect("no panic"))
    };
    let first = tell(1000, 0).await;
    assert_eq!(first.len(), 1);
    for count in [1000, 3, 500] {
        assert_eq!(tell(count, 0).await, first, "the same buffer");
    }
    assert_eq!(tell(3, i64::MAX).await, [], "refused messages are not sent below");
    // The buffer of a huge batch is not kept.
    tell(5000, 0).await;
    assert!(tell(3, 0).await[0].1 <= 1024);
}

#[tokio::test]
async fn a_pair_of_functions_is_a_translation() {
    let realm = MemoryRealm::default();
    let shift = |by: i64| {
        (
            move |addr: &MemoryAddr| Ok(MemoryAddr::new(addr.number() - by)),
            move |addr: MemoryAddr| Some(MemoryAddr::new(addr.number() + by)),
        )
    };
    let (a, b) = (
        MapSwarm::new(realm.open(), shift(100)),
        MapSwarm::new(realm.open(), shift(200)),
    );
    a.tell(&MemoryAddr::new(101), "over".into()).await.expect("told");
    let message = b.receive().await.expect("received");
    assert_eq!((message.src.number(), message.dst.number()), (200, 201));
}

#[tokio::test]
async fn erased_swarms_refuse_addresses_of_other_kinds() {
    let realm = MemoryRealm::default();
    let (a, b) = (EraseSwarm::erase(realm.open()), EraseSwarm::erase(realm.open()));
    let to = b.local_addrs().remove(0);
    a.tell(&to, "erased".into()).await.expect("told");
    let message = b.receive().await.expect("received");
    assert_eq!(message.src, a.parse_addr("0").expect("an address"));
    assert!(format!("{a:?}").starts_with("MapSwarm { inner: MemorySwarm"));
    let other = BoxAddr::new(p2p::PeerId::ZERO);
    let error = a.tell(&other, Packet::default()).await;
    assert!(matches!(error, Err(Error::InvalidAddr { .. })), "{error:?}");
    assert_eq!(
        b.lookup_public_key(&message.src).await.expect("known"),
        a.public_key()
    );
}
