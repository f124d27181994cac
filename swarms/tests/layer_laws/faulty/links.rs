//! The effects of a link: loss, duplicates, corruption, jitter, a rate, cuts.

use std::collections::BTreeSet;
use std::time::Duration;

use p2p::{DropReason, Error, Packet, Swarm as _};
use p2p_swarms::{Faults, LinkFaults, MemoryAddr};
use tokio::time::{Instant, sleep};

use super::{SEED, addr, arrived, assert_conserved, counts, medium, ms, nodes, number, numbers};

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
async fn a_rate_spaces_messages_and_bounds_the_queue() {
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
    // Another link has its own rate.
    a.tell(&addr(&c), Packet::from(vec![0; 100])).await.unwrap();
    c.receive().await.unwrap();
    assert_eq!(start.elapsed(), ms(6));
    for nth in 1..=10 {
        b.receive().await.unwrap();
        assert_eq!(start.elapsed(), ms(5 + nth));
    }
    assert_eq!(counts(&a).dropped(DropReason::QueueFull), 5);
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
    let dropped: u64 = [&a, &b, &c]
        .map(|node| counts(node).dropped(DropReason::Partitioned))
        .iter()
        .sum();
    assert_eq!(dropped, 1 + 5 + 4);
    for node in [&a, &b, &c] {
        assert_conserved(node);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_does_not_affect_messages_in_flight() {
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
async fn a_configured_link_differs_from_the_others_until_it_is_reset() {
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
    // A cut does not reset the settings.
    faults.cut(&addr(&a), &addr(&b));
    assert_eq!(tell_all().await, 0);
    faults.heal();
    assert_eq!(tell_all().await, 1);
    faults.reset_link(&addr(&a), &addr(&b));
    assert_eq!(tell_all().await, 0);
    assert_eq!(counts(&a).dropped(DropReason::Lost), 5);
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

/// Messages without a receiver, each to a different address.
fn to_many(from: i64, count: i64) -> Vec<(MemoryAddr, Packet)> {
    let to = |at| (MemoryAddr::new(from + at), Packet::from(vec![0; 100]));
    (0..count).map(to).collect()
}

#[tokio::test(start_paused = true)]
async fn links_with_a_rate_are_bounded_and_idle_ones_are_removed() {
    let second = LinkFaults {
        rate: 100,
        ..LinkFaults::default()
    };
    let [a] = nodes(&medium(second));
    let full = || counts(&a).dropped(DropReason::QueueFull);
    a.tell_batch(&mut to_many(1000, 4096)).await.unwrap();
    assert_eq!((full(), a.in_flight()), (0, 4096));
    // All are busy: a further link is refused, and the existing ones stay.
    a.tell_batch(&mut to_many(9000, 3)).await.unwrap();
    a.tell_batch(&mut to_many(1000, 10)).await.unwrap();
    assert_eq!((full(), a.in_flight()), (3, 4106));
    sleep(ms(1001)).await;
    assert_eq!(a.in_flight(), 10);
    a.tell_batch(&mut to_many(9000, 4086)).await.unwrap();
    assert_eq!(full(), 3, "idle links were removed");
    a.tell_batch(&mut to_many(20_000, 1)).await.unwrap();
    assert_eq!(full(), 4, "ten links are still busy");
    // Without a rate there is no queue.
    a.faults().set_all(LinkFaults::default()).unwrap();
    a.tell_batch(&mut to_many(30_000, 10)).await.unwrap();
    assert_eq!(full(), 4);
    assert_conserved(&a);
}

#[tokio::test(start_paused = true)]
async fn a_message_takes_its_length_by_the_rate() {
    let link = LinkFaults {
        rate: 1000,
        rate_queue: 600,
        ..LinkFaults::default()
    };
    let [a, b] = nodes(&medium(link));
    let start = Instant::now();
    // The link is idle, so the first message may be longer than its queue; then all room is taken.
    for (len, fits) in [(700, true), (1, false)] {
        a.tell(&addr(&b), Packet::from(vec![0; len])).await.unwrap();
        assert_eq!(counts(&a).dropped(DropReason::QueueFull), u64::from(!fits));
    }
    b.receive().await.unwrap();
    assert_eq!(start.elapsed(), ms(700));
    for (len, due) in [(200, 900), (300, 1200), (100, 1300)] {
        a.tell(&addr(&b), Packet::from(vec![0; len])).await.unwrap();
        assert_eq!(
            a.in_flight(),
            [(200, 1), (300, 2), (100, 3)]
                .iter()
                .find(|(of, _)| *of == len)
                .unwrap()
                .1,
            "due at {due}"
        );
    }
    for due in [900, 1200, 1300] {
        b.receive().await.unwrap();
        assert_eq!(start.elapsed(), ms(due));
    }
    // Unused capacity is not accumulated.
    sleep(ms(5000)).await;
    let start = Instant::now();
    for due in [500, 1000] {
        a.tell(&addr(&b), Packet::from(vec![0; 500])).await.unwrap();
        b.receive().await.unwrap();
        assert_eq!(start.elapsed(), ms(due));
    }
}

#[tokio::test(start_paused = true)]
async fn corruption_hits_every_bit_of_a_message() {
    let [a, b] = nodes(&medium(LinkFaults {
        corrupt: 1.0,
        ..LinkFaults::default()
    }));
    for told in [0, u32::MAX, 0x5555_5555] {
        let mut hit = BTreeSet::new();
        for _ in 0..1000 {
            a.tell(&addr(&b), Packet::from(&told.to_be_bytes()))
                .await
                .unwrap();
            let came = u32::from_be_bytes(arrived(&b)[0][..].try_into().unwrap());
            assert_eq!((told ^ came).count_ones(), 1, "seed {SEED}");
            hit.insert(told ^ came);
        }
        assert_eq!(hit.len(), 32, "seed {SEED}");
    }
}

#[tokio::test(start_paused = true)]
async fn probabilities_are_those_of_the_link() {
    let near = |what: &str, count: usize, due: std::ops::Range<usize>| {
        assert!(due.contains(&count), "seed {SEED}: {what}: {count}");
    };
    let link = LinkFaults {
        loss: 0.25,
        duplicate: 0.1,
        corrupt: 0.2,
        ..LinkFaults::default()
    };
    let [a, b] = nodes(&medium(link));
    a.tell_batch(&mut (0..1000).map(|_| (addr(&b), Packet::from(&[0; 8]))).collect())
        .await
        .unwrap();
    let all = counts(&a);
    let copies = arrived(&b);
    // Six standard deviations.
    near("lost", all.dropped(DropReason::Lost) as usize, 168..332);
    near("duplicated", all.duplicated as usize, 26..124);
    let damaged = copies
        .iter()
        .filter(|packet| packet.iter().any(|byte| *byte != 0));
    near("damaged", damaged.count(), 96..234);
    assert_eq!(copies.len() as u64, 1000 + all.duplicated - all.dropped_total());
    // No two nodes of one medium lose the same messages.
    let [one, two] = nodes(a.faults());
    for node in [&one, &two] {
        node.tell_batch(&mut (0..100).map(|count| (addr(&one), number(count))).collect())
            .await
            .unwrap();
    }
    let both = numbers(
        &arrived(&one)
            .into_iter()
            .filter(|packet| packet.len() == 4)
            .collect::<Vec<_>>(),
    );
    assert!(both.len() > 100);
    assert_ne!(counts(&one), counts(&two));
}

#[test]
fn settings_out_of_range_are_errors() {
    const HOUR: Duration = Duration::from_hours(1);
    let usual = LinkFaults::default();
    assert!(usual.is_none() && !LinkFaults { rate: 1, ..usual }.is_none());
    let chances: [fn(&mut LinkFaults) -> &mut f64; 4] = [
        |link| &mut link.loss,
        |link| &mut link.duplicate,
        |link| &mut link.reorder,
        |link| &mut link.corrupt,
    ];
    for chance in chances {
        for (value, fits) in [
            (0.0, true),
            (0.5, true),
            (1.0, true),
            (1.1, false),
            (-0.1, false),
            (f64::NAN, false),
        ] {
            let mut link = usual;
            *chance(&mut link) = value;
            assert_eq!(link.check().is_ok(), fits, "{link:?}");
            assert_eq!(fits && link.is_none(), value == 0.0, "{link:?}");
        }
    }
    let times: [fn(&mut LinkFaults) -> &mut Duration; 3] = [
        |link| &mut link.delay,
        |link| &mut link.jitter,
        |link| &mut link.reorder_by,
    ];
    for time in times {
        for (value, fits) in [
            (HOUR, true),
            (HOUR + Duration::from_nanos(1), false),
            (2 * HOUR, false),
            (Duration::MAX, false),
        ] {
            let mut link = usual;
            *time(&mut link) = value;
            let error = link.check();
            assert!(
                error.is_ok() == fits && (fits || matches!(error, Err(Error::Invalid { .. }))),
                "{link:?}"
            );
        }
    }
}
