//! What the driver keeps for the engines goes with what it is for.

use std::time::Duration;

use p2p::{DropReason, Filter, Packet, Result};
use p2p_formats::x509::PrivateKey;
use p2p_swarms::{MemoryAddr, MemoryRealm, SwarmExt as _};
use tokio::time::{sleep, timeout};

use crate::{Host, HostAddr, HostConfig};

async fn host(seed: u8, realm: &MemoryRealm) -> Host {
    let config = HostConfig {
        max_per_peer: 2,
        ..HostConfig::default()
    };
    let builder = Host::builder(&PrivateKey::ed25519(&[seed; 32])).config(config);
    let builder = builder.over(realm.open()).expect("an MTU that is large enough");
    builder.start().await.expect("a host")
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_for_dials_and_connections_that_have_ended() {
    let realm = MemoryRealm::default();
    let (ours, theirs) = (host(1, &realm).await, host(2, &realm).await);
    let to = theirs.local_addrs().remove(0);
    let silent = realm.open();
    let dead: HostAddr = format!("/unix/{}/quic-v1", silent.local_addr())
        .parse()
        .expect("an address");

    // Dials that are cancelled, that nothing answers, and that another peer answers.
    let second = Duration::from_secs(1);
    timeout(second, ours.connect(&dead))
        .await
        .expect_err("it takes longer");
    assert_eq!(ours.core().engines.lock().connections.pending(), 0);
    ours.connect(&dead).await.expect_err("nothing answers");
    let other = HostAddr::new(host(3, &realm).await.peer_id(), to.place().clone());
    ours.connect(&other).await.expect_err("another peer answers");
    // Dials of a place and of a peer at the same time, and more connections than one peer may have.
    let place = HostAddr::from_multiaddr(to.place().clone());
    let (by_place, by_id) = tokio::join!(ours.connect(&place), ours.connect(&to));
    assert!(by_place.is_ok() && by_id.is_ok());
    for _ in 0..3 {
        ours.connect_anew(&to).await.expect_err("each host permits two");
    }
    // What is left is closed by this host, or because nothing needs it.
    drop(ours.pinger(&to).await.expect("a stream"));
    ours.disconnect(&to);
    ours.connect(&to).await.expect("room again");
    sleep(60 * second).await;

    for host in [&ours, &theirs] {
        let engines = host.core().engines.lock();
        assert!(engines.open.is_empty() && engines.connections.is_empty());
        assert!(engines.handshakes.is_empty() && engines.attempts.is_empty());
        assert!(engines.callers.is_empty() && engines.errors.is_empty() && engines.succeeded.is_empty());
        assert_eq!(
            (
                engines.connections.pending(),
                engines.dialer.attempts(),
                engines.dialer.peers()
            ),
            (0, 0, 0)
        );
    }
}

/// Receives nothing, like the forged source of a packet.
struct Deaf;

impl Filter<MemoryAddr> for Deaf {
    const LAYER: &'static str = "deaf";

    fn outgoing(&self, _: &MemoryAddr, _: &mut Packet) -> Result<()> {
        Ok(())
    }

    fn incoming(&self, _: &MemoryAddr, _: &mut Packet) -> Result<(), DropReason> {
        Err(DropReason::Denied)
    }
}

#[tokio::test(start_paused = true)]
async fn forged_sources_take_half_of_the_places_for_handshakes_at_most() {
    const PLACES: usize = 8;
    let realm = MemoryRealm::default();
    let config = HostConfig {
        max_handshakes: PLACES,
        ..HostConfig::default()
    };
    let builder = Host::builder(&PrivateKey::ed25519(&[1; 32])).config(config);
    let builder = builder.over(realm.open()).expect("an MTU that is large enough");
    let listener = builder.start().await.expect("a host");
    let to = listener.local_addrs().remove(0);
    let mut flood = tokio::task::JoinSet::new();
    for seed in 10..40 {
        let builder = Host::builder(&PrivateKey::ed25519(&[seed; 32]));
        let builder = builder
            .over(realm.open().filter(Deaf))
            .expect("an MTU that is large enough");
        let (forged, to) = (builder.start().await.expect("a host"), to.clone());
        flood.spawn(async move { forged.connect(&to).await });
    }
    sleep(Duration::from_secs(3)).await;
    // Sources beyond them were asked to prove their addresses.
    let pending = listener.core().engines.lock().connections.pending();
    assert_eq!(pending, PLACES / 2 + 1);
    let honest = host(2, &realm).await;
    honest.connect(&to).await.expect("it returns the token");
    flood.shutdown().await;
}
