//! A fixed list of nodes by topic.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use p2p::PeerId;

use crate::{Addrs, Change, Discovery, Error, Node, Result, Topic};

/// A list of nodes that never changes. Announcing is not supported.
#[derive(Clone, Debug, Default)]
pub struct FixedList {
    topics: BTreeMap<Topic, BTreeMap<PeerId, Addrs>>,
}

impl FixedList {
    /// Creates an empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a node under a topic; addresses of a node that is already listed are merged.
    #[must_use]
    pub fn with(mut self, topic: &Topic, node: Node) -> Self {
        let nodes = self.topics.entry(topic.clone()).or_default();
        nodes
            .entry(node.id)
            .and_modify(|addrs| {
                *addrs = Addrs::merged(&[addrs, &node.addrs]).unwrap_or_else(|| addrs.clone());
            })
            .or_insert(node.addrs);
        self
    }

    fn nodes(&self, topic: &Topic) -> Vec<Node> {
        let nodes = self.topics.get(topic).into_iter().flatten();
        nodes
            .map(|(&id, addrs)| Node {
                id,
                addrs: addrs.clone(),
            })
            .collect()
    }
}

#[async_trait]
impl Discovery for FixedList {
    async fn announce(&self, _: &Topic, _: &Addrs, _: Duration) -> Result<()> {
        Err(Error::ReadOnly("the list is fixed"))
    }

    async fn withdraw(&self, _: &Topic) -> Result<()> {
        Err(Error::ReadOnly("the list is fixed"))
    }

    async fn find(&self, topic: &Topic) -> Result<Vec<Node>> {
        Ok(self.nodes(topic))
    }

    fn watch(&self, topic: &Topic) -> BoxStream<'static, Result<Change>> {
        let found = self.nodes(topic).into_iter().map(|node| Ok(Change::Found(node)));
        stream::iter(found).chain(stream::pending()).boxed()
    }
}
