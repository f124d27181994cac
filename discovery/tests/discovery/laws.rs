//! The laws hold for each implementation, and for each law a mutant breaks it alone.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use p2p::PeerId;
use p2p_discovery::laws::{self, Testbed};
use p2p_discovery::{Addrs, Change, Discovery as _, Error, FixedList, MemoryCell, Node, Topic};

use crate::testbeds::TrackerTestbed;
use crate::testbeds::combined::CombinedTestbed;
use crate::testbeds::dht::DhtTestbed;
use crate::testbeds::mutant::{Fault, MutantTestbed};

pub(crate) async fn lawful(testbed: &dyn Testbed) {
    if let Err(broken) = laws::check(testbed).await {
        let lines: Vec<String> = broken.iter().map(ToString::to_string).collect();
        panic!("{}", lines.join("\n"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_tracker_in_memory_keeps_the_laws() {
    lawful(&TrackerTestbed::new(MemoryCell::default())).await;
}

#[tokio::test(start_paused = true)]
async fn the_dht_keeps_the_laws() {
    lawful(&DhtTestbed::default()).await;
}

#[tokio::test(start_paused = true)]
async fn several_methods_keep_the_laws_although_one_is_fixed_and_one_fails() {
    lawful(&CombinedTestbed::default()).await;
}

#[tokio::test(start_paused = true)]
async fn each_law_has_a_mutant_that_breaks_no_other() {
    let mut broken_laws = BTreeSet::new();
    for fault in Fault::ALL {
        let testbed = MutantTestbed::new(fault);
        let broken = laws::check(&testbed).await.expect_err("a mutant");
        let names: Vec<&str> = broken.iter().map(|broken| broken.law).collect();
        assert_eq!(names, fault.breaks(), "{fault:?}: {broken:?}");
        broken_laws.extend(names);
    }
    let unbroken: Vec<&str> = laws::laws().filter(|law| !broken_laws.contains(law)).collect();
    assert!(unbroken.is_empty(), "no mutant breaks {unbroken:?}");
}

#[tokio::test(start_paused = true)]
async fn a_fixed_list_finds_its_nodes_and_accepts_no_announcement() {
    let topic: Topic = "chat".parse().expect("a topic");
    let node = |id: u8, addrs: &[&str]| Node {
        id: PeerId::new([id; 32]),
        addrs: Addrs::new(addrs).expect("addresses"),
    };
    let list = FixedList::new()
        .with(&topic, node(2, &["b"]))
        .with(&topic, node(1, &["a"]))
        .with(&topic, node(1, &["a", "c"]));
    let nodes = vec![node(1, &["a", "c"]), node(2, &["b"])];
    assert_eq!(list.find(&topic).await.expect("always"), nodes);
    let other: Topic = "other".parse().expect("a topic");
    assert_eq!(list.find(&other).await.expect("always"), []);
    let announced = list
        .announce(&topic, &nodes[0].addrs, Duration::from_mins(1))
        .await;
    assert!(matches!(announced, Err(Error::ReadOnly(_))));
    assert!(matches!(list.withdraw(&topic).await, Err(Error::ReadOnly(_))));
    let mut watch = list.watch(&topic);
    for node in nodes {
        let change = watch.next().await.expect("no end").expect("no error");
        assert_eq!(change, Change::Found(node));
    }
    assert!(watch.next().now_or_never().is_none(), "it goes on");
}
