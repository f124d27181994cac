use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use p2p::{CounterSnapshot, Headroom, Rejection};
use serde_json::Value;

use super::*;

/// Polls once.
fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn ready<F: Future>(future: F) -> F::Output {
    match poll_once(future) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("had to wait"),
    }
}

fn pair() -> (MemorySwarm, MemorySwarm) {
    let realm = MemoryRealm::default();
    (realm.open(), realm.open())
}

fn tight(items: usize) -> MemoryRealm {
    let limits = Limits {
        items,
        ..MemoryConfig::default().messages
    };
    MemoryRealm::new(MemoryConfig {
        mtu: 100,
        messages: limits,
        asks: limits,
    })
}

/// Returns the sum of the tell counters of several nodes.
fn total(nodes: &[&MemorySwarm]) -> CounterSnapshot {
    let mut sum = CounterSnapshot::default();
    for node in nodes {
        sum += node.node.counters.snapshot();
    }
    sum
}

#[test]
fn addresses_parse_as_in_other_implementations() {
    let vectors: Value = serde_json::from_str(include_str!("../../tests/vectors/addrs.json")).unwrap();
    let swarm = MemorySwarm::new();
    for case in vectors["mem"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let parsed = swarm.parse_addr(text);
        // Signs and leading zeros are accepted because other implementations write such addresses; the
        // printed text is canonical.
        if case["accepted"].as_bool().unwrap() {
            let addr = parsed.unwrap();
            assert_eq!(addr.number(), case["n"].as_i64().unwrap());
            assert_eq!(addr.to_string(), case["text_again"].as_str().unwrap());
        } else {
            assert!(matches!(parsed, Err(Error::InvalidAddr { .. })), "{text:?}");
        }
    }
}

#[test]
fn a_bad_address_error_points_at_the_byte() {
    for (text, place) in [
        ("", 0),
        ("-", 1),
        ("12x", 2),
        ("+1 ", 2),
        ("é", 0),
        ("99999999999999999999", 0),
    ] {
        match text.parse::<MemoryAddr>() {
            Err(Error::InvalidAddr { at, .. }) => assert_eq!(at, place, "{text:?}"),
            other => panic!("{text:?} gave {other:?}"),
        }
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_an_address_or_an_error_with_a_position_within_the_text(text in "[+-]?[0-9]{0,21}|.{0,30}") {
        match text.parse::<MemoryAddr>() {
            Ok(addr) => proptest::prop_assert_eq!(addr.to_string().parse().ok(), Some(addr)),
            Err(Error::InvalidAddr { text: said, at, .. }) => {
                proptest::prop_assert!(*said == *text && text.is_char_boundary(at));
            }
            Err(other) => proptest::prop_assert!(false, "{}", other),
        }
    }
}

#[test]
fn a_message_is_moved_not_copied() {
    let (a, b) = pair();
    let packet = Packet::new(Headroom::new(8, 8), b"hello");
    let at = packet.as_ptr();
    ready(a.tell(&b.local_addr(), packet)).unwrap();
    let message = ready(b.receive()).unwrap();
    assert_eq!(message.payload, b"hello");
    assert_eq!(message.payload.as_ptr(), at);
    assert_eq!(message.payload.room(), Headroom::new(8, 8));
    assert_eq!((message.src, message.dst), (a.local_addr(), b.local_addr()));
}

#[test]
fn the_mtu_passes_and_one_more_byte_does_not() {
    let realm = tight(10);
    let (a, b) = (realm.open(), realm.open());
    let dst = b.local_addr();
    ready(a.tell(&dst, Packet::from(vec![7; 100]))).unwrap();
    ready(a.tell(&dst, Packet::default())).unwrap();
    let over = Packet::from(vec![7; 101]);
    assert!(matches!(
        ready(a.tell(&dst, over.clone())),
        Err(Error::MtuExceeded { size: 101, mtu: 100 })
    ));
    assert!(matches!(
        ready(a.ask(&dst, over.clone())),
        Err(Error::MtuExceeded { size: 101, mtu: 100 })
    ));
    let mut batch = vec![(dst, over), (dst, Packet::from("fits"))];
    let error = ready(a.tell_batch(&mut batch)).unwrap_err();
    assert_eq!((error.sent, error.refused), (1, 1));
    assert!(batch.is_empty());
    let lens: Vec<_> = (0..3)
        .map(|_| ready(b.receive()).unwrap().payload.len())
        .collect();
    assert_eq!(lens, [100, 0, 4]);
}

#[test]
fn a_full_queue_drops_and_counts_the_newest_message() {
    let realm = tight(2);
    let (a, b) = (realm.open(), realm.open());
    let mut batch: Vec<_> = ["1", "2", "3"]
        .map(|text| (b.local_addr(), Packet::from(text)))
        .into();
    ready(a.tell_batch(&mut batch)).unwrap();
    ready(a.tell(&b.local_addr(), Packet::from("4"))).unwrap();
    let mut out = Vec::new();
    assert_eq!(ready(b.receive_batch(&mut out, 9)).unwrap(), 2);
    assert_eq!((&out[0].payload[..], &out[1].payload[..]), (&b"1"[..], &b"2"[..]));
    let sum = total(&[&a, &b]);
    assert_eq!((sum.sent, sum.received, sum.delivered), (4, 4, 2));
    assert_eq!(sum.dropped(DropReason::QueueFull), 2);
}

#[test]
fn a_message_to_an_unused_address_is_lost_and_counted() {
    let (a, b) = pair();
    let absent = MemoryAddr::new(99);
    ready(a.tell(&absent, Packet::from("x"))).unwrap();
    let mut batch = [absent, b.local_addr(), absent]
        .map(|dst| (dst, Packet::from("y")))
        .into();
    ready(a.tell_batch(&mut batch)).unwrap();
    ready(b.receive()).unwrap();
    let sum = total(&[&a, &b]);
    assert_eq!(
        (sum.sent, sum.delivered, sum.dropped(DropReason::NoPeer)),
        (4, 1, 3)
    );
    assert!(matches!(
        ready(a.ask(&absent, Packet::default())),
        Err(Error::Unreachable { .. })
    ));
    assert!(matches!(
        ready(a.lookup_public_key(&absent)),
        Err(Error::Unreachable { .. })
    ));
}

#[tokio::test]
async fn close_wakes_frees_and_counts() {
    let realm = MemoryRealm::default();
    let (a, b) = (realm.open(), realm.open());
    let dst = b.local_addr();
    let (told, asked, out_ask) = tokio::join!(
        async { a.receive().await },
        async { a.receive_ask().await },
        async {
            let asking = a.ask(&dst, Packet::from("?"));
            let closing = async {
                a.close().await;
                a.close().await;
            };
            tokio::join!(asking, closing).0
        }
    );
    assert!(matches!(told, Err(Error::Closed)));
    assert!(matches!(asked, Err(Error::Closed)));
    assert!(matches!(out_ask, Err(Error::Closed)));
    assert!(matches!(
        a.tell(&dst, Packet::default()).await,
        Err(Error::Closed)
    ));
    assert!(matches!(a.ask(&dst, Packet::default()).await, Err(Error::Closed)));
    assert!(matches!(a.lookup_public_key(&dst).await, Err(Error::Closed)));
    let mut batch = vec![(dst, Packet::default()); 2];
    assert_eq!(a.tell_batch(&mut batch).await.unwrap_err().refused, 2);

    let again = realm.open_at(a.local_addr()).unwrap();
    assert!(matches!(
        realm.open_at(a.local_addr()),
        Err(Error::Invalid { .. })
    ));
    // Closing an old node does not free the address of a new one.
    drop(a);
    assert!(matches!(
        realm.open_at(again.local_addr()),
        Err(Error::Invalid { .. })
    ));

    again.tell(&dst, Packet::from("waits")).await.unwrap();
    b.close().await;
    assert_eq!(total(&[&b]).dropped(DropReason::Closed), 1);
}

#[test]
fn realms_with_the_same_name_are_one_and_others_are_separate() {
    let name = "realms_of_one_name_meet_and_others_do_not";
    let a = MemoryRealm::named(name).open();
    let b = MemoryRealm::named(name).open();
    let stranger = MemoryRealm::named("another").open();
    assert_ne!(a.local_addr(), b.local_addr());
    ready(a.tell(&b.local_addr(), Packet::from("hi"))).unwrap();
    assert_eq!(ready(b.receive()).unwrap().payload, b"hi");
    assert!(matches!(
        ready(stranger.ask(&b.local_addr(), Packet::default())),
        Err(Error::Unreachable { .. })
    ));
    drop((a, b));
    assert_eq!(
        MemoryRealm::named(name).open().local_addr(),
        MemoryAddr::new(0),
        "the realm ended with its nodes"
    );
}

#[test]
fn keys_are_consistent() {
    let (a, b) = pair();
    assert_eq!(
        ready(a.lookup_public_key(&b.local_addr())).unwrap(),
        b.public_key()
    );
    assert_ne!(a.public_key(), b.public_key());
}

mod asks {
    use super::*;

    #[tokio::test]
    async fn each_ask_gets_its_own_response() {
        let (a, b) = pair();
        let dst = b.local_addr();
        let serve = async {
            // Answered in reverse order.
            let first = b.receive_ask().await.unwrap();
            let second = b.receive_ask().await.unwrap();
            for request in [second, first] {
                let response = request.message.payload.clone();
                request.respond(response).await.unwrap();
            }
        };
        let (one, two, ()) = tokio::join!(
            a.ask(&dst, Packet::from("one")),
            a.ask(&dst, Packet::from("two")),
            serve
        );
        assert_eq!((&one.unwrap()[..], &two.unwrap()[..]), (&b"one"[..], &b"two"[..]));
    }

    #[tokio::test]
    async fn a_dropped_or_rejected_request_is_an_error_at_once() {
        let (a, b) = pair();
        let dst = b.local_addr();
        let (outcome, ()) = tokio::join!(a.ask(&dst, Packet::default()), async {
            drop(b.receive_ask().await.unwrap());
        });
        assert!(matches!(outcome, Err(Error::Rejected(Rejection::DROPPED))));
        let (outcome, ()) = tokio::join!(a.ask(&dst, Packet::default()), async {
            b.receive_ask().await.unwrap().reject(Rejection::NO_CHANNEL);
        });
        assert!(matches!(outcome, Err(Error::Rejected(Rejection::NO_CHANNEL))));
    }

    #[tokio::test]
    async fn a_response_over_the_mtu_is_an_error_at_both_ends() {
        let realm = tight(1);
        let (a, b) = (realm.open(), realm.open());
        let dst = b.local_addr();
        let (outcome, responded) = tokio::join!(a.ask(&dst, Packet::default()), async {
            let request = b.receive_ask().await.unwrap();
            request.respond(Packet::from(vec![0; 101])).await
        });
        assert!(matches!(outcome, Err(Error::Rejected(Rejection::OVERSIZE))));
        assert!(matches!(
            responded,
            Err(Error::MtuExceeded { size: 101, mtu: 100 })
        ));
    }

    #[tokio::test]
    async fn a_cancelled_ask_frees_its_slot_and_a_full_queue_is_busy_at_once() {
        let realm = tight(1);
        let (a, b) = (realm.open(), realm.open());
        let dst = b.local_addr();
        {
            let mut waits = pin!(a.ask(&dst, Packet::from("cancelled")));
            assert!(poll_once(waits.as_mut()).is_pending());
            assert!(matches!(
                a.ask(&dst, Packet::from("one too many")).await,
                Err(Error::Rejected(Rejection::BUSY))
            ));
        }
        assert!(
            poll_once(b.receive_ask()).is_pending(),
            "the cancelled ask was removed"
        );
        let (outcome, ()) = tokio::join!(a.ask(&dst, Packet::from("next")), async {
            let request = b.receive_ask().await.unwrap();
            assert_eq!(request.message.payload, b"next");
            request.respond(Packet::from("done")).await.unwrap();
        });
        assert_eq!(outcome.unwrap(), b"done");
        let counts = b.node.ask_counters.snapshot();
        assert_eq!(
            (counts.received, counts.delivered, counts.dropped_total()),
            (3, 1, 2)
        );
    }

    #[tokio::test]
    async fn an_ask_of_a_peer_that_closes_fails_at_once() {
        let (a, b) = pair();
        let dst = b.local_addr();
        // Once while the handler holds the request, once while it still waits.
        let (outcome, request) = tokio::join!(a.ask(&dst, Packet::default()), async {
            let request = b.receive_ask().await.unwrap();
            b.close().await;
            request
        });
        assert!(matches!(outcome, Err(Error::Unreachable { .. })), "{outcome:?}");
        assert!(matches!(
            request.respond(Packet::default()).await,
            Err(Error::Closed)
        ));

        let c = a.realm().open();
        let dst = c.local_addr();
        let (outcome, ()) = tokio::join!(a.ask(&dst, Packet::default()), async { drop(c) });
        assert!(matches!(
            outcome,
            Err(Error::Unreachable { .. } | Error::Rejected(_))
        ));
    }
}
