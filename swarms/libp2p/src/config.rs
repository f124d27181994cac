//! The configuration of a host.

use std::time::Duration;

use p2p::{Error, Result};
use p2p_protocols::{connections, dial, peers};

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
    /// Maximum number of connections. A further one is refused, unless this host dialled it or its peer is protected: then
    /// the least useful inbound one that nothing needs is closed for it. Default: 1024.
    pub max_connections: usize,
    /// Maximum number of connections that peers dialled. At the limit, a network with fewer takes the place of the least
    /// useful connection that nothing needs of the network with the most, or the new one is refused. Default: 768.
    pub max_inbound: usize,
    /// Maximum number of connections with one peer, in both directions; more are closed. Default: 8.
    pub max_per_peer: usize,
    /// Maximum number of connections that peers of one network dialled; more are refused. A network is an IPv4
    /// /24 or an IPv6 /48. A private host, or loopback, may have eight times as many. Default: 64.
    pub max_per_prefix: usize,
    /// Number of connections above which some are closed, those of peers with the lowest tags and the fewest streams
    /// first, and never one of a protected peer. Default: 192.
    pub high_water: usize,
    /// Number of connections down to which they are closed. Default: 160.
    pub low_water: usize,
    /// Age below which a connection is not closed because of [`high_water`](Self::high_water). Default: 1 min.
    pub grace: Duration,
    /// Time after which a connection is closed that nothing needs; [`OpenReason`](crate::OpenReason) has what does.
    /// `Duration::MAX` leaves such connections open. Default: 10 s.
    pub unused_timeout: Duration,
    /// Maximum number of handshakes of inbound dials under way. At the limit, a network with fewer takes the place of the
    /// oldest one of the network with the most, or the new one is refused. Default: 256.
    pub max_handshakes: usize,
    /// Maximum number of handshakes of inbound dials under way from one network. At the limit, a new one takes the place of
    /// the oldest one if that has used a fifth of its time, or is refused. A private host, or loopback, may have eight
    /// times as many. Default: 32.
    pub max_handshakes_per_prefix: usize,
    /// Maximum number of addresses that are being dialled; further ones wait, and take the place of one that has used a
    /// fifth of its time. Default: 160.
    pub max_dials: usize,
    /// Maximum number of streams of one connection that the peer opened and a handler of the program holds; more
    /// are reset. Default: 256.
    pub max_streams: usize,
    /// Maximum number of peers that are remembered, with addresses, protocols and agent. At the limit, one is forgotten
    /// that has no connection and is not protected: first peers that never had one. Default: 4096.
    pub max_known_peers: usize,
    /// Maximum number of peers that the host keeps connected ([`Host::maintain`](crate::Host::maintain)). Default: 256.
    pub max_maintained: usize,
    /// Timeout of a dial to one address, and of an inbound handshake. At a private address, and at loopback, a dial takes
    /// at most 5 s. Default: 10 s.
    pub handshake_timeout: Duration,
    /// Timeout of opening and negotiating a stream. Default: 10 s.
    pub stream_timeout: Duration,
    /// How long a dial waits for the one to a better address of the same peer, and so the head start of QUIC over TCP.
    /// Among private addresses it is an eighth. Default: 250 ms.
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
            max_connections: 1024,
            max_inbound: 768,
            max_per_peer: 8,
            max_per_prefix: 64,
            high_water: 192,
            low_water: 160,
            grace: Duration::from_mins(1),
            unused_timeout: Duration::from_secs(10),
            max_handshakes: 256,
            max_handshakes_per_prefix: 32,
            max_dials: 160,
            max_streams: 256,
            max_known_peers: 4096,
            max_maintained: 256,
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
        if self.low_water > self.high_water {
            return invalid("low_water exceeds high_water");
        }
        if self.agent.len() > 256 || self.protocol_version.len() > 256 {
            return invalid("the agent and the protocol version have at most 256 bytes each");
        }
        if self.idle_timeout < Duration::from_secs(1) {
            return invalid("idle_timeout is below one second");
        }
        Ok(())
    }

    pub(crate) fn connections(&self) -> connections::Config {
        connections::Config {
            pending_inbound: self.max_handshakes,
            pending_per_prefix: self.max_handshakes_per_prefix,
            pending_outbound: self.max_dials,
            connections: self.max_connections,
            inbound: self.max_inbound,
            per_peer: self.max_per_peer,
            per_prefix: self.max_per_prefix,
            high_water: self.high_water,
            low_water: self.low_water,
            grace: self.grace,
            idle_timeout: self.unused_timeout,
            handshake_timeout: self.handshake_timeout,
            ..connections::Config::default()
        }
    }

    pub(crate) fn dials(&self) -> dial::Config {
        let defaults = dial::Config::default();
        dial::Config {
            attempts: self.max_dials,
            maintained: self.max_maintained,
            public_delay: self.quic_head_start,
            private_delay: self.quic_head_start / 8,
            public_timeout: self.handshake_timeout,
            private_timeout: defaults.private_timeout.min(self.handshake_timeout),
            ..defaults
        }
    }

    pub(crate) fn peers(&self) -> peers::Config {
        peers::Config {
            peers: self.max_known_peers,
            ..peers::Config::default()
        }
    }
}
