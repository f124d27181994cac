//! The text form of peer ids, compared with recorded results of the Go library.

use p2p::{Error, PeerId};
use proptest::prelude::*;
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors/peer_id.json")).expect("the vectors are JSON")
}

fn list<'a>(vectors: &'a Value, name: &str) -> &'a Vec<Value> {
    vectors[name]
        .as_array()
        .unwrap_or_else(|| panic!("{name} is a list"))
}

fn id(hex: &Value) -> PeerId {
    let hex = hex.as_str().expect("hex is a string");
    let byte = |index: usize| u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).expect("hex digits");
    PeerId::new(std::array::from_fn(byte))
}

#[test]
fn texts_equal_those_of_the_go_library() {
    let vectors = vectors();
    for case in list(&vectors, "text") {
        assert_eq!(case["text"], id(&case["bytes"]).to_string(), "{}", case["name"]);
        assert_eq!(
            case["text"]
                .as_str()
                .expect("text")
                .parse::<PeerId>()
                .expect("parses"),
            id(&case["bytes"])
        );
    }
    let mut ids: Vec<PeerId> = Vec::new();
    for text in list(&vectors, "sorted_text") {
        ids.push(text.as_str().expect("text").parse().expect("parses"));
    }
    assert!(ids.len() > 10 && ids.is_sorted(), "texts sort as the bytes do");
}

/// The Go library accepts some texts that are not ids, because it ignores what it cannot decode; here they are errors.
#[test]
fn each_id_has_exactly_one_text() {
    let vectors = vectors();
    for case in list(&vectors, "parse") {
        let text = case["text"].as_str().expect("text");
        match text.parse::<PeerId>() {
            Ok(parsed) => {
                assert_eq!(case["accepted"], true, "{}", case["name"]);
                assert_eq!(parsed, id(&case["bytes"]), "{}", case["name"]);
                assert_eq!(parsed.to_string(), text, "{}", case["name"]);
            }
            Err(Error::InvalidAddr { at, .. }) => {
                assert!(at <= text.len(), "{}", case["name"]);
                assert_ne!(case["name"], "good");
            }
            Err(other) => panic!("{}: {other}", case["name"]),
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_make_a_text_that_parses_back(bytes: [u8; 32]) {
        let id = PeerId::new(bytes);
        prop_assert_eq!(id.to_string().parse::<PeerId>().expect("parses"), id);
    }

    #[test]
    fn any_text_is_an_id_or_a_typed_error(text in ".{0,50}|[-0-9A-Z_a-z]{43}") {
        if let Ok(id) = text.parse::<PeerId>() {
            prop_assert_eq!(id.to_string(), text);
        }
    }
}
