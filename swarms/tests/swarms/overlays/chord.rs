//! Tests of Chord alone.

use std::time::Duration;

use p2p::{Error, PeerId, Swarm as _};
use p2p_swarms::{ChordConfig, ChordSwarm};
use tokio::time::Instant;

use crate::overlays::net::{Net, place, received};
use crate::overlays::node::Chord;

const HOUR: Duration = Duration::from_hours(1);

#[tokio::test(start_paused = true)]
async fn records_are_found_with_progress_and_a_leaving_node_hands_them_over() {
    let net = Net::joined_by(12, |inner, identity| {
        let valid = |_: &PeerId, value: &[u8]| value.starts_with(b"good");
        let mut config = ChordConfig::default().validator(valid);
        config.engine.copies = 1;
        ChordSwarm::with_config(inner, identity, config)
    })
    .await;
    let (a, b, key) = (&net.nodes[1], &net.nodes[9], PeerId::new([7; 32]));
    let put = a.put(key, b"good news", HOUR).expect("room");
    put.finish().await.expect("a node stores it");
    assert!(a.put(key, b"bad news", HOUR).is_err());
    let again = b.put(key, b"good enough", HOUR).expect("room");
    let again = again.finish().await;
    assert!(
        matches!(again, Err(Error::Invalid { what: "record", .. })),
        "{again:?}"
    );
    let mut looking = b.lookup(key).expect("room");
    let mut seen = Vec::new();
    while let Some(progress) = looking.progressed().await {
        seen.push(progress.answered);
    }
    assert!(!seen.is_empty() && seen.is_sorted(), "{seen:?}");
    let owner = looking
        .finish()
        .await
        .expect("an owner")
        .owner
        .expect("another node");
    let record = b.get(key).expect("room").finish().await.expect("an owner");
    assert_eq!(record.expect("a record"), b"good news");
    let leaver = net
        .nodes
        .iter()
        .find(|node| node.id() == owner.id)
        .expect("one of the operations");
    leaver
        .leave()
        .expect("the first call")
        .finish()
        .await
        .expect("open");
    assert!(leaver.leave().is_err());
    leaver.close().await;
    let [a, b] = [2, 9, 10]
        .map(|at| &net.nodes[at])
        .into_iter()
        .filter(|node| node.id() != owner.id)
        .take(2)
        .collect::<Vec<_>>()
        .try_into()
        .expect("two remaining nodes");
    let record = b.get(key).expect("room").finish().await.expect("an owner");
    assert_eq!(record.expect("a record"), b"good news");
    let getting = a.get(key).expect("room");
    a.close().await;
    assert!(matches!(getting.finish().await, Err(Error::Closed)));
    assert!(matches!(a.get(key), Err(Error::Closed)));
}

#[tokio::test(start_paused = true)]
async fn a_join_is_retried_and_then_fails() {
    let mut net = Net::<Chord>::joined(1).await;
    let first = net.nodes.pop().expect("a node");
    let at = first.inner().local_addrs();
    let newcomer = net.node(1);
    net.faults.partition(&[place(&first)], &[place(&newcomer)]);
    let start = Instant::now();
    let mut joining = newcomer.join(&at).expect("room");
    let failed = joining.progressed().await.expect("under way").failed;
    assert_eq!(failed, 1);
    net.faults.heal();
    let successor = joining.finish().await.expect("a successor");
    assert_eq!(successor.id, first.id());
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    // No node exists.
    first.close().await;
    let late = net.node(2);
    let start = Instant::now();
    let joined = late.join(&at).expect("room").finish().await;
    assert!(matches!(joined, Err(Error::Unreachable { .. })), "{joined:?}");
    let took = start.elapsed();
    assert!(
        took > Duration::from_secs(10) && took < Duration::from_mins(2),
        "{took:?}"
    );
    assert!(late.join(&[]).is_err());
}

#[tokio::test(start_paused = true)]
async fn nodes_that_start_together_find_each_other() {
    let net = Net::<Chord>::joined(1).await;
    let nodes: Vec<Chord> = (1..12).map(|seed| net.node(seed)).collect();
    // All nodes but one join through that one, which is itself joining and accepts none: they retry.
    let mut joining = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        let by = if at == 5 { &net.nodes[0] } else { &nodes[5] };
        joining.push(node.join(&by.inner().local_addrs()).expect("room"));
    }
    for joining in joining {
        joining.finish().await.expect("a successor");
    }
    for (at, node) in nodes.iter().enumerate() {
        let other = &nodes[(at + 5) % nodes.len()];
        node.tell(&other.id(), node.packet(b"hello"))
            .await
            .expect("it is reachable");
        assert_eq!(received(other).await, (node.id(), b"hello".to_vec()));
    }
}
