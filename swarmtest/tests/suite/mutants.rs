//! The suite grades itself: for every law there are two swarms that break it, and the suite says so.
//!
//! The first breaks it always and, in a quick run, alone, but for laws that state it again of other traffic
//! ([`GENERAL`]). The second breaks it rarely or under a condition, and a run of normal effort finds it.

mod asks;
mod keys;
mod rare;

mod tells;
mod traffic;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use p2p::{Message, Packet, Responder, Result, Swarm as _};
use p2p_swarmtest::reference::{Address, Config, Network, Node};
use p2p_swarmtest::{LAWS, Profile, Report, SecureAsk, Testbed};
use tokio::sync::{Notify, oneshot};

/// A correct node but for one fault, which is named by the law that it breaks.
struct Mutant {
    inner: Arc<Node>,
    addr: Address,
    breaks: &'static str,
    own: Arc<Own>,
    crowd: Arc<Crowd>,
}

/// What faults remember of one node.
#[derive(Default)]
struct Own {
    closed: AtomicBool,
    closing: Notify,
    /// Callers that wait in `receive`.
    waiting: AtomicUsize,
    called: Notify,
    copies: Mutex<Vec<Message<Address>>>,
    copied: Notify,
    waiters: Mutex<Vec<oneshot::Sender<()>>>,
    received: AtomicUsize,
    told: AtomicUsize,
    /// Tells to nodes that are closed, under way.
    telling_gone: AtomicUsize,
    first_src: Mutex<Option<Address>>,
    slot: Mutex<Option<(Address, Packet)>>,
    parsed: Mutex<BTreeSet<Address>>,
    asking: AtomicUsize,
    turn: tokio::sync::Mutex<()>,
    stash: Mutex<Option<Packet>>,
    rejected: AtomicUsize,
    closes: AtomicUsize,
    /// Whether a request was received.
    asked: AtomicBool,
    /// Held by each request that is not answered yet.
    serving: Arc<()>,
    /// Nodes that were told something, and those at whose places another was told something.
    known_true: Mutex<BTreeSet<Address>>,
    wronged: Mutex<BTreeSet<Address>>,
    /// Asks that wait, as far as a late answer can reach them.
    open_asks: Mutex<Vec<oneshot::Sender<Packet>>>,
}

/// A node, and what faults remember of it.
type Known = (Weak<Node>, Arc<Own>);

/// What faults remember of all nodes that were made together.
#[derive(Default)]
struct Crowd {
    nodes: Mutex<BTreeMap<Address, Known>>,
    /// Messages told and not yet received, by destination.
    unread: Mutex<BTreeMap<Address, usize>>,
    /// The nodes that are siblings of others.
    siblings: Mutex<Vec<Address>>,
    /// Messages over the limit, by destination, and the nodes that had read all of a flood.
    stash: Mutex<BTreeMap<Address, Vec<Message<Address>>>>,
    flooded: Mutex<BTreeMap<Address, bool>>,
    never_freed: Mutex<Vec<Arc<Node>>>,
    never_answered: Mutex<Vec<Responder>>,
    cancelled: Mutex<BTreeSet<Vec<u8>>>,
}

impl Crowd {
    fn unread(&self, dst: &Address) -> usize {
        lock(&self.unread).get(dst).copied().unwrap_or(0)
    }

    /// Whether this node was here and is closed.
    fn is_closed(&self, addr: &Address) -> bool {
        let nodes = lock(&self.nodes);
        nodes.get(addr).is_some_and(|(_, own)| own.closed.load(SeqCst))
    }

    /// What faults remember of a node, if it is one of these.
    fn known(&self, addr: &Address) -> Option<Arc<Own>> {
        lock(&self.nodes).get(addr).map(|(_, own)| own.clone())
    }

    /// Whether a node of these was closed or dropped.
    fn is_gone(&self, addr: &Address) -> bool {
        let nodes = lock(&self.nodes);
        let known = nodes.get(addr);
        known.is_some_and(|(node, own)| own.closed.load(SeqCst) || node.strong_count() == 0)
    }

    /// The node at this place, whatever its identity.
    fn at(&self, place: u32) -> Option<Address> {
        lock(&self.nodes).keys().find(|addr| addr.place == place).copied()
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mutant {
    fn breaks(&self, law: &str) -> bool {
        assert!(
            LAWS.iter().any(|known| known.name == law),
            "there is no law {law:?}"
        );
        self.breaks == law
    }

    fn closed(&self) -> bool {
        self.own.closed.load(SeqCst)
    }
}

impl Drop for Mutant {
    fn drop(&mut self) {
        let in_use = self.own.asked.load(SeqCst) && self.breaks("close::dropping_frees_an_address_in_use");
        if in_use || self.breaks("close::dropping_frees_the_address") {
            lock(&self.crowd.never_freed).push(self.inner.clone());
        }
    }
}

/// A payload with one byte changed, behind its number.
fn damage(payload: &mut [u8]) {
    if let Some(last) = payload.last_mut() {
        *last ^= 1;
    }
}

fn crowd(network: &Network, breaks: &'static str, count: usize) -> Vec<Mutant> {
    let crowd = Arc::new(Crowd::default());
    let nodes = network.nodes(count).into_iter().map(|node| {
        let (inner, own) = (Arc::new(node), Arc::new(Own::default()));
        let addr = inner.local_addrs()[0];
        lock(&crowd.nodes).insert(addr, (Arc::downgrade(&inner), own.clone()));
        Mutant {
            inner,
            addr,
            breaks,
            own,
            crowd: crowd.clone(),
        }
    });
    nodes.collect()
}

/// Runs the whole suite on the swarm that breaks this law.
async fn grade(breaks: &'static str) -> Report {
    let sound = Config::default();
    let config = match breaks {
        "tell::a_burst_arrives_as_far_as_the_medium_lets_it" => Config { queue: 8, ..sound },
        "tell::a_stopped_reader_costs_bounded_memory" => Config { queue: 1000, ..sound },
        _ => sound,
    };
    let profile = Profile {
        holds: sound.queue,
        asks: sound.asks,
        patience: Duration::from_secs(1),
        ..Profile::default().quick()
    };
    let network = Network::new(config);
    let again = network.clone();
    let beside = network.clone();
    // Places that a fault keeps although their node is closed.
    let kept = Arc::new(Mutex::new(Vec::<Weak<Node>>::new()));
    let made = kept.clone();
    let testbed = Testbed::new(SecureAsk, move |count| {
        let nodes = crowd(&network, breaks, count);
        lock(&made).extend(nodes.iter().map(|node| Arc::downgrade(&node.inner)));
        std::future::ready(Ok(nodes))
    });
    let testbed = testbed.profile(profile).forge(|id_of, place_of| Address {
        id: id_of.id,
        place: place_of.place,
    });
    let testbed = testbed.beside(move |count| {
        let mut nodes = crowd(&beside, breaks, 2 * count);
        let siblings = nodes.split_off(count);
        if let Some(node) = nodes.first() {
            let siblings = siblings.iter().map(|node| node.addr);
            lock(&node.crowd.siblings).extend(siblings);
        }
        std::future::ready(Ok(nodes.into_iter().zip(siblings).collect()))
    });
    let testbed = testbed.rebind(move |addr: Address| {
        let alive = || {
            lock(&kept)
                .iter()
                .filter_map(Weak::upgrade)
                .any(|node| node.local_addrs() == [addr])
        };
        let made: Result<Node> = if breaks == "close::closing_frees_the_address" && alive() {
            Err(p2p::Error::invalid("address", "taken"))
        } else {
            again.node_at(addr)
        };
        std::future::ready(made)
    });
    testbed.run().await
}

/// Laws that state of long or varied traffic what other laws state one by one. Whatever breaks one of those may break
/// these.
const GENERAL: &[&str] = &[
    "contents::any_content_of_any_length_arrives_whole",
    "contents::every_byte_arrives_whole",
    "contents::what_looks_like_a_header_arrives_whole",
    "counters::they_balance_over_all_nodes",
    "exchange::a_long_exchange_keeps_every_message",
    "exchange::many_senders_are_told_apart",
    "exchange::two_nodes_exchange_thousands",
    "receive::a_waiting_receive_may_move_to_another_task",
    "receive::messages_that_wait_stay_as_they_were",
    "tell::many_senders_cost_no_more_memory",
    "exchange::many_calls_at_once_lose_nothing",
    "exchange::ids_of_messages_may_wrap",
    "counters::they_never_fall",
    "counters::what_waits_at_close_is_counted",
    "ask::a_held_ask_outlasts_many_others",
    "ask::each_ask_has_its_own_deadline",
    "ask::asks_may_wait_together",
    "ask::cancelling_receive_ask_beside_others_loses_nothing",
    "secure::an_id_that_differs_in_one_character_reaches_no_node",
    "close::dropping_after_a_tell_harms_no_message",
    "close::a_second_close_frees_the_address_as_well",
    "close::a_close_that_is_given_up_frees_the_address",
    "tell::messages_arrive_again_after_a_flood",
    "wire::no_length_can_be_read_on_the_wire",
    "wire::the_same_message_never_looks_the_same",
    "wire::tampering_at_any_length_changes_no_message",
    "wire::replay_repeats_no_message_however_late",
    "wire::replay_after_a_restart_repeats_nothing",
    "garbage::messages_arrive_again_after_garbage",
    "secure::a_wrong_id_reaches_no_node_beside_the_true_one",
    "secure::a_wrong_id_makes_no_node_unreachable",
    "secure::a_flooded_node_proves_its_key",
    "ask::of_many_asks_each_gets_its_own_response",
    "ask::asks_of_every_length_are_answered",
    "ask::an_ask_without_a_response_frees_its_slot",
    "ask::every_code_of_a_rejection_arrives",
    "ask::a_dropped_request_takes_no_longer_than_an_answer",
    "ask::a_slow_handler_runs_once",
    "ask::a_late_answer_reaches_no_other_ask",
    "ask::a_server_that_goes_ends_the_asks_of_others",
    "ask::asks_are_answered_while_tells_flood",
    "ask::a_handler_may_ask_back",
    "ask::every_waiting_receive_ask_is_woken",
    "close::closing_frees_an_address_in_use",
    "close::dropping_frees_an_address_in_use",
    "close::a_node_made_again_is_reached_by_others",
    "close::close_takes_effect_at_its_first_poll",
    "close::what_was_told_before_close_arrives",
    "close::what_was_answered_before_close_arrives",
    "close::a_closed_peer_is_no_closed_swarm",
    "close::close_may_be_called_by_many_tasks",
    "close::close_waits_for_no_call_that_is_held",
    "close::closing_in_a_flood_ends_every_call",
];

/// Mutants that cannot but break other laws too: the law of each, and the others.
const ALSO: &[(&str, &[&str])] = &[
    (
        "exchange::two_nodes_exchange_thousands",
        &["batch::receive_batch_takes_what_receives_would"],
    ),
    (
        "tell::a_destination_that_is_gone_delays_no_other",
        &["close::closing_closes_no_other_node"],
    ),
    (
        "close::closing_closes_no_other_node",
        &["tell::a_destination_that_is_gone_delays_no_other"],
    ),
    (
        "addr::garbage_is_invalid_addr",
        &["addr::junk_around_an_address_is_not_passed_over"],
    ),
    (
        "batch::a_refused_message_holds_up_none_behind_it",
        &[
            "batch::tell_batch_says_what_was_refused",
            "counters::sent_is_what_left",
        ],
    ),
    (
        "batch::receive_batch_appends",
        &["counters::delivered_is_what_was_received"],
    ),
    (
        "batch::tell_batch_says_what_was_refused",
        &["counters::sent_is_what_left"],
    ),
    (
        "batch::tell_batch_sends_what_tells_would",
        &["batch::a_refused_message_holds_up_none_behind_it"],
    ),
    (
        "tell::a_burst_arrives_as_far_as_the_medium_lets_it",
        &[
            "tell::every_length_up_to_the_mtu_arrives",
            "tell::tells_of_many_tasks_all_arrive",
            "tell::exactly_the_mtu_works",
            "tell::an_empty_payload_is_a_message",
            "tell::a_stopped_reader_stalls_no_other",
            "receive::every_waiting_caller_is_woken",
            "batch::tell_batch_sends_what_tells_would",
            "batch::a_refused_message_holds_up_none_behind_it",
            "batch::receive_batch_takes_what_receives_would",
            "tell::a_full_sibling_stalls_nothing",
        ],
    ),
    (
        "tell::a_message_arrives_whole",
        &[
            "tell::a_cancelled_tell_leaves_whole_or_not_at_all",
            "tell::short_room_is_no_fault",
        ],
    ),
    (
        "tell::a_message_reaches_its_destination_alone",
        &[
            "batch::a_refused_message_holds_up_none_behind_it",
            "batch::tell_batch_sends_what_tells_would",
            "batch::a_refused_message_holds_up_none_behind_it",
            "tell::a_full_sibling_stalls_nothing",
        ],
    ),
    (
        "tell::a_stopped_reader_stalls_no_other",
        &[
            "tell::telling_a_stopped_reader_takes_no_longer",
            "tell::a_full_sibling_stalls_nothing",
        ],
    ),
    (
        "tell::a_tell_never_waits_for_the_reader",
        &[
            "batch::cancelling_receive_batch_loses_nothing",
            "counters::delivered_is_what_was_received",
            "batch::receive_batch_takes_what_receives_would",
            "batch::receive_batch_keeps_to_its_maximum",
            "batch::receive_batch_appends",
            "tell::a_full_sibling_stalls_nothing",
        ],
    ),
    (
        "tell::an_error_means_it_did_not_leave",
        &[
            "batch::cancelling_receive_batch_loses_nothing",
            "counters::delivered_is_what_was_received",
            "batch::tell_batch_sends_what_tells_would",
            "batch::a_refused_message_holds_up_none_behind_it",
            "batch::receive_batch_takes_what_receives_would",
            "batch::receive_batch_keeps_to_its_maximum",
            "batch::receive_batch_appends",
            "counters::sent_is_what_left",
        ],
    ),
    (
        "tell::dst_is_a_local_address",
        &["addr::a_parsed_address_can_be_told_to"],
    ),
    (
        "tell::every_length_up_to_the_mtu_arrives",
        &[
            "tell::short_room_is_no_fault",
            "tell::a_stopped_reader_stalls_no_other",
            "tell::a_full_sibling_stalls_nothing",
        ],
    ),
    (
        "tell::exactly_the_mtu_works",
        &[
            "tell::a_message_arrives_whole",
            "tell::short_room_is_no_fault",
            "tell::src_can_be_told_to",
        ],
    ),
    (
        "close::closing_closes_no_other_node",
        &[
            "close::closing_frees_the_address",
            "close::dropping_frees_the_address",
        ],
    ),
    (
        "close::a_closed_peer_is_no_closed_swarm",
        &[
            "close::closing_frees_the_address",
            "close::dropping_frees_the_address",
        ],
    ),
    // A packet that comes from another port unchanged is a repeated one.
    (
        "wire::messages_arrive_again_after_replay",
        &["wire::messages_arrive_again_after_tampering"],
    ),
    (
        "tell::a_second_flood_keeps_no_more",
        &["tell::a_stopped_reader_costs_bounded_memory"],
    ),
    (
        "tell::a_message_arrives_at_most_once",
        &["tell::a_full_sibling_stalls_nothing"],
    ),
];

/// What the suite says of a swarm that breaks `breaks`, without the laws that may be broken too.
fn broken(report: &Report, breaks: &str) -> Vec<&'static str> {
    let also = ALSO.iter().filter(|(law, _)| *law == breaks);
    let allowed: Vec<&str> = also.flat_map(|(_, also)| *also).chain(GENERAL).copied().collect();
    let failed = report.failures().map(|checked| checked.law.name);
    failed
        .filter(|law| *law == breaks || !allowed.contains(law))
        .collect()
}

async fn is_found_although_rare(breaks: &'static str) {
    let law = p2p_swarmtest::Law::named(breaks).expect("a law of the list");
    let faults =
        rare::are_found(law).await + wire::rare_are_found(law).await + crate::own::rare_are_found(law).await;
    assert!(faults > 0, "{breaks} has no rare fault");
}

async fn is_found(breaks: &'static str) {
    if breaks.starts_with("wire::") || breaks.starts_with("garbage::") {
        return wire::are_found(breaks).await;
    }
    let law = p2p_swarmtest::Law::named(breaks).expect("a law of the list");
    if crate::own::are_found_at_once(law).await > 0 {
        return;
    }
    let report = grade(breaks).await;
    assert_eq!(broken(&report, breaks), [breaks], "\n{report}");
    // No law has a look at the medium here; the mutants that have one stand in a file of their own.
    assert!(
        report
            .waived()
            .all(|checked| ["wire", "garbage"].contains(&checked.law.group())),
        "{report}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_swarm_that_breaks_nothing_passes() {
    grade("").await.assert_ok();
}

/// Two tests for each law, so that one without a mutant fails.
macro_rules! each {
    (() $($group:ident { $($needs:ident $law:ident $sentence:literal;)+ })+) => {
        mod the_suite_finds_what_breaks {$(
            mod $group {$(
                #[tokio::test(start_paused = true)]
                async fn $law() {
                    crate::mutants::is_found(concat!(stringify!($group), "::", stringify!($law))).await;
                }
            )+}
        )+}
        mod the_suite_finds_what_rarely_breaks {$(
            mod $group {$(
                #[tokio::test(start_paused = true)]
                async fn $law() {
                    crate::mutants::is_found_although_rare(concat!(stringify!($group), "::", stringify!($law))).await;
                }
            )+}
        )+}
    };
}

p2p_swarmtest::for_each_law!(each!());
