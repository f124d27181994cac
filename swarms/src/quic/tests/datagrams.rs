//! Lengths of datagrams.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use p2p::{Addr, DropReason, Filter, FilterSwarm, Packet, Result, Swarm as _};
use tokio::time::{Instant, timeout};

use super::{Raw, addr, key, nodes, udp};
use crate::faulty::FaultyConfig;
use crate::quic::{MAX_UDP_DATAGRAM, QuicConfig, QuicSwarm};
use crate::{Faults, LinkFaults, MemoryRealm, SwarmExt as _};

/// MTU discovery ends this close to the maximum.
const CLOSE: u16 = 64;

#[tokio::test]
async fn datagrams_on_loopback_become_as_long_as_permitted() {
    let [a, b] = nodes();
    let to = addr(&b);
    let mtu = || {
        let sessions = a.node.sessions().list(|_| true);
        let mtus = sessions
            .iter()
            .map(|session| session.connection.stats().path.current_mtu);
        mtus.max().unwrap_or_default()
    };
    // Messages go on, since probes are found lost or not by what is acknowledged after them.
    let told = async {
        while mtu() + CLOSE < MAX_UDP_DATAGRAM {
            a.tell(&to, a.packet(&[7; 10_000])).await.expect("room");
            assert_eq!(b.receive().await.expect("open").payload.len(), 10_000);
        }
    };
    let ended = timeout(Duration::from_secs(20), told).await;
    assert!(ended.is_ok(), "datagrams have {} bytes", mtu());
}

/// Drops the first datagrams that arrive, and records the longest that leaves.
struct Below {
    drops: AtomicU32,
    longest: Arc<AtomicUsize>,
}

impl<A: Addr> Filter<A> for Below {
    const LAYER: &'static str = "below";

    fn outgoing(&self, _: &A, packet: &mut Packet) -> Result<()> {
        self.longest.fetch_max(packet.len(), Relaxed);
        Ok(())
    }

    fn incoming(&self, _: &A, _: &mut Packet) -> Result<(), DropReason> {
        let dropped = self
            .drops
            .fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
        dropped.map_or(Ok(()), |_| Err(DropReason::Lost))
    }
}

/// A client whose handshake keeps the initial window full would wait for its second probe timeout, which is 2 s
/// after the first.
#[tokio::test(start_paused = true)]
async fn a_handshake_on_a_swarm_with_long_datagrams_outlasts_the_loss_of_its_first_datagrams() {
    let link = LinkFaults {
        delay: Duration::from_millis(20),
        ..LinkFaults::default()
    };
    let config = FaultyConfig {
        link,
        ..FaultyConfig::default()
    };
    let faults = Faults::new(config).expect("in range");
    for drops in 0..4 {
        let realm = MemoryRealm::default();
        let b = QuicSwarm::new(realm.open().faulty(faults.clone()), &key(2)).expect("a node");
        let longest = Arc::new(AtomicUsize::new(0));
        let below = Below {
            drops: AtomicU32::new(drops),
            longest: longest.clone(),
        };
        let inner = FilterSwarm::new(realm.open().faulty(faults.clone()), below);
        let a = QuicSwarm::new(inner, &key(1)).expect("a node");
        let since = Instant::now();
        a.tell(&addr(&b), a.packet(b"one")).await.expect("room");
        b.receive().await.expect("open");
        assert!(
            since.elapsed() < Duration::from_secs(1),
            "{drops}: {:?}",
            since.elapsed()
        );
        let longest = longest.load(Relaxed);
        assert!(longest < 2_000, "{drops}: a datagram of {longest} bytes");
    }
}

#[tokio::test]
async fn peers_may_send_no_unreliable_datagrams_which_would_wait_without_a_reader() {
    let swarm = udp(1, QuicConfig::default());
    let (dialling, dialled) = (Raw::new(2), Raw::new(3));
    let inbound = dialling.dial(&swarm).await;
    let to = dialled.addr(3);
    let (told, outbound) = tokio::join!(swarm.tell(&to, Packet::from(b"hello")), dialled.accept());
    told.expect("a session");
    for connection in [inbound, outbound] {
        assert_eq!(connection.max_datagram_size(), None);
    }
}
