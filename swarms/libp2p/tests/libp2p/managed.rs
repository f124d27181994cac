//! What the connection manager and the dialer decide for hosts, in memory and in virtual time.

use std::time::Duration;

use p2p::{Error, Swarm as _};
use p2p_libp2p::ping::PING;
use p2p_libp2p::{
    CloseReason, Host, HostAddr, HostConfig, HostEvent, HostEvents, HostSwarmConfig, OpenReason,
};
use p2p_swarms::MemoryRealm;
use tokio::time::{Instant, sleep};

use crate::nodes::{in_memory, until};

const SECOND: Duration = Duration::from_secs(1);

fn addr(host: &Host) -> HostAddr {
    host.local_addrs().remove(0)
}

/// A configuration of hosts that close no connection because nothing needs it.
fn patient() -> HostConfig {
    HostConfig {
        unused_timeout: Duration::MAX,
        ..HostConfig::default()
    }
}

/// Waits for the end of a connection.
async fn ended(events: &mut HostEvents) -> (HostAddr, CloseReason, Box<str>) {
    until(events, |event| match event {
        HostEvent::Disconnected {
            connection,
            reason,
            detail,
            ..
        } => Some((connection.peer, reason, detail)),
        _ => None,
    })
    .await
}

/// Waits until a peer has identified itself.
async fn identified(events: &mut HostEvents) {
    until(events, |event| {
        matches!(event, HostEvent::Identified { .. }).then_some(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn trimming_closes_down_to_the_low_mark_and_never_a_protected_peer() {
    let realm = MemoryRealm::default();
    let config = HostConfig {
        high_water: 8,
        low_water: 4,
        grace: 5 * SECOND,
        ..patient()
    };
    let listener = in_memory(0, &realm, config).await;
    let mut events = listener.events();
    let (mut hosts, mut kept) = (Vec::new(), Vec::new());
    for seed in 1..=10 {
        let host = in_memory(seed, &realm, patient()).await;
        let peer = HostAddr::of_peer(host.peer_id());
        match seed {
            1..=3 => listener.protect(&peer, "friend").expect("room"),
            4 => listener.tag(&peer, "useful", 5).expect("room"),
            _ => {}
        }
        if seed <= 4 {
            kept.push(peer);
        }
        host.connect(&addr(&listener)).await.expect("room");
        hosts.push(host);
    }
    // All are younger than the grace period.
    assert_eq!(listener.connections().len(), 10);
    for _ in 0..6 {
        let (peer, reason, _) = ended(&mut events).await;
        assert!(!kept.contains(&peer), "{peer} was closed");
        assert_eq!(reason, CloseReason::Trimmed);
    }
    let peers: Vec<_> = listener.connections().into_iter().map(|info| info.peer).collect();
    assert_eq!(peers, kept);

    // Protected peers beyond the high mark stay, and nothing else does.
    for host in &hosts {
        listener
            .protect(&HostAddr::of_peer(host.peer_id()), "friend")
            .expect("room");
        host.connect(&addr(&listener)).await.expect("room");
    }
    sleep(60 * SECOND).await;
    assert_eq!(listener.connections().len(), 10);
    let peer = HostAddr::of_peer(hosts[9].peer_id());
    assert!(!listener.unprotect(&peer, "friend"));
    assert_eq!(
        ended(&mut events).await,
        (
            peer,
            CloseReason::Trimmed,
            "too many connections were open".into()
        )
    );
}

#[tokio::test(start_paused = true)]
async fn a_connection_stays_while_anything_needs_it_and_says_what() {
    let realm = MemoryRealm::default();
    let listener = in_memory(0, &realm, patient()).await;
    let dialler = in_memory(1, &realm, HostConfig::default()).await;
    let mut events = dialler.events();
    let pinger = dialler.pinger(&addr(&listener)).await.expect("a stream");
    identified(&mut events).await;
    // Identify has ended, and the ping is open.
    sleep(SECOND).await;
    let reasons = |host: &Host| -> Vec<String> {
        let connections = host.connections();
        assert_eq!(connections.len(), 1, "{connections:?}");
        connections[0].reasons.iter().map(ToString::to_string).collect()
    };
    let info = dialler.connections().remove(0);
    assert_eq!((info.streams, info.is_dialled), (1, true));
    assert!((SECOND..2 * SECOND).contains(&info.age), "{:?}", info.age);
    assert_eq!(reasons(&dialler), ["1 stream", "young: 59 s"]);
    sleep(60 * SECOND).await;
    assert_eq!(reasons(&dialler), ["1 stream"]);

    let peer = HostAddr::of_peer(listener.peer_id());
    dialler.tag(&peer, "useful", 3).expect("room");
    dialler.protect(&peer, "friend").expect("room");
    dialler.keep_alive(info.id, "game").expect("room");
    drop(pinger);
    assert_eq!(
        reasons(&dialler),
        ["protected: friend", "tags: 3", "kept by game"]
    );
    sleep(60 * SECOND).await;
    assert!(!dialler.unprotect(&peer, "friend"));
    sleep(60 * SECOND).await;
    assert!(dialler.untag(&peer, "useful"));
    sleep(60 * SECOND).await;
    dialler.release(info.id, "game");
    let [OpenReason::Unused { left }] = dialler.connections()[0].reasons[..] else {
        panic!("{:?}", dialler.connections());
    };
    assert_eq!(left, 10 * SECOND);
    let (began, (of, reason, _)) = (Instant::now(), ended(&mut events).await);
    assert_eq!((of, reason), (peer, CloseReason::Idle));
    assert!((left..left + SECOND).contains(&began.elapsed()));
    // The other end learns of it.
    sleep(SECOND).await;
    assert!(listener.connections().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_swarm_keeps_the_connections_that_it_uses_until_it_closes() {
    let realm = MemoryRealm::default();
    let (ours, theirs) = (
        in_memory(0, &realm, HostConfig::default()).await,
        in_memory(1, &realm, HostConfig::default()).await,
    );
    let swarm = |host: &Host| host.swarm("/news/1.0.0", HostSwarmConfig::default());
    let (sender, receiver) = (
        swarm(&ours).expect("a free id"),
        swarm(&theirs).expect("a free id"),
    );
    let to = receiver.local_addr().expect("an address");
    sender.tell(&to, "hello".into()).await.expect("it leaves");
    receiver.receive().await.expect("a message");
    sleep(120 * SECOND).await;
    assert_eq!((ours.connections().len(), theirs.connections().len()), (1, 1));
    assert!(
        ours.connections()[0]
            .reasons
            .contains(&OpenReason::KeepAlive("/news/1.0.0".into()))
    );
    let mut events = ours.events();
    receiver.close().await;
    sender.close().await;
    assert_eq!(ended(&mut events).await.1, CloseReason::Idle);
}

#[tokio::test(start_paused = true)]
async fn an_end_has_the_reason_at_both_hosts() {
    let realm = MemoryRealm::default();
    let (ours, theirs) = (
        in_memory(0, &realm, patient()).await,
        in_memory(1, &realm, patient()).await,
    );
    let (mut events, mut other) = (ours.events(), theirs.events());
    let peer = ours.connect(&addr(&theirs)).await.expect("a connection");
    identified(&mut other).await;
    assert_eq!(ours.disconnect(&peer), 1);
    assert_eq!(ended(&mut events).await.1, CloseReason::Local);
    let (_, reason, detail) = ended(&mut other).await;
    assert_eq!(reason, CloseReason::Remote);
    assert!(
        detail.contains("closed by peer"),
        "the transport says more: {detail}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_peer_beyond_its_share_is_refused_and_others_are_served() {
    let realm = MemoryRealm::default();
    let config = HostConfig {
        max_per_peer: 3,
        ..patient()
    };
    let listener = in_memory(0, &realm, config).await;
    let greedy = in_memory(1, &realm, patient()).await;
    let mut events = greedy.events();
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(greedy.connect_anew(&addr(&listener)).await.expect("a handshake"));
    }
    ids.dedup();
    assert_eq!(ids.len(), 6, "each is a connection of its own");
    for _ in 0..3 {
        assert_eq!(ended(&mut events).await.1, CloseReason::Remote);
    }
    assert_eq!((listener.connections().len(), greedy.connections().len()), (3, 3));
    let honest = in_memory(2, &realm, patient()).await;
    let mut pinger = honest.pinger(&addr(&listener)).await.expect("a stream");
    pinger.ping().await.expect("an answer");
}

#[tokio::test(start_paused = true)]
async fn simultaneous_dials_leave_two_connections_and_each_host_uses_the_older_one() {
    let realm = MemoryRealm::default();
    let (ours, theirs) = (
        in_memory(0, &realm, patient()).await,
        in_memory(1, &realm, patient()).await,
    );
    let (to_theirs, to_ours) = (addr(&theirs), addr(&ours));
    let (dialled, other) = tokio::join!(ours.connect(&to_theirs), theirs.connect(&to_ours));
    dialled.expect("a connection");
    other.expect("a connection");
    sleep(SECOND).await;
    for (host, peer) in [(&ours, &theirs), (&theirs, &ours)] {
        assert_eq!(host.connections().len(), 2);
        let to = HostAddr::of_peer(peer.peer_id());
        let _stream = host.open(&to, &[PING]).await.expect("a stream");
        let streams: Vec<_> = host.connections().iter().map(|info| info.streams).collect();
        assert_eq!(streams, [1, 0], "the older one is used");
    }
}

#[tokio::test(start_paused = true)]
async fn a_maintained_peer_is_connected_again_after_longer_and_longer_pauses() {
    let realm = MemoryRealm::default();
    let (ours, theirs) = (
        in_memory(0, &realm, HostConfig::default()).await,
        in_memory(1, &realm, patient()).await,
    );
    let mut events = ours.events();
    ours.maintain(&addr(&theirs)).expect("room");
    let connected = |event| match event {
        HostEvent::Connected(info) => Some(info.peer),
        _ => None,
    };
    let peer = until(&mut events, connected).await;
    // Nothing else needs it.
    sleep(30 * SECOND).await;
    assert_eq!(ours.connections().len(), 1);
    for pause in [5, 10] {
        theirs.disconnect(&HostAddr::of_peer(ours.peer_id()));
        ended(&mut events).await;
        let began = Instant::now();
        until(&mut events, connected).await;
        let (took, pause) = (began.elapsed(), pause * SECOND);
        assert!(
            (pause * 4 / 5..=pause * 6 / 5 + SECOND).contains(&took),
            "{took:?} instead of {pause:?}"
        );
    }
    ours.stop_maintaining(&peer);
    assert_eq!(ended(&mut events).await.1, CloseReason::Idle);
    sleep(600 * SECOND).await;
    assert!(ours.connections().is_empty());

    let none = HostAddr::from_multiaddr(addr(&theirs).place().clone());
    assert!(matches!(ours.maintain(&none), Err(Error::Invalid { .. })));
}
