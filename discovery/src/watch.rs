//! Watches by polling or notification: repeats `find`, and reports the differences.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::stream::{BoxStream, StreamExt as _, unfold};
use p2p::PeerId;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::{Addrs, Change, Discovery, Node, Result, Topic};

/// The nodes of the last poll.
#[derive(Debug, Default)]
pub(crate) struct Known(BTreeMap<PeerId, Addrs>);

impl Known {
    /// Replaces the nodes, and returns the changes.
    pub(crate) fn update(&mut self, nodes: Vec<Node>) -> VecDeque<Change> {
        let now: BTreeMap<PeerId, Addrs> = nodes.into_iter().map(|node| (node.id, node.addrs)).collect();
        let lost = self.0.keys().filter(|id| !now.contains_key(id)).copied();
        let mut changes: VecDeque<Change> = lost.map(Change::Lost).collect();
        for (&id, addrs) in &now {
            if self.0.get(&id) != Some(addrs) {
                let addrs = addrs.clone();
                changes.push_back(Change::Found(Node { id, addrs }));
            }
        }
        self.0 = now;
        changes
    }
}

/// Returns a stream that calls `find` whenever `version` changes, until that ends.
pub(crate) fn followed<F: Fn() -> Vec<Node> + Send + 'static>(
    mut version: watch::Receiver<u64>,
    find: F,
) -> BoxStream<'static, Result<Change>> {
    version.mark_changed();
    let start = Follow {
        version,
        find,
        known: Known::default(),
        changes: VecDeque::new(),
    };
    unfold(start, follow).boxed()
}

struct Follow<F> {
    version: watch::Receiver<u64>,
    find: F,
    known: Known,
    changes: VecDeque<Change>,
}

async fn follow<F: Fn() -> Vec<Node>>(mut watch: Follow<F>) -> Option<(Result<Change>, Follow<F>)> {
    loop {
        if let Some(change) = watch.changes.pop_front() {
            return Some((Ok(change), watch));
        }
        watch.version.changed().await.ok()?;
        watch.changes = watch.known.update((watch.find)());
    }
}

struct Watch<D> {
    discovery: D,
    topic: Topic,
    every: Interval,
    known: Known,
    changes: VecDeque<Change>,
}

/// Returns a stream that polls at the given interval, while it is awaited.
pub(crate) fn polled<D: Discovery>(
    discovery: D,
    topic: Topic,
    every: Duration,
) -> BoxStream<'static, Result<Change>> {
    // The interval is created by the first poll of the stream, since it needs a runtime.
    let start = async move {
        let mut every = interval(every);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let watch = Watch {
            discovery,
            topic,
            every,
            known: Known::default(),
            changes: VecDeque::new(),
        };
        unfold(watch, next)
    };
    start.flatten_stream().boxed()
}

async fn next<D: Discovery>(mut watch: Watch<D>) -> Option<(Result<Change>, Watch<D>)> {
    loop {
        if let Some(change) = watch.changes.pop_front() {
            return Some((Ok(change), watch));
        }
        watch.every.tick().await;
        match watch.discovery.find(&watch.topic).await {
            Ok(nodes) => watch.changes = watch.known.update(nodes),
            Err(error) => return Some((Err(error), watch)),
        }
    }
}
