//! The encoding of identify: pinned bytes, another implementation of protobuf, limits, and any pieces.

use bytes::Bytes;
use p2p_formats::varint;
use p2p_protocols::identify::{
    EncodeError, Info, KeyMismatch, Limits, MAX_SENT, Reader, Received, WireError,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message as _;

/// The specification's schema, with the field of the signed peer record.
#[derive(Clone, PartialEq, prost::Message)]
struct Identify {
    #[prost(string, optional, tag = "5")]
    protocol_version: Option<String>,
    #[prost(string, optional, tag = "6")]
    agent_version: Option<String>,
    #[prost(bytes = "bytes", optional, tag = "1")]
    public_key: Option<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    listen_addrs: Vec<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "4")]
    observed_addr: Option<Bytes>,
    #[prost(string, repeated, tag = "3")]
    protocols: Vec<String>,
    #[prost(bytes = "bytes", optional, tag = "8")]
    signed_peer_record: Option<Bytes>,
}

impl From<Info> for Identify {
    fn from(info: Info) -> Self {
        Self {
            protocol_version: info.protocol_version,
            agent_version: info.agent_version,
            public_key: info.public_key,
            listen_addrs: info.listen_addrs,
            observed_addr: info.observed_addr,
            protocols: info.protocols,
            signed_peer_record: info.signed_peer_record,
        }
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    let mut bytes = varint::write(message.len() as u64, &mut [0; varint::MAX_LEN]).to_vec();
    bytes.extend_from_slice(message);
    bytes
}

fn read(pieces: &[&[u8]]) -> Result<Received, WireError> {
    read_within(Limits::default(), pieces)
}

fn read_within(limits: Limits, pieces: &[&[u8]]) -> Result<Received, WireError> {
    let mut reader = Reader::new(limits);
    for piece in pieces {
        reader.handle_bytes(piece)?;
    }
    reader.finish()
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn example() -> Info {
    Info {
        public_key: Some(bytes("K")),
        listen_addrs: vec![bytes("a1"), bytes("a2")],
        protocols: vec!["/p".into()],
        observed_addr: Some(bytes("o")),
        protocol_version: Some("v".into()),
        agent_version: Some("g".into()),
        signed_peer_record: Some(bytes("r")),
    }
}

#[test]
fn the_encoding_is_pinned() {
    let encoded = example().encode().expect("it fits");
    let expected = b"\x1b\x0a\x01K\x12\x02a1\x12\x02a2\x1a\x02/p\x22\x01o\x2a\x01v\x32\x01g\x42\x01r";
    assert_eq!(encoded.bytes, &expected[..]);
    assert_eq!(read(&[&encoded.bytes]).expect("a message").info, example());
}

#[test]
fn messages_are_merged_in_their_order() {
    let first = Info {
        agent_version: Some("old".into()),
        listen_addrs: vec![bytes("a1")],
        ..Info::default()
    };
    let second = Info {
        agent_version: Some("new".into()),
        listen_addrs: vec![bytes("a2")],
        protocols: vec!["/p".into()],
        ..Info::default()
    };
    let [first, second] = [first, second].map(|info| info.encode().expect("it fits").bytes);
    let merged = read(&[&first, &second]).expect("two messages").info;
    assert_eq!(merged.agent_version.as_deref(), Some("new"));
    assert_eq!(merged.listen_addrs, [bytes("a1"), bytes("a2")]);
    assert_eq!(merged.protocols, ["/p"]);
}

#[test]
fn a_push_replaces_only_what_it_has() {
    let mut info = example();
    info.update(Info {
        listen_addrs: vec![bytes("b")],
        agent_version: Some("h".into()),
        ..Info::default()
    });
    let expected = Info {
        listen_addrs: vec![bytes("b")],
        agent_version: Some("h".into()),
        ..example()
    };
    assert_eq!(info, expected);
}

#[test]
fn another_key_than_the_proven_one_is_an_error() {
    assert_eq!(example().verify_key(b"K"), Ok(()));
    assert_eq!(example().verify_key(b"L"), Err(KeyMismatch));
    assert_eq!(Info::default().verify_key(b"K"), Ok(()));
    // Ten pieces, the last of which lies about the key.
    let honest = framed(b"\x0a\x01K");
    let lie = framed(b"\x0a\x01L");
    let mut pieces: Vec<&[u8]> = vec![&honest; 9];
    pieces.push(&lie);
    let merged = read(&pieces).expect("ten messages").info;
    assert_eq!(merged.verify_key(b"K"), Err(KeyMismatch));
}

#[test]
fn ten_messages_of_8_kib_are_read_and_one_more_of_either_is_an_error() {
    let full = framed(&[b"\x12\xfd\x3f".as_slice(), &[7; 8189]].concat());
    let mut pieces: Vec<&[u8]> = vec![&full; 10];
    let received = read(&pieces).expect("ten messages");
    assert_eq!(received.info.listen_addrs.len(), 10);
    let one_more = framed(b"");
    pieces.push(&one_more);
    assert_eq!(read(&pieces), Err(WireError::TooMany { max: 10 }));
    // The length alone is refused: nothing waits for the body.
    let (message, len, max) = (0, 8193, 8192);
    assert_eq!(
        read(&[b"\x81\x40"]),
        Err(WireError::TooLong { message, len, max })
    );
    let (message, len) = (1, u64::MAX);
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    assert_eq!(
        read(&[&full, &huge]),
        Err(WireError::TooLong { message, len, max })
    );
}

#[test]
fn addresses_and_protocols_beyond_the_limits_are_ignored_and_counted() {
    let limits = Limits::default();
    let addrs = framed(&b"\x12\x01a".repeat(2000));
    let protocols = framed(&b"\x1a\x00".repeat(4000));
    let received = read(&[&addrs, &protocols, &addrs]).expect("three messages");
    assert_eq!(received.info.listen_addrs.len(), limits.addrs);
    assert_eq!(received.info.protocols.len(), limits.protocols);
    assert_eq!(received.ignored_addrs, 4000 - limits.addrs);
    assert_eq!(received.ignored_protocols, 4000 - limits.protocols);
}

#[test]
fn bad_streams_have_typed_errors_that_say_where() {
    let (message, at) = (0, 3);
    for (stream, error) in [
        (&b""[..], WireError::Empty),
        (b"\x80", WireError::Truncated { message }),
        (b"\x03\x0a\x01", WireError::Truncated { message }),
        (b"\x03\x0a\x01K\x01", WireError::Truncated { message: 1 }),
        (&[0x80; 10], WireError::Length { message }),
        (&[0xff; 11], WireError::Length { message }),
        (b"\x04\x0a\x01K\x0a", WireError::Malformed { message, at }),
        (b"\x05\x0a\x01K\x12\x7f", WireError::Malformed { message, at }),
        (b"\x05\x0a\x01K\x18\x01", WireError::Malformed { message, at }),
        (b"\x05\x0a\x01K\x0b\x0c", WireError::Malformed { message, at }),
        (
            b"\x06\x0a\x01K\x1a\x01\xff",
            WireError::Text {
                what: "a protocol",
                message,
                at,
            },
        ),
        (
            b"\x00\x06\x0a\x01K\x32\x01\xff",
            WireError::Text {
                what: "the agent version",
                message: 1,
                at,
            },
        ),
    ] {
        assert_eq!(read(&[stream]), Err(error), "{stream:02x?}");
        let pieces: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(read(&pieces), Err(error), "{stream:02x?} byte by byte");
    }
}

#[test]
fn an_error_is_final() {
    let mut reader = Reader::new(Limits::default());
    let error = WireError::Length { message: 0 };
    assert_eq!(reader.handle_bytes(&[0xff; 11]), Err(error));
    assert_eq!(reader.handle_bytes(b"\x03\x0a\x01K"), Err(error));
    assert_eq!(reader.finish(), Err(error));
}

#[test]
fn unknown_fields_are_ignored() {
    let received = read(&[&framed(b"\x38\x01\x49abcdefgh\x0a\x01K\x55abcd\xfa\x3f\x01x")]);
    assert_eq!(received.expect("a message").info.public_key, Some(bytes("K")));
}

#[test]
fn what_does_not_fit_is_left_out_from_the_end_of_each_list() {
    let addr = Bytes::from(vec![1; 98]);
    let info = Info {
        listen_addrs: vec![addr; 50],
        protocols: vec!["/0123456789012345678901234567/1.0.0".into(); 40],
        signed_peer_record: Some(vec![2; 2000].into()),
        ..example()
    };
    let encoded = info.encode().expect("the key fits");
    assert_eq!(encoded.omitted_protocols, 0);
    assert_eq!(encoded.omitted_addrs, 24);
    assert!(encoded.omitted_record && encoded.bytes.len() <= MAX_SENT + 2);
    let received = read(&[&encoded.bytes]).expect("a message").info;
    assert_eq!(received.listen_addrs, info.listen_addrs[..26]);
    assert_eq!(received.protocols, info.protocols);

    let agent_version = Some("x".repeat(MAX_SENT));
    let error = Info {
        agent_version,
        ..Info::default()
    }
    .encode()
    .expect_err("too long");
    assert_eq!(
        error,
        EncodeError {
            len: MAX_SENT + 3,
            max: MAX_SENT
        }
    );
}

fn any_info() -> impl Strategy<Value = Info> {
    let some = || option::of(vec(any::<u8>(), 0..200).prop_map(Bytes::from));
    let texts = (
        vec(".{0,30}", 0..40),
        option::of(".{0,60}"),
        option::of(".{0,60}"),
    );
    let addrs = vec(vec(any::<u8>(), 0..60).prop_map(Bytes::from), 0..120);
    (some(), addrs, some(), texts, some()).prop_map(
        |(public_key, listen_addrs, observed_addr, texts, record)| {
            let (protocols, protocol_version, agent_version) = texts;
            Info {
                public_key,
                listen_addrs,
                protocols,
                observed_addr,
                protocol_version,
                agent_version,
                signed_peer_record: record,
            }
        },
    )
}

proptest! {
    #[test]
    fn any_message_is_that_of_another_implementation_in_pieces_of_any_length(
        mut info in any_info(),
        piece in 1..300usize,
    ) {
        let encoded = info.encode().expect("the key fits");
        info.listen_addrs.truncate(info.listen_addrs.len() - encoded.omitted_addrs);
        info.protocols.truncate(info.protocols.len() - encoded.omitted_protocols);
        if encoded.omitted_record {
            info.signed_peer_record = None;
        }
        let theirs = Identify::decode_length_delimited(encoded.bytes.clone()).expect("a message");
        prop_assert_eq!(&theirs, &Identify::from(info.clone()));

        info.listen_addrs.truncate(Limits::default().addrs);
        let pieces: Vec<&[u8]> = encoded.bytes.chunks(piece).collect();
        prop_assert_eq!(read(&pieces).expect("a message").info, info);
    }

    #[test]
    fn any_bytes_are_an_error_or_within_the_limits_whatever_the_pieces(
        stream in vec(any::<u8>(), 0..400),
        damaged in any::<bool>(),
        info in any_info(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        piece in 1..50usize,
    ) {
        let mut stream = stream;
        if damaged {
            stream = info.encode().expect("the key fits").bytes.to_vec();
            for (at, byte) in changes {
                let at = at.index(stream.len());
                stream[at] = byte;
            }
        }
        let limits = Limits { messages: 3, message: 1000, addrs: 4, protocols: 4 };
        let pieces: Vec<&[u8]> = stream.chunks(piece).collect();
        let received = read_within(limits, &pieces);
        prop_assert_eq!(&read_within(limits, &[&stream]), &received);
        if let Ok(received) = received {
            prop_assert!(received.info.listen_addrs.len() <= 4 && received.info.protocols.len() <= 4);
        }
    }
}
