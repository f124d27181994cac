//! A tracker beside a fixed list and a discovery that always fails.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use p2p_discovery::laws::{Member, Testbed, Timing};
use p2p_discovery::{Addrs, Change, Combined, Discovery, Error, FixedList, MemoryCell, Node, Result, Topic};

use super::TrackerTestbed;

/// A discovery that always fails.
pub(crate) struct Failing;

impl Failing {
    fn error() -> Error {
        Error::Refused {
            status: 503,
            reason: "never".into(),
        }
    }
}

#[async_trait]
impl Discovery for Failing {
    async fn announce(&self, _: &Topic, _: &Addrs, _: Duration) -> Result<()> {
        Err(Self::error())
    }

    async fn withdraw(&self, _: &Topic) -> Result<()> {
        Err(Self::error())
    }

    async fn find(&self, _: &Topic) -> Result<Vec<Node>> {
        Err(Self::error())
    }

    fn watch(&self, _: &Topic) -> BoxStream<'static, Result<Change>> {
        stream::iter([Err(Self::error()), Err(Self::error())])
            .chain(stream::pending())
            .boxed()
    }
}

pub(crate) struct CombinedTestbed(TrackerTestbed<MemoryCell>);

impl Default for CombinedTestbed {
    fn default() -> Self {
        Self(TrackerTestbed::new(MemoryCell::default()))
    }
}

#[async_trait]
impl Testbed for CombinedTestbed {
    async fn member(&self) -> Member {
        let mut member = self.0.member().await;
        let ways: [Arc<dyn Discovery>; 3] = [
            Arc::new(FixedList::new()),
            Arc::new(Failing),
            member.discovery.clone(),
        ];
        member.discovery = Arc::new(Combined::new(ways));
        member
    }

    fn timing(&self) -> Timing {
        self.0.timing()
    }
}
