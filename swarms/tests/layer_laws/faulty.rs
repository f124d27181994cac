//! The effects of a bad network on messages, and their times; that delayed messages are bounded and counted.

use std::task::Poll;
use std::time::Duration;

use p2p::{AskSwarm, CounterSnapshot, DropReason, Error, Message, Packet, Swarm};
use p2p_swarms::faulty::FaultyConfig;
use p2p_swarms::inbox::Limits;
use p2p_swarms::{Faults, FaultySwarm, LinkFaults, MemoryAddr, MemoryRealm, MemorySwarm, SwarmExt as _};
use p2p_swarmtest::{Profile, SecureAsk, Testbed};
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, sleep};

use crate::{counted, keeps_all_laws, over_memory, poll_once, profile};

mod delayed;
mod links;

type Node = FaultySwarm<MemoryAddr, MemorySwarm>;

const SEED: u64 = 7;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn medium(link: LinkFaults) -> Faults<MemoryAddr> {
    Faults::new(FaultyConfig {
        seed: SEED,
        link,
        ..FaultyConfig::default()
    })
    .unwrap()
}

fn nodes<const N: usize>(faults: &Faults<MemoryAddr>) -> [Node; N] {
    let realm = MemoryRealm::default();
    std::array::from_fn(|_| FaultySwarm::new(realm.open(), faults.clone()))
}

fn addr(node: &Node) -> MemoryAddr {
    node.inner().local_addr()
}

fn counts(node: &Node) -> CounterSnapshot {
    counted(node, "faulty")
}

/// Returns the messages that have arrived at `node`.
fn arrived(node: &Node) -> Vec<Packet> {
    let mut all = Vec::new();
    while let Poll::Ready(Ok(Message { payload, .. })) = poll_once(unconstrained(node.receive())) {
        all.push(payload);
    }
    all
}

/// Returns the number of messages sent through the swarm below.
fn sent_below(node: &Node) -> u64 {
    counted(node, "mem").sent
}

fn assert_conserved(node: &Node) {
    let all = counts(node);
    assert_eq!(
        all.sent + all.duplicated,
        sent_below(node) + all.dropped_total() + node.in_flight() as u64,
        "seed {SEED}: {all:?}"
    );
}

fn number(count: u32) -> Packet {
    Packet::from(&count.to_be_bytes())
}

fn numbers(packets: &[Packet]) -> Vec<u32> {
    packets
        .iter()
        .map(|packet| u32::from_be_bytes(packet[..].try_into().unwrap()))
        .collect()
}

/// It needs neither a runtime nor a second poll.
#[test]
fn without_faults_a_message_passes_through() {
    let [a, b] = nodes(&Faults::seeded(SEED));
    let packet = Packet::from("hello");
    let at = packet.as_ptr();
    assert!(matches!(
        poll_once(a.tell(&addr(&b), packet)),
        Poll::Ready(Ok(()))
    ));
    let Poll::Ready(Ok(message)) = poll_once(b.receive()) else {
        panic!("not there")
    };
    assert_eq!(message.payload.as_ptr(), at);
    assert_eq!(
        (counts(&a).sent, counts(&b).received, counts(&b).delivered),
        (1, 1, 1)
    );
}

#[test]
fn faults_that_need_no_time_need_no_runtime() {
    let [a, b] = nodes(&medium(LinkFaults {
        duplicate: 1.0,
        ..LinkFaults::default()
    }));
    assert!(matches!(
        poll_once(a.tell(&addr(&b), Packet::from("x"))),
        Poll::Ready(Ok(()))
    ));
    assert_eq!(arrived(&b).len(), 2);
    a.faults()
        .set_all(LinkFaults {
            delay: ms(1),
            ..LinkFaults::default()
        })
        .unwrap();
    assert!(matches!(
        poll_once(a.tell(&addr(&b), Packet::from("x"))),
        Poll::Ready(Err(Error::Invalid { .. }))
    ));
    assert_conserved(&a);
}

fn rough() -> LinkFaults {
    LinkFaults {
        loss: 0.2,
        duplicate: 0.2,
        reorder: 0.1,
        delay: ms(3),
        jitter: ms(4),
        ..LinkFaults::default()
    }
}

/// Returns which of 500 messages arrive, told singly or in batches.
async fn run(seed: u64, batch: usize) -> Vec<u32> {
    let faults = Faults::new(FaultyConfig {
        seed,
        link: rough(),
        ..FaultyConfig::default()
    })
    .unwrap();
    let [a, b] = nodes(&faults);
    let all: Vec<u32> = (0..500).collect();
    for part in all.chunks(batch) {
        if let [one] = part {
            a.tell(&addr(&b), number(*one)).await.unwrap();
        } else {
            let mut part = part.iter().map(|count| (addr(&b), number(*count))).collect();
            a.tell_batch(&mut part).await.unwrap();
        }
    }
    assert!(a.in_flight() > 0);
    assert_conserved(&a);
    sleep(ms(30)).await;
    assert_eq!(a.in_flight(), 0);
    assert_conserved(&a);
    let got = numbers(&arrived(&b));
    assert_eq!(got.len() as u64, sent_below(&a));
    assert_eq!(got.len() as u64, counts(&b).delivered);
    got
}

#[tokio::test(start_paused = true)]
async fn a_seed_replays_a_run_and_batches_change_nothing() {
    let once = run(SEED, 1).await;
    assert_eq!(once, run(SEED, 1).await);
    assert_eq!(once, run(SEED, 7).await);
    assert_ne!(once, run(SEED + 1, 1).await);
    // The same for a medium whose faults are set later.
    let seeded = async |seed| {
        let [a, b] = nodes(&Faults::seeded(seed));
        a.faults().set_all(rough()).unwrap();
        a.tell_batch(&mut (0..100).map(|count| (addr(&b), number(count))).collect())
            .await
            .unwrap();
        a.faults().settled().await;
        numbers(&arrived(&b))
    };
    assert_eq!(seeded(1).await, seeded(1).await);
    assert_ne!(seeded(1).await, seeded(2).await);
}

#[tokio::test(start_paused = true)]
async fn a_late_refusal_is_counted() {
    let [a, b] = nodes(&medium(LinkFaults {
        delay: ms(10),
        ..LinkFaults::default()
    }));
    a.tell(&addr(&b), number(1)).await.unwrap();
    a.inner().close().await;
    sleep(ms(11)).await;
    assert_eq!(counts(&a).dropped(DropReason::Refused), 1);
    assert_conserved(&a);
}

#[tokio::test(start_paused = true)]
async fn an_immediate_error_is_returned_and_not_counted() {
    let [a, b] = nodes(&medium(LinkFaults {
        loss: 0.5,
        ..LinkFaults::default()
    }));
    let over = Packet::from(vec![0; a.mtu() + 1]);
    for _ in 0..20 {
        let told = a.tell(&addr(&b), over.clone()).await;
        assert!(
            matches!(told, Err(Error::MtuExceeded { .. })),
            "also for a message that would be lost"
        );
    }
    let mut batch = vec![(addr(&b), over), (addr(&b), Packet::from("fits"))];
    let error = a.tell_batch(&mut batch).await.unwrap_err();
    assert_eq!((error.sent, error.refused), (1, 1));
    assert_eq!(counts(&a).sent, 1);
    assert_conserved(&a);
}

/// All faults at once, singles and batches to several destinations, a full queue, and closing at the end.
#[tokio::test(start_paused = true)]
async fn counters_balance_over_a_long_exchange_with_every_fault() {
    use rand::rngs::ChaCha8Rng;
    use rand::{RngExt, SeedableRng};
    let link = LinkFaults {
        rate: 1 << 20,
        rate_queue: 16 << 10,
        corrupt: 0.05,
        ..rough()
    };
    let small = |items| Limits {
        items,
        ..FaultyConfig::default().delayed
    };
    let config = FaultyConfig {
        seed: SEED,
        link,
        delayed: small(150),
        link_delayed: small(60),
        ..FaultyConfig::default()
    };
    let [a, b, c, d] = nodes(&Faults::new(config).unwrap());
    let others = [&b, &c, &d];
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let (mut told, mut got) = (0, 0);
    for _ in 0..500 {
        let count = rng.random_range(0..40_u64);
        let mut batch: Vec<_> = (0..count)
            .map(|_| {
                let to = others[rng.random_range(0..3)];
                (addr(to), Packet::from(vec![7; rng.random_range(0..1500)]))
            })
            .collect();
        told += count;
        if rng.random::<bool>() {
            a.tell_batch(&mut batch).await.unwrap();
        } else {
            for (to, packet) in batch {
                a.tell(&to, packet).await.unwrap();
            }
        }
        assert_conserved(&a);
        sleep(Duration::from_micros(rng.random_range(0..20_000))).await;
        got += others.iter().map(|node| arrived(node).len() as u64).sum::<u64>();
    }
    a.close().await;
    got += others.iter().map(|node| arrived(node).len() as u64).sum::<u64>();
    assert_conserved(&a);
    let all = counts(&a);
    assert_eq!((all.sent, a.in_flight()), (told, 0), "seed {SEED}");
    assert_eq!(
        all.sent + all.duplicated,
        got + all.dropped_total(),
        "seed {SEED}: {all:?}"
    );
    for reason in [DropReason::Lost, DropReason::QueueFull] {
        assert!(all.dropped(reason) > 0, "seed {SEED}: {reason:?}");
    }
}

/// Delayed and reordered.
fn late() -> LinkFaults {
    LinkFaults {
        loss: 0.0,
        duplicate: 0.0,
        ..rough()
    }
}

fn bed(link: LinkFaults) -> Testbed<MemoryAddr> {
    let faults = medium(link);
    over_memory!(SecureAsk, move |swarm: MemorySwarm| Ok(
        swarm.faulty(faults.clone())
    ))
}

#[tokio::test(start_paused = true)]
async fn a_network_without_faults_keeps_all_laws() {
    keeps_all_laws(bed(LinkFaults::default())).await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_network_keeps_all_laws() {
    keeps_all_laws(bed(late())).await;
}

#[tokio::test(start_paused = true)]
async fn a_bad_network_keeps_all_laws_of_its_profile() {
    let lossy = Profile {
        duplicates: true,
        loss: 0.2,
        loss_at_mtu: 0.2,
        ..profile()
    };
    // A message that may be lost is told many times, so a tenth of the traffic suffices.
    keeps_all_laws(bed(rough()).profile(lossy.quick())).await;
}

#[tokio::test(start_paused = true)]
async fn asks_are_delayed_and_lost_but_neither_duplicated_nor_corrupted() {
    let link = LinkFaults {
        delay: ms(10),
        duplicate: 1.0,
        corrupt: 1.0,
        ..LinkFaults::default()
    };
    let faults = medium(link);
    let [a, b] = nodes(&faults);
    let start = Instant::now();
    let dst = addr(&b);
    let (answer, ()) = tokio::join!(a.ask(&dst, Packet::from("?")), async {
        let request = b.receive_ask().await.unwrap();
        assert_eq!(request.message.payload, b"?");
        assert_eq!(start.elapsed(), ms(10));
        request.respond(Packet::from("!")).await.unwrap();
        assert!(poll_once(b.receive_ask()).is_pending());
    });
    assert_eq!(answer.unwrap(), b"!");

    for cause in [DropReason::Lost, DropReason::Partitioned] {
        if cause == DropReason::Lost {
            faults.set_all(LinkFaults { loss: 1.0, ..link }).unwrap();
        } else {
            faults.cut(&addr(&a), &addr(&b));
        }
        let start = Instant::now();
        let asked = a.ask(&addr(&b), Packet::from("?")).await;
        assert!(matches!(asked, Err(Error::TimedOut { .. })));
        assert_eq!(start.elapsed(), Duration::from_secs(1));
        assert!(poll_once(b.receive_ask()).is_pending());
        assert_eq!(counted(&a, "faulty-ask").dropped(cause), 1);
    }
    let all = counted(&a, "faulty-ask");
    let delivered = counted(&b, "faulty-ask").delivered;
    assert_eq!((all.sent, delivered, all.dropped_total()), (3, 1, 2));
}
