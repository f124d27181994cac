//! Tests that access internals, or use a peer built on quinn directly.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use p2p::{Addr, Counters, DropReason, Swarm as _};
use p2p_formats::x509::{PrivateKey, sha3_256};
use quinn::{Connection, Endpoint, EndpointConfig, TokioRuntime};

use super::tls::{self, Check, Identity};
use super::{QuicConfig, QuicSwarm};
use crate::KeyAddr;

mod accepting;
mod bounds;
mod close;
mod crowds;
mod datagrams;
mod evictions;
mod floods;
mod impersonation;
mod incoming;
mod internet;
mod migration;
mod peers;
mod quotas;
mod refused;
mod sessions;
mod slow_messages;
mod turned_away;
mod validation;
mod wire;

fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn key(seed: u8) -> PrivateKey {
    PrivateKey::ed25519(&[seed; 32])
}

fn udp(seed: u8, config: QuicConfig) -> QuicSwarm<SocketAddr> {
    QuicSwarm::bind_udp_with(loopback(), &key(seed), config).expect("a free port")
}

fn nodes() -> [QuicSwarm<SocketAddr>; 2] {
    [1, 2].map(|seed| udp(seed, QuicConfig::default()))
}

fn addr<A: Addr>(swarm: &QuicSwarm<A>) -> KeyAddr<A> {
    swarm.local_addrs().remove(0)
}

fn dropped<A: Addr>(swarm: &QuicSwarm<A>, layer: &str, reason: DropReason) -> u64 {
    let mut count = 0;
    swarm.visit_counters(&mut |counters: &Counters| {
        if counters.layer() == layer {
            count += counters.snapshot().dropped(reason);
        }
    });
    count
}

/// Returns the counters of a node for failure messages.
fn counted<A: Addr>(swarm: &QuicSwarm<A>) -> String {
    let sessions = swarm.node.sessions().list(|_| true);
    let busy = sessions.iter().filter(|session| session.is_busy()).count();
    let fresh = sessions.iter().filter(|session| session.is_fresh()).count();
    let mut all = format!("{} sessions, {busy} busy, {fresh} fresh", sessions.len());
    swarm.visit_counters(&mut |counters: &Counters| {
        // Writing to a string does not fail.
        let _ = write!(all, "; {counters:?}");
    });
    all
}

/// A peer that is not a swarm: a quinn endpoint with this crate's certificates.
struct Raw(Endpoint);

impl Raw {
    fn new(seed: u8) -> Self {
        Self::with(seed, quinn::TransportConfig::default())
    }

    fn with(seed: u8, transport: quinn::TransportConfig) -> Self {
        let config = Arc::new(QuicConfig::default());
        let identity = Identity::new(&key(seed), &config).expect("a good key");
        let check = || Check::any(config.clone());
        let (crypto, transport) = (Arc::new(tls::crypto()), Arc::new(transport));
        let server = tls::server(&identity, check(), crypto.clone()).expect("a configuration");
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(server));
        server.transport_config(transport.clone());
        let socket = std::net::UdpSocket::bind(loopback()).expect("a free port");
        let runtime = Arc::new(TokioRuntime);
        let mut endpoint =
            Endpoint::new(EndpointConfig::default(), Some(server), socket, runtime).expect("an endpoint");
        let client = tls::client(&identity, check(), crypto).expect("a configuration");
        let mut client = quinn::ClientConfig::new(Arc::new(client));
        client.transport_config(transport);
        endpoint.set_default_client_config(client);
        Self(endpoint)
    }

    fn addr(&self, seed: u8) -> KeyAddr<SocketAddr> {
        let signer = QuicConfig::default()
            .registry
            .signer(&key(seed))
            .expect("a good key");
        KeyAddr::new(sha3_256(signer.public_key()), self.0.local_addr().expect("bound"))
    }

    async fn dial(&self, swarm: &QuicSwarm<SocketAddr>) -> Connection {
        let connecting = self.0.connect(addr(swarm).addr, "whatever").expect("it dials");
        connecting.await.expect("a connection")
    }

    async fn accept(&self) -> Connection {
        self.0.accept().await.expect("open").await.expect("a connection")
    }
}

/// Waits until `is` returns true, for a few seconds at most.
async fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let wait = async {
        while !is() {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), wait).await;
    assert!(waited.is_ok(), "{what}");
}
