//! Peer exchange among hosts: records are verified, and lead to the peers that they name.

use std::time::Duration;

use bytes::Bytes;
use p2p_libp2p::envelope::PeerRecord;
use p2p_libp2p::{HostAddr, HostConfig, HostGossipConfig, Keypair};
use p2p_protocols::gossipsub::wire::{ControlMessage, ControlPrune, PeerInfo, Rpc};
use p2p_swarms::gossipsub::{GossipEvent, ScoreConfig};
use tokio::time::timeout;

use crate::gossip::{join, key};
use crate::gossip_scene::{Scene, TOPIC, framed, write};
use crate::nodes::in_memory;

#[tokio::test(start_paused = true)]
async fn a_peer_exchange_with_a_signed_record_leads_to_the_peer_and_a_forged_one_is_left_out() {
    let mut config = HostGossipConfig::default();
    config.gossip.engine.score = Some(ScoreConfig {
        accept_px_threshold: 0.0,
        ..ScoreConfig::default()
    });
    let mut scene = Scene::with(config).await;
    let mut stream = scene.subscribe().await;
    let third = in_memory(5, &scene.realm, HostConfig::default()).await;
    let named = HostAddr::of_peer(third.peer_id());
    let places = [third.local_addrs().remove(0).place().clone()];
    let _third = join(&third, 5);
    let record = |seed| {
        let keypair = Keypair::new(&key(seed)).expect("an Ed25519 key");
        Some(Bytes::from(PeerRecord::sign(&keypair, 1, &places)))
    };
    let peer_id = Some(Bytes::from(third.peer_id().to_bytes()));
    let peers = [record(6), record(5)].map(|signed_peer_record| PeerInfo {
        peer_id: peer_id.clone(),
        signed_peer_record,
    });
    let control = ControlMessage {
        prune: vec![ControlPrune {
            topic_id: Some(TOPIC.to_owned()),
            peers: peers.to_vec(),
            backoff: None,
        }],
        ..ControlMessage::default()
    };
    let rpc = Rpc {
        control: Some(control),
        ..Rpc::default()
    };
    write(&mut stream, &framed(&rpc.emit())).await;
    let exchanged = async {
        loop {
            if let GossipEvent::PeerExchange { peers, .. } = scene.node.event().await.expect("an open node") {
                return peers;
            }
        }
    };
    let exchanged = timeout(Duration::from_secs(5), exchanged).await;
    // The record of another host is not that of the named one.
    assert_eq!(exchanged.expect("it is trusted"), std::slice::from_ref(&named));
    // The host knows the place from the record.
    scene.node.add_peer(&named).expect("room");
    scene.node.until_met(&named).await.expect("it is there");
}
