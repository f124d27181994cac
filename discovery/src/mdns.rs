//! Multicast DNS (RFC 6762) with service discovery (RFC 6763): nodes of one local network find each other by themselves.
//!
//! Each announcement is an instance of one service type, `_p2p._udp.local.` unless another is set. Its TXT record has
//! `id=` with the node's id, `topic=`, and `addr0=`, `addr1=` and so on with the addresses, whatever swarm they are of.
//! The instance's name follows from id and topic, its SRV record has the port of the first address that has one.
//!
//! # Security
//! Anybody on the network can announce anything in anybody's name: believe an address once a secure swarm proved it.
//! Nodes that are known, and addresses of each, are bounded here; what the responder beneath caches is not.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};
use futures_util::stream::BoxStream;
use mdns_sd::{IfKind, MDNS_PORT, ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo};
use p2p::PeerId;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::debug;

use crate::discovery::check_ttl;
use crate::node::MAX_ADDRS;
use crate::watch::followed;
use crate::{Addrs, Change, Discovery, Error, Node, Result, Topic};

/// How long the responder may take to do what it is told.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait before a search that ended is begun again.
const AGAIN: Duration = Duration::from_secs(1);

/// Where and how a node announces by multicast.
#[derive(Clone, Debug)]
pub struct MdnsConfig {
    /// The service, as in `_p2p._udp` (RFC 6763, section 7). Default: that.
    pub service: String,
    /// Whether to stay on the loopback interface, for nodes of one machine. Default: no.
    pub loopback: bool,
    /// The UDP port. Whoever uses another is apart. Default: 5353.
    pub port: u16,
    /// How long after the start [`find`](Discovery::find) waits for answers, at most once. Default: 1.5 s.
    pub wait: Duration,
    /// Announcements of others that are known at most; more are ignored. Default: 1024.
    pub known: usize,
}

impl Default for MdnsConfig {
    fn default() -> Self {
        Self {
            service: "_p2p._udp".to_owned(),
            loopback: false,
            port: MDNS_PORT,
            wait: Duration::from_millis(1500),
            known: 1024,
        }
    }
}

/// A node that announces by multicast, and hears others. Clones are the same node.
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
    /// What ends each of this node's announcements.
    ends: Mutex<BTreeMap<Topic, JoinHandle<()>>>,
    search: JoinHandle<()>,
}

/// Announcements by the full names of their instances.
struct Heard {
    instances: Mutex<BTreeMap<String, (Topic, Node)>>,
    version: watch::Sender<u64>,
    max: usize,
}

impl Mdns {
    /// A node with this id, which begins to listen at once.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the service is none; [`Error::Io`] if the responder cannot be started.
    ///
    /// # Panics
    /// Outside of a tokio runtime with time.
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
            version: watch::Sender::new(0),
            max: config.known,
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

    /// Who announces.
    pub fn id(&self) -> PeerId {
        self.shared.id
    }

    /// The full name of this node's instance under a topic.
    fn instance(&self, topic: &Topic) -> String {
        let hash = digest(
            &SHA256,
            &[self.shared.id.as_ref(), topic.as_str().as_bytes()].concat(),
        );
        let digits = hash
            .as_ref()
            .iter()
            .take(16)
            .flat_map(|byte| [byte >> 4, byte & 15]);
        digits
            .filter_map(|digit| char::from_digit(digit.into(), 16))
            .collect()
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

/// The port of an address whose text ends with one of IP.
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
    let reason = "'_', 1 to 15 letters, digits or '-', and '._udp' or '._tcp' are expected";
    Err(Error::invalid("service", reason))
}

fn service_type(config: &MdnsConfig) -> String {
    format!("{}.local.", config.service)
}

fn failed(doing: &'static str) -> impl FnOnce(mdns_sd::Error) -> Error {
    move |error| Error::io(doing)(io::Error::other(error))
}

/// Listens for as long as there is a responder.
async fn search(daemon: ServiceDaemon, service: String, heard: Arc<Heard>) {
    loop {
        match daemon.browse(&service) {
            // It ends where too much came at once, and is begun again then.
            Ok(events) => {
                while let Ok(event) = events.recv_async().await {
                    heard.event(event);
                }
            }
            Err(mdns_sd::Error::DaemonShutdown) => return,
            Err(error) => debug!(%error, "the search for other nodes did not begin"),
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
                    debug!(service = service.fullname, %error, "an announcement is left out");
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
            Some(_) if instances.len() >= self.max && !instances.contains_key(&name) => {
                debug!(name, "an announcement is left out: there are too many");
                false
            }
            Some(announcement) => instances.insert(name, announcement.clone()) != Some(announcement),
        };
        drop(instances);
        if changed {
            self.version
                .send_modify(|version| *version = version.wrapping_add(1));
        }
    }

    /// Nodes under a topic, each once.
    fn nodes(&self, topic: &Topic) -> Vec<Node> {
        let mut nodes: BTreeMap<PeerId, Addrs> = BTreeMap::new();
        for (of, node) in self.instances().values() {
            if of == topic {
                nodes
                    .entry(node.id)
                    .and_modify(|addrs| addrs.merge(&node.addrs))
                    .or_insert_with(|| node.addrs.clone());
            }
        }
        nodes.into_iter().map(|(id, addrs)| Node { id, addrs }).collect()
    }

    fn instances(&self) -> MutexGuard<'_, BTreeMap<String, (Topic, Node)>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an instance says, whoever wrote it.
fn read(service: &ResolvedService) -> Result<(Topic, Node)> {
    let value = |key: &str| {
        let bytes = service.get_property_val(key).flatten().unwrap_or_default();
        std::str::from_utf8(bytes).map_err(|_| Error::invalid("TXT record", format!("{key:?} is no UTF-8")))
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
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the responder that a service ends, and waits until it did.
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
        let service = self.service(topic, addrs)?;
        let name = service.get_fullname().to_owned();
        let daemon = self.shared.daemon.clone();
        daemon.register(service).map_err(failed("announcing a service"))?;
        let end = tokio::spawn(async move {
            sleep(ttl).await;
            if let Err(error) = unregister(&daemon, &name).await {
                debug!(name, %error, "an announcement was not ended in time");
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
        sleep_until(self.shared.start + self.shared.config.wait).await;
        Ok(self.shared.heard.nodes(topic))
    }

    fn watch(&self, topic: &Topic) -> BoxStream<'static, Result<Change>> {
        // The node lives for as long as somebody watches.
        let (shared, topic) = (self.shared.clone(), topic.clone());
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
        // It says goodbye to others before it ends. Where it is gone already there is nothing to do.
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
