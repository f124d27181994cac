//! What hosts remember of peers: addresses that expire, what identify says, and the file that keeps them.

use std::path::PathBuf;
use std::time::Duration;

use p2p::Error;
use p2p_formats::x509::PrivateKey;
use p2p_libp2p::ping::PING;
use p2p_libp2p::{Host, HostAddr, HostConfig, HostEvent, Keypair, Multiaddr, Source};
use p2p_swarms::MemoryRealm;
use tokio::time::{Instant, sleep};

use crate::nodes::{Way, host, in_memory, private, until};

const SECOND: Duration = Duration::from_secs(1);

/// A file that the test removes.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("p2p-libp2p-{}-{name}", std::process::id()));
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_expired_address_is_not_dialled() {
    let realm = MemoryRealm::default();
    let (ours, theirs) = (
        in_memory(0, &realm, HostConfig::default()).await,
        in_memory(1, &realm, HostConfig::default()).await,
    );
    let (to, place) = (
        HostAddr::of_peer(theirs.peer_id()),
        theirs.local_addrs()[0].place().clone(),
    );
    assert_eq!(
        ours.add_addrs_from(theirs.peer_id(), [place.clone()], Source::Temporary),
        1
    );
    let known = ours.peer(&theirs.peer_id()).expect("it is known");
    assert_eq!(known.addrs, [(place.clone(), Some(120 * SECOND))]);
    sleep(121 * SECOND).await;
    assert!(
        ours.peer(&theirs.peer_id())
            .is_none_or(|known| known.addrs.is_empty())
    );
    let error = ours.connect(&to).await.expect_err("no address");
    assert!(error.to_string().contains("no place"), "{error}");

    ours.add_addrs_from(theirs.peer_id(), [place.clone()], Source::Temporary);
    ours.connect(&to).await.expect("an address");
    // The address of a connection is kept while it lasts, and then for 15 minutes.
    let known = ours.peer(&theirs.peer_id()).expect("it is known");
    assert_eq!((known.addrs, known.connections), (vec![(place, None)], 1));
    sleep(800 * SECOND).await;
    assert!(ours.connections().is_empty());
    ours.connect(&to).await.expect("an address");
    sleep(920 * SECOND).await;
    let error = ours.connect(&to).await.expect_err("no address");
    assert!(error.to_string().contains("no place"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_a_peer_says_of_itself_is_remembered_and_more_than_it_may_name_is_not() {
    let realm = MemoryRealm::default();
    let (ours, theirs) = (
        in_memory(0, &realm, HostConfig::default()).await,
        in_memory(1, &realm, HostConfig::default()).await,
    );
    let mut events = ours.events();
    theirs
        .connect(&ours.local_addrs()[0])
        .await
        .expect("a connection");
    until(&mut events, |event| {
        matches!(event, HostEvent::Identified { .. }).then_some(())
    })
    .await;
    let known = ours.peer(&theirs.peer_id()).expect("it is known");
    assert_eq!(known.addrs, [(theirs.local_addrs()[0].place().clone(), None)]);
    assert_eq!(known.key.as_ref(), Some(theirs.public_key()));
    assert!(known.protocols.iter().any(|id| id == PING));
    assert!(known.agent.is_some_and(|agent| agent.starts_with("p2p-libp2p/")));
    assert!(known.record_seq.is_some());
    assert_eq!(ours.peers(), [theirs.peer_id()]);
    // An address that names another peer is not one of this peer.
    let other: Multiaddr = format!("/ip4/192.0.2.1/tcp/1/p2p/{}", ours.peer_id())
        .parse()
        .expect("a multiaddr");
    assert_eq!(ours.add_addrs(theirs.peer_id(), [other, Multiaddr::empty()]), 0);
}

#[tokio::test]
async fn an_address_at_which_another_peer_answers_is_forgotten() {
    for way in [Way::Quic, Way::Noise, Way::Tls] {
        let (ours, theirs, other) = (host(1, way).await, host(2, way).await, host(3, way).await);
        let place = theirs.local_addrs()[0].place().clone();
        ours.add_addrs(other.peer_id(), [place]);
        let wrong = HostAddr::of_peer(other.peer_id());
        let error = ours.connect(&wrong).await.expect_err("another peer");
        assert!(matches!(error, Error::Unreachable { .. }), "{way:?}: {error}");
        assert!(
            ours.peer(&other.peer_id())
                .is_none_or(|known| known.addrs.is_empty()),
            "{way:?}"
        );
        assert!(ours.connections().is_empty());
    }
}

#[tokio::test]
async fn the_addresses_of_a_name_are_tried_in_turn() {
    let (ours, theirs) = (host(1, Way::Noise).await, host(2, Way::Noise).await);
    let port = p2p::Addr::socket_addr(&theirs.local_addrs()[0])
        .expect("a socket address")
        .port();
    // Where the name has two addresses, the host listens at one of them.
    let place: Multiaddr = format!("/dns/localhost/tcp/{port}").parse().expect("a multiaddr");
    let to = HostAddr::new(theirs.peer_id(), place.clone());
    ours.connect(&to).await.expect("a connection");
    ours.disconnect(&to);

    // What only a peer may have named leads into no network of this host.
    let other = host(3, Way::Noise).await;
    other.add_addrs_from(theirs.peer_id(), [place.clone()], Source::Learnt);
    let by_id = HostAddr::of_peer(theirs.peer_id());
    other.connect(&by_id).await.expect_err("a name of this machine");
    other.add_addrs(theirs.peer_id(), [place]);
    other.connect(&by_id).await.expect("the program chose it");
}

/// Starts a host in memory that keeps its peers in a file.
async fn saving(realm: &MemoryRealm, file: &Scratch) -> p2p::Result<Host> {
    let builder = Host::builder(&PrivateKey::ed25519(&[9; 32])).peer_store(&file.0);
    builder.over(realm.open())?.start().await
}

#[tokio::test]
async fn known_peers_outlast_a_restart_and_the_file_is_private() {
    let (realm, file) = (MemoryRealm::default(), Scratch::new("restart"));
    let theirs = in_memory(1, &realm, HostConfig::default()).await;
    let ours = saving(&realm, &file).await.expect("no file yet");
    let mut events = ours.events();
    ours.connect(&theirs.local_addrs()[0])
        .await
        .expect("a connection");
    until(&mut events, |event| {
        matches!(event, HostEvent::Identified { .. }).then_some(())
    })
    .await;
    ours.close().await;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(&file.0).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    let again = saving(&realm, &file).await.expect("a valid file");
    let known = again.peer(&theirs.peer_id()).expect("it is known");
    assert!(known.protocols.iter().any(|id| id == PING));
    let left = known.addrs[0].1.expect("it expires");
    assert!(
        left > Duration::from_mins(14) && left <= Duration::from_mins(15),
        "{left:?}"
    );
    let began = Instant::now();
    again
        .connect(&HostAddr::of_peer(theirs.peer_id()))
        .await
        .unwrap_or_else(|error| panic!("after {:?}: {error}", began.elapsed()));
    again.close().await;
}

#[tokio::test(start_paused = true)]
async fn the_file_is_written_only_after_a_change() {
    let (realm, file) = (MemoryRealm::default(), Scratch::new("unchanged"));
    let peer = Keypair::new(&private(1)).expect("a key").peer_id();
    let place: Multiaddr = "/ip4/192.0.2.1/tcp/1".parse().expect("a multiaddr");
    let mut ours = saving(&realm, &file).await.expect("no file yet");
    for is_new in [true, false] {
        let mut writes = 0;
        for minute in 0..10 {
            if minute % 4 == 3 {
                ours.add_addrs_from(peer, [place.clone()], Source::Learnt);
            }
            sleep(61 * SECOND).await;
            // What was written is taken away, so that it is seen whether it is written again.
            writes += u32::from(std::fs::remove_file(&file.0).is_ok());
        }
        // A new store once, and each after two changes.
        assert_eq!(writes, 2 + u32::from(is_new));
        ours.add_addrs_from(peer, [place.clone()], Source::Learnt);
        ours.close().await;
        assert!(file.0.exists(), "the last change is written when the host closes");
        ours = saving(&realm, &file).await.expect("a valid file");
        assert_eq!(ours.peers(), [peer]);
        std::fs::remove_file(&file.0).expect("it is there");
    }
}

#[tokio::test]
async fn a_file_that_is_no_peer_store_is_refused_and_stays() {
    let (realm, file) = (MemoryRealm::default(), Scratch::new("garbage"));
    std::fs::write(&file.0, b"hello").expect("a writable folder");
    let error = saving(&realm, &file).await.expect_err("no peer store");
    assert!(
        matches!(
            error,
            Error::Invalid {
                what: "peer store",
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(std::fs::read(&file.0).expect("it is there"), b"hello");
}
