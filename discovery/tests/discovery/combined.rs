//! Several discoveries: each node once, and no method hides another.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use p2p::PeerId;
use p2p_discovery::{Addrs, Change, Combined, Discovery, Error, FixedList, MemoryCell, Node, Result, Topic};
use tokio::time::{Instant, timeout};

use crate::testbeds::TrackerTestbed;
use crate::testbeds::combined::Failing;

const MINUTE: Duration = Duration::from_mins(1);

fn topic() -> Topic {
    "chat".parse().expect("a topic")
}

fn addrs(texts: &[&str]) -> Addrs {
    Addrs::new(texts).expect("addresses")
}

fn node(id: u8, texts: &[&str]) -> Node {
    Node {
        id: PeerId::new([id; 32]),
        addrs: addrs(texts),
    }
}

fn list(nodes: &[Node]) -> Arc<dyn Discovery> {
    let with = |list: FixedList, node: &Node| list.with(&topic(), node.clone());
    Arc::new(nodes.iter().fold(FixedList::new(), with))
}

/// A discovery that never responds.
struct Silent;

#[async_trait]
impl Discovery for Silent {
    async fn announce(&self, _: &Topic, _: &Addrs, _: Duration) -> Result<()> {
        std::future::pending().await
    }

    async fn withdraw(&self, _: &Topic) -> Result<()> {
        std::future::pending().await
    }

    async fn find(&self, _: &Topic) -> Result<Vec<Node>> {
        std::future::pending().await
    }

    fn watch(&self, _: &Topic) -> BoxStream<'static, Result<Change>> {
        stream::pending().boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn results_of_several_methods_are_merged_and_each_node_occurs_once() {
    let combined = Combined::new([
        list(&[node(2, &["b"]), node(1, &["a"])]),
        Arc::new(Failing) as Arc<dyn Discovery>,
        list(&[node(1, &["c", "a"]), node(3, &["d"])]),
    ]);
    let found = combined.find(&topic()).await.expect("two methods work");
    assert_eq!(found, [node(1, &["a", "c"]), node(2, &["b"]), node(3, &["d"])]);
}

#[tokio::test(start_paused = true)]
async fn a_method_with_many_addresses_of_a_node_displaces_none_of_another_method() {
    let many: Vec<String> = (0..16).map(|at| format!("false{at}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let few = ["true", "false3", "truer"];
    for ways in [[&many[..], &few[..]], [&few, &many]] {
        let combined = Combined::new(ways.map(|said| list(&[node(1, said)])));
        let found = combined.find(&topic()).await.expect("both work");
        let watched = combined
            .watch(&topic())
            .take(2)
            .map(|change| change.expect("no error"));
        let watched = watched.collect::<Vec<_>>().await.pop();
        let once = ways
            .into_iter()
            .fold(FixedList::new(), |list, said| list.with(&topic(), node(1, said)));
        let listed = once.find(&topic()).await.expect("a list");
        assert_eq!(
            (watched, &listed),
            (Some(Change::Found(found[0].clone())), &found)
        );
        let found: Vec<&str> = found[0].addrs.iter().collect();
        assert_eq!(found.len(), 16);
        assert!(few.iter().all(|addr| found.contains(addr)), "{found:?}");
        // The better method is still in front.
        assert_eq!(found[0], ways[0][0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_method_that_never_responds_delays_a_search_only_by_its_timeout() {
    let combined = Combined::new([
        Arc::new(Silent) as Arc<dyn Discovery>,
        list(&[]),
        list(&[node(1, &["a"])]),
    ]);
    let start = Instant::now();
    assert_eq!(
        combined.find_first(&topic()).await.expect("one method works"),
        [node(1, &["a"])]
    );
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(
        combined.find(&topic()).await.expect("one method works"),
        [node(1, &["a"])]
    );
    assert_eq!(start.elapsed(), Duration::from_secs(10));
    let other: Topic = "other".parse().expect("a topic");
    let short = combined.limit(Duration::from_secs(1));
    assert_eq!(short.find_first(&other).await.expect("two methods work"), []);
    assert_eq!(start.elapsed(), Duration::from_secs(11));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_fails_in_each_method_returns_all_errors() {
    let combined = Combined::new([Arc::new(Failing) as Arc<dyn Discovery>, Arc::new(Silent)]);
    for result in [
        combined.find(&topic()).await.map(drop),
        combined.find_first(&topic()).await.map(drop),
        combined.announce(&topic(), &addrs(&["a"]), MINUTE).await,
        combined.withdraw(&topic()).await,
    ] {
        let Err(Error::All(errors)) = result else {
            panic!("{result:?}");
        };
        assert!(matches!(
            errors
                .iter()
                .filter(|error| matches!(error, Error::Refused { .. }))
                .count(),
            1
        ));
        assert!(matches!(
            errors
                .iter()
                .filter(|error| matches!(error, Error::TimedOut { .. }))
                .count(),
            1
        ));
    }
    let failing = Combined::new([Arc::new(Failing) as Arc<dyn Discovery>]);
    let error = failing.find(&topic()).await.expect_err("it fails").to_string();
    assert_eq!(
        error,
        "all 1 discoveries failed; the first error: the server refused with status 503: never"
    );
    assert!(matches!(
        failing.watch(&topic()).next().await,
        Some(Err(Error::Refused { .. }))
    ));
    let none = Combined::new([]);
    assert_eq!(none.find(&topic()).await.expect("nothing fails"), []);
    assert!(timeout(MINUTE, none.watch(&topic()).next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_several_methods_reports_a_loss_when_the_last_method_loses_the_node() {
    let [one, other] = [1, 2].map(|_| TrackerTestbed::new(MemoryCell::default()));
    let combined = Combined::new([
        Arc::new(one.tracker(9)) as Arc<dyn Discovery>,
        Arc::new(Failing),
        Arc::new(other.tracker(9)),
    ]);
    let mut watch = combined.watch(&topic());
    let mut next = async || {
        timeout(MINUTE, watch.next())
            .await
            .ok()
            .map(|change| change.expect("no end").expect("no error"))
    };
    let (here, there) = (one.tracker(1), other.tracker(1));
    let id = here.id().expect("it has a key");
    let found = |texts: &[&str]| {
        Some(Change::Found(Node {
            id,
            addrs: addrs(texts),
        }))
    };
    let hour = 60 * MINUTE;
    here.announce(&topic(), &addrs(&["a"]), hour).await.expect("room");
    assert_eq!(next().await, found(&["a"]));
    there
        .announce(&topic(), &addrs(&["a"]), hour)
        .await
        .expect("room");
    assert_eq!(next().await, None, "it is known");
    there
        .announce(&topic(), &addrs(&["b"]), hour)
        .await
        .expect("room");
    assert_eq!(next().await, found(&["a", "b"]));
    here.withdraw(&topic()).await.expect("there");
    assert_eq!(next().await, found(&["b"]));
    there.withdraw(&topic()).await.expect("there");
    assert_eq!(next().await, Some(Change::Lost(id)));
}
