//! Messages of authors whose keys are not Ed25519: verified or refused, as the node is configured.

use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use p2p::{DropReason, Swarm as _};
use p2p_libp2p::key::KeyType;
use p2p_libp2p::{HostGossipConfig, PublicKey, identity};
use p2p_protocols::gossipsub::SIGNATURE_PREFIX;
use p2p_protocols::gossipsub::wire::{Message, frame};
use p2p_swarms::gossipsub::{Place, PolicyError, Refused};
use prost::Message as _;
use tokio::time::{sleep, timeout};

use crate::gossip_scene::{Scene, TOPIC, framed, write};

const SETTLED: Duration = Duration::from_secs(5);

/// Returns a message that an author with an ECDSA key signed, and the key.
fn signed(data: &[u8]) -> (PublicKey, Message) {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key");
    // SubjectPublicKeyInfo of P-256: a header, and the point.
    let header = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
    let spki = [header, pair.public_key().as_ref()].concat();
    let key = PublicKey::new(KeyType::Ecdsa, &spki).expect("a key");
    let mut message = Message {
        from: Some(key.peer_id().to_bytes().into()),
        data: Some(data.to_vec().into()),
        seqno: Some(7_u64.to_be_bytes().to_vec().into()),
        topic: Some(TOPIC.to_owned()),
        ..Message::default()
    };
    let text = [SIGNATURE_PREFIX, &message.encode_to_vec()].concat();
    let signature = pair.sign(&SystemRandom::new(), &text).expect("a signature");
    message.signature = Some(signature.as_ref().to_vec().into());
    message.key = Some(key.encode().to_vec().into());
    (key, message)
}

/// Changes a message, given the key of another author.
type Change = fn(&mut Message, &PublicKey);

fn rpc(message: &Message) -> Vec<u8> {
    framed(&frame(&message.encode_to_vec()))
}

#[tokio::test(start_paused = true)]
async fn a_message_of_an_ecdsa_author_is_verified_and_names_its_author() {
    let mut scene = Scene::new().await;
    let mut stream = scene.subscribe().await;
    // Heartbeats in which the honest peer comes into the mesh.
    sleep(SETTLED).await;
    let (key, message) = signed(b"hello");
    write(&mut stream, &rpc(&message)).await;
    // Also the honest peer verifies what the node forwards.
    for node in [&scene.node, &scene.honest] {
        let received = timeout(SETTLED, node.receive()).await;
        let received = received.expect("it arrives").expect("an open node");
        assert_eq!(received.payload, b"hello");
        assert_eq!(received.src.at, Some(Place::Author(identity(&key.peer_id()))));
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_ecdsa_author_did_not_sign_is_refused() {
    let (other, _) = signed(b"");
    let changes: [(Change, PolicyError); 3] = [
        (
            |message, _| message.data = Some(b"other".to_vec().into()),
            PolicyError::BadSignature,
        ),
        (
            |message, other| message.key = Some(other.encode().to_vec().into()),
            PolicyError::BadSignature,
        ),
        (|message, _| message.key = None, PolicyError::Missing("the key")),
    ];
    for (change, reason) in changes {
        let mut scene = Scene::new().await;
        let mut stream = scene.subscribe().await;
        scene.refused().await;
        let (_, mut message) = signed(b"hello");
        change(&mut message, &other);
        write(&mut stream, &rpc(&message)).await;
        assert!(timeout(SETTLED, scene.node.receive()).await.is_err());
        assert_eq!(scene.refused().await, [Refused::Policy(reason)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_accepts_ed25519_alone_refuses_other_authors() {
    let mut scene = Scene::with(HostGossipConfig {
        any_author: false,
        ..HostGossipConfig::default()
    })
    .await;
    let mut stream = scene.subscribe().await;
    scene.refused().await;
    let (_, message) = signed(b"hello");
    write(&mut stream, &rpc(&message)).await;
    assert!(timeout(SETTLED, scene.node.receive()).await.is_err());
    assert_eq!(
        scene.refused().await,
        [Refused::Policy(PolicyError::UnknownAuthor)]
    );
    let mut rejected = 0;
    scene.node.visit_counters(&mut |counters| {
        rejected += counters.snapshot().dropped(DropReason::Unauthenticated);
    });
    assert_eq!(rejected, 1);
}
