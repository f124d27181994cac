//! `find`, and the announcements of `listen`: finds nodes by trackers and by multicast DNS.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use p2p::{Addr, BoxAddr, PeerId};
use p2p_discovery::{
    Addrs, Change, Combined, Discovery, Error, HttpCell, Mdns, MdnsConfig, Node, Token, Topic, Tracker,
    TrackerConfig, keep_announced, keep_peers,
};
use p2p_formats::x509::{PrivateKey, Registry, sha3_256, shake256};
use p2p_swarms::stack::Gossip;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::interrupt::interrupt;
use crate::output::{Out, complain};
use crate::{Failure, with_causes};

/// Poll interval of a tracker watch.
const POLL: Duration = Duration::from_secs(1);
/// Delay before the next search.
const AGAIN: Duration = Duration::from_millis(200);

/// Options of a search.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints one address per line, the best of each node first. WHERE is a tracker's URL, as 'tracker serve'
prints it, or the local network, by multicast DNS:
  http://127.0.0.1:4080/CELL#SECRET
  mdns[=SERVICE][,loopback][,port=N]    default SERVICE: _p2p._udp

Examples, each in two terminals:
  p2putil listen udp/p2pke --announce mdns --topic chat
  p2putil tell udp/p2pke \"$(p2putil find mdns --topic chat | head -1)\" hello

  p2putil listen udp/quic --announce 'http://127.0.0.1:4080/CELL#SECRET'
  p2putil find 'http://127.0.0.1:4080/CELL#SECRET' mdns --watch")]
pub(crate) struct Find {
    /// Where to search; several places are searched at once
    #[arg(required = true, value_name = "WHERE")]
    places: Vec<Where>,
    /// The topic under which the nodes announced themselves
    #[arg(long, default_value = "p2putil")]
    topic: Topic,
    /// How long to search until a node is found, in seconds
    #[arg(long, value_name = "SECS", default_value_t = 5.0, value_parser = crate::cli::seconds)]
    wait: f64,
    /// Print 'found ID ADDR…' and 'lost ID' as nodes join and leave, until interrupted
    #[arg(long)]
    watch: bool,
}

/// Options of announcements.
#[derive(Debug, Args)]
pub(crate) struct Announce {
    /// Announce the addresses there until the end: a tracker's URL, or 'mdns'; see 'find --help'
    #[arg(long = "announce", value_name = "WHERE")]
    places: Vec<Where>,
    /// The topic of the announcements
    #[arg(long, default_value = "p2putil")]
    topic: Topic,
    /// Lifetime of each announcement in seconds, if this process ends without withdrawing it
    #[arg(long, value_name = "SECS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    ttl: u64,
}

/// A discovery method.
#[derive(Clone, Debug)]
pub(crate) enum Where {
    Tracker(Token),
    Mdns(MdnsConfig),
}

impl Default for Where {
    fn default() -> Self {
        Where::Mdns(MdnsConfig::default())
    }
}

impl FromStr for Where {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut words = text.split(',');
        let first = words.next().unwrap_or_default();
        let (name, service) = first
            .split_once('=')
            .map_or((first, None), |(name, service)| (name, Some(service)));
        if name != "mdns" {
            if text.starts_with("http") {
                return text.parse().map(Where::Tracker);
            }
            let reason = "expected a tracker's URL with its '#SECRET', or 'mdns'";
            return Err(Error::Invalid {
                what: "place to look",
                reason: reason.into(),
            });
        }
        let mut config = MdnsConfig::default();
        if let Some(service) = service {
            service.clone_into(&mut config.service);
        }
        for word in words {
            match word.split_once('=') {
                None if word == "loopback" => config.loopback = true,
                Some(("port", port)) if port.parse::<u16>().is_ok_and(|port| port > 0) => {
                    config.port = port.parse().unwrap_or(config.port);
                }
                _ => {
                    let reason =
                        format!("{word:?} is neither 'loopback' nor 'port=' and a number up to 65535");
                    return Err(Error::invalid("place to look", reason));
                }
            }
        }
        Ok(Where::Mdns(config))
    }
}

impl fmt::Display for Where {
    /// Writes the place without the secret of a tracker.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Where::Tracker(token) => f.write_str(&token.place()),
            Where::Mdns(config) => write!(f, "mdns={}", config.service),
        }
    }
}

impl Where {
    /// Opens discovery at this place for the node with this id and key, or for reading only.
    fn open(&self, identity: Option<(PeerId, &PrivateKey)>) -> Result<Arc<dyn Discovery>, Error> {
        let token = match self {
            Where::Mdns(config) => {
                let id = identity.map_or(PeerId::ZERO, |(id, _)| id);
                return Ok(Arc::new(Mdns::new(id, config.clone())?));
            }
            Where::Tracker(token) => token.clone(),
        };
        let mut config = TrackerConfig {
            poll: POLL,
            ..TrackerConfig::default()
        };
        let (cell, secret) = (HttpCell::new(token.clone()), token.secret().clone());
        let Some((id, key)) = identity else {
            return Ok(Arc::new(Tracker::reader(cell, secret, config)));
        };
        // One key has an id for each kind of layer; the id in the addresses is announced.
        let public = Registry::default().signer(key).map_err(p2p::Error::from)?;
        let has_id = [shake256, sha3_256]
            .into_iter()
            .find(|of| of(public.public_key()) == id);
        config.fingerprint = has_id.unwrap_or(shake256);
        Ok(Arc::new(Tracker::new(cell, secret, key, config)?))
    }
}

/// Announcements of one node.
pub(crate) struct Announcing {
    ways: Vec<(Where, Arc<dyn Discovery>)>,
    topic: Topic,
    addrs: Option<Addrs>,
    ttl: Duration,
}

impl Announce {
    /// Creates announcements at these places with a lifetime in seconds.
    pub(crate) fn new(places: Vec<Where>, topic: Topic, ttl: u64) -> Self {
        Self { places, topic, ttl }
    }

    /// Opens discovery for the node with these addresses and this key.
    pub(crate) fn open(self, addrs: &[BoxAddr], key: &PrivateKey) -> Result<Announcing, Failure> {
        let id = addrs.iter().find_map(Addr::peer_id);
        let id = match id {
            Some(id) => id,
            None => shake256(Registry::default().signer(key)?.public_key()),
        };
        let mut ways = Vec::new();
        for place in self.places {
            let way = place.open(Some((id, key)))?;
            ways.push((place, way));
        }
        Ok(Announcing {
            addrs: if ways.is_empty() {
                None
            } else {
                Some(Addrs::new(addrs)?)
            },
            ways,
            topic: self.topic,
            ttl: Duration::from_secs(self.ttl),
        })
    }
}

impl Announcing {
    /// Announces while it is awaited.
    pub(crate) async fn keep(&self) {
        if let Some(addrs) = &self.addrs {
            let kept = self.ways.iter().map(|(place, way)| {
                let failed = move |error| {
                    complain(&format!(
                        "warning: not announced at {place}: {}",
                        with_causes(&error)
                    ));
                };
                keep_announced(way, &self.topic, addrs, self.ttl, failed)
            });
            drop(join_all(kept).await);
        }
        std::future::pending::<()>().await;
    }

    /// Announces a gossip node, and adds nodes found at the same places as peers, until the node is closed.
    pub(crate) async fn keep_with_peers(&self, node: &Gossip) -> Result<(), Failure> {
        let meeting = self.ways.iter().map(|(place, way)| {
            let failed = move |error| complain(&format!("warning: at {place}: {}", with_causes(&error)));
            keep_peers(way, &self.topic, node, failed)
        });
        let mut meeting: FuturesUnordered<_> = meeting.collect();
        tokio::select! {
            () = self.keep() => {}
            Some(closed) = meeting.next() => drop(closed?),
        }
        Ok(())
    }

    /// Withdraws the announcements.
    pub(crate) async fn withdraw(&self) {
        let withdrawn = self.ways.iter().map(async |(place, way)| {
            if let Err(error) = way.withdraw(&self.topic).await {
                complain(&format!(
                    "warning: not withdrawn at {place}: {}",
                    with_causes(&error)
                ));
            }
        });
        drop(join_all(withdrawn).await);
    }
}

pub(crate) async fn find(args: Find, out: Out) -> Result<(), Failure> {
    let ways: Vec<_> = args
        .places
        .iter()
        .map(|place| place.open(None))
        .collect::<Result<_, _>>()?;
    let combined = Combined::new(ways);
    if args.watch {
        return watch(&combined, &args.topic, out).await;
    }
    let end = Instant::now() + Duration::from_secs_f64(args.wait);
    loop {
        let found = combined.find(&args.topic).await;
        match found {
            Ok(nodes) if nodes.is_empty() => {}
            Ok(nodes) => return nodes.iter().try_for_each(|node| show(node, out)),
            Err(error) if Instant::now() >= end => return Err(error.into()),
            Err(_) => {}
        }
        if Instant::now() >= end {
            let why = format!("no node was found under {} within {} s", args.topic, args.wait);
            return Err(Failure::Failed(why));
        }
        sleep(AGAIN).await;
    }
}

fn show(node: &Node, out: Out) -> Result<(), Failure> {
    let id = node.id.to_string();
    let mut addrs = node.addrs.iter();
    addrs.try_for_each(|addr| out.line(addr, &json!({ "id": id, "addr": addr })))
}

async fn watch(combined: &Combined, topic: &Topic, out: Out) -> Result<(), Failure> {
    let interrupt = interrupt()?;
    tokio::pin!(interrupt);
    let mut changes = combined.watch(topic);
    loop {
        let change = tokio::select! {
            () = &mut interrupt => return Ok(()),
            change = changes.next() => change,
        };
        match change {
            None => return Ok(()),
            Some(Err(error)) => complain(&format!("warning: {}", with_causes(&error))),
            Some(Ok(Change::Lost(id))) => {
                out.line(
                    &format!("lost {id}"),
                    &json!({ "event": "lost", "id": id.to_string() }),
                )?;
            }
            Some(Ok(Change::Found(node))) => {
                let addrs: Vec<&str> = node.addrs.iter().collect();
                let object = json!({ "event": "found", "id": node.id.to_string(), "addrs": addrs });
                out.line(&format!("found {} {}", node.id, addrs.join(" ")), &object)?;
            }
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Invalid { .. } => Failure::Usage(error.to_string()),
            _ => Failure::Failed(with_causes(&error)),
        }
    }
}
