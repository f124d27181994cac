//! Text form of socket addresses, compared with the Go library.

use std::net::{IpAddr, SocketAddr};

use p2p::Error;
use p2p_swarms::udp::parse_addr;
use proptest::prelude::*;
use serde_json::Value;

fn vectors(name: &str) -> Vec<Value> {
    let vectors: Value = serde_json::from_str(include_str!("../vectors/addrs.json")).unwrap();
    vectors[name].as_array().expect("a list").clone()
}

/// Texts that the Go library accepts and this one refuses. No program prints such an address: each is a
/// typing error, and Go's reading is not what was meant.
const REFUSED: [&str; 7] = [
    "127.0.0.1:0x50",
    // Octal for Go, which stops at the 8 and parses port 0.
    "127.0.0.1:080",
    "127.0.0.1:010",
    // Go ignores text after the number, and blanks before it.
    "127.0.0.1:80abc",
    "127.0.0.1: 80",
    "127.0.0.1:1_0",
    // Brackets are for IPv6: an address has one text.
    "[127.0.0.1]:80",
];

#[test]
fn texts_parse_as_in_go() {
    for case in vectors("udp_parse") {
        let text = case["text"].as_str().unwrap();
        let parsed = parse_addr(text);
        let accepted = case["accepted"].as_bool().unwrap() && !REFUSED.contains(&text);
        // A zone is the name of an interface, which this host may not have; see the next test.
        if text.contains('%') {
            continue;
        }
        assert_eq!(parsed.is_ok(), accepted, "{text}: {parsed:?}");
        if let Ok(parsed) = parsed {
            let ip: IpAddr = case["ip"].as_str().unwrap().parse().unwrap();
            // IPv4-mapped addresses are IPv4 here, because a peer has one address, whatever socket receives
            // from it.
            assert_eq!(parsed.ip(), ip.to_canonical(), "{text}");
            assert_eq!(u64::from(parsed.port()), case["port"].as_u64().unwrap(), "{text}");
        }
    }
}

#[test]
fn a_zone_is_an_interface_by_index_or_by_name() {
    let by_index = parse_addr("[fe80::1%7]:9000").unwrap();
    let SocketAddr::V6(v6) = by_index else {
        panic!("{by_index}")
    };
    assert_eq!(v6.scope_id(), 7);
    let unknown = parse_addr("[fe80::1%no such interface]:9000");
    assert!(
        matches!(unknown, Err(Error::InvalidAddr { at: 9, .. })),
        "{unknown:?}"
    );
    let loopback = if_addrs::get_if_addrs()
        .unwrap()
        .into_iter()
        .find(if_addrs::Interface::is_loopback);
    let loopback = loopback.expect("a loopback interface");
    let by_name = parse_addr(&format!("[fe80::1%{}]:9000", loopback.name)).unwrap();
    let SocketAddr::V6(v6) = by_name else {
        panic!("{by_name}")
    };
    assert_eq!(Some(v6.scope_id()), loopback.index);
}

#[test]
fn texts_are_those_of_go_with_brackets_around_ipv6_and_parse_back() {
    for case in vectors("udp_text") {
        let (ip, text) = (case["ip"].as_str().unwrap(), case["text"].as_str().unwrap());
        let Ok(ip) = ip.parse::<IpAddr>() else {
            assert!(ip.contains('%'), "{ip}");
            continue;
        };
        let port = u16::try_from(case["port"].as_u64().unwrap()).unwrap();
        let ours = SocketAddr::new(ip, port).to_string();
        assert_eq!(ours.replace(['[', ']'], ""), text);
        assert_eq!(
            parse_addr(&ours).unwrap(),
            SocketAddr::new(ip.to_canonical(), port)
        );
        // Go's own text of an IPv6 address parses in neither library: it is ambiguous.
        assert_eq!(
            parse_addr(text).is_ok(),
            case["parses_back"].as_bool().unwrap(),
            "{text}"
        );
    }
}

#[test]
fn an_error_has_the_position_of_the_first_invalid_part() {
    let cases = [
        ("", 0),
        ("localhost:80", 0),
        (":8080", 0),
        ("127.0.0.1", 9),
        ("127.0.0.1:", 10),
        ("127.0.0.1:65536", 10),
        ("127.0.0.1:-1", 10),
        ("127.0.0.1:80abc", 12),
        ("127.0.0.1:080", 10),
        ("127.0.0.01:80", 8),
        ("127.256.0.1:80", 4),
        ("1.2.3:80", 5),
        ("1.2.3.4.5:80", 7),
        ("127.0.0.1:80:90", 9),
        ("::1:80", 0),
        ("[::1:80", 7),
        ("[::1]", 5),
        ("[::1]80", 5),
        ("[::1]:x", 6),
        ("[::g]:1", 3),
        ("[]:1", 1),
        ("[fe80::1%]:1", 9),
        ("[fe80::1%4294967296]:1", 9),
    ];
    for (text, expected) in cases {
        match parse_addr(text) {
            Err(Error::InvalidAddr { text: said, at, .. }) => assert_eq!((&*said, at), (text, expected)),
            other => panic!("{text}: {other:?}"),
        }
    }
}

/// Text that is, or almost is, an address.
fn text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("[".to_owned()),
        Just("]".to_owned()),
        Just(":".to_owned()),
        Just("::".to_owned()),
        Just(".".to_owned()),
        Just("%".to_owned()),
        Just("ffff".to_owned()),
        Just("é".to_owned()),
        (0..70_000_u32).prop_map(|number| number.to_string()),
        any::<char>().prop_map(String::from),
    ];
    proptest::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn every_text_parses_or_is_an_error_with_a_position(text in prop_oneof![text(), any::<String>()]) {
        match parse_addr(&text) {
            Ok(addr) => prop_assert_eq!(parse_addr(&addr.to_string()).unwrap(), addr),
            Err(Error::InvalidAddr { at, .. }) => prop_assert!(text.is_char_boundary(at), "{at} in {text:?}"),
            Err(other) => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn every_address_parses_back(ip: IpAddr, port: u16, scope: u32) {
        let mut addr = SocketAddr::new(ip.to_canonical(), port);
        if let SocketAddr::V6(v6) = &mut addr {
            v6.set_scope_id(scope);
        }
        prop_assert_eq!(parse_addr(&addr.to_string()).unwrap(), addr);
    }
}
