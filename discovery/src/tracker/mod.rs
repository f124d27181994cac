//! A tracker: announcements of nodes that share a secret, on a cell that learns nothing of them.
//!
//! Each announcement is signed by its node; all of them together are the value of a [`Cell`], sealed with a key that
//! follows from the secret. Whoever announces loads the value, leaves out what has expired, puts its own in, and swaps.
//!
//! # Security
//! Required of the caller: a secret from a good source of randomness, given to members alone. Provided: nobody announces
//! for another; who has no secret reads nothing and changes nothing unnoticed. The cell sees how long the value is, up
//! to a KiB, and when it changes, and for whom if it is on a server. Not provided: a member can take announcements of
//! others out, and put old ones back until they expire; a cell can go back to an older value.

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

/// Bounds and times of a [`Tracker`].
#[derive(Clone, Debug)]
pub struct TrackerConfig {
    /// Announcements in the cell at most, of all topics. At the limit new ones are refused; those that are there stay
    /// until they expire. At most [`MAX_RECORDS`]. Default: 256.
    pub announcements: usize,
    /// How often a change is tried when others change the cell, too. Default: 32.
    pub attempts: usize,
    /// How often a watch looks. Default: 5 s.
    pub poll: Duration,
    /// How this node's id follows from its key. Default: SHAKE256, as in P2PKE.
    pub fingerprint: Fingerprint,
    /// Algorithms of keys that are believed. Default: Ed25519.
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

/// A node's view of a tracker. Clones are the same node.
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

/// An announcement and the record that it was read from.
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
    /// The tracker of those who share this secret, for a node with this key.
    ///
    /// # Errors
    /// [`Error::Swarm`] if the key cannot be used.
    pub fn new(cell: C, secret: Secret, key: &PrivateKey, config: TrackerConfig) -> Result<Self> {
        let signer = config.registry.signer(key).map_err(p2p::Error::from)?;
        let id = (config.fingerprint)(signer.public_key());
        Ok(Self::with(cell, secret, Some(Author { id, signer }), config))
    }

    /// The same for somebody who only looks.
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

    /// Who announces; nobody if it only looks.
    pub fn id(&self) -> Option<PeerId> {
        Some(self.shared.author.as_ref()?.id)
    }
}

impl<C: Cell> Tracker<C> {
    /// Every announcement in the cell that has not expired, of all topics.
    ///
    /// # Errors
    /// What the cell says, and [`Error::Garbled`] if its value was not sealed with this secret.
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

    /// What holds of a value: not expired, by who it is about, and the latest of each node under each topic.
    fn entries(&self, value: &[u8]) -> Result<Vec<Entry>> {
        let now = UnixTime::now();
        let mut entries: Vec<Entry> = Vec::new();
        for (number, record) in open_value(&self.secret, value)?.into_iter().enumerate() {
            let announcement = match Announcement::open(&record, &self.config.registry, now) {
                Ok(announcement) if announcement.expires > now => announcement,
                Ok(_) => continue,
                Err(error) => {
                    debug!(number, %error, "an announcement in a tracker is left out");
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

    /// Changes the announcements, whatever others do at the same time. Says nothing to the cell where nothing changes.
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
            // The more of them there are, the further apart they try again.
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
