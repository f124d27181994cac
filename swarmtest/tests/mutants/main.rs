//! The suite grades itself: for every law there are two swarms that break it, and the suite says so.
//!
//! The first breaks it always and, in a quick run, alone, but for laws that state it again of other traffic
//! ([`GENERAL`]). The second breaks it rarely or under a condition, and a run of normal effort finds it.

mod asks;
mod keys;
mod rare;
#[path = "../sealed/mod.rs"]
mod sealed;
mod tells;
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
    first_src: Mutex<Option<Address>>,
    slot: Mutex<Option<(Address, Packet)>>,
    parsed: Mutex<BTreeSet<Address>>,
    asking: AtomicUsize,
    turn: tokio::sync::Mutex<()>,
    stash: Mutex<Option<Packet>>,
}

/// A node, and what faults remember of it.
type Known = (Weak<Node>, Arc<Own>);

/// What faults remember of all nodes that were made together.
#[derive(Default)]
struct Crowd {
    nodes: Mutex<BTreeMap<Address, Known>>,
    /// Messages told and not yet received, by destination.
    unread: Mutex<BTreeMap<Address, usize>>,
    never_freed: Mutex<Vec<Arc<Node>>>,
    never_answered: Mutex<Vec<Responder>>,
}

impl Crowd {
    fn unread(&self, dst: &Address) -> usize {
        lock(&self.unread).get(dst).copied().unwrap_or(0)
    }

    /// The node at this place, whatever its identity.
    fn at(&self, place: u32) -> Option<Address> {
        lock(&self.nodes).keys().find(|addr| addr.place == place).copied()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
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
        if self.breaks("close::dropping_frees_the_address") {
            lock(&self.crowd.never_freed).push(self.inner.clone());
        }
    }
}

/// A payload with one byte changed, behind the number of a letter.
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
    // Places that a fault keeps although their node is closed.
    let kept = Arc::new(Mutex::new(Vec::<Weak<Node>>::new()));
    let made = kept.clone();
    let bed = Testbed::new(SecureAsk, move |count| {
        let nodes = crowd(&network, breaks, count);
        lock(&made).extend(nodes.iter().map(|node| Arc::downgrade(&node.inner)));
        std::future::ready(Ok(nodes))
    });
    let bed = bed.profile(profile).forge(|id_of, place_of| Address {
        id: id_of.id,
        place: place_of.place,
    });
    let bed = bed.rebind(move |addr: Address| {
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
    bed.run().await
}

/// Laws that state of long or varied traffic what other laws state one by one. Whatever breaks one of those may break
/// these.
const GENERAL: &[&str] = &[
    "exchange::a_long_exchange_keeps_every_message",
    "exchange::two_nodes_exchange_thousands",
    "exchange::many_senders_are_told_apart",
];

/// Laws, and groups of them, without a rare fault yet. Must be empty.
const PENDING: [&str; 9] = [
    "tell::",
    "receive::",
    "batch::",
    "addr::",
    "counters::",
    "ask::",
    "secure::",
    "wire::",
    "close::",
];

/// What the suite says of a swarm that breaks `breaks`, without the general laws.
fn broken(report: &Report, breaks: &str) -> Vec<&'static str> {
    let failed = report.failures().map(|checked| checked.law.name);
    failed
        .filter(|law| *law == breaks || !GENERAL.contains(law))
        .collect()
}

async fn is_found_although_rare(breaks: &'static str) {
    let law = p2p_swarmtest::Law::named(breaks).expect("a law of the list");
    let faults = rare::are_found(law).await + wire::rare_are_found(law).await;
    let pending = PENDING.iter().any(|name| breaks.starts_with(name));
    assert!(faults > 0 || pending, "{breaks} has no rare fault");
}

async fn is_found(breaks: &'static str) {
    if breaks.starts_with("wire::") {
        return wire::are_found(breaks).await;
    }
    let report = grade(breaks).await;
    assert_eq!(broken(&report, breaks), [breaks], "\n{report}");
    // Nobody has a look at the medium here; the mutants that have one stand in a file of their own.
    assert!(
        report.waived().all(|checked| checked.law.group() == "wire"),
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
                    crate::is_found(concat!(stringify!($group), "::", stringify!($law))).await;
                }
            )+}
        )+}
        mod the_suite_finds_what_rarely_breaks {$(
            mod $group {$(
                #[tokio::test(start_paused = true)]
                async fn $law() {
                    crate::is_found_although_rare(concat!(stringify!($group), "::", stringify!($law))).await;
                }
            )+}
        )+}
    };
}

p2p_swarmtest::for_each_law!(each!());
