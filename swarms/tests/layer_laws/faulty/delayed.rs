//! Messages in flight: on time, bounded, and delivered or counted when the node closes or is dropped.

use std::task::Poll;
use std::time::Duration;

use p2p::{AskSwarm as _, DropReason, Error, Packet, SecureSwarm as _, Swarm as _};
use p2p_swarms::faulty::FaultyConfig;
use p2p_swarms::inbox::Limits;
use p2p_swarms::{Faults, LinkFaults};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use super::{SEED, addr, arrived, assert_conserved, counts, medium, ms, nodes, number, numbers};
use crate::poll_once;

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
    // The task already sleeps when the second message is sent.
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
async fn delayed_messages_are_bounded_in_number_and_bytes() {
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
        assert_eq!(counts(&a).dropped(DropReason::QueueFull), 2);
        sleep(ms(11)).await;
        assert_eq!(arrived(&b).len(), 3);
        // The room is free again.
        a.tell(&addr(&b), Packet::from(vec![0; 1000])).await.unwrap();
        assert_eq!(a.in_flight(), 1);
        assert_conserved(&a);
    }
}

#[tokio::test(start_paused = true)]
async fn one_destination_takes_no_room_from_others() {
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
    assert_eq!((a.in_flight(), counts(&a).dropped(DropReason::QueueFull)), (4, 7));
    assert_conserved(&a);
    sleep(ms(11)).await;
    assert_eq!((arrived(&b).len(), arrived(&c).len()), (3, 1));
    a.tell(&addr(&b), number(1)).await.unwrap();
    assert_eq!(a.in_flight(), 1, "the room is free again");
    // One message leaves, and makes room for one.
    a.faults()
        .set_all(LinkFaults {
            delay: ms(100),
            ..link
        })
        .unwrap();
    a.tell(&addr(&b), number(2)).await.unwrap();
    a.tell(&addr(&b), number(3)).await.unwrap();
    sleep(ms(11)).await;
    assert_eq!(a.in_flight(), 2);
    for _ in 0..5 {
        a.tell(&addr(&b), number(4)).await.unwrap();
    }
    assert_eq!(a.in_flight(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_closing_node_is_closed_at_once_and_delivers_earlier_messages() {
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
    // Also if the medium has no faults any more, and the swarm below is still open.
    a.faults().set_all(LinkFaults::default()).unwrap();
    assert!(matches!(
        poll_once(a.tell(&dst, number(0))),
        Poll::Ready(Err(Error::Closed))
    ));
    let mut batch = vec![(dst, number(0))];
    assert!(matches!(poll_once(a.tell_batch(&mut batch)), Poll::Ready(Err(error)) if error.refused == 1));
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
async fn closing_lingers_at_most_its_limit_and_delivers_everything() {
    let [a, b] = nodes(&medium(LinkFaults {
        delay: Duration::from_mins(10),
        ..LinkFaults::default()
    }));
    a.tell(&addr(&b), number(1)).await.unwrap();
    let start = Instant::now();
    // Closing continues although the first call is cancelled.
    assert!(poll_once(a.close()).is_pending());
    a.close().await;
    assert!(start.elapsed() <= ms(1001), "{:?}", start.elapsed());
    assert_eq!(numbers(&arrived(&b)), [1]);
    assert_conserved(&a);
}

#[tokio::test(start_paused = true)]
async fn close_ends_calls_in_progress_and_wakes_all_readers() {
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
    assert_eq!(numbers(&arrived(&b)), [1], "earlier messages arrive");
    assert_eq!(counts(&a).dropped_total(), 0);
    assert_conserved(&a);
    tokio::task::yield_now().await;
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
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

    // A closed or dropped node delays nothing.
    a.tell(&addr(&b), Packet::default()).await.unwrap();
    a.close().await;
    b.tell(&addr(&a), Packet::default()).await.unwrap();
    assert!(poll_once(faults.settled()).is_pending());
    drop(b);
    assert!(poll_once(faults.settled()).is_ready());
}

#[tokio::test(start_paused = true)]
async fn dropping_frees_the_swarm_below_at_once() {
    let [a, b] = nodes(&medium(LinkFaults {
        delay: ms(10),
        ..LinkFaults::default()
    }));
    a.tell(&addr(&b), number(1)).await.unwrap();
    // The task waits for the message to become due.
    sleep(ms(5)).await;
    let (realm, freed) = (a.inner().realm().clone(), addr(&a));
    drop(a);
    realm.open_at(freed).unwrap();
    sleep(ms(1)).await;
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
    assert!(arrived(&b).is_empty());
}

#[tokio::test(start_paused = true)]
async fn duplicates_of_a_batch_are_as_late_as_the_batch() {
    let link = LinkFaults {
        duplicate: 1.0,
        delay: ms(10),
        ..LinkFaults::default()
    };
    let [a, b] = nodes(&medium(link));
    a.tell_batch(&mut (0..5).map(|count| (addr(&b), number(count))).collect())
        .await
        .unwrap();
    a.tell(&addr(&b), number(5)).await.unwrap();
    assert_eq!(a.in_flight(), 12);
    sleep(ms(9)).await;
    assert!(arrived(&b).is_empty());
    sleep(ms(2)).await;
    let mut got = numbers(&arrived(&b));
    got.sort_unstable();
    assert_eq!(got, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]);
    assert_conserved(&a);
}

/// A message is charged its buffer and some bookkeeping, and its room is free once it was sent.
#[tokio::test(start_paused = true)]
async fn waiting_messages_on_a_link_are_bounded_in_bytes() {
    let bounded = |delayed: usize, link_delayed: usize| {
        let usual = FaultyConfig::default();
        let limits = |bytes| Limits {
            bytes,
            ..usual.delayed
        };
        let link = LinkFaults {
            delay: ms(10),
            ..LinkFaults::default()
        };
        let (delayed, link_delayed) = (limits(delayed), limits(link_delayed));
        Faults::new(FaultyConfig {
            link,
            delayed,
            link_delayed,
            ..usual
        })
        .unwrap()
    };
    for (faults, each, both) in [
        (bounded(1 << 20, 64 << 10), 6, 12),
        (bounded(64 << 10, 1 << 20), 6, 6),
    ] {
        let [a, b, c] = nodes(&faults);
        for _ in 0..3 {
            for (node, due) in [(&b, each), (&c, both)] {
                let mut batch = (0..20)
                    .map(|_| (addr(node), Packet::from(vec![0; 10_000])))
                    .collect();
                a.tell_batch(&mut batch).await.unwrap();
                assert_eq!(a.in_flight(), due);
            }
            sleep(ms(11)).await;
            assert_eq!((a.in_flight(), arrived(&b).len() + arrived(&c).len()), (0, both));
            // Hundreds of short messages fit, but not any number.
            a.tell_batch(&mut (0..3000).map(|_| (addr(&b), Packet::from(vec![0; 8]))).collect())
                .await
                .unwrap();
            assert!((300..1500).contains(&a.in_flight()), "{}", a.in_flight());
            sleep(ms(11)).await;
            arrived(&b);
        }
        assert_conserved(&a);
    }
}

#[tokio::test(start_paused = true)]
async fn times_of_closing_and_of_asks_are_the_configured_ones() {
    let config = FaultyConfig {
        link: LinkFaults {
            delay: Duration::from_mins(1),
            ..LinkFaults::default()
        },
        linger: ms(300),
        ask_timeout: ms(70),
        ..FaultyConfig::default()
    };
    let faults = Faults::new(config).unwrap();
    let [a, b] = nodes(&faults);
    faults.cut(&addr(&a), &addr(&b));
    let start = Instant::now();
    let asked = a.ask(&addr(&b), number(1)).await;
    let due = matches!(asked, Err(Error::TimedOut { limit, .. }) if limit == ms(70));
    assert!(due && start.elapsed() == ms(70), "{asked:?}");
    faults.heal();
    a.tell(&addr(&b), number(1)).await.unwrap();
    let start = Instant::now();
    a.close().await;
    assert_eq!(start.elapsed(), ms(300));
    assert_eq!(numbers(&arrived(&b)), [1]);
    assert!(format!("{faults:?}").contains("linger: 300ms"), "{faults:?}");
    assert!(
        format!("{a:?}").contains("Delayed { messages: 0, limits"),
        "{a:?}"
    );
    // If nothing is in flight there is nothing to wait for.
    tokio::task::yield_now().await;
    assert!(poll_once(b.close()).is_ready());
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn messages_due_at_the_same_time_arrive_in_order() {
    let [a, b] = nodes(&medium(LinkFaults {
        delay: ms(10),
        ..LinkFaults::default()
    }));
    for part in 0..10 {
        a.tell(&addr(&b), number(10 * part)).await.unwrap();
        a.tell_batch(&mut (1..10).map(|more| (addr(&b), number(10 * part + more))).collect())
            .await
            .unwrap();
    }
    sleep(ms(11)).await;
    assert_eq!(numbers(&arrived(&b)), (0..100).collect::<Vec<_>>());
}

/// Delayed messages are sent by a task, which ends with its runtime; `close` may be called in another one.
#[test]
fn close_ends_if_the_runtime_of_delayed_messages_ended() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
    };
    let (telling, closing) = (runtime(), runtime());
    let [a, b] = nodes(&medium(LinkFaults {
        delay: ms(600_000),
        ..LinkFaults::default()
    }));
    telling.block_on(a.tell(&addr(&b), number(1))).unwrap();
    closing.block_on(async {
        let mut close = Box::pin(a.close());
        assert!(poll_once(close.as_mut()).is_pending());
        telling.shutdown_background();
        tokio::time::timeout(ms(10_000), close)
            .await
            .expect("no task would send the message");
    });
    assert_eq!(counts(&a).dropped(DropReason::Closed), 1);
    assert_conserved(&a);
}
