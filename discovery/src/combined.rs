//! Combines several discoveries: announces in all of them, and finds each node once.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::{self, BoxStream, FuturesUnordered, StreamExt as _};
use p2p::PeerId;
use tokio::time::timeout;
use tracing::debug;

use crate::discovery::check_ttl;
use crate::{Addrs, Change, Discovery, Error, Node, Result, Topic};

/// Several discovery methods. Clones refer to the same ones.
///
/// A method that fails, or times out, does not affect the others: its error is traced, and returned only if
/// all methods fail.
#[derive(Clone)]
pub struct Combined {
    ways: Arc<[Arc<dyn Discovery>]>,
    limit: Duration,
}

impl Combined {
    /// Combines these methods, the best first. Each call of a method has a timeout of 10 s.
    pub fn new(ways: impl IntoIterator<Item = Arc<dyn Discovery>>) -> Self {
        Self {
            ways: ways.into_iter().collect(),
            limit: Duration::from_secs(10),
        }
    }

    /// Sets the timeout of each call of a method.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Returns the first non-empty result of any method, without waiting for the others.
    ///
    /// # Errors
    /// Returns [`Error::All`] if each method failed.
    ///
    /// # Cancel safety
    /// Cancelling loses nothing.
    pub async fn find_first(&self, topic: &Topic) -> Result<Vec<Node>> {
        let mut asked: FuturesUnordered<_> =
            self.ways.iter().map(|way| self.within(way.find(topic))).collect();
        let mut errors = Vec::new();
        while let Some(found) = asked.next().await {
            match found {
                Ok(nodes) if nodes.is_empty() => {}
                Ok(nodes) => return Ok(nodes),
                Err(error) => errors.push(error),
            }
        }
        self.unless_all(errors).map(|()| Vec::new())
    }

    async fn within<T>(&self, asked: BoxFuture<'_, Result<T>>) -> Result<T> {
        let done = timeout(self.limit, asked).await;
        done.unwrap_or(Err(Error::TimedOut {
            doing: "one of several discoveries",
            limit: self.limit,
        }))
    }

    /// Returns the result of each method, or an error if all of them failed.
    async fn each<'a, T>(
        &'a self,
        ask: impl Fn(&'a dyn Discovery) -> BoxFuture<'a, Result<T>>,
    ) -> Result<Vec<Option<T>>> {
        let asked = self.ways.iter().map(|way| self.within(ask(&**way)));
        let (mut done, mut errors) = (Vec::new(), Vec::new());
        for result in join_all(asked).await {
            match result {
                Ok(value) => done.push(Some(value)),
                Err(error) => {
                    done.push(None);
                    errors.push(error);
                }
            }
        }
        self.unless_all(errors).map(|()| done)
    }

    fn unless_all(&self, errors: Vec<Error>) -> Result<()> {
        for error in &errors {
            debug!(%error, "one of several discoveries failed");
        }
        if errors.is_empty() || errors.len() < self.ways.len() {
            return Ok(());
        }
        Err(Error::All(errors.into()))
    }
}

impl fmt::Debug for Combined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Combined")
            .field("ways", &self.ways.len())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Discovery for Combined {
    /// Announces in each method; succeeds if one of them does.
    async fn announce(&self, topic: &Topic, addrs: &Addrs, ttl: Duration) -> Result<()> {
        check_ttl(ttl)?;
        self.each(|way| way.announce(topic, addrs, ttl)).await.map(drop)
    }

    /// Withdraws in each method. If one fails, the announcement lasts there until it expires.
    async fn withdraw(&self, topic: &Topic) -> Result<()> {
        self.each(|way| way.withdraw(topic)).await.map(drop)
    }

    /// Returns all nodes that the methods find, with the addresses of one node concatenated. If these are
    /// more than [`MAX_ADDRS`](crate::MAX_ADDRS), each method has its share of them.
    async fn find(&self, topic: &Topic) -> Result<Vec<Node>> {
        let found = self.each(|way| way.find(topic)).await?;
        let mut nodes: BTreeMap<PeerId, Vec<&Addrs>> = BTreeMap::new();
        for node in found.iter().flatten().flatten() {
            nodes.entry(node.id).or_default().push(&node.addrs);
        }
        let merged = nodes.into_iter().filter_map(|(id, said)| {
            let addrs = Addrs::merged(&said)?;
            Some(Node { id, addrs })
        });
        Ok(merged.collect())
    }

    fn watch(&self, topic: &Topic) -> BoxStream<'static, Result<Change>> {
        let count = self.ways.len();
        let ways = self.ways.iter().enumerate();
        let watches = ways.map(|(way, discovery)| discovery.watch(topic).map(move |change| (way, change)));
        let mut merged = Merged {
            failing: vec![false; count],
            nodes: BTreeMap::new(),
        };
        let changes = stream::select_all(watches).filter_map(move |(way, change)| {
            let merged = merged.take(way, change);
            std::future::ready(merged)
        });
        // Without methods nothing ever changes.
        changes.chain(std::future::pending().into_stream()).boxed()
    }
}

/// The merged state of several watches.
struct Merged {
    failing: Vec<bool>,
    /// The addresses of each node, by method.
    nodes: BTreeMap<PeerId, BTreeMap<usize, Addrs>>,
}

impl Merged {
    /// Translates a change in one method to a change of the merged state.
    fn take(&mut self, way: usize, change: Result<Change>) -> Option<Result<Change>> {
        let failed = change.is_err();
        if let Some(failing) = self.failing.get_mut(way) {
            *failing = failed;
        }
        let (id, addrs) = match change {
            Ok(Change::Found(node)) => (node.id, Some(node.addrs)),
            Ok(Change::Lost(id)) => (id, None),
            Err(error) if self.failing.iter().all(|failing| *failing) => return Some(Err(error)),
            Err(error) => {
                debug!(%error, "one of several watches failed");
                return None;
            }
        };
        let ways = self.nodes.entry(id).or_default();
        let before = all(ways);
        match addrs {
            Some(addrs) => drop(ways.insert(way, addrs)),
            None => drop(ways.remove(&way)),
        }
        let after = all(ways);
        if after.is_none() {
            self.nodes.remove(&id);
        }
        match after {
            after if after == before => None,
            Some(addrs) => Some(Ok(Change::Found(Node { id, addrs }))),
            None => Some(Ok(Change::Lost(id))),
        }
    }
}

/// Merges the addresses of all methods, those of the first in front.
fn all(ways: &BTreeMap<usize, Addrs>) -> Option<Addrs> {
    let said: Vec<&Addrs> = ways.values().collect();
    Addrs::merged(&said)
}
