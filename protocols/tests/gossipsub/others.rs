//! Gossipsub's encoding compared with other implementations: RPCs with rust-protobuf and the specifications'
//! schema, and peer ids and signatures with rust-libp2p's identity crate.

use std::sync::Arc;

use crate::RPC;
use crate::schema::{Fields, Schema};
use bytes::Bytes;
use libp2p_identity::{Keypair, PublicKey};
use p2p_formats::x509::{PrivateKey, Registry};
use p2p_protocols::gossipsub::wire::{
    ControlGraft, ControlIDontWant, ControlIHave, ControlIWant, ControlMessage, ControlPrune, Limits,
    Message, PeerInfo, Rpc, SubOpts, frame,
};
use p2p_protocols::gossipsub::{Author, PolicyError, SIGNATURE_PREFIX, Signing};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message as _;
use protobuf::reflect::ReflectValueBox;

/// Limits that no test input reaches.
fn limits() -> Limits {
    Limits {
        id: 1 << 10,
        ..Limits::default()
    }
}

fn value(bytes: &Bytes) -> ReflectValueBox {
    ReflectValueBox::Bytes(bytes.to_vec())
}

fn field(bytes: Option<&Bytes>) -> Option<ReflectValueBox> {
    bytes.map(value)
}

fn message(schema: &Schema, message: &Message) -> Fields {
    schema
        .message("Message")
        .set("from", field(message.from.as_ref()))
        .set("data", field(message.data.as_ref()))
        .set("seqno", field(message.seqno.as_ref()))
        .set("topic", message.topic.clone())
        .set("signature", field(message.signature.as_ref()))
        .set("key", field(message.key.as_ref()))
}

fn control(schema: &Schema, control: &ControlMessage) -> Fields {
    let ihave = control.ihave.iter().map(|ihave| {
        schema
            .message("ControlIHave")
            .set("topicID", ihave.topic_id.clone())
            .push("messageIDs", ihave.message_ids.iter().map(value))
    });
    let iwant = control.iwant.iter().map(|iwant| {
        schema
            .message("ControlIWant")
            .push("messageIDs", iwant.message_ids.iter().map(value))
    });
    let graft = control.graft.iter().map(|graft| {
        schema
            .message("ControlGraft")
            .set("topicID", graft.topic_id.clone())
    });
    let peer = |peer: &PeerInfo| {
        schema
            .message("PeerInfo")
            .set("peerID", field(peer.peer_id.as_ref()))
            .set("signedPeerRecord", field(peer.signed_peer_record.as_ref()))
    };
    let prune = control.prune.iter().map(|prune| {
        schema
            .message("ControlPrune")
            .set("topicID", prune.topic_id.clone())
            .push("peers", prune.peers.iter().map(|info| peer(info).into()))
            .set("backoff", prune.backoff)
    });
    let idontwant = control.idontwant.iter().map(|dont| {
        schema
            .message("ControlIDontWant")
            .push("messageIDs", dont.message_ids.iter().map(value))
    });
    schema
        .message("ControlMessage")
        .push("ihave", ihave.map(Into::into))
        .push("iwant", iwant.map(Into::into))
        .push("graft", graft.map(Into::into))
        .push("prune", prune.map(Into::into))
        .push("idontwant", idontwant.map(Into::into))
}

fn rpc(schema: &Schema, rpc: &Rpc, messages: &[Message]) -> Fields {
    let subscriptions = rpc.subscriptions.iter().map(|change| {
        schema
            .message("SubOpts")
            .set("subscribe", change.subscribe)
            .set("topicid", change.topicid.clone())
    });
    let publish = messages.iter().map(|own| message(schema, own));
    schema
        .message("RPC")
        .push("subscriptions", subscriptions.map(Into::into))
        .push("publish", publish.map(Into::into))
        .set("control", rpc.control.as_ref().map(|own| control(schema, own)))
}

fn bytes(len: std::ops::Range<usize>) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), len).prop_map(Bytes::from)
}

/// Generates a topic: any text, occasionally with a length that takes two bytes.
fn topic() -> impl Strategy<Value = Option<String>> {
    prop_oneof![
        9 => "\\PC{1,20}",
        1 => Just("x".repeat(200)),
    ]
    .prop_map(Some)
}

fn ids() -> impl Strategy<Value = Vec<Bytes>> {
    vec(prop_oneof![bytes(1..40), bytes(120..140)], 0..4)
}

prop_compose! {
    fn any_message()(
        from in option::of(bytes(1..44)),
        data in option::of(prop_oneof![bytes(0..20), bytes(120..135), bytes(16_380..16_390)]),
        seqno in option::of(bytes(8..9)),
        topic in topic(),
        signature in option::of(bytes(1..100)),
        key in option::of(bytes(1..100)),
    ) -> Message {
        Message { from, data, seqno, topic, signature, key, to: None }
    }
}

fn any_peer() -> impl Strategy<Value = PeerInfo> {
    (bytes(1..44), option::of(bytes(0..200))).prop_map(|(id, signed_peer_record)| PeerInfo {
        peer_id: Some(id),
        signed_peer_record,
    })
}

fn any_backoff() -> impl Strategy<Value = Option<u64>> {
    option::of(prop_oneof![
        Just(0),
        Just(127),
        Just(128),
        Just(u64::MAX),
        any::<u64>()
    ])
}

prop_compose! {
    fn any_control()(
        ihave in vec((topic(), ids()), 0..3),
        iwant in vec(ids(), 0..3),
        graft in vec(topic(), 0..3),
        prune in vec((topic(), vec(any_peer(), 0..3), any_backoff()), 0..3),
        idontwant in vec(ids(), 0..3),
    ) -> ControlMessage {
        ControlMessage {
            ihave: ihave
                .into_iter()
                .map(|(topic_id, message_ids)| ControlIHave { topic_id, message_ids })
                .collect(),
            iwant: iwant.into_iter().map(|message_ids| ControlIWant { message_ids }).collect(),
            graft: graft.into_iter().map(|topic_id| ControlGraft { topic_id }).collect(),
            prune: prune
                .into_iter()
                .map(|(topic_id, peers, backoff)| ControlPrune { topic_id, peers, backoff })
                .collect(),
            idontwant: idontwant
                .into_iter()
                .map(|message_ids| ControlIDontWant { message_ids })
                .collect(),
        }
    }
}

prop_compose! {
    fn any_rpc()(
        subscriptions in vec((option::of(any::<bool>()), topic()), 0..3),
        messages in vec(any_message(), 0..3),
        control in option::of(prop_oneof![Just(ControlMessage::default()), any_control()]),
    ) -> (Rpc, Vec<Message>) {
        let subscriptions = subscriptions
            .into_iter()
            .map(|(subscribe, topicid)| SubOpts { subscribe, topicid });
        let publish = messages.iter().map(|message| message.encode_to_vec().into());
        let rpc = Rpc { subscriptions: subscriptions.collect(), publish: publish.collect(), control, ..Rpc::default() };
        (rpc, messages)
    }
}

proptest! {
    #[test]
    fn rpc_encodings_equal_those_of_rust_protobuf((own, messages) in any_rpc()) {
        let schema = Schema::new(RPC);
        let theirs = Bytes::from(rpc(&schema, &own, &messages).bytes());
        prop_assert_eq!(&own.emit(), &theirs);
        prop_assert_eq!(&schema.read_and_write("RPC", &own.emit()), &theirs);
        let read = Rpc::parse(&theirs, &limits());
        prop_assert_eq!(read.as_ref(), Ok(&own));
        for (bytes, message) in own.publish.iter().zip(&messages) {
            let read = Message::parse(bytes, &limits());
            prop_assert_eq!(read.as_ref(), Ok(message));
            prop_assert_eq!(&schema.read_and_write("RPC", &frame(bytes)), &frame(bytes));
        }
    }

    /// Messages of a policy, with and without a signature.
    #[test]
    fn message_encodings_equal_those_of_rust_protobuf(
        seed: [u8; 32],
        data in bytes(0..2000),
        topic in topic(),
        seqno: u64,
    ) {
        let schema = Schema::new(RPC);
        for policy in [signing(&seed), Signing::StrictNoSign] {
            let own = policy.make(&topic.clone().unwrap_or_default(), data.clone(), seqno);
            prop_assert_eq!(message(&schema, &own).bytes(), own.encode_to_vec());
        }
    }

    #[test]
    fn peer_ids_equal_those_of_libp2p(seed: [u8; 32]) {
        let (key, policy) = (key(&seed), signing(&seed));
        let author = policy.author().expect("it signs");
        prop_assert_eq!(author.as_bytes(), key.public().to_peer_id().to_bytes());
        let encoded = author.encoded_key().expect("the id contains it");
        prop_assert_eq!(encoded, key.public().encode_protobuf());
        let back = PublicKey::try_decode_protobuf(encoded).expect("a key");
        prop_assert_eq!(&back, &key.public());
        let id = Author::from_bytes(&key.public().to_peer_id().to_bytes());
        prop_assert_eq!(id.as_ref(), Some(author));
    }

    #[test]
    fn libp2p_verifies_our_signatures(seed: [u8; 32], data in bytes(0..2000), topic in topic(), seqno: u64) {
        let own = signing(&seed).make(&topic.unwrap_or_default(), data, seqno);
        let signature = own.signature.clone().expect("signed");
        let author = own.from.clone().expect("an author");
        let text = signed_text(&own);
        let id = libp2p_identity::PeerId::from_bytes(&author).expect("an id");
        // An id with the identity hash contains the key, which other implementations use for a message
        // without a key.
        let key = PublicKey::try_decode_protobuf(id.as_ref().digest()).expect("a key");
        prop_assert!(key.verify(&text, &signature));
        let mut other = text;
        other[SIGNATURE_PREFIX.len()] ^= 1;
        prop_assert!(!key.verify(&other, &signature));
    }

    #[test]
    fn we_verify_signatures_of_libp2p(
        seed: [u8; 32],
        data in bytes(0..2000),
        topic in topic(),
        seqno: [u8; 8],
        with_key: bool,
    ) {
        let key = key(&seed);
        let mut theirs = Message {
            from: Some(key.public().to_peer_id().to_bytes().into()),
            data: Some(data),
            seqno: Some(Bytes::copy_from_slice(&seqno)),
            topic,
            ..Message::default()
        };
        theirs.signature = Some(key.sign(&signed_text(&theirs)).expect("signed").into());
        theirs.key = with_key.then(|| key.public().encode_protobuf().into());
        let schema = Schema::new(RPC);
        let written = Bytes::from(message(&schema, &theirs).bytes());
        let read = Message::parse(&written, &limits());
        prop_assert_eq!(read.as_ref(), Ok(&theirs));
        let policy = signing(&[1; 32]);
        prop_assert_eq!(policy.check_fields(&theirs), Ok(()));
        prop_assert_eq!(policy.check_signature(&theirs, &written), Ok(()));
        theirs.seqno = Some(Bytes::copy_from_slice(&seqno.map(|byte| !byte)));
        let changed = message(&schema, &theirs).bytes();
        prop_assert_eq!(policy.check_signature(&theirs, &changed), Err(PolicyError::BadSignature));
    }
}

/// Returns libp2p's key pair for this private key.
fn key(seed: &[u8; 32]) -> Keypair {
    Keypair::ed25519_from_bytes(*seed).expect("32 bytes")
}

/// Returns our policy for this private key.
fn signing(seed: &[u8; 32]) -> Signing {
    let key = PrivateKey::ed25519(seed);
    Signing::strict(Arc::from(Registry::default().signer(&key).expect("a key"))).expect("ed25519")
}

/// Returns the signed bytes of a message, as rust-protobuf encodes them.
fn signed_text(own: &Message) -> Vec<u8> {
    let bare = Message {
        signature: None,
        key: None,
        ..own.clone()
    };
    [SIGNATURE_PREFIX, &message(&Schema::new(RPC), &bare).bytes()].concat()
}
