//! Addresses with identities, against recorded texts; any other text is at worst an error with a position
//! within it.

use std::net::SocketAddr;

use p2p::{Addr as _, Error, PeerId, Result};
use p2p_swarms::{KeyAddr, udp};
use proptest::prelude::*;
use serde_json::Value;

fn vectors() -> Value {
    let text = std::fs::read_to_string(format!("{}/tests/vectors/addrs.json", env!("CARGO_MANIFEST_DIR")));
    serde_json::from_str(&text.expect("the vectors are there")).expect("and are JSON")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

fn id(value: &Value) -> PeerId {
    let hex = text(value);
    let bytes: Vec<u8> = (0..hex.len() / 2)
        .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex"))
        .collect();
    PeerId::new(bytes.try_into().expect("32 bytes"))
}

fn parse(text: &str) -> Result<KeyAddr<SocketAddr>> {
    KeyAddr::parse(text, udp::parse_addr)
}

#[test]
fn recorded_texts_parse_or_are_errors_with_a_position() {
    let vectors = vectors();
    let cases = vectors["secure_parse"].as_array().expect("cases");
    assert!(!cases.is_empty());
    for case in cases {
        let spelled = text(&case["text"]);
        // The recorded parser accepts a text that is not an id as an empty id; that is a bug, not a format.
        let good = case["quic_accepted"] == true && !spelled.starts_with('!');
        match parse(spelled) {
            Ok(addr) => {
                assert!(good, "{spelled}");
                assert_eq!(addr.id, id(&case["id"]));
                assert_eq!(parse(&addr.to_string()).expect("its own text"), addr);
            }
            Err(Error::InvalidAddr { text, at, .. }) => {
                assert!(!good, "{spelled}");
                assert_eq!(&*text, spelled);
                assert!(
                    at <= spelled.len() && spelled.is_char_boundary(at),
                    "{spelled} at {at}"
                );
            }
            Err(other) => panic!("{spelled}: {other}"),
        }
    }
}

#[test]
fn a_recorded_ipv4_text_is_the_display_of_its_address() {
    for case in vectors()["secure_text"].as_array().expect("cases") {
        let spelled = text(&case["quic_udp"]);
        if case["quic_parses_back"] == true {
            assert_eq!(parse(spelled).expect("a good address").to_string(), spelled);
        }
    }
}

#[test]
fn addresses_nest_and_are_split_at_the_first_sign() {
    let case = &vectors()["nested"];
    let inner = |text: &str| {
        KeyAddr::parse(text, |text| {
            text.parse::<u64>()
                .map_err(|error| Error::addr(text, 0, error.to_string()))
        })
    };
    let addr = KeyAddr::parse(text(&case["text"]), inner).expect("a good address");
    assert_eq!(addr.id, id(&case["outer_id"]));
    assert_eq!(addr.addr.id, id(&case["inner_id"]));
    assert_eq!(addr.to_string(), text(&case["text"]));
}

#[test]
fn an_error_in_the_inner_address_points_into_the_whole_text() {
    let spelled = format!("{}@127.0.0.1:x", PeerId::ZERO);
    match parse(&spelled) {
        Err(Error::InvalidAddr { at, .. }) => assert_eq!(&spelled[at..], "x"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_address_returns_its_identity_and_its_socket_address() {
    let socket: SocketAddr = "127.0.0.1:9".parse().expect("a socket address");
    let addr = KeyAddr::new(PeerId::new([1; 32]), KeyAddr::new(PeerId::ZERO, socket));
    assert_eq!(addr.peer_id(), Some(PeerId::new([1; 32])));
}

proptest! {
    #[test]
    fn text_and_address_are_inverse(bytes: [u8; 32], ip: [u8; 16], port: u16) {
        let addr = KeyAddr::new(PeerId::new(bytes), udp::parse_addr(&SocketAddr::from((ip, port)).to_string())?);
        prop_assert_eq!(parse(&addr.to_string())?, addr);
    }

    #[test]
    fn any_text_parses_or_is_an_error_with_a_position(text in ".{0,80}") {
        if let Err(error) = parse(&text) {
            match error {
                Error::InvalidAddr { at, .. } => prop_assert!(at <= text.len()),
                other => prop_assert!(false, "{other}"),
            }
        }
    }
}
