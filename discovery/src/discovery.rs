//! The trait that every way of finding nodes has.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use p2p::PeerId;

use crate::{Addrs, Error, Node, Result, Topic};

/// The shortest time that an announcement lasts.
pub const MIN_TTL: Duration = Duration::from_secs(1);
/// The longest time that an announcement lasts: a day. Whoever is there for longer announces again.
pub const MAX_TTL: Duration = Duration::from_hours(24);

/// What has changed about who is found under a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// This node is there, or has other addresses than before.
    Found(Node),
    /// This node is there no more: it withdrew, or its announcement expired.
    Lost(PeerId),
}

/// A way to find nodes, and to be found.
///
/// Who announces is settled when the discovery is made: its key, its id. Its laws are in [`laws`](crate::laws).
///
/// # Cancel safety
/// Stated at each method. Where a call is cancelled, whether it was done is unknown; each may be done again.
#[async_trait]
pub trait Discovery: Send + Sync + 'static {
    /// Announces under a topic where this node is reached, for `ttl` from now, in place of what it announced there
    /// before.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `ttl` is not from [`MIN_TTL`] to [`MAX_TTL`]; [`Error::Limit`] if there is no room;
    /// [`Error::ReadOnly`] where nothing can be announced; and what the medium says.
    ///
    /// # Cancel safety
    /// Cancelled, it was announced, or was not.
    async fn announce(&self, topic: &Topic, addrs: &Addrs, ttl: Duration) -> Result<()>;

    /// Ends this node's announcement under a topic before its time; without one, does nothing.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] where nothing can be announced; and what the medium says.
    ///
    /// # Cancel safety
    /// Cancelled, it was withdrawn, or was not.
    async fn withdraw(&self, topic: &Topic) -> Result<()>;

    /// Who is found under a topic now, each id once, in the order of ids. What has expired is not.
    ///
    /// # Errors
    /// What the medium says. Announcements of others that are not to be relied on are left out, and traced.
    ///
    /// # Cancel safety
    /// Cancelling loses nothing.
    async fn find(&self, topic: &Topic) -> Result<Vec<Node>>;

    /// Who is found under a topic, as it changes: first all who are there, then each change. It never ends by itself; an
    /// error is not its end.
    ///
    /// Whoever reads slowly sees the last state of each node, not each step to it. Nothing is done while nobody reads
    /// but what the medium does anyway.
    ///
    /// # Cancel safety
    /// Cancelling a wait for the next change loses none.
    fn watch(&self, topic: &Topic) -> BoxStream<'static, Result<Change>>;
}

#[async_trait]
impl<D: Discovery + ?Sized> Discovery for Arc<D> {
    async fn announce(&self, topic: &Topic, addrs: &Addrs, ttl: Duration) -> Result<()> {
        (**self).announce(topic, addrs, ttl).await
    }

    async fn withdraw(&self, topic: &Topic) -> Result<()> {
        (**self).withdraw(topic).await
    }

    async fn find(&self, topic: &Topic) -> Result<Vec<Node>> {
        (**self).find(topic).await
    }

    fn watch(&self, topic: &Topic) -> BoxStream<'static, Result<Change>> {
        (**self).watch(topic)
    }
}

/// Announces again whenever half of `ttl` has passed, for as long as it is awaited; what goes wrong is handed to
/// `failed`, and tried again as soon as the least of a tenth of `ttl` and 10 s has passed.
///
/// # Cancel safety
/// Cancelled, the last announcement lasts until it expires; withdraw it to end it at once.
pub async fn keep_announced(
    discovery: &impl Discovery,
    topic: &Topic,
    addrs: &Addrs,
    ttl: Duration,
    mut failed: impl FnMut(Error),
) -> std::convert::Infallible {
    let retry = (ttl / 10).clamp(Duration::from_millis(100), Duration::from_secs(10));
    loop {
        match discovery.announce(topic, addrs, ttl).await {
            Ok(()) => tokio::time::sleep(ttl / 2).await,
            Err(error) => {
                failed(error);
                tokio::time::sleep(retry).await;
            }
        }
    }
}

/// A time to live that is one.
pub(crate) fn check_ttl(ttl: Duration) -> Result<()> {
    if (MIN_TTL..=MAX_TTL).contains(&ttl) {
        return Ok(());
    }
    let [ttl, least, most] = [ttl, MIN_TTL, MAX_TTL].map(|time| time.as_secs_f64());
    let reason = format!("{ttl} s is not from {least} s to {most} s");
    Err(Error::invalid("time to live", reason))
}
