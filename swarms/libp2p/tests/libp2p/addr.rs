//! Addresses of hosts.

use std::collections::HashSet;

use p2p::{Addr as _, Error};
use p2p_libp2p::addr::{Place, Target};
use p2p_libp2p::{HostAddr, identity};

const PEER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
const OTHER: &str = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N";

fn addr(text: &str) -> HostAddr {
    text.parse().expect("a valid address")
}

#[test]
fn the_text_is_a_multiaddr_with_the_peer_last() {
    for text in [
        format!("/ip4/192.0.2.1/udp/4001/quic-v1/p2p/{PEER}"),
        format!("/dns4/example.org/tcp/4001/p2p/{OTHER}"),
        format!("/p2p/{PEER}"),
        format!("/p2p/{OTHER}/p2p/{PEER}"),
        format!("/p2p/{PEER}/p2p/{OTHER}/p2p/{PEER}"),
        "/ip6/2001:db8::1/tcp/80".to_owned(),
    ] {
        assert_eq!(addr(&text).to_string(), text);
    }
    assert_eq!(addr(&format!("/ipfs/{PEER}")).to_string(), format!("/p2p/{PEER}"));
}

#[test]
fn equality_names_a_peer_where_there_is_one() {
    let here = addr(&format!("/ip4/192.0.2.1/tcp/1/p2p/{PEER}"));
    let there = addr(&format!("/ip4/192.0.2.2/udp/1/quic-v1/p2p/{PEER}"));
    let other = addr(&format!("/ip4/192.0.2.1/tcp/1/p2p/{OTHER}"));
    assert_eq!(here, there);
    assert_eq!(here, here.canonical());
    assert_ne!(here, other);
    let places = [
        "/ip4/192.0.2.1/tcp/1",
        "/ip4/192.0.2.1/tcp/2",
        "/ip4/192.0.2.1/tcp/1",
    ]
    .map(addr);
    assert_ne!(places[0], places[1]);
    let mut all = HashSet::from([here.clone(), there, other]);
    assert_eq!(all.len(), 2);
    all.extend(places);
    assert_eq!(all.len(), 4);
    assert_eq!(here.peer_id(), here.libp2p_id().map(|id| identity(&id)));
    assert_eq!(here.socket_addr(), "192.0.2.1:1".parse().ok());
}

#[test]
fn only_places_that_can_be_dialled_have_a_transport() {
    let quic = Place::Quic(Target::Ip("192.0.2.1:4001".parse().expect("an address")));
    assert_eq!(addr("/ip4/192.0.2.1/udp/4001/quic-v1").transport(), Some(quic));
    let name = Target::Dns {
        name: "example.org".to_owned(),
        port: 80,
        ip6: Some(true),
    };
    assert_eq!(
        addr("/dns6/example.org/tcp/80").transport(),
        Some(Place::Tcp(name))
    );
    for text in [
        "/ip4/192.0.2.1/udp/4001/quic",
        "/ip4/192.0.2.1/udp/4001",
        "/ip4/192.0.2.1/udp/4001/quic-v1/webtransport",
        "/ip4/192.0.2.1/tcp/4001/ws",
        "/memory/1",
        &format!("/p2p/{PEER}"),
        &format!("/ip4/192.0.2.1/tcp/1/p2p/{PEER}/p2p-circuit"),
    ] {
        assert_eq!(addr(text).transport(), None, "{text}");
    }
}

#[test]
fn invalid_texts_are_refused_with_a_position() {
    for (text, at) in [
        ("", 0),
        ("ip4/192.0.2.1", 0),
        ("/ip4/192.0.2.1/nothing/1", 14),
        ("/ip4/192.0.2.1/tcp/65536", 14),
        ("/p2p/12D3", 0),
        ("/", 0),
    ] {
        match text.parse::<HostAddr>() {
            Err(Error::InvalidAddr { at: found, .. }) => assert_eq!(found, at, "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }
    let long = format!("/dns4/{}/tcp/1", "a".repeat(2000));
    assert!(long.parse::<HostAddr>().is_err());
}
