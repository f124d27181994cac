//! A tracker: announcements of nodes that share a secret, in a cell that cannot read them.
//!
//! Each announcement is signed by its node. All of them together are the value of a [`Cell`], encrypted with
//! a key that is derived from the secret. A node that announces loads the value, removes expired
//! announcements, adds its own, and swaps.
//!
//! # Limits
//! [`TrackerConfig::announcements`] bounds the number of announcements. At the bound new ones are refused.
//!
//! # Security
//! - Required of the caller: a secret from a good source of randomness, given to members only.
//! - Provided: no node can announce for another; without the secret, a node can neither read nor change
//!   anything undetected. The cell sees the length of the value in KiB, when it changes, and, at a server, by
//!   which client.
//! - Not provided: a member can remove announcements of others, and restore old ones until they expire; a
//!   cell can return an older value.

mod secret;
mod value;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use p2p::PeerId;
use p2p_formats::x509::{Fingerprint, PrivateKey, Registry, Signer, shake256};
use rand::RngExt as _;
use tracing::debug;

use crate::cell::{Cell, Swap};
use crate::discovery::check_ttl;
use crate::watch::polled;
use crate::{Addrs, Announcement, Change, Discovery, Error, Node, Result, Topic, UnixTime};

pub use secret::{CellId, Secret, WriteToken};
pub use value::{MAX_RECORDS, open_value, seal_value};

/// Bounds and intervals of a [`Tracker`].
#[derive(Clone, Debug)]
pub struct TrackerConfig {
    /// Maximum number of announcements in the cell, over all topics. At the bound new ones are refused;
    /// existing ones stay until they expire. At most [`MAX_RECORDS`]. Default: 256.
    pub announcements: usize,
    /// Maximum number of attempts of a change while other nodes change the cell. Default: 32.
    pub attempts: usize,
    /// Poll interval of a watch. Default: 5 s.
    pub poll: Duration,
    /// Derives this node's id from its key. Default: SHAKE256, as in P2PKE.
    pub fingerprint: Fingerprint,
    /// Accepted key algorithms. Default: Ed25519.
    pub registry: Registry,
}

impl Default for TrackerConfig {
    fn default() -> Self {
        Self {
            announcements: 256,
            attempts: 32,
            poll: Duration::from_secs(5),
            fingerprint: shake256,
            registry: Registry::default(),
        }
    }
}

/// A node's view of a tracker. Clones refer to the same node.
pub struct Tracker<C> {
    shared: Arc<Shared<C>>,
}

struct Shared<C> {
    cell: C,
    secret: Secret,
    author: Option<Author>,
    config: TrackerConfig,
}

struct Author {
    id: PeerId,
    signer: Box<dyn Signer>,
}

impl<C> Clone for Tracker<C> {
    fn clone(&self) -> Self {
        let shared = self.shared.clone();
        Self { shared }
    }
}

impl<C> fmt::Debug for Tracker<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracker")
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}

/// An announcement with its record.
struct Entry {
    record: Vec<u8>,
    announcement: Announcement,
}

impl Entry {
    fn is_of(&self, topic: &Topic, id: &PeerId) -> bool {
        self.announcement.topic == *topic && self.announcement.node.id == *id
    }
}

impl<C> Tracker<C> {
    /// Opens the tracker with this secret, for a node with this key.
    ///
    /// # Errors
    /// Returns [`Error::Swarm`] if the key cannot be used.
    pub fn new(cell: C, secret: Secret, key: &PrivateKey, config: TrackerConfig) -> Result<Self> {
        let signer = config.registry.signer(key).map_err(p2p::Error::from)?;
        let id = (config.fingerprint)(signer.public_key());
        Ok(Self::with(cell, secret, Some(Author { id, signer }), config))
    }

    /// Opens the tracker with this secret for reading only.
    pub fn reader(cell: C, secret: Secret, config: TrackerConfig) -> Self {
        Self::with(cell, secret, None, config)
    }

    fn with(cell: C, secret: Secret, author: Option<Author>, config: TrackerConfig) -> Self {
        let shared = Shared {
            cell,
            secret,
            author,
            config,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Returns the id of the announcing node; `None` if the tracker is open for reading only.
    pub fn id(&self) -> Option<PeerId> {
        Some(self.shared.author.as_ref()?.id)
    }
}

impl<C: Cell> Tracker<C> {
    /// Returns every announcement in the cell that has not expired, of all topics.
    ///
    /// # Errors
    /// Returns the error of the cell, and [`Error::Garbled`] if its value was not encrypted with this secret.
    ///
    /// # Cancel safety
    /// Cancelling loses nothing.
    pub async fn announcements(&self) -> Result<Vec<Announcement>> {
        let value = self.shared.cell.load().await?;
        let entries = self.shared.entries(&value)?;
        Ok(entries.into_iter().map(|entry| entry.announcement).collect())
    }
}

impl<C: Cell> Shared<C> {
    fn author(&self) -> Result<&Author> {
        let author = self.author.as_ref();
        author.ok_or(Error::ReadOnly("the tracker was opened without a key"))
    }

    /// Returns the valid announcements of a value: not expired, signed by their subject, and the latest of
    /// each node under each topic.
    fn entries(&self, value: &[u8]) -> Result<Vec<Entry>> {
        let now = UnixTime::now();
        let mut entries: Vec<Entry> = Vec::new();
        for (number, record) in open_value(&self.secret, value)?.into_iter().enumerate() {
            let announcement = match Announcement::open(&record, &self.config.registry, now) {
                Ok(announcement) if announcement.expires > now => announcement,
                Ok(_) => continue,
                Err(error) => {
                    debug!(number, %error, "an announcement in a tracker was ignored");
                    continue;
                }
            };
            let (topic, id) = (&announcement.topic, &announcement.node.id);
            let known = entries.iter().position(|entry| entry.is_of(topic, id));
            let entry = Entry { record, announcement };
            match known.and_then(|known| entries.get_mut(known)) {
                Some(known) if known.announcement.made < entry.announcement.made => *known = entry,
                Some(_) => {}
                None => entries.push(entry),
            }
        }
        Ok(entries)
    }

    /// Changes the announcements in spite of concurrent writers. Does not access the cell if nothing changes.
    async fn change(&self, mut change: impl FnMut(&mut Vec<Entry>) -> Result<bool>) -> Result<()> {
        let mut value = self.cell.load().await?;
        for attempt in 0..self.config.attempts {
            let mut entries = self.entries(&value)?;
            if !change(&mut entries)? {
                return Ok(());
            }
            let records: Vec<&[u8]> = entries.iter().map(|entry| &*entry.record).collect();
            let new = if records.is_empty() {
                Vec::new()
            } else {
                seal_value(&self.secret, &records)?
            };
            match self.cell.compare_and_swap(&value, &new).await? {
                Swap::Done => return Ok(()),
                Swap::Differs(actual) => value = actual,
            }
            // Random backoff, which grows with the attempts.
            let most = 1_u64 << attempt.min(7);
            let pause = rand::rng().random_range(0..=most);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        let attempts = self.config.attempts;
        Err(Error::Contended { attempts })
    }
}

#[async_trait]
impl<C: Cell> Discovery for Tracker<C> {
    async fn announce(&self, topic: &Topic, addrs: &Addrs, ttl: Duration) -> Result<()> {
        check_ttl(ttl)?;
        let shared = &*self.shared;
        let author = shared.author()?;
        let change = |entries: &mut Vec<Entry>| {
            let now = UnixTime::now();
            let announcement = Announcement {
                topic: topic.clone(),
                node: Node {
                    id: author.id,
                    addrs: addrs.clone(),
                },
                made: now,
                expires: now.after(ttl),
            };
            let record = announcement.sign(&*author.signer)?;
            entries.retain(|entry| !entry.is_of(topic, &author.id));
            let limit = shared.config.announcements.min(MAX_RECORDS);
            if entries.len() >= limit {
                let what = "announcements in the tracker";
                return Err(Error::Limit { what, limit });
            }
            entries.push(Entry { record, announcement });
            Ok(true)
        };
        shared.change(change).await
    }

    async fn withdraw(&self, topic: &Topic) -> Result<()> {
        let shared = &*self.shared;
        let id = shared.author()?.id;
        let change = |entries: &mut Vec<Entry>| {
            let before = entries.len();
            entries.retain(|entry| !entry.is_of(topic, &id));
            Ok(entries.len() < before)
        };
        shared.change(change).await
    }

    async fn find(&self, topic: &Topic) -> Result<Vec<Node>> {
        let all = self.announcements().await?.into_iter();
        let of_topic = all.filter(|announcement| announcement.topic == *topic);
        let mut nodes: Vec<Node> = of_topic.map(|announcement| announcement.node).collect();
        nodes.sort_unstable();
        Ok(nodes)
    }

    fn watch(&self, topic: &Topic) -> BoxStream<'static, Result<Change>> {
        polled(self.clone(), topic.clone(), self.shared.config.poll)
    }
}
