//! Counters, batch results, and error texts.

use std::io;
use std::num::NonZeroU8;
use std::time::Duration;

use p2p::{BatchError, BatchOutcome, CounterSnapshot, Counters, DropReason, Error, Rejection};

/// Counters with distinct values.
fn distinct(from: usize) -> CounterSnapshot {
    let counters = Counters::new("test");
    assert_eq!(counters.layer(), "test");
    counters.add_sent(from);
    counters.add_received(from + 1);
    counters.add_delivered(from + 2);
    counters.add_duplicated(from + 3);
    for (more, reason) in (4..).zip(DropReason::ALL) {
        counters.add_dropped_many(reason, from + more);
    }
    counters.snapshot()
}

fn numbers(snapshot: &CounterSnapshot) -> Vec<u64> {
    let CounterSnapshot {
        sent,
        received,
        delivered,
        duplicated,
        ..
    } = *snapshot;
    let dropped = DropReason::ALL.map(|reason| snapshot.dropped(reason));
    [sent, received, delivered, duplicated]
        .into_iter()
        .chain(dropped)
        .collect()
}

#[test]
fn each_counter_counts_its_own() {
    let all = 4 + DropReason::ALL.len() as u64;
    let one = distinct(10);
    assert_eq!(numbers(&one), (10..10 + all).collect::<Vec<_>>());
    assert_eq!(one.dropped_total(), (14..10 + all).sum::<u64>());
    let mut sum = one;
    sum += distinct(100);
    assert_eq!(numbers(&sum), (0..all).map(|at| 110 + 2 * at).collect::<Vec<_>>());
    for reason in DropReason::ALL {
        let counters = Counters::new("test");
        counters.add_dropped(reason);
        counters.add_dropped_from(reason, &"peer");
        assert_eq!(
            (
                counters.snapshot().dropped(reason),
                counters.snapshot().dropped_total()
            ),
            (2, 2)
        );
    }
}

#[test]
fn debug_output_names_the_reasons_that_occurred() {
    let counters = Counters::new("test");
    counters.add_sent(3);
    counters.add_dropped_many(DropReason::QueueFull, 2);
    counters.add_dropped_many(DropReason::NoPeer, 1);
    let due = "CounterSnapshot { sent: 3, received: 0, delivered: 0, duplicated: 0, dropped: {queue_full: 2, no_peer: 1} }";
    assert_eq!(format!("{:?}", counters.snapshot()), due);
}

/// Labels of metrics, and codes on a wire: programs depend on them.
#[test]
fn reasons_and_rejections_have_texts_of_their_own() {
    let reasons = DropReason::ALL.map(|reason| reason.to_string());
    let due = "malformed queue_full budget expired duplicate no_channel denied oversize no_peer unauthenticated lost \
               partitioned refused closed no_addr";
    assert_eq!(reasons.join(" "), due);
    let known = [
        (Rejection::DROPPED, 1, "dropped without an answer"),
        (Rejection::BUSY, 2, "the node is busy"),
        (
            Rejection::OVERSIZE,
            3,
            "the request or the response exceeds the MTU",
        ),
        (Rejection::NO_CHANNEL, 4, "no reader is open on that channel"),
        (Rejection::DENIED, 5, "the asking node is not allowed there"),
        (
            Rejection::FORGOTTEN,
            6,
            "the request may have been served before, and its outcome was forgotten",
        ),
        (Rejection::new(NonZeroU8::MAX), 255, "code 255"),
    ];
    for (rejection, code, text) in known {
        assert_eq!(
            (rejection.code().get(), rejection.to_string().as_str()),
            (code, text)
        );
    }
}

#[test]
fn an_outcome_sums_the_results_of_each_message() {
    let text = |error: Option<&Error>| error.map(ToString::to_string);
    let mut outcome = BatchOutcome::default();
    outcome.add_sent(2);
    outcome.record(Ok(()));
    outcome.record_batch(5, Ok(()));
    assert!(outcome.finish().is_ok());

    let mut outcome = BatchOutcome::default();
    outcome.add_sent(2);
    outcome.add_sent(3);
    outcome.add_refused(4, Error::invalid("first", "it comes first"));
    outcome.add_refused(5, Error::Closed);
    outcome.record(Err(Error::Closed));
    outcome.record_batch(
        9,
        Err(BatchError {
            sent: 7,
            refused: 2,
            first: Error::Closed,
        }),
    );
    let error = outcome.finish().expect_err("some are refused");
    assert_eq!((error.sent, error.refused), (12, 12));
    assert_eq!(
        text(Some(&error.first)).as_deref(),
        Some("invalid first: it comes first")
    );
}

#[test]
fn a_cloned_error_has_the_same_text() {
    let errors = [
        Error::Closed,
        Error::MtuExceeded { size: 5, mtu: 4 },
        Error::addr("text", 2, "this is wrong"),
        Error::unreachable(&"there", "no route is known"),
        Error::denied(&"there"),
        Error::Rejected(Rejection::BUSY),
        Error::TimedOut {
            doing: "a test",
            limit: Duration::from_millis(1500),
        },
        Error::Limit {
            what: "tests",
            limit: 3,
        },
        Error::invalid("test", "it is one"),
        Error::io("a test")(io::Error::from(io::ErrorKind::AddrInUse)),
    ];
    let texts = [
        "the swarm is closed",
        "a message of 5 bytes exceeds the MTU of 4 bytes: send less, or put a fragmenting layer on top",
        "\"text\" is not an address: at byte 2, this is wrong",
        "there cannot be reached: no route is known",
        "there is not allowed here",
        "the ask was rejected: the node is busy",
        "a test took longer than 1.5 s",
        "the limit of 3 tests is reached",
        "invalid test: it is one",
        "a test failed",
    ];
    for (error, text) in errors.iter().zip(texts) {
        assert_eq!(error.to_string(), text);
        assert_eq!(format!("{:?}", error.clone()), format!("{error:?}"));
    }
}
