//! Faults inside a swarm that brings its own queues, wakers, ids and buffers: what implementations get wrong within.
//!
//! Those of [`mutants`](crate::mutants) stand around a correct node instead.

mod node;

use std::future::ready;
use std::time::Duration;

use node::{ASKS, HANDLERS, Net, QUEUE};
use p2p_swarmtest::reference::Address;
use p2p_swarmtest::{Effort, Law, Profile, SecureAsk, Testbed, Verdict};

/// How often a fault shows, which says how much effort finds it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shows {
    Always,
    Rarely,
}

use Shows::{Always, Rarely};

/// The testbed of the swarm with this fault, or without one.
fn testbed(fault: &'static str, effort: Effort) -> Testbed<Address> {
    let net = Net::new(fault);
    let again = net.clone();
    let beside = net.clone();
    let profile = Profile {
        holds: QUEUE,
        asks: if fault == "legal: four requests are served at a time" {
            HANDLERS
        } else {
            ASKS
        },
        patience: Duration::from_secs(1),
        ..Profile::default().effort(effort)
    };
    Testbed::new(SecureAsk, move |count| ready(Ok(net.nodes(count))))
        .profile(profile)
        .rebind(move |addr| ready(again.node_at(addr)))
        .beside(move |count| {
            let (nodes, siblings) = (beside.nodes(count), beside.nodes(count));
            ready(Ok(nodes.into_iter().zip(siblings).collect()))
        })
        .forge(|id_of, place_of| Address {
            id: id_of.id,
            place: place_of.place,
        })
}

/// Faults, by the law that finds each.
const FAULTS: &[(&str, &[(Shows, &str)])] = &[
    (
        "receive::a_waiting_receive_may_move_to_another_task",
        &[
            (Always, "the waker of the first poll is woken"),
            (Rarely, "the waker of the first poll is woken, one in 7"),
        ],
    ),
    (
        "receive::messages_that_wait_stay_as_they_were",
        &[
            (Always, "receive buffers are used again after 4 messages"),
            (Rarely, "receive buffers are used again after 40 messages"),
            (Rarely, "under load a message names the sender before"),
        ],
    ),
    (
        "receive::a_message_goes_to_one_caller",
        &[(Rarely, "two callers of receive get one message, one in 40")],
    ),
    (
        "receive::every_waiting_caller_is_woken",
        &[(Rarely, "wakes a reader where the queue was empty")],
    ),
    (
        "receive::a_cancelled_caller_passes_its_turn_on",
        &[(
            Rarely,
            "a cancelled caller passes its turn on to the first two alone",
        )],
    ),
    (
        "tell::many_senders_cost_no_more_memory",
        &[
            (Always, "each source has a queue of its own"),
            (Rarely, "two of three sources have a queue of their own"),
        ],
    ),
    (
        "tell::messages_arrive_again_after_a_flood",
        &[(Rarely, "after an overflow an empty message is dropped")],
    ),
    (
        "tell::short_room_is_no_fault",
        &[
            (
                Rarely,
                "a tag overwrites the last byte of packets without room behind",
            ),
            (Rarely, "a full packet with room loses its last byte"),
        ],
    ),
    (
        "tell::the_mtu_never_changes",
        &[
            (Rarely, "the MTU is 0 after close"),
            (Rarely, "the MTU shrinks in a flood"),
        ],
    ),
    (
        "tell::over_the_mtu_is_mtu_exceeded",
        &[(Rarely, "the MTU is checked with the headers, which wrap at 2^16")],
    ),
    (
        "batch::tell_batch_sends_what_tells_would",
        &[(Rarely, "a batch to more than 5 destinations forgets the sixth")],
    ),
    (
        "batch::a_refused_message_holds_up_none_behind_it",
        &[(Rarely, "a batch that is refused stops in the second half")],
    ),
    (
        "batch::tell_batch_says_what_was_refused",
        &[(Rarely, "the error of a batch is the last one")],
    ),
    (
        "exchange::many_calls_at_once_lose_nothing",
        &[
            (Always, "with two callers of receive every third message is lost"),
            (Rarely, "with two callers of receive one message in 40 is lost"),
            (Rarely, "two callers of receive get one message, one in 40"),
            (Rarely, "two tells in flight swap their payloads, one in 20"),
            (Rarely, "two tells in flight send one payload twice, one in 20"),
            (Rarely, "a receive beside others yields before it returns"),
            (
                Rarely,
                "a message is lost where its caller is cancelled beside another",
            ),
        ],
    ),
    (
        "exchange::ids_of_messages_may_wrap",
        &[
            (Always, "the 4,096th message is lost"),
            (Rarely, "the 65,536th message is lost"),
            (Rarely, "after 2^16 messages one in 100 comes twice"),
        ],
    ),
    (
        "exchange::a_long_exchange_keeps_every_message",
        &[
            (Rarely, "equal payloads of two senders are one message"),
            (
                Rarely,
                "an empty message ends a batch that is received, and the next is lost",
            ),
        ],
    ),
    (
        "counters::delivered_is_what_was_received",
        &[(
            Rarely,
            "delivered messages are counted one short in batches of more than 16",
        )],
    ),
    (
        "counters::they_never_fall",
        &[
            (Always, "counters are gone after close"),
            (Rarely, "after 300 messages the counters begin anew"),
        ],
    ),
    (
        "counters::what_waits_at_close_is_counted",
        &[
            (Always, "messages that wait when a node closes are not counted"),
            (Rarely, "of messages that wait when a node closes ten are counted"),
        ],
    ),
    (
        "ask::a_held_ask_outlasts_many_others",
        &[
            (Always, "ids of asks wrap at 2^8"),
            (Rarely, "ids of asks wrap at 2^10"),
        ],
    ),
    (
        "ask::each_ask_has_its_own_deadline",
        &[
            (Always, "asks that are under way together end with the first"),
            (Rarely, "asks in the last half of another's time end with it"),
        ],
    ),
    (
        "ask::asks_may_wait_together",
        &[
            (Always, "the second of two asks under way ends after 50 ms"),
            (Rarely, "with 40 asks under way an ask ends after 50 ms"),
        ],
    ),
    (
        "ask::cancelling_receive_ask_beside_others_loses_nothing",
        &[
            (Always, "a receive_ask beside others yields before it returns"),
            (
                Rarely,
                "one receive_ask in 7 beside others yields before it returns",
            ),
        ],
    ),
    (
        "ask::a_late_answer_reaches_no_other_ask",
        &[(Rarely, "an answer to an ask that was given up is Closed")],
    ),
    (
        "ask::a_slow_handler_runs_once",
        &[(Rarely, "a request is sent again when its answer takes 20 s")],
    ),
    (
        "ask::a_cancelled_ask_frees_its_slot",
        &[(Rarely, "an answer to an asker that is gone keeps a slot")],
    ),
    (
        "secure::an_id_that_differs_in_one_character_reaches_no_node",
        &[
            (Always, "an id is compared by its first 16 bytes"),
            (Rarely, "an id is compared without its last byte"),
        ],
    ),
    (
        "close::dropping_after_a_tell_harms_no_message",
        &[
            (Always, "a node that is dropped after a tell keeps its address"),
            (
                Rarely,
                "a node that is dropped after five tells keeps its address",
            ),
        ],
    ),
    (
        "close::a_second_close_frees_the_address_as_well",
        &[
            (Always, "a second close returns before the address is free"),
            (
                Rarely,
                "a second close of a node that told something returns before the address is free",
            ),
        ],
    ),
    (
        "close::a_close_that_is_given_up_frees_the_address",
        &[
            (Always, "a close that is given up frees nothing"),
            (
                Rarely,
                "a close that is given up frees nothing of a node that told something",
            ),
        ],
    ),
    (
        "close::closing_frees_an_address_in_use",
        &[(Rarely, "close waits until its peers have read")],
    ),
];

/// Faults that break this law so often.
fn faults_of(law: &str, often: Shows) -> Vec<&'static str> {
    let of_law = FAULTS.iter().filter(|(name, _)| *name == law);
    let faults = of_law.flat_map(|(_, faults)| *faults);
    faults
        .filter(|(shows, _)| *shows == often)
        .map(|(_, fault)| *fault)
        .collect()
}

async fn are_found(law: &'static Law, often: Shows, effort: Effort) -> usize {
    let faults = faults_of(law.name, often);
    for fault in &faults {
        let checked = testbed(fault, effort).check(law).await;
        assert!(
            matches!(checked.verdict, Verdict::Failed(_)),
            "{fault}: {checked}"
        );
    }
    faults.len()
}

/// Checks this law quickly on every fault that always breaks it, and says how many there are.
pub(crate) async fn are_found_at_once(law: &'static Law) -> usize {
    are_found(law, Always, Effort::Quick).await
}

/// Checks this law on every fault that rarely breaks it, and says how many there are.
pub(crate) async fn rare_are_found(law: &'static Law) -> usize {
    are_found(law, Rarely, Effort::Normal).await
}

/// What a swarm may do, though most do not.
const ODD: &[&str] = &[
    "legal: a tell takes some turns",
    "legal: the newest message is read first",
    "legal: every caller is woken",
    "legal: the caller that came last is woken",
    "legal: the oldest message makes room",
    "legal: a batch that is received is one message",
    "legal: close takes a while",
    "legal: telling a node that is gone is an error",
    "legal: an ask takes a second at most",
    "legal: four requests are served at a time",
    "legal: there are no counters",
    "legal: a node has two addresses",
    "legal: a source is an alias",
];

#[tokio::test(start_paused = true)]
async fn odd_swarms_that_break_nothing_pass() {
    let mut found = Vec::new();
    for odd in ODD {
        let report = testbed(odd, Effort::Quick).run().await;
        found.extend(report.failures().map(|checked| format!("{odd}: {checked}")));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_fault_names_a_law() {
    for (law, _) in FAULTS {
        assert!(Law::named(law).is_some(), "{law}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_fault_every_law_holds() {
    testbed("", Effort::Normal).run().await.assert_ok();
}
