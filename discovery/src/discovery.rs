//! The trait that every discovery method implements.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use p2p::PeerId;

use crate::{Addrs, Error, Node, Result, Topic};

/// Minimum lifetime of an announcement.
pub const MIN_TTL: Duration = Duration::from_secs(1);
/// Maximum lifetime of an announcement: one day. A node that stays longer announces again.
pub const MAX_TTL: Duration = Duration::from_hours(24);

/// A change of the nodes found under a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// This node is present, or has different addresses than before.
    Found(Node),
    /// This node is no longer present: it withdrew, or its announcement expired.
    Lost(PeerId),
}

/// A method to find nodes, and to be found.
///
/// The announcing identity (key or id) is fixed when the discovery is created. Its laws are in
/// [`laws`](crate::laws).
///
/// # Cancel safety
/// Stated at each method. After cancelling a call it is unknown whether it was done; each call can be
/// repeated.
#[async_trait]
pub trait Discovery: Send + Sync + 'static {
    /// Announces this node's addresses under a topic for `ttl` from now, replacing its earlier announcement
    /// there.
    ///
    /// # Errors
    /// Returns [`Error::Invalid`] if `ttl` is not between [`MIN_TTL`] and [`MAX_TTL`], [`Error::Limit`] if
    /// there is no room, [`Error::ReadOnly`] if announcing is not supported, and the error of the medium.
    ///
    /// # Cancel safety
    /// After cancelling, the announcement was either made or not.
    async fn announce(&self, topic: &Topic, addrs: &Addrs, ttl: Duration) -> Result<()>;

    /// Ends this node's announcement under a topic early; does nothing if there is none.
    ///
    /// # Errors
    /// Returns [`Error::ReadOnly`] if announcing is not supported, and the error of the medium.
    ///
    /// # Cancel safety
    /// After cancelling, the announcement was either withdrawn or not.
    async fn withdraw(&self, topic: &Topic) -> Result<()>;

    /// Returns the nodes currently found under a topic, each id once, ordered by id. Expired announcements
    /// are not returned.
    ///
    /// # Errors
    /// Returns the error of the medium. Invalid announcements of other nodes are ignored and traced.
    ///
    /// # Cancel safety
    /// Cancelling loses nothing.
    async fn find(&self, topic: &Topic) -> Result<Vec<Node>>;

    /// Watches the nodes found under a topic: first all present nodes, then each change. The stream never
    /// ends by itself; an error does not end it.
    ///
    /// A slow reader receives the last state of each node, not each step to it. While the stream is not
    /// polled, no work is done except that of the medium itself.
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

/// Announces again whenever half of `ttl` has passed, while it is awaited. Errors are passed to `failed`, and
/// the announcement is retried after a tenth of `ttl`, at most 10 s.
///
/// # Cancel safety
/// After cancelling, the last announcement lasts until it expires; withdraw it to end it at once.
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

/// Checks that a lifetime is within the bounds.
pub(crate) fn check_ttl(ttl: Duration) -> Result<()> {
    if (MIN_TTL..=MAX_TTL).contains(&ttl) {
        return Ok(());
    }
    let [ttl, least, most] = [ttl, MIN_TTL, MAX_TTL].map(|time| time.as_secs_f64());
    let reason = format!("{ttl} s is not between {least} s and {most} s");
    Err(Error::invalid("time to live", reason))
}
