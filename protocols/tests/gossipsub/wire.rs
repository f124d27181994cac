//! The encoding of gossipsub's RPCs, written by hand from the rules of protobuf, and its signatures.

use std::sync::Arc;

use bytes::Bytes;
use p2p_formats::x509::{PrivateKey, Registry};
use p2p_protocols::gossipsub::wire::{
    ControlGraft, ControlIDontWant, ControlIHave, ControlIWant, ControlMessage, ControlPrune, Hello, Limits,
    Message, PeerInfo, Rpc, SubOpts, WireError, frame,
};
use p2p_protocols::gossipsub::{Author, PolicyError, SIGNATURE_PREFIX, Signing};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;

fn bytes(parts: &[&[u8]]) -> Bytes {
    parts.concat().into()
}

fn parse(bytes: &[u8]) -> Result<Rpc, WireError> {
    Rpc::parse(&Bytes::copy_from_slice(bytes), &Limits::default())
}

fn topic() -> String {
    "t".into()
}

fn signing(seed: u8) -> Signing {
    let key = PrivateKey::ed25519(&[seed; 32]);
    Signing::strict(Arc::from(Registry::default().signer(&key).expect("a key"))).expect("ed25519")
}

fn signed() -> (Signing, Message) {
    let signing = signing(7);
    let message = signing.make("t", Bytes::from_static(b"hello"), 3);
    (signing, message)
}

/// Returns an RPC with every field of the schema once, and its encoding.
fn full() -> (Rpc, Vec<u8>) {
    let id = |byte: u8| vec![Bytes::from(vec![byte; 2])];
    let rpc = Rpc {
        subscriptions: vec![SubOpts {
            subscribe: Some(true),
            topicid: Some(topic()),
        }],
        publish: vec![Bytes::from_static(b"\x22\x01t")],
        control: Some(ControlMessage {
            ihave: vec![ControlIHave {
                topic_id: Some(topic()),
                message_ids: id(1),
            }],
            iwant: vec![ControlIWant { message_ids: id(2) }],
            graft: vec![ControlGraft {
                topic_id: Some(topic()),
            }],
            prune: vec![ControlPrune {
                topic_id: Some(topic()),
                peers: vec![PeerInfo {
                    peer_id: Some(Bytes::from_static(b"p")),
                    signed_peer_record: Some(Bytes::from_static(b"r")),
                }],
                backoff: Some(300),
            }],
            idontwant: vec![ControlIDontWant { message_ids: id(3) }],
        }),
        hello: Some(Hello {
            author: Some(Bytes::from_static(b"a")),
            asks: Some(true),
            leaves: Some(true),
        }),
        direct: vec![Bytes::from_static(b"\x22\x01t")],
    };
    let written = [
        &b"\x0a\x05\x08\x01\x12\x01t"[..],
        b"\x12\x03\x22\x01t",
        b"\x1a\x2a",
        b"\x0a\x07\x0a\x01t\x12\x02\x01\x01",
        b"\x12\x04\x0a\x02\x02\x02",
        b"\x1a\x03\x0a\x01t",
        b"\x22\x0e\x0a\x01t\x12\x06\x0a\x01p\x12\x01r\x18\xac\x02",
        b"\x2a\x04\x0a\x02\x03\x03",
        b"\x92\x83\x8e\x08\x07\x0a\x01a\x10\x01\x18\x01",
        b"\x9a\x83\x8e\x08\x03\x22\x01t",
    ];
    (rpc, written.concat())
}

#[test]
fn every_field_is_encoded_as_protobuf() {
    let (rpc, written) = full();
    assert_eq!(rpc.emit(), written);
    assert_eq!(parse(&written), Ok(rpc));
}

#[test]
fn a_message_is_encoded_as_protobuf() {
    let (_, message) = signed();
    let (from, signature) = (
        message.from.clone().expect("it"),
        message.signature.clone().expect("it"),
    );
    let written = bytes(&[
        b"\x0a\x26",
        &from,
        b"\x12\x05hello\x1a\x08\0\0\0\0\0\0\0\x03\x22\x01t\x2a\x40",
        &signature,
    ]);
    assert_eq!(message.encode_to_vec(), written);
    assert_eq!(
        Message::parse(&written, &Limits::default()).as_ref(),
        Ok(&message)
    );
    let rpc = Rpc {
        publish: vec![written.clone()],
        ..Rpc::default()
    };
    assert_eq!(frame(&written), rpc.emit());
}

/// The key of libp2p's specification of peer ids, "Test vectors".
#[test]
fn an_authors_id_is_the_identity_hash_of_its_key() {
    let key = b"\x1e\xd1\xe8\xfa\xe2\xc4\xa1\x44\xb8\xbe\x8f\xd4\xb4\x7b\xf3\xd3\xb3\x4b\x87\x1c\x3c\xac\xf6\x01\x0f\x0e\x42\xd4\x74\xfc\xe2\x7e";
    let author = Author::new(key);
    let encoded = [b"\x08\x01\x12\x20", &key[..]].concat();
    assert_eq!(author.encoded_key(), Some(&encoded[..]));
    assert_eq!(author.as_bytes(), [b"\0\x24\x08\x01\x12\x20", &key[..]].concat());
    assert_eq!(Author::from_bytes(author.as_bytes()), Some(author));
    for end in 0..author.as_bytes().len() {
        assert_eq!(Author::from_bytes(&author.as_bytes()[..end]), None);
    }
}

#[test]
fn the_signature_covers_the_prefix_and_the_message_without_signature_and_key() {
    let (signing, message) = signed();
    let bare = Message {
        signature: None,
        ..message.clone()
    };
    let signature = message.signature.clone().expect("signed");
    let text = [SIGNATURE_PREFIX, &bare.encode_to_vec()].concat();
    assert!(signing.author().expect("it signs").verifies(&text, &signature));
    let with_key = Message {
        key: Some(Bytes::copy_from_slice(
            signing.author().and_then(Author::encoded_key).expect("it"),
        )),
        ..message
    };
    assert_eq!(signing.check_fields(&with_key), Ok(()));
    assert_eq!(
        signing.check_signature(&with_key, &with_key.encode_to_vec()),
        Ok(())
    );
}

#[test]
fn a_modified_message_fails_verification() {
    let (signing, message) = signed();
    let good = message.encode_to_vec();
    assert_eq!(signing.check_signature(&message, &good), Ok(()));
    for at in 0..good.len() {
        let mut changed = good.clone();
        changed[at] ^= 1;
        let changed = Bytes::from(changed);
        let taken = Message::parse(&changed, &Limits::default()).is_ok_and(|message| {
            signing.check_fields(&message).is_ok() && signing.check_signature(&message, &changed).is_ok()
        });
        assert!(!taken, "byte {at} was changed");
    }
    // Unknown fields are signed as well.
    let more = [&good[..], b"\x38\x01"].concat();
    assert_eq!(
        signing.check_signature(&message, &more),
        Err(PolicyError::BadSignature)
    );
}

#[test]
fn strict_sign_requires_every_field() {
    let (signing, message) = signed();
    let without = |change: fn(&mut Message)| {
        let mut message = message.clone();
        change(&mut message);
        signing.check_fields(&message)
    };
    assert_eq!(
        without(|m| m.from = None),
        Err(PolicyError::Missing("the author"))
    );
    assert_eq!(
        without(|m| m.seqno = None),
        Err(PolicyError::Missing("the sequence number"))
    );
    assert_eq!(
        without(|m| m.signature = None),
        Err(PolicyError::Missing("the signature"))
    );
    assert_eq!(
        without(|m| m.from = Some(Bytes::from_static(b"me"))),
        Err(PolicyError::UnknownAuthor)
    );
    assert_eq!(
        without(|m| m.key = Some(Bytes::from_static(b"k"))),
        Err(PolicyError::ForeignKey)
    );
    let id = signing.message_id(&message);
    assert_eq!(
        id,
        [signing.author().expect("it").as_bytes(), &3_u64.to_be_bytes()]
            .concat()
            .into()
    );
}

#[test]
fn strict_no_sign_forbids_every_field() {
    let signing = Signing::StrictNoSign;
    let message = signing.make("t", Bytes::from_static(b"abc"), 9);
    assert_eq!(message.encode_to_vec(), b"\x12\x03abc\x22\x01t");
    assert_eq!(signing.check_fields(&message), Ok(()));
    let with = |change: fn(&mut Message)| {
        let mut message = message.clone();
        change(&mut message);
        signing.check_fields(&message)
    };
    assert_eq!(
        with(|m| m.from = Some(Bytes::new())),
        Err(PolicyError::Unwanted("the author"))
    );
    assert_eq!(
        with(|m| m.seqno = Some(Bytes::new())),
        Err(PolicyError::Unwanted("the sequence number"))
    );
    assert_eq!(
        with(|m| m.signature = Some(Bytes::new())),
        Err(PolicyError::Unwanted("the signature"))
    );
    assert_eq!(
        with(|m| m.key = Some(Bytes::new())),
        Err(PolicyError::Unwanted("the key"))
    );
    // SHA-256 of "abc", FIPS 180-4.
    assert_eq!(signing.message_id(&message)[..4], [0xba, 0x78, 0x16, 0xbf]);
}

/// Each field at its limit, and one beyond it.
#[test]
#[allow(clippy::too_many_lines, reason = "one case for each limit")]
fn every_limit_holds_exactly() {
    let limits = Limits {
        rpc: 4096,
        subscriptions: 3,
        messages: 3,
        control: 3,
        ids: 3,
        topic: 5,
        id: 5,
        record: 5,
    };
    let text = |len| Some("x".repeat(len));
    let control = |control| Rpc {
        control: Some(control),
        ..Rpc::default()
    };
    let subscribe = |count, len| Rpc {
        subscriptions: vec![
            SubOpts {
                subscribe: Some(true),
                topicid: text(len)
            };
            count
        ],
        ..Rpc::default()
    };
    let publish = |count, len| Rpc {
        publish: vec![Bytes::from(vec![0; len]); count],
        ..Rpc::default()
    };
    let ihave = |count, len| {
        control(ControlMessage {
            ihave: vec![ControlIHave {
                topic_id: text(1),
                message_ids: vec![Bytes::from(vec![0; len]); count],
            }],
            ..ControlMessage::default()
        })
    };
    let dont = |count| {
        control(ControlMessage {
            idontwant: vec![
                ControlIDontWant {
                    message_ids: vec![Bytes::from_static(b"i")]
                };
                count
            ],
            ..ControlMessage::default()
        })
    };
    let graft = |count| {
        control(ControlMessage {
            graft: vec![ControlGraft { topic_id: text(5) }; count],
            ..ControlMessage::default()
        })
    };
    let prune = |count, id, record| {
        control(ControlMessage {
            prune: vec![ControlPrune {
                topic_id: text(1),
                peers: vec![
                    PeerInfo {
                        peer_id: Some(Bytes::from(vec![0; id])),
                        signed_peer_record: Some(Bytes::from(vec![0; record])),
                    };
                    count
                ],
                backoff: Some(u64::MAX),
            }],
            ..ControlMessage::default()
        })
    };
    for good in [
        subscribe(3, 5),
        publish(3, 100),
        publish(1, 4093),
        ihave(3, 5),
        dont(3),
        graft(3),
        prune(2, 44, 5),
    ] {
        assert_eq!(Rpc::parse(&good.emit(), &limits).as_ref(), Ok(&good));
    }
    for bad in [
        subscribe(4, 5),
        subscribe(1, 6),
        subscribe(1, 0),
        publish(4, 0),
        publish(1, 4094),
        ihave(4, 5),
        ihave(1, 6),
        ihave(1, 0),
        dont(4),
        graft(4),
        prune(3, 44, 5),
        prune(1, 45, 5),
        prune(1, 44, 6),
    ] {
        let refused = Rpc::parse(&bad.emit(), &limits);
        assert!(
            matches!(refused, Err(WireError::Length { .. } | WireError::TooMany { .. })),
            "{bad:?} gave {refused:?}"
        );
    }
}

#[test]
fn fields_of_the_wrong_type_and_repeated_fields_are_refused() {
    for (bad, error) in [
        (&b"\x08\x01"[..], WireError::Malformed),
        (b"\x0a", WireError::Malformed),
        (b"\x0a\x7f", WireError::Malformed),
        (b"\x0b\x0c", WireError::Malformed),
        (b"\x00\x00", WireError::Malformed),
        (b"\x0a\x03\x0a\x01t", WireError::Malformed),
        (b"\x0a\x02\x08\x01", WireError::Missing("the topic")),
        (b"\x0a\x06\x12\x01t\x12\x01t", WireError::Twice("the topic")),
        (b"\x0a\x03\x12\x01\xff", WireError::Text),
        (b"\x1a\x02\x1a\x00", WireError::Missing("the topic")),
        (b"\x1a\x04\x22\x02\x18\x01", WireError::Missing("the topic")),
        (
            b"\x1a\x09\x22\x07\x0a\x01t\x18\x01\x18\x01",
            WireError::Twice("the backoff"),
        ),
    ] {
        assert_eq!(parse(bad), Err(error), "{bad:x?}");
    }
    let message = |bytes: &'static [u8]| Message::parse(&Bytes::from_static(bytes), &Limits::default());
    assert_eq!(message(b"\x12\x01x"), Err(WireError::Missing("the topic")));
    assert_eq!(message(b"\x22\x01t\x22\x01t"), Err(WireError::Twice("the topic")));
    assert!(matches!(
        message(b"\x22\x01t\x1a\x01x"),
        Err(WireError::Length { .. })
    ));
}

/// Unknown fields of every type are ignored.
#[test]
fn fields_of_later_versions_are_ignored() {
    let (rpc, mut written) = full();
    written.extend(b"\x38\x01\x39\0\0\0\0\0\0\0\0\x3a\x01x\x3d\0\0\0\0");
    assert_eq!(parse(&written), Ok(rpc));
}

/// A change of these bytes breaks every running network, so it must be deliberate.
#[test]
fn encodings_are_pinned() {
    let (mut rpc, _) = full();
    // The fields beyond the specifications are pinned by the bytes above.
    (rpc.hello, rpc.direct) = (None, Vec::new());
    let (_, message) = signed();
    let mut all = rpc.emit().to_vec();
    all.extend(frame(&message.encode_to_vec()));
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &all);
    assert_eq!(
        hash.as_ref()[..8],
        [0x1e, 0xbb, 0x03, 0x88, 0x9a, 0xc8, 0x9c, 0xf0]
    );
}

/// Generates nearly valid RPCs: a real one with some bytes changed.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    vec((any::<prop::sample::Index>(), any::<u8>()), 0..4).prop_map(|changes| {
        let (_, mut written) = full();
        for (at, byte) in changes {
            let at = at.index(written.len());
            written[at] = byte;
        }
        written
    })
}

proptest! {
    #[test]
    fn any_bytes_are_an_error_or_an_rpc_that_round_trips(
        bytes in prop_oneof![vec(any::<u8>(), 0..64), nearly()]
    ) {
        if let Ok(rpc) = parse(&bytes) {
            let written = rpc.emit();
            prop_assert!(written.len() <= 2 * bytes.len());
            prop_assert_eq!(parse(&written), Ok(rpc));
        }
    }

    #[test]
    fn any_bytes_are_an_error_or_a_message_that_round_trips(
        bytes in prop_oneof![vec(any::<u8>(), 0..64), vec(any::<u8>(), 0..32).prop_map(|mut bytes| {
            bytes.extend(b"\x22\x01t");
            bytes
        })]
    ) {
        let bytes = Bytes::from(bytes);
        if let Ok(message) = Message::parse(&bytes, &Limits::default()) {
            let written = Bytes::from(message.encode_to_vec());
            prop_assert_eq!(Message::parse(&written, &Limits::default()), Ok(message));
        }
    }
}
