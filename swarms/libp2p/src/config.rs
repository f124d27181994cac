//! The configuration of a host.

use std::time::Duration;

use p2p::{Error, Result};

/// A secure channel over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Security {
    /// Noise XX.
    Noise,
    /// TLS 1.3.
    Tls,
}

impl Security {
    /// Returns the protocol id.
    pub fn protocol(self) -> &'static str {
        match self {
            Self::Noise => "/noise",
            Self::Tls => "/tls/1.0.0",
        }
    }
}

/// A stream muxer over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Muxer {
    /// yamux.
    Yamux,
    /// mplex, which is deprecated: it has no flow control, so a reader that does not read stalls the streams beside it for
    /// up to 5 s, and is reset then.
    Mplex,
}

impl Muxer {
    /// Returns the protocol id.
    pub fn protocol(self) -> &'static str {
        match self {
            Self::Yamux => "/yamux/1.0.0",
            Self::Mplex => "/mplex/6.7.0",
        }
    }
}

/// The limits and timeouts of a host.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// The secure channels over TCP, best first. With an empty list no TCP connection is established. Default: Noise, then TLS.
    pub security: Vec<Security>,
    /// The muxers over TCP, best first. With an empty list no TCP connection is established. Default: yamux.
    pub muxers: Vec<Muxer>,
    /// Maximum number of connections that peers dialled; more are refused. Default: 1024.
    pub max_inbound: usize,
    /// Maximum number of connections that this host dialled; a dial beyond them fails. Default: 1024.
    pub max_outbound: usize,
    /// Maximum number of connections with one peer, in both directions; more are closed. Default: 8.
    pub max_per_peer: usize,
    /// Maximum number of connections that peers of one network dialled; more are refused. A network is an IPv4
    /// /24 or an IPv6 /48. A private host, or loopback, may have eight times as many. Default: 256.
    pub max_per_prefix: usize,
    /// Maximum number of handshakes of inbound dials under way; more are refused. Default: 256.
    pub max_handshakes: usize,
    /// Maximum number of handshakes of inbound dials under way from one network; more are refused. A private
    /// host, or loopback, may have eight times as many. Default: 16.
    pub max_handshakes_per_prefix: usize,
    /// Maximum number of dials under way; further dials wait. Default: 64.
    pub max_dials: usize,
    /// Maximum number of streams of one connection that the peer opened and a handler of the program holds; more
    /// are reset. Default: 256.
    pub max_streams: usize,
    /// Maximum number of peers whose addresses are remembered without a connection. Those that were seen least
    /// recently are forgotten. Default: 1024.
    pub max_known_peers: usize,
    /// Timeout of a dial to one address, and of an inbound handshake. Default: 10 s.
    pub handshake_timeout: Duration,
    /// Timeout of opening and negotiating a stream. Default: 10 s.
    pub stream_timeout: Duration,
    /// How long a dial over TCP waits while a dial of the same peer over QUIC is under way. Default: 250 ms.
    pub quic_head_start: Duration,
    /// Silence after which a connection over QUIC ends. A packet is sent after a third of it. Default: 15 s.
    pub idle_timeout: Duration,
    /// The agent that identify reports. Default: `p2p-libp2p/` and the version of this crate.
    pub agent: String,
    /// The version of the program's protocol family that identify reports. Default: `ipfs/0.1.0`.
    pub protocol_version: String,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            security: vec![Security::Noise, Security::Tls],
            muxers: vec![Muxer::Yamux],
            max_inbound: 1024,
            max_outbound: 1024,
            max_per_peer: 8,
            max_per_prefix: 256,
            max_handshakes: 256,
            max_handshakes_per_prefix: 16,
            max_dials: 64,
            max_streams: 256,
            max_known_peers: 1024,
            handshake_timeout: Duration::from_secs(10),
            stream_timeout: Duration::from_secs(10),
            quic_head_start: Duration::from_millis(250),
            idle_timeout: Duration::from_secs(15),
            agent: concat!("p2p-libp2p/", env!("CARGO_PKG_VERSION")).to_owned(),
            protocol_version: "ipfs/0.1.0".to_owned(),
        }
    }
}

impl HostConfig {
    pub(crate) fn check(&self) -> Result<()> {
        let invalid = |reason: &str| Err(Error::invalid("host configuration", reason));
        if self.max_dials == 0 {
            return invalid("max_dials is 0, so no dial could begin");
        }
        if self.agent.len() > 256 || self.protocol_version.len() > 256 {
            return invalid("the agent and the protocol version have at most 256 bytes each");
        }
        if self.idle_timeout < Duration::from_secs(1) {
            return invalid("idle_timeout is below one second");
        }
        Ok(())
    }
}
