//! The configuration of a host's Kademlia.

use std::time::Duration;

use p2p::{Error, Result};
use p2p_protocols::kademlia::Config;
use p2p_protocols::kademlia::libp2p::{MAX_KEY, PROTOCOL};

use super::Namespaces;
use crate::host::check_protocol;

/// Whether a node serves the requests of others (libp2p specification, kad-dht, "Client and server mode").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The node sends requests and serves none: it does not list the protocol, and is in no bucket.
    #[default]
    Client,
    /// The node serves requests. It should be reachable for all nodes of its network.
    Server,
}

/// The limits, intervals and policies of a host's Kademlia.
#[derive(Debug)]
pub struct KademliaConfig {
    /// Whether the node serves requests. Default: it does not.
    pub mode: Mode,
    /// The protocol id. Nodes with another one are another network. Default: `/ipfs/kad/1.0.0`.
    pub protocol: String,
    /// The validators of records. Default: `pk` only.
    pub namespaces: Namespaces,
    /// The limits and intervals of the engine. [`serves`](Config::serves) follows [`mode`](Self::mode), and
    /// [`unproven_ids`](Config::unproven_ids) has no effect, since each address proves an id. Default:
    /// [`engine_config`](Self::engine_config).
    pub engine: Config,
    /// Streams that one peer has opened for requests at most, over all of its connections; more are reset. Default: 32.
    pub peer_streams: usize,
    /// Time after which a stream without a request is ended. Default: 1 min.
    pub idle_timeout: Duration,
    /// Timeout of the arrival of a request that has begun, and of sending an answer. Default: 10 s.
    pub message_timeout: Duration,
    /// Bytes of requests that have arrived in part, for all peers together; streams with more are reset. Default: 8 MiB.
    pub reassembly: usize,
    /// The same for one peer. Default: 256 KiB.
    pub peer_reassembly: usize,
}

impl KademliaConfig {
    /// Returns the parameters of the specification: *k* 20, *α* 10, records and providers that live for 48 h and are
    /// published again every 22 h, and buckets that are refreshed every 10 min. Nodes do not replicate the records of
    /// others, because messages do not carry the lifetime of a record. Messages of up to 64 KiB are accepted.
    pub fn engine_config() -> Config {
        Config {
            alpha: 10,
            request_timeout: Duration::from_secs(10),
            refresh_every: Duration::from_mins(10),
            message: 64 << 10,
            record_ttl: Duration::from_hours(48),
            provider_ttl: Duration::from_hours(48),
            republish_every: Duration::from_hours(22),
            replicate_every: Duration::MAX,
            ..Config::default()
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        check_protocol(&self.protocol)?;
        let longest = self.engine.message.max(512);
        if longest > self.peer_reassembly.min(self.reassembly) {
            let reason = "a message exceeds the bytes of requests that may arrive";
            return Err(Error::invalid("Kademlia configuration", reason));
        }
        Ok(())
    }
}

impl Default for KademliaConfig {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            protocol: PROTOCOL.to_owned(),
            namespaces: Namespaces::default(),
            engine: Self::engine_config(),
            peer_streams: 32,
            idle_timeout: Duration::from_mins(1),
            message_timeout: Duration::from_secs(10),
            reassembly: 8 << 20,
            peer_reassembly: 256 << 10,
        }
    }
}

/// Returns an error for a key that no message carries.
pub(super) fn check_key(key: &[u8]) -> Result<()> {
    match key.len() {
        0 => Err(Error::invalid("key", "it is empty")),
        size if size > MAX_KEY => Err(Error::MtuExceeded { size, mtu: MAX_KEY }),
        _ => Ok(()),
    }
}
