//! Multicast DNS (RFC 6762) with service discovery (RFC 6763): nodes of one local network find each other
//! without configuration.
//!
//! Each announcement is an instance of one service type, `_p2p._udp.local.` unless another is set. Its TXT
//! record has `id=` with the node's id, `topic=`, and `addr0=`, `addr1=` and so on with the addresses, of any
//! swarm. The instance's name is derived from id and topic, and its SRV record has the port of the first
//! address that has one.
//!
//! # Security
//! Any node on the network can announce anything in the name of any other: trust an address only once a
//! secure swarm has authenticated it. The numbers of known nodes, and of addresses of each, are bounded; the
//! cache of the responder is not. Announcements under topics that this node has announced, searched or watched
//! are displaced only by others under such topics. Instances with the same id are merged fairly: first the addresses of the
//! instance whose name is derived from that id, which the node itself uses, then those of others in turn. So
//! an instance with another node's id displaces none of its addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};
use futures_util::stream::BoxStream;
use mdns_sd::{IfKind, MDNS_PORT, ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo};
use p2p::PeerId;
use parking_lot::{Mutex, MutexGuard};
use rand::RngExt as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::debug;

use crate::discovery::check_ttl;
use crate::node::{MAX_ADDRS, in_turn};
use crate::watch::followed;
use crate::{Addrs, Change, Discovery, Error, Node, Result, Topic};

/// Timeout for operations of the responder.
const PATIENCE: Duration = Duration::from_secs(5);
/// Delay before an ended search is restarted.
const AGAIN: Duration = Duration::from_secs(1);

/// Configuration of multicast discovery.
#[derive(Clone, Debug)]
pub struct MdnsConfig {
    /// The service name (RFC 6763, section 7). Default: `_p2p._udp`.
    pub service: String,
    /// Whether to use only the loopback interface, for nodes of one machine. Default: no.
    pub loopback: bool,
    /// The UDP port. Nodes on different ports do not find each other. Default: 5353.
    pub port: u16,
    /// How long after the start [`find`](Discovery::find) waits for responses, at most once. Default: 1.5 s.
    pub wait: Duration,
    /// Maximum number of known announcements of others. At the bound a new one replaces one of the id with the
    /// most of them, or else a random one of the topic with the most: of a topic that this node does not use, if there is one.
    /// Default: 1024.
    pub known: usize,
    /// Maximum number of known announcements with the same id and topic; more are ignored, except the one
    /// whose name is derived from both. Default: 8.
    pub known_each: usize,
}

impl Default for MdnsConfig {
    fn default() -> Self {
        Self {
            service: "_p2p._udp".to_owned(),
            loopback: false,
            port: MDNS_PORT,
            wait: Duration::from_millis(1500),
            known: 1024,
            known_each: 8,
        }
    }
}

/// A node that announces by multicast, and receives announcements. Clones refer to the same node.
#[derive(Clone)]
pub struct Mdns {
    shared: Arc<Shared>,
}

struct Shared {
    id: PeerId,
    daemon: ServiceDaemon,
    config: MdnsConfig,
    start: Instant,
    heard: Arc<Heard>,
    /// The task that ends each of this node's announcements.
    ends: Mutex<BTreeMap<Topic, JoinHandle<()>>>,
    search: JoinHandle<()>,
}

/// Announcements by the full names of their instances, in lower case.
type Instances = BTreeMap<String, (Topic, Node)>;

/// Received announcements of other nodes.
struct Heard {
    instances: Mutex<Instances>,
    /// The topics that this node announced, searched or watched.
    used: Mutex<BTreeSet<Topic>>,
    version: watch::Sender<u64>,
    max: usize,
    max_each: usize,
}

impl Mdns {
    /// Creates a node with this id, which starts to listen at once.
    ///
    /// # Errors
    /// Returns [`Error::Invalid`] if the service name is invalid, and [`Error::Io`] if the responder cannot
    /// be started.
    ///
    /// # Panics
    /// Panics outside of a tokio runtime with time.
    pub fn new(id: PeerId, config: MdnsConfig) -> Result<Self> {
        check_service(&config.service)?;
        let daemon = ServiceDaemon::new_with_port(config.port).map_err(failed("starting a responder"))?;
        if config.loopback {
            let narrowed = daemon.disable_interface(IfKind::All);
            let narrowed = narrowed.and_then(|()| daemon.enable_interface(IfKind::LoopbackV4));
            narrowed.map_err(failed("choosing an interface"))?;
        }
        let heard = Arc::new(Heard {
            instances: Mutex::default(),
            used: Mutex::default(),
            version: watch::Sender::new(0),
            max: config.known.max(1),
            max_each: config.known_each.max(1),
        });
        let search = tokio::spawn(search(daemon.clone(), service_type(&config), heard.clone()));
        let shared = Shared {
            id,
            daemon,
            config,
            start: Instant::now(),
            heard,
            ends: Mutex::default(),
            search,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Returns the id of the announcing node.
    pub fn id(&self) -> PeerId {
        self.shared.id
    }

    /// Returns the name of this node's instance under a topic.
    fn instance(&self, topic: &Topic) -> String {
        instance(&self.shared.id, topic)
    }

    fn service(&self, topic: &Topic, addrs: &Addrs) -> Result<ServiceInfo> {
        let instance = self.instance(topic);
        let mut txt = vec![
            ("id".to_owned(), self.shared.id.to_string()),
            ("topic".to_owned(), topic.to_string()),
        ];
        let numbered = addrs.iter().enumerate();
        txt.extend(numbered.map(|(number, addr)| (format!("addr{number}"), addr.to_owned())));
        let host = format!("{instance}.local.");
        let port = addrs.iter().find_map(port).unwrap_or(0);
        let service = ServiceInfo::new(
            &service_type(&self.shared.config),
            &instance,
            &host,
            "",
            port,
            &txt[..],
        );
        Ok(service
            .map_err(failed("describing a service"))?
            .enable_addr_auto())
    }
}

/// Returns the name of a node's own instance under a topic.
fn instance(id: &PeerId, topic: &Topic) -> String {
    let hash = digest(&SHA256, &[id.as_ref(), topic.as_str().as_bytes()].concat());
    let digits = hash
        .as_ref()
        .iter()
        .take(16)
        .flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

/// Returns whether the full name of an instance, in lower case, is the one that the node itself uses.
fn is_its_own(name: &str, topic: &Topic, node: &Node) -> bool {
    name.split('.').next() == Some(&*instance(&node.id, topic))
}

/// Returns the port of an address whose text ends with an IP address and port.
fn port(addr: &str) -> Option<u16> {
    let bottom = addr.rsplit('@').next()?;
    Some(bottom.parse::<SocketAddr>().ok()?.port())
}

fn check_service(service: &str) -> Result<()> {
    let name = ["._udp", "._tcp"]
        .iter()
        .find_map(|ending| service.strip_suffix(ending));
    let name = name.and_then(|name| name.strip_prefix('_')).unwrap_or_default();
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if (1..=15).contains(&name.len()) && name.chars().all(fits) {
        return Ok(());
    }
    let reason = "expected '_', 1 to 15 letters, digits or '-', and '._udp' or '._tcp'";
    Err(Error::invalid("service", reason))
}

fn service_type(config: &MdnsConfig) -> String {
    format!("{}.local.", config.service)
}

fn failed(doing: &'static str) -> impl FnOnce(mdns_sd::Error) -> Error {
    move |error| Error::io(doing)(io::Error::other(error))
}

/// Listens while the responder runs.
async fn search(daemon: ServiceDaemon, service: String, heard: Arc<Heard>) {
    loop {
        match daemon.browse(&service) {
            // The search ends if too many events arrive at once, and is then restarted.
            Ok(events) => {
                while let Ok(event) = events.recv_async().await {
                    heard.event(event);
                }
            }
            Err(mdns_sd::Error::DaemonShutdown) => return,
            Err(error) => debug!(%error, "starting the search for other nodes failed"),
        }
        sleep(AGAIN).await;
    }
}

impl Heard {
    fn event(&self, event: ServiceEvent) {
        match event {
            ServiceEvent::ServiceResolved(service) => match read(&service) {
                Ok(announcement) => self.set(&service.fullname, Some(announcement)),
                Err(error) => {
                    debug!(service = service.fullname, %error, "an announcement was ignored");
                    self.set(&service.fullname, None);
                }
            },
            ServiceEvent::ServiceRemoved(_, name) => self.set(&name, None),
            _ => {}
        }
    }

    fn set(&self, name: &str, announcement: Option<(Topic, Node)>) {
        let name = name.to_lowercase();
        let mut instances = self.instances();
        let changed = match announcement {
            None => instances.remove(&name).is_some(),
            Some(announcement) => {
                let is_same =
                    |known: &(Topic, Node)| known.0 == announcement.0 && known.1.id == announcement.1.id;
                let known = instances.remove(&name);
                let has_place = known.as_ref().is_some_and(is_same);
                if has_place || self.make_room(&mut instances, &name, &announcement) {
                    let is_new = known.as_ref() != Some(&announcement);
                    instances.insert(name, announcement);
                    is_new
                } else {
                    debug!(
                        name,
                        "an announcement was ignored: there are too many with this id, or of topics that this node uses"
                    );
                    known.is_some()
                }
            }
        };
        drop(instances);
        if changed {
            self.version
                .send_modify(|version| *version = version.wrapping_add(1));
        }
    }

    /// Makes room for a new announcement; returns whether there is room.
    fn make_room(&self, instances: &mut Instances, name: &str, (topic, node): &(Topic, Node)) -> bool {
        let same = |of: &Topic, other: &Node| of == topic && other.id == node.id;
        let others = instances.iter().filter(|(_, (of, other))| same(of, other));
        let others: Vec<&String> = others.map(|(name, _)| name).collect();
        if others.len() >= self.max_each {
            if !is_its_own(name, topic, node) {
                return false;
            }
            // The node's own announcement arrives late, and replaces one of others.
            if let Some(name) = others.first().map(|name| (*name).clone()) {
                instances.remove(&name);
            }
        }
        if instances.len() < self.max {
            return true;
        }
        let used = self.used();
        let is_unused = |of: &Topic| !used.contains(of);
        let only_unused = is_unused(topic) || instances.values().any(|(of, _)| is_unused(of));
        let may_go = |of: &Topic| !only_unused || is_unused(of);
        let (mut of_ids, mut of_topics) = (BTreeMap::new(), BTreeMap::new());
        for (of, other) in instances.values().filter(|(of, _)| may_go(of)) {
            *of_ids.entry(other.id).or_insert(0_usize) += 1;
            *of_topics.entry(of.clone()).or_insert(0_usize) += 1;
        }
        let most = of_ids.into_iter().max_by_key(|(_, count)| *count);
        let crowd = of_topics.values().copied().max();
        let candidates: Vec<String> = instances
            .iter()
            .filter(|(_, (of, other))| match most {
                _ if !may_go(of) => false,
                Some((id, count)) if count > 1 => other.id == id,
                _ => of_topics.get(of).copied() == crowd,
            })
            .map(|(name, _)| name.clone())
            .collect();
        drop(used);
        if candidates.is_empty() {
            // All places belong to topics that this node uses, and the new announcement does not.
            return false;
        }
        let at = rand::rng().random_range(0..candidates.len().max(1));
        if let Some(name) = candidates.get(at) {
            instances.remove(name);
        }
        true
    }

    /// Returns the nodes under a topic, each once.
    fn nodes(&self, topic: &Topic) -> Vec<Node> {
        let instances = self.instances();
        let mut said: BTreeMap<PeerId, (Option<&Addrs>, Vec<&Addrs>)> = BTreeMap::new();
        for (name, (of, node)) in &*instances {
            if of == topic {
                let (own, others) = said.entry(node.id).or_default();
                if is_its_own(name, topic, node) {
                    *own = Some(&node.addrs);
                } else {
                    others.push(&node.addrs);
                }
            }
        }
        let nodes = said.into_iter().filter_map(|(id, (own, others))| {
            let addrs = in_turn(own.into_iter().flat_map(Addrs::iter), &others);
            let addrs = Addrs::new(addrs).ok()?;
            Some(Node { id, addrs })
        });
        nodes.collect()
    }

    /// Records that this node uses a topic.
    fn uses(&self, topic: &Topic) {
        let mut used = self.used();
        if !used.contains(topic) {
            used.insert(topic.clone());
        }
    }

    fn used(&self) -> MutexGuard<'_, BTreeSet<Topic>> {
        self.used.lock()
    }

    fn instances(&self) -> MutexGuard<'_, Instances> {
        self.instances.lock()
    }
}

/// Parses an instance of any author.
fn read(service: &ResolvedService) -> Result<(Topic, Node)> {
    let value = |key: &str| {
        let bytes = service.get_property_val(key).flatten().unwrap_or_default();
        std::str::from_utf8(bytes).map_err(|_| Error::invalid("TXT record", format!("{key:?} is not UTF-8")))
    };
    let id: PeerId = value("id")?.parse()?;
    let topic: Topic = value("topic")?.parse()?;
    let mut addrs = Vec::new();
    for number in 0..MAX_ADDRS {
        let addr = value(&format!("addr{number}"))?;
        if addr.is_empty() {
            break;
        }
        addrs.push(addr);
    }
    let addrs = Addrs::new(addrs)?;
    Ok((topic, Node { id, addrs }))
}

impl Shared {
    fn ends(&self) -> MutexGuard<'_, BTreeMap<Topic, JoinHandle<()>>> {
        self.ends.lock()
    }
}

/// Unregisters a service at the responder, and waits for completion.
async fn unregister(daemon: &ServiceDaemon, name: &str) -> Result<()> {
    let doing = "withdrawing a service";
    let done = daemon.unregister(name).map_err(failed(doing))?;
    match timeout(PATIENCE, done.recv_async()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(Error::io(doing)(io::Error::other(error))),
        Err(_) => Err(Error::TimedOut {
            doing,
            limit: PATIENCE,
        }),
    }
}

#[async_trait]
impl Discovery for Mdns {
    async fn announce(&self, topic: &Topic, addrs: &Addrs, ttl: Duration) -> Result<()> {
        check_ttl(ttl)?;
        self.shared.heard.uses(topic);
        let service = self.service(topic, addrs)?;
        let name = service.get_fullname().to_owned();
        let daemon = self.shared.daemon.clone();
        daemon.register(service).map_err(failed("announcing a service"))?;
        let end = tokio::spawn(async move {
            sleep(ttl).await;
            if let Err(error) = unregister(&daemon, &name).await {
                debug!(name, %error, "ending an announcement failed");
            }
        });
        if let Some(before) = self.shared.ends().insert(topic.clone(), end) {
            before.abort();
        }
        Ok(())
    }

    async fn withdraw(&self, topic: &Topic) -> Result<()> {
        let Some(end) = self.shared.ends().remove(topic) else {
            return Ok(());
        };
        end.abort();
        let name = format!("{}.{}", self.instance(topic), service_type(&self.shared.config));
        unregister(&self.shared.daemon, &name).await
    }

    async fn find(&self, topic: &Topic) -> Result<Vec<Node>> {
        self.shared.heard.uses(topic);
        sleep_until(self.shared.start + self.shared.config.wait).await;
        Ok(self.shared.heard.nodes(topic))
    }

    fn watch(&self, topic: &Topic) -> BoxStream<'static, Result<Change>> {
        // The node exists while a watch does.
        let (shared, topic) = (self.shared.clone(), topic.clone());
        shared.heard.uses(&topic);
        let version = shared.heard.version.subscribe();
        followed(version, move || shared.heard.nodes(&topic))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.search.abort();
        for end in self.ends().values() {
            end.abort();
        }
        // The responder sends goodbyes before it ends. If it has already ended, there is nothing to do.
        drop(self.daemon.shutdown());
    }
}

impl fmt::Debug for Mdns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mdns")
            .field("id", &self.shared.id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
