//! Hosts for tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use p2p::{Error, Result};
use p2p_formats::x509::PrivateKey;
use p2p_libp2p::addr::{Place, Target};
use p2p_libp2p::{Host, HostAddr, HostConfig, HostEvent, Keypair, Muxer, Security};
use p2p_swarms::{MemoryAddr, MemoryRealm};

/// How two hosts are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Quic,
    Noise,
    Tls,
    /// TLS with mplex.
    Mplex,
}

pub(crate) const WAYS: [Way; 4] = [Way::Quic, Way::Noise, Way::Tls, Way::Mplex];

impl Way {
    pub(crate) fn place(self) -> &'static str {
        match self {
            Self::Quic => "/ip4/127.0.0.1/udp/0/quic-v1",
            Self::Noise | Self::Tls | Self::Mplex => "/ip4/127.0.0.1/tcp/0",
        }
    }

    pub(crate) fn security(self) -> Security {
        match self {
            Self::Quic | Self::Noise => Security::Noise,
            Self::Tls | Self::Mplex => Security::Tls,
        }
    }

    pub(crate) fn muxer(self) -> Muxer {
        match self {
            Self::Mplex => Muxer::Mplex,
            Self::Quic | Self::Noise | Self::Tls => Muxer::Yamux,
        }
    }
}

pub(crate) fn private(seed: u8) -> PrivateKey {
    PrivateKey::ed25519(&[seed; 32])
}

/// Returns the key of a node of many.
pub(crate) fn numbered_key(seed: u32) -> PrivateKey {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&seed.to_be_bytes());
    PrivateKey::ed25519(&bytes)
}

/// Starts a host that listens nowhere.
pub(crate) async fn dialling_host(seed: u8) -> Host {
    Host::builder(&private(seed)).start().await.expect("no port")
}

/// Numbers the hosts of a testbed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Numbers(Arc<AtomicU32>);

impl Numbers {
    pub(crate) fn next(&self) -> u32 {
        self.0.fetch_add(1, Relaxed)
    }

    /// Returns the number of the host with this address.
    pub(crate) fn of(&self, addr: &HostAddr) -> u32 {
        let is_it = |number: &u32| {
            let keypair = Keypair::new(&numbered_key(*number)).expect("an Ed25519 key");
            addr.libp2p_id() == Some(keypair.peer_id())
        };
        let mut numbers = 0..self.0.load(Relaxed);
        numbers.find(is_it).expect("a host of this testbed")
    }
}

/// Returns the address in memory of a host there.
pub(crate) fn memory_addr(addr: &HostAddr) -> Result<MemoryAddr> {
    match addr.transport() {
        Some(Place::Quic(Target::Swarm(at))) => at.parse(),
        _ => Err(Error::invalid("address", "it is not in the realm")),
    }
}

/// Starts a host that listens in one way.
pub(crate) async fn host(seed: u8, way: Way) -> Host {
    host_with(seed, way, HostConfig::default()).await
}

pub(crate) async fn host_with(seed: u8, way: Way, config: HostConfig) -> Host {
    let builder = Host::builder(&private(seed))
        .config(config)
        .security(&[way.security()])
        .muxers(&[way.muxer()]);
    let builder = builder.listen(way.place()).expect("a valid place");
    builder.start().await.expect("a free port")
}

/// Starts a host on a swarm in memory.
pub(crate) async fn in_memory(seed: u32, realm: &MemoryRealm, config: HostConfig) -> Host {
    let builder = Host::builder(&numbered_key(seed)).config(config);
    let builder = builder.over(realm.open()).expect("an MTU that is large enough");
    builder.start().await.expect("a host")
}

/// Starts a listener and a dialler.
pub(crate) async fn pair(way: Way) -> (Host, Host, HostAddr) {
    let (listener, dialler) = (host(1, way).await, host(2, way).await);
    let addr = listener.local_addrs().remove(0);
    (listener, dialler, addr)
}

/// Returns an address with the id of one node and the place of another.
pub(crate) fn forged(id: &HostAddr, place: &HostAddr) -> HostAddr {
    HostAddr::new(id.libp2p_id().expect("an id"), place.place().clone())
}

/// Waits for an event.
pub(crate) async fn until<T>(
    events: &mut p2p_libp2p::HostEvents,
    mut wanted: impl FnMut(HostEvent) -> Option<T>,
) -> T {
    let wait = async {
        loop {
            let event = events.next().await.expect("the host is open");
            if let Some(found) = wanted(event) {
                return found;
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), wait)
        .await
        .expect("the event occurs")
}
