//! Hostile peers of a gossip node: what they do costs bounded memory, is counted, and delays no other peer.

use std::time::Duration;

use p2p::{DropReason, Swarm as _};
use p2p_libp2p::HostGossipConfig;
use p2p_swarms::gossipsub::Refused;
use tokio::io::AsyncReadExt as _;
use tokio::time::{sleep, timeout};

use crate::gossip::publish;
use crate::gossip_scene::{PROTOCOL, Scene, framed, open, subscriptions, until_reset, write};

/// A time in which everything that can happen has happened.
const SETTLED: Duration = Duration::from_secs(5);

#[tokio::test(start_paused = true)]
async fn half_a_length_and_half_an_rpc_delay_no_other() {
    let mut scene = Scene::new().await;
    let mut half_a_length = scene.subscribe().await;
    write(&mut half_a_length, &[0x80]).await;
    scene.serves_the_honest().await;
    // Another stream of the peer takes the place of the first.
    let mut half_an_rpc = scene.open().await;
    write(&mut half_an_rpc, &framed(&vec![0; 100_000])[..50_000]).await;
    until_reset(&mut half_a_length).await;
    scene.serves_the_honest().await;
    assert_eq!(scene.counted().dropped_total(), 0);
    until_reset(&mut half_an_rpc).await;
    assert_eq!(scene.counted().dropped(DropReason::Expired), 1);
    assert_eq!(scene.node.peers().len(), 2, "its other stream is open");
}

#[tokio::test(start_paused = true)]
async fn lengths_that_are_endless_too_long_or_not_in_their_shortest_form_reset_the_stream_and_cost_score() {
    for (length, reason) in [
        (&[0xff; 64][..], DropReason::Malformed),
        (&[0x81, 0x00, 7], DropReason::Malformed),
        (&[0x80, 0x00, 7], DropReason::Malformed),
        (&[0x81, 0x80, 0x40], DropReason::Oversize), // 1 MiB + 1
        (
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
            DropReason::Oversize,
        ),
    ] {
        let mut scene = Scene::new().await;
        let mut stream = scene.subscribe().await;
        scene.refused().await;
        write(&mut stream, length).await;
        until_reset(&mut stream).await;
        assert_eq!(scene.counted().dropped(reason), 1, "{length:x?}");
        let refused = scene.refused().await;
        assert!(
            matches!(refused[..], [Refused::Wire(_)]),
            "{length:x?}: {refused:?}"
        );
        assert_eq!(scene.node.counts().malformed, 1);
        scene.serves_the_honest().await;
    }
}

#[tokio::test(start_paused = true)]
async fn rpcs_beyond_a_limit_are_refused_whole_and_cost_score() {
    for rpc in [
        &subscriptions(1025)[..],
        &[0x12, 0x00].repeat(4097), // messages
        &[0x0a, 0x7f],              // shorter than it says
        b"not protobuf",
    ] {
        let mut scene = Scene::new().await;
        let mut stream = scene.subscribe().await;
        scene.refused().await;
        write(&mut stream, &framed(rpc)).await;
        sleep(SETTLED).await;
        assert_eq!(scene.refused().await.len(), 1);
        assert_eq!(scene.node.counts().malformed, 1);
        assert_eq!(scene.node.subscribers("1").len(), 0);
        // The stream goes on.
        write(&mut stream, &framed(&[])).await;
        write(&mut stream, &framed(&subscriptions(2))).await;
        sleep(SETTLED).await;
        assert_eq!(scene.node.subscribers("1").len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_goes_on_with_invalid_rpcs_is_ignored() {
    let mut scene = Scene::new().await;
    let mut stream = scene.subscribe().await;
    for _ in 0..20 {
        write(&mut stream, &framed(b"not protobuf")).await;
    }
    sleep(SETTLED).await;
    let graylisted = scene.node.counts().graylisted;
    assert!(graylisted > 0 && scene.node.score(&scene.attacker()) < 0.0);
    scene.serves_the_honest().await;
}

#[tokio::test(start_paused = true)]
async fn streams_that_are_opened_and_reset_in_a_loop_are_refused_beyond_a_rate() {
    const STREAMS: u64 = 500;
    let mut scene = Scene::new().await;
    let _stream = scene.subscribe().await;
    let sent = scene.counted().sent;
    for number in 0..STREAMS {
        // Its reset may come before the answer to the negotiation.
        let Ok(mut stream) = scene.attacker.open(&scene.to, &[PROTOCOL]).await else {
            continue;
        };
        if number % 2 == 0 {
            write(&mut stream, &[0x80]).await;
        }
        drop(stream);
    }
    sleep(Duration::from_millis(100)).await;
    let counted = scene.counted();
    let refused = counted.dropped(DropReason::Denied);
    assert!(refused >= STREAMS - 16, "{refused}");
    // What the node says again for each stream that it takes is bounded with them.
    assert!(counted.sent - sent <= 3 * 16, "{}", counted.sent - sent);
    scene.serves_the_honest().await;
    sleep(Duration::from_mins(1)).await;
    let mut stream = scene.open().await;
    write(&mut stream, &framed(&subscriptions(2))).await;
    sleep(SETTLED).await;
    assert_eq!(scene.node.subscribers("1").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_reads_costs_bounded_memory_and_leaves_in_the_end() {
    let mut scene = Scene::new().await;
    let _stream = scene.subscribe().await;
    let data = vec![7; 60_000];
    let mut most = 0;
    for number in 0..1000_u32 {
        let mut data = data.clone();
        data[..4].copy_from_slice(&number.to_be_bytes());
        publish(&scene.node, &data).await;
        let received = timeout(Duration::from_secs(2), scene.honest.receive()).await;
        assert_eq!(
            received.expect("no delay").expect("an open node").payload,
            data[..]
        );
        most = most.max(scene.node.kept().expect("an open node").queued_bytes);
    }
    assert!((1 << 20..=4 << 20).contains(&most), "{most}");
    assert!(scene.node.counts().messages_dropped > 500);
    // Its stream is lost and opened again, until the node gives it up.
    let given_up = async {
        while scene.node.peers().len() > 1 {
            publish(&scene.node, &data).await;
            sleep(Duration::from_millis(50)).await;
        }
    };
    let given_up = timeout(Duration::from_mins(10), given_up).await;
    given_up.expect("it leaves");
    assert_eq!(scene.streams.len(), 6, "one stream, and five times another");
    while timeout(SETTLED, scene.honest.receive()).await.is_ok() {}
    scene.serves_the_honest().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_the_peer_resets_is_opened_again_and_given_up_in_the_end() {
    let mut scene = Scene::new().await;
    let _stream = scene.subscribe().await;
    let mut opened = 0;
    while scene.node.peers().len() > 1 {
        while let Ok(stream) = scene.streams.try_recv() {
            opened += 1;
            drop(stream);
        }
        assert!(opened < 100, "it is given up");
        publish(
            &scene.node,
            format!("{opened} {:?}", scene.node.counts().published).as_bytes(),
        )
        .await;
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(opened, 6, "once, and five times again");
    while timeout(SETTLED, scene.honest.receive()).await.is_ok() {}
    scene.serves_the_honest().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_whose_stream_was_lost_hears_the_subscriptions_again() {
    let mut scene = Scene::new().await;
    let _stream = scene.subscribe().await;
    let first = scene.streams.recv().await.expect("the node opens a stream");
    drop(first);
    publish(&scene.node, b"it notices").await;
    let mut again = scene.streams.recv().await.expect("the node opens another stream");
    let length = again.read_u8().await.expect("a length");
    let mut rpc = vec![0; usize::from(length)];
    again.read_exact(&mut rpc).await.expect("an RPC");
    assert_eq!(rpc, subscriptions(1));
}

#[tokio::test(start_paused = true)]
async fn rpcs_that_arrive_in_part_are_bounded_in_total() {
    let mut config = HostGossipConfig {
        reassembly: 200_000,
        ..HostGossipConfig::default()
    };
    config.gossip.engine.limits.rpc = 100_000;
    let mut scene = Scene::with(config).await;
    let mut first = scene.subscribe().await;
    write(&mut first, &framed(&vec![0; 90_000])[..80_000]).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(scene.counted().dropped_total(), 0);
    let other = scene.attacker_of(4).await;
    let mut second = open(&other, &scene.to).await;
    write(&mut second, &framed(&vec![0; 90_000])[..80_000]).await;
    until_reset(&mut second).await;
    assert_eq!(scene.counted().dropped(DropReason::Budget), 1);
    scene.serves_the_honest().await;
    drop(first);
    sleep(Duration::from_secs(1)).await;
    let mut third = open(&other, &scene.to).await;
    write(&mut third, &framed(&vec![0; 90_000])[..80_000]).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(scene.counted().dropped(DropReason::Budget), 1);
}

#[tokio::test(start_paused = true)]
async fn a_router_that_is_busy_stops_reading_and_loses_nothing() {
    let config = HostGossipConfig {
        rpcs: 1,
        ..HostGossipConfig::default()
    };
    let scene = Scene::with(config).await;
    for number in 0..500_u32 {
        publish(&scene.honest, &number.to_be_bytes()).await;
    }
    for number in 0..500_u32 {
        let received = timeout(SETTLED, scene.node.receive()).await;
        let message = received.expect("it arrives").expect("an open node");
        assert_eq!(message.payload, number.to_be_bytes()[..]);
    }
}
