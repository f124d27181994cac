//! Discoveries with one fault each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use futures_util::stream::{BoxStream, StreamExt as _};
use p2p::PeerId;
use p2p_discovery::laws::{Member, Testbed, Timing};
use p2p_discovery::{Addrs, Change, Discovery, MAX_TTL, MIN_TTL, MemoryCell, Node, Result, Topic, Tracker};

use tokio::time::Instant;

use super::TrackerTestbed;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It finds a node that does not exist.
    Ghost,
    /// It finds others, but not itself.
    Blind,
    /// It finds nodes of another topic.
    Mixed,
    /// The first addresses stay.
    Stubborn,
    /// The lifetime starts at the first announcement.
    Hasty,
    /// Nothing expires, unless it is watched.
    Eternal,
    /// A withdrawal removes all others.
    Greedy,
    /// Of concurrent announcements the seventh is lost.
    Crowded,
    /// A watch reports new nodes, but not present ones.
    Late,
    /// A watch does not report expiry.
    Hopeful,
    /// Any lifetime is accepted.
    Boundless,
}

impl Fault {
    pub(crate) const ALL: [Fault; 11] = [
        Fault::Ghost,
        Fault::Blind,
        Fault::Mixed,
        Fault::Stubborn,
        Fault::Hasty,
        Fault::Eternal,
        Fault::Greedy,
        Fault::Crowded,
        Fault::Late,
        Fault::Hopeful,
        Fault::Boundless,
    ];

    /// Returns the one law that it breaks.
    pub(crate) fn breaks(self) -> Vec<&'static str> {
        vec![match self {
            Fault::Ghost => "a node that did not announce is not found",
            Fault::Blind => "a node that announces is found",
            Fault::Mixed => "topics are separate",
            Fault::Stubborn => "a new announcement replaces the earlier one",
            Fault::Hasty => "a repeated announcement restarts the lifetime",
            Fault::Eternal => "an announcement ends with its lifetime",
            Fault::Greedy => "a node that withdraws is not found, and others are",
            Fault::Crowded => "no concurrent announcement is lost",
            Fault::Late => "a watch reports present, new and lost nodes",
            Fault::Hopeful => "a watch reports expired nodes",
            Fault::Boundless => "the lifetime of an announcement is bounded",
        }]
    }
}

/// The state that all nodes of a testbed share.
#[derive(Default)]
struct Shared {
    nodes: Mutex<Vec<Tracker<MemoryCell>>>,
    first: Mutex<BTreeMap<(Topic, PeerId), (Addrs, Instant)>>,
    withdrawn: Mutex<BTreeSet<(Topic, PeerId)>>,
    watched: Mutex<BTreeSet<Topic>>,
}

pub(crate) struct MutantTestbed {
    fault: Fault,
    inner: TrackerTestbed<MemoryCell>,
    shared: Arc<Shared>,
}

impl MutantTestbed {
    pub(crate) fn new(fault: Fault) -> Self {
        Self {
            fault,
            inner: TrackerTestbed::new(MemoryCell::default()),
            shared: Arc::default(),
        }
    }
}

#[async_trait]
impl Testbed for MutantTestbed {
    async fn member(&self) -> Member {
        let mut member = self.inner.member().await;
        let number = self.shared.nodes.lock().expect("whole").len();
        let tracker = self.inner.tracker(u8::try_from(number).expect("few"));
        self.shared.nodes.lock().expect("whole").push(tracker.clone());
        assert_eq!(tracker.id(), Some(member.id));
        member.discovery = Arc::new(Mutant {
            fault: self.fault,
            id: member.id,
            inner: tracker,
            shared: self.shared.clone(),
        });
        member
    }

    fn timing(&self) -> Timing {
        self.inner.timing()
    }
}

struct Mutant {
    fault: Fault,
    id: PeerId,
    inner: Tracker<MemoryCell>,
    shared: Arc<Shared>,
}

impl Mutant {
    fn is_watched(&self, topic: &Topic) -> bool {
        self.shared.watched.lock().expect("whole").contains(topic)
    }

    /// Returns nodes that have announced only under another topic of the same law.
    async fn of_other_topics(&self, topic: &Topic) -> Result<Vec<Node>> {
        let law = |topic: &Topic| topic.as_str().rsplit_once('-').map(|(law, _)| law.to_owned());
        let mut announced: BTreeSet<(Topic, PeerId)> =
            self.shared.first.lock().expect("whole").keys().cloned().collect();
        announced.extend(self.shared.withdrawn.lock().expect("whole").iter().cloned());
        let mut found = Vec::new();
        for (other, id) in &announced {
            let topics = announced.iter().filter(|(_, of)| of == id).count();
            if topics == 1 && other != topic && law(other) == law(topic) {
                let nodes = self.inner.find(other).await?;
                found.extend(nodes.into_iter().filter(|node| node.id == *id));
            }
        }
        Ok(found)
    }
}

#[async_trait]
impl Discovery for Mutant {
    async fn announce(&self, topic: &Topic, addrs: &Addrs, ttl: Duration) -> Result<()> {
        let mut said = (addrs.clone(), ttl);
        let now = Instant::now();
        let (first_addrs, first_end) = {
            let mut first = self.shared.first.lock().expect("whole");
            let key = (topic.clone(), self.id);
            first
                .entry(key)
                .or_insert((addrs.clone(), now + ttl.min(MAX_TTL)))
                .clone()
        };
        match self.fault {
            Fault::Stubborn if !self.is_watched(topic) => said.0 = first_addrs,
            Fault::Hasty if ttl <= MAX_TTL => said.1 = ttl.min((first_end - now).max(MIN_TTL)),
            Fault::Eternal if ttl >= MIN_TTL && !self.is_watched(topic) => said.1 = ttl.max(MAX_TTL),
            Fault::Crowded if self.inner.find(topic).await?.len() >= 6 => return Ok(()),
            Fault::Boundless => said.1 = ttl.clamp(MIN_TTL, MAX_TTL),
            _ => {}
        }
        self.inner.announce(topic, &said.0, said.1).await
    }

    async fn withdraw(&self, topic: &Topic) -> Result<()> {
        let key = (topic.clone(), self.id);
        self.shared.first.lock().expect("whole").remove(&key);
        self.shared.withdrawn.lock().expect("whole").insert(key);
        if self.fault == Fault::Greedy && !self.is_watched(topic) {
            let nodes = self.shared.nodes.lock().expect("whole").clone();
            for node in nodes {
                node.withdraw(topic).await?;
            }
        }
        self.inner.withdraw(topic).await
    }

    async fn find(&self, topic: &Topic) -> Result<Vec<Node>> {
        let mut nodes = self.inner.find(topic).await?;
        let announced = self
            .shared
            .first
            .lock()
            .expect("whole")
            .keys()
            .any(|(of, _)| of == topic);
        match self.fault {
            Fault::Ghost if !announced => nodes.push(Node {
                id: PeerId::ZERO,
                addrs: Addrs::new(["nowhere"])?,
            }),
            Fault::Blind if nodes.len() <= 2 => nodes.retain(|node| node.id != self.id),
            Fault::Mixed => {
                nodes.extend(self.of_other_topics(topic).await?);
                nodes.sort_unstable();
                nodes.dedup();
            }
            _ => {}
        }
        Ok(nodes)
    }

    fn watch(&self, topic: &Topic) -> BoxStream<'static, Result<Change>> {
        self.shared.watched.lock().expect("whole").insert(topic.clone());
        let watch = self.inner.watch(topic);
        match self.fault {
            Fault::Late => {
                let there = self.inner.find(topic).now_or_never();
                let there = there.and_then(Result::ok).expect("memory");
                let is_new = move |change: &Result<Change>| match change {
                    Ok(Change::Found(node)) => !there.contains(node),
                    _ => true,
                };
                watch
                    .filter(move |change| std::future::ready(is_new(change)))
                    .boxed()
            }
            Fault::Hopeful => {
                let (shared, topic) = (self.shared.clone(), topic.clone());
                let is_right = move |change: &Result<Change>| match change {
                    Ok(Change::Lost(id)) => shared
                        .withdrawn
                        .lock()
                        .expect("whole")
                        .contains(&(topic.clone(), *id)),
                    _ => true,
                };
                watch
                    .filter(move |change| std::future::ready(is_right(change)))
                    .boxed()
            }
            _ => watch,
        }
    }
}
