//! The five framings, compared with recorded encodings, and with malformed input.

use p2p_protocols::mux::{Channel, Name, Varint, WireError};
use proptest::prelude::*;
use serde_json::Value;

mod hex;
use hex::hex;

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors/mux.json")).expect("the vectors are JSON")
}

fn number(row: &Value) -> u64 {
    match row["channel_hex"].as_str() {
        Some(text) => u64::from_str_radix(text, 16).expect("a hex number"),
        None => row["channel"].as_u64().expect("a number"),
    }
}

/// Checks every row of one framing; `channel` makes the channel of a row.
fn encodes_as_observed<C: Channel>(framing: &str, channel: impl Fn(&Value) -> C) {
    let vectors = vectors();
    for row in vectors[framing].as_array().expect("a list") {
        let (channel, encoded, payload) = (channel(row), hex(&row["encoded"]), hex(&row["payload"]));
        assert_eq!(
            [&*channel.header(), &payload].concat(),
            encoded,
            "{framing} {channel}"
        );
        let (key, len) = C::read(&encoded).expect("the recorded peer parses it");
        assert!(
            *key == *channel.borrow() && encoded[len..] == payload,
            "{framing} {channel}"
        );
    }
}

#[test]
fn frame_encodings_equal_the_recorded_ones() {
    encodes_as_observed("string", |row| Name::from(&hex(&row["channel_utf8"])));
    encodes_as_observed("uint16", |row| u16::try_from(number(row)).expect("16 bits"));
    encodes_as_observed("uint32", |row| u32::try_from(number(row)).expect("32 bits"));
    encodes_as_observed("uint64", number);
    encodes_as_observed("varint", |row| Varint(number(row)));
}

#[test]
fn frames_are_parsed_and_rejected_as_recorded() {
    let vectors = vectors();
    for row in vectors["demux_cases"].as_array().expect("a list") {
        let input = hex(&row["input"]);
        let read: Result<(Vec<u8>, usize), WireError> = match row["mux"].as_str() {
            Some("string") => Name::read(&input).map(|(name, len)| (name.into_owned(), len)),
            Some("uint16") => u16::read(&input).map(|(id, len)| (u64::from(*id).to_be_bytes().into(), len)),
            Some("uint32") => u32::read(&input).map(|(id, len)| (u64::from(*id).to_be_bytes().into(), len)),
            Some("uint64") => u64::read(&input).map(|(id, len)| (id.to_be_bytes().into(), len)),
            Some("varint") => Varint::read(&input).map(|(id, len)| (id.0.to_be_bytes().into(), len)),
            other => panic!("an unknown framing {other:?}"),
        };
        if row["rejected"] == true {
            assert!(read.is_err(), "{row}");
            continue;
        }
        let channel = row.get("channel_utf8").unwrap_or(&row["channel_hex"]);
        let (key, len) = read.expect("the recorded peer parses it");
        assert_eq!(
            (key, input[len..].to_vec()),
            (hex(channel), hex(&row["payload"])),
            "{row}"
        );
    }
}

#[test]
fn a_name_escapes_bytes_that_are_not_text() {
    assert_eq!(Name::from("dht").to_string(), "dht");
    assert_eq!(Name::from(&[0xff, b'a']).to_string(), r"\xffa");
}

/// Checks that a parsed frame is the header of its channel (or an overlong form of it), then the payload.
fn reads_or_rejects<C: Channel>(bytes: &[u8]) -> Result<(), TestCaseError>
where
    <C::Key as ToOwned>::Owned: Into<C>,
{
    if let Ok((key, len)) = C::read(bytes) {
        let channel: C = key.into_owned().into();
        prop_assert!(channel.header().len() <= len && len <= bytes.len());
        let again = [&*channel.header(), &bytes[len..]].concat();
        let (key, len) = C::read(&again).expect("the encoding parses");
        prop_assert!(
            *key == *channel.borrow() && again.ends_with(&bytes[bytes.len() - (again.len() - len)..])
        );
    }
    Ok(())
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok((name, len)) = Name::read(&bytes) {
            prop_assert!(bytes[..len].ends_with(&name));
        }
        reads_or_rejects::<u16>(&bytes)?;
        reads_or_rejects::<u32>(&bytes)?;
        reads_or_rejects::<u64>(&bytes)?;
        reads_or_rejects::<Varint>(&bytes)?;
    }

    #[test]
    fn every_name_round_trips(name: Vec<u8>, payload: Vec<u8>) {
        let frame = [&*Name::from(&name).header(), &payload].concat();
        let (read, len) = Name::read(&frame).expect("the encoding parses");
        prop_assert_eq!((&*read, &frame[len..]), (&*name, &*payload));
    }
}
