use std::pin::pin;
use std::task::{Context, Poll, Waker};

use p2p::{Message, Snapshot};
use tokio::task::coop::unconstrained;

use super::*;
use crate::inbox::Limits;
use crate::{MemoryAddr, MemoryRealm, MemorySwarm};

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

fn counts(node: &Node) -> Snapshot {
    node.delayed.counters.snapshot()
}

fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// What is there for `node` to read.
fn arrived(node: &Node) -> Vec<Packet> {
    let mut all = Vec::new();
    while let Poll::Ready(Ok(Message { payload, .. })) = poll_once(unconstrained(node.receive())) {
        all.push(payload);
    }
    all
}

/// Messages that left through the swarm below.
fn sent_below(node: &Node) -> u64 {
    let mut sent = 0;
    node.inner().visit_counters(&mut |counters| {
        if counters.layer() == "mem" {
            sent = counters.snapshot().sent;
        }
    });
    sent
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

/// Also that it needs neither a runtime nor a second poll.
#[test]
fn without_faults_a_message_is_moved_straight_through() {
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
    assert!(a.task.lock().unwrap().is_none());
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

#[tokio::test(start_paused = true)]
async fn a_delay_is_exact() {
    let faults = Faults::seeded(SEED);
    let [a, b] = nodes(&faults);
    for delay in [1, 2, 3, 5, 8, 100, 1000, 1234, 60_000] {
        faults
            .set_all(LinkFaults {
                delay: ms(delay),
                ..LinkFaults::default()
            })
            .unwrap();
        let start = Instant::now();
        a.tell(&addr(&b), Packet::from("single")).await.unwrap();
        a.tell_batch(&mut vec![(addr(&b), Packet::from("batch"))])
            .await
            .unwrap();
        assert_eq!(a.in_flight(), 2);
        assert_eq!(b.receive().await.unwrap().payload, b"single");
        assert_eq!(start.elapsed(), ms(delay));
        assert_eq!(b.receive().await.unwrap().payload, b"batch");
        assert_eq!(start.elapsed(), ms(delay));
    }
    assert_conserved(&a);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_due_sooner_overtakes() {
    let faults = medium(LinkFaults {
        delay: ms(100),
        ..LinkFaults::default()
    });
    let [a, b] = nodes(&faults);
    let start = Instant::now();
    a.tell(&addr(&b), number(1)).await.unwrap();
    // The task sleeps already when the second one comes.
    sleep(ms(10)).await;
    faults
        .set_all(LinkFaults {
            delay: ms(20),
            ..LinkFaults::default()
        })
        .unwrap();
    a.tell(&addr(&b), number(2)).await.unwrap();
    assert_eq!(b.receive().await.unwrap().payload, number(2));
    assert_eq!(start.elapsed(), ms(30));
    assert_eq!(b.receive().await.unwrap().payload, number(1));
    assert_eq!(start.elapsed(), ms(100));
}

#[tokio::test(start_paused = true)]
async fn jitter_adds_up_to_its_bound() {
    let [a, b] = nodes(&medium(LinkFaults {
        delay: ms(50),
        jitter: ms(20),
        ..LinkFaults::default()
    }));
    for _ in 0..200 {
        let start = Instant::now();
        a.tell(&addr(&b), Packet::from("x")).await.unwrap();
        b.receive().await.unwrap();
        let took = start.elapsed();
        // Rounded up to the precision of the clock.
        assert!((ms(50)..=ms(71)).contains(&took), "seed {SEED}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reordered_message_is_overtaken_and_arrives() {
    let [a, b] = nodes(&medium(LinkFaults {
        reorder: 0.2,
        ..LinkFaults::default()
    }));
    for count in 0..100 {
        a.tell(&addr(&b), number(count)).await.unwrap();
    }
    sleep(ms(11)).await;
    let mut got = numbers(&arrived(&b));
    assert!(!got.is_sorted(), "seed {SEED}");
    got.sort_unstable();
    assert_eq!(got, (0..100).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_rate_spaces_messages_and_bounds_what_waits() {
    let link = LinkFaults {
        rate: 100_000,
        rate_queue: 1000,
        delay: ms(5),
        ..LinkFaults::default()
    };
    let [a, b, c] = nodes(&medium(link));
    let start = Instant::now();
    for _ in 0..15 {
        a.tell(&addr(&b), Packet::from(vec![0; 100])).await.unwrap();
    }
    // Another link has a rate of its own.
    a.tell(&addr(&c), Packet::from(vec![0; 100])).await.unwrap();
    c.receive().await.unwrap();
    assert_eq!(start.elapsed(), ms(6));
    for nth in 1..=10 {
        b.receive().await.unwrap();
        assert_eq!(start.elapsed(), ms(5 + nth));
    }
    assert_eq!(counts(&a).dropped(Reason::QueueFull), 5);
    assert_conserved(&a);
}

#[tokio::test(start_paused = true)]
async fn a_corrupt_message_differs_in_one_bit() {
    let [a, b] = nodes(&medium(LinkFaults {
        corrupt: 1.0,
        ..LinkFaults::default()
    }));
    a.tell(&addr(&b), Packet::from(vec![0; 64])).await.unwrap();
    a.tell_batch(&mut vec![
        (addr(&b), Packet::from(vec![0; 64])),
        (addr(&b), Packet::default()),
    ])
    .await
    .unwrap();
    let flipped = arrived(&b)
        .into_iter()
        .map(|packet| packet.iter().map(|byte| byte.count_ones()).sum());
    assert_eq!(flipped.collect::<Vec<u32>>(), [1, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_cut_is_one_way_and_a_partition_two() {
    let faults = Faults::seeded(SEED);
    let [a, b, c] = nodes(&faults);
    let tell_all = async || {
        let all = [&a, &b, &c];
        for (which, src) in (0..).zip(all) {
            for dst in all {
                src.tell(&addr(dst), number(which)).await.unwrap();
            }
        }
        all.map(|node| numbers(&arrived(node)))
    };
    faults.cut(&addr(&a), &addr(&b));
    assert_eq!(tell_all().await, [vec![0, 1, 2], vec![1, 2], vec![0, 1, 2]]);
    faults.partition(&[addr(&a), addr(&b)], &[addr(&c)]);
    assert_eq!(tell_all().await, [vec![0, 1], vec![1], vec![2]]);
    faults.mend(&addr(&a), &addr(&b));
    assert_eq!(tell_all().await, [vec![0, 1], vec![0, 1], vec![2]]);
    faults.heal();
    assert_eq!(tell_all().await, [vec![0, 1, 2], vec![0, 1, 2], vec![0, 1, 2]]);
    assert!(!faults.is_active(), "a healed medium costs nothing");
    let dropped: u64 = [&a, &b, &c]
        .map(|node| counts(node).dropped(Reason::Partitioned))
        .iter()
        .sum();
    assert_eq!(dropped, 1 + 5 + 4);
    for node in [&a, &b, &c] {
        assert_conserved(node);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_leaves_alone_what_is_under_way() {
    let faults = medium(LinkFaults {
        delay: ms(10),
        ..LinkFaults::default()
    });
    let [a, b] = nodes(&faults);
    a.tell(&addr(&b), number(1)).await.unwrap();
    faults.cut(&addr(&a), &addr(&b));
    a.tell(&addr(&b), number(2)).await.unwrap();
    sleep(ms(11)).await;
    assert_eq!(numbers(&arrived(&b)), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_link_of_its_own_differs_from_the_others_until_it_is_reset() {
    let faults = medium(LinkFaults {
        loss: 1.0,
        ..LinkFaults::default()
    });
    let [a, b, c] = nodes(&faults);
    faults
        .set_link(&addr(&a), &addr(&b), LinkFaults::default())
        .unwrap();
    let tell_all = async || {
        for (src, dst) in [(&a, &b), (&a, &c), (&c, &b)] {
            src.tell(&addr(dst), Packet::from("x")).await.unwrap();
        }
        arrived(&b).len() + arrived(&c).len()
    };
    assert_eq!(tell_all().await, 1);
    // A cut does not forget the settings.
    faults.cut(&addr(&a), &addr(&b));
    assert_eq!(tell_all().await, 0);
    faults.heal();
    assert_eq!(tell_all().await, 1);
    faults.reset_link(&addr(&a), &addr(&b));
    assert_eq!(tell_all().await, 0);
    assert_eq!(counts(&a).dropped(Reason::Lost), 5);
    assert!(
        faults
            .set_all(LinkFaults {
                loss: 2.0,
                ..LinkFaults::default()
            })
            .is_err()
    );
    assert!(
        faults
            .set_link(
                &addr(&a),
                &addr(&b),
                LinkFaults {
                    loss: 2.0,
                    ..LinkFaults::default()
                }
            )
            .is_err()
    );
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

/// What arrives of 500 messages, told one by one or in batches.
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
}

#[tokio::test(start_paused = true)]
async fn what_is_delayed_is_bounded_in_messages_and_bytes() {
    for delayed in [
        Limits {
            items: 3,
            ..FaultyConfig::default().delayed
        },
        Limits {
            bytes: 4000,
            ..FaultyConfig::default().delayed
        },
    ] {
        let link = LinkFaults {
            delay: ms(10),
            ..LinkFaults::default()
        };
        let [a, b] = nodes(
            &Faults::new(FaultyConfig {
                link,
                delayed,
                ..FaultyConfig::default()
            })
            .unwrap(),
        );
        for _ in 0..5 {
            a.tell(&addr(&b), Packet::from(vec![0; 1000])).await.unwrap();
        }
        assert_eq!(a.in_flight(), 3);
        assert_eq!(counts(&a).dropped(Reason::QueueFull), 2);
        sleep(ms(11)).await;
        assert_eq!(arrived(&b).len(), 3);
        // The room is free again.
        a.tell(&addr(&b), Packet::from(vec![0; 1000])).await.unwrap();
        assert_eq!(a.in_flight(), 1);
        assert_conserved(&a);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_comes_late_is_counted() {
    let [a, b] = nodes(&medium(LinkFaults {
        delay: ms(10),
        ..LinkFaults::default()
    }));
    a.tell(&addr(&b), number(1)).await.unwrap();
    a.inner().close().await;
    sleep(ms(11)).await;
    assert_eq!(counts(&a).dropped(Reason::Refused), 1);
    assert_conserved(&a);
}

#[tokio::test(start_paused = true)]
async fn an_error_at_once_is_the_callers_and_not_counted() {
    let [a, b] = nodes(&medium(LinkFaults {
        loss: 0.5,
        ..LinkFaults::default()
    }));
    let over = Packet::from(vec![0; a.mtu() + 1]);
    for _ in 0..20 {
        let told = a.tell(&addr(&b), over.clone()).await;
        assert!(
            matches!(told, Err(Error::MtuExceeded { .. })),
            "also of one that would be lost"
        );
    }
    let mut batch = vec![(addr(&b), over), (addr(&b), Packet::from("fits"))];
    let error = a.tell_batch(&mut batch).await.unwrap_err();
    assert_eq!((error.sent, error.refused), (1, 1));
    assert_eq!(counts(&a).sent, 1);
    assert_conserved(&a);
}

#[tokio::test(start_paused = true)]
async fn close_ends_what_is_under_way_and_wakes_all() {
    let [a, b] = nodes(&medium(LinkFaults {
        delay: ms(10),
        ..LinkFaults::default()
    }));
    a.tell(&addr(&b), number(1)).await.unwrap();
    let dst = addr(&b);
    let (told, asked, asking, ()) =
        tokio::join!(a.receive(), a.receive_ask(), a.ask(&dst, number(1)), async {
            a.close().await;
            a.close().await;
        });
    assert!(matches!(told, Err(Error::Closed)));
    assert!(matches!(asked, Err(Error::Closed)));
    assert!(matches!(asking, Err(Error::Closed)));
    assert!(matches!(a.tell(&addr(&b), number(2)).await, Err(Error::Closed)));
    assert_eq!(
        a.tell_batch(&mut vec![(addr(&b), number(2))])
            .await
            .unwrap_err()
            .refused,
        1
    );
    assert_eq!(numbers(&arrived(&b)), [1], "what was told before it arrives");
    assert_eq!(counts(&a).dropped_total(), 0);
    assert_conserved(&a);
    let task = a.task.lock().unwrap().take().unwrap();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_closing_node_is_closed_at_once_and_delivers_what_it_told() {
    let [a, b] = nodes(&medium(LinkFaults {
        delay: ms(400),
        jitter: ms(100),
        ..LinkFaults::default()
    }));
    for count in 0..100 {
        a.tell(&addr(&b), number(count)).await.unwrap();
    }
    let start = Instant::now();
    let mut closing = Box::pin(a.close());
    assert!(poll_once(closing.as_mut()).is_pending());
    let dst = addr(&b);
    assert!(matches!(poll_once(a.receive()), Poll::Ready(Err(Error::Closed))));
    assert!(matches!(
        poll_once(a.receive_ask()),
        Poll::Ready(Err(Error::Closed))
    ));
    assert!(matches!(
        poll_once(a.tell(&dst, number(0))),
        Poll::Ready(Err(Error::Closed))
    ));
    assert!(matches!(
        poll_once(a.ask(&dst, number(0))),
        Poll::Ready(Err(Error::Closed))
    ));
    assert!(matches!(
        poll_once(a.lookup_public_key(&dst)),
        Poll::Ready(Err(Error::Closed))
    ));
    closing.await;
    assert!(start.elapsed() <= ms(501), "{:?}", start.elapsed());
    let mut got = numbers(&arrived(&b));
    got.sort_unstable();
    assert_eq!(got, (0..100).collect::<Vec<_>>());
    let (realm, freed) = (a.inner().realm().clone(), addr(&a));
    realm.open_at(freed).expect("free once close returned");
    assert_conserved(&a);
}

#[tokio::test(start_paused = true)]
async fn closing_lingers_no_longer_than_its_limit_and_delivers_all_the_same() {
    let [a, b] = nodes(&medium(LinkFaults {
        delay: Duration::from_mins(10),
        ..LinkFaults::default()
    }));
    a.tell(&addr(&b), number(1)).await.unwrap();
    let start = Instant::now();
    // Closing goes on although the first that closes does not stay.
    assert!(poll_once(a.close()).is_pending());
    a.close().await;
    assert!(start.elapsed() <= ms(1001), "{:?}", start.elapsed());
    assert_eq!(numbers(&arrived(&b)), [1]);
    assert_conserved(&a);
}

#[tokio::test(start_paused = true)]
async fn one_destination_takes_no_room_of_the_others() {
    let link_delayed = Limits {
        items: 3,
        ..FaultyConfig::default().link_delayed
    };
    let link = LinkFaults {
        delay: ms(10),
        ..LinkFaults::default()
    };
    let config = FaultyConfig {
        link,
        link_delayed,
        ..FaultyConfig::default()
    };
    let [a, b, c] = nodes(&Faults::new(config).unwrap());
    let mut flood = (0..10).map(|count| (addr(&b), number(count))).collect();
    a.tell_batch(&mut flood).await.unwrap();
    a.tell(&addr(&c), number(1)).await.unwrap();
    assert_eq!((a.in_flight(), counts(&a).dropped(Reason::QueueFull)), (4, 7));
    assert_conserved(&a);
    sleep(ms(11)).await;
    assert_eq!((arrived(&b).len(), arrived(&c).len()), (3, 1));
    a.tell(&addr(&b), number(1)).await.unwrap();
    assert_eq!(a.in_flight(), 1, "the room is free again");
}

/// Every fault at once, singles and batches to several destinations, a queue that overflows, and a close in the end.
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
    for reason in [Reason::Lost, Reason::QueueFull] {
        assert!(all.dropped(reason) > 0, "seed {SEED}: {reason:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_frees_what_is_below_at_once() {
    let [a, b] = nodes(&medium(LinkFaults {
        delay: ms(10),
        ..LinkFaults::default()
    }));
    a.tell(&addr(&b), number(1)).await.unwrap();
    // The task waits for the time of the message.
    sleep(ms(5)).await;
    let (realm, freed) = (a.inner().realm().clone(), addr(&a));
    let task = a.task.lock().unwrap().as_ref().unwrap().abort_handle();
    drop(a);
    realm.open_at(freed).unwrap();
    sleep(ms(1)).await;
    assert!(task.is_finished());
    assert!(arrived(&b).is_empty());
}

#[tokio::test(start_paused = true)]
async fn asks_are_delayed_and_lost_but_neither_doubled_nor_damaged() {
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
        assert_eq!(request.payload, b"?");
        assert_eq!(start.elapsed(), ms(10));
        request.respond(Packet::from("!")).await.unwrap();
        assert!(poll_once(b.receive_ask()).is_pending());
    });
    assert_eq!(answer.unwrap(), b"!");

    for cause in [Reason::Lost, Reason::Partitioned] {
        if cause == Reason::Lost {
            faults.set_all(LinkFaults { loss: 1.0, ..link }).unwrap();
        } else {
            faults.cut(&addr(&a), &addr(&b));
        }
        let start = Instant::now();
        let asked = a.ask(&addr(&b), Packet::from("?")).await;
        assert!(matches!(asked, Err(Error::TimedOut { .. })));
        assert_eq!(start.elapsed(), Duration::from_secs(1));
        assert!(poll_once(b.receive_ask()).is_pending());
        assert_eq!(a.ask_counters.snapshot().dropped(cause), 1);
    }
    let all = a.ask_counters.snapshot();
    let delivered = b.ask_counters.snapshot().delivered;
    assert_eq!((all.sent, delivered, all.dropped_total()), (3, 1, 2));
}

#[test]
fn keys_pass_through() {
    let [a, b] = nodes(&medium(rough()));
    let looked_up = poll_once(a.lookup_public_key(&addr(&b)));
    assert!(matches!(looked_up, Poll::Ready(Ok(key)) if key == b.public_key()));
}

#[tokio::test(start_paused = true)]
async fn a_medium_is_settled_as_soon_as_nothing_is_delayed() {
    let faults = medium(LinkFaults {
        delay: ms(10),
        ..LinkFaults::default()
    });
    faults.settled().await;
    let [a, b] = nodes(&faults);
    let start = Instant::now();
    a.tell(&addr(&b), Packet::default()).await.unwrap();
    sleep(ms(5)).await;
    b.tell(&addr(&a), Packet::default()).await.unwrap();
    assert!(poll_once(faults.settled()).is_pending());
    faults.settled().await;
    assert_eq!(start.elapsed(), ms(15), "the last message of any node");
    assert_eq!((arrived(&a).len(), arrived(&b).len()), (1, 1));

    // What is closed or gone delays nothing.
    a.tell(&addr(&b), Packet::default()).await.unwrap();
    a.close().await;
    b.tell(&addr(&a), Packet::default()).await.unwrap();
    assert!(poll_once(faults.settled()).is_pending());
    drop(b);
    assert!(poll_once(faults.settled()).is_ready());
}
