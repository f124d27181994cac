//! Floods of address validation: 1,024 addresses are remembered, a quarter of them for one network. Whatever the flood, an honest
//! node is served, and sources that proved nothing get fewer bytes than they sent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use p2p::PeerId;
use p2p_protocols::{chord, kademlia};

const NOW: Duration = Duration::from_secs(1000);

/// The numbers of remembered addresses, in total and of one network.
const ADDRESSES: usize = 1024;
const OF_NETWORK: usize = ADDRESSES / 4;

/// Length of an answer that is only a token.
const TOKEN: usize = 9;

/// A node whose addresses prove nothing, as a function of the source and the request.
type Serve = Box<dyn FnMut(SocketAddr, &[u8]) -> Vec<u8>>;

/// An engine's name, a node with it, and one of its requests, whose answer is longer than a token.
fn engines() -> [(&'static str, Serve, Vec<u8>); 2] {
    let (own, other) = (PeerId::new([0; 32]), [9; 32]);
    let parse = |text: &str| text.parse().ok();
    let kademlia_config = kademlia::Config {
        unproven_ids: true,
        ..kademlia::Config::default()
    };
    let rules = kademlia::Rules::new(kademlia_config, parse, |_: &PeerId, _: &[u8]| true);
    let mut kademlia = kademlia::Engine::<SocketAddr>::new(own, Arc::new(rules), NOW, 1);
    let chord_config = chord::Config {
        unproven_ids: true,
        ..chord::Config::default()
    };
    let rules = chord::Rules::new(chord_config, parse, |_: &PeerId, _: &[u8]| true);
    let mut chord = chord::Engine::<SocketAddr>::new(own, Arc::new(rules), NOW, 1);
    let serve_kademlia: Serve = Box::new(move |from, request| {
        let answer = kademlia.handle_request(NOW, &from, request);
        answer.expect("a good request").clone()
    });
    let serve_chord: Serve = Box::new(move |from, request| {
        let answer = chord.handle_request(NOW, &from, request);
        answer.expect("a good request").clone()
    });
    [
        (
            "Kademlia",
            serve_kademlia,
            kademlia::wire::Message::new(other, kademlia::wire::Ask::Ping).emit(),
        ),
        (
            "Chord",
            serve_chord,
            chord::wire::Message::new(other, chord::wire::Ask::Ping).emit(),
        ),
    ]
}

/// Returns whether a request without a token is served.
fn is_remembered(serve: &mut Serve, from: SocketAddr, request: &[u8]) -> bool {
    serve(from, request).len() != TOKEN
}

/// Requests, and repeats the request with the token if it is asked to. Returns whether the second request was served.
fn validate(serve: &mut Serve, from: SocketAddr, request: &[u8]) -> bool {
    let token = serve(from, request);
    token.len() != TOKEN || serve(from, &[&token, request].concat()).len() != TOKEN
}

/// A crowd's name, the address of each member, and how many of its addresses are remembered.
type Crowd = (&'static str, fn(u16) -> SocketAddr, usize);

const CROWDS: [Crowd; 4] = [
    ("one address", |_| ([203, 0, 113, 1], 1).into(), 3000),
    ("one host", |at| ([203, 0, 113, 1], 1 + at).into(), OF_NETWORK),
    (
        "one network",
        |at| ([203, 0, 113, (at % 250) as u8], 1 + at / 250).into(),
        OF_NETWORK,
    ),
    (
        "many networks",
        |at| {
            let [high, low] = at.to_be_bytes();
            ([48, high, low, 1], 1).into()
        },
        ADDRESSES,
    ),
];

#[test]
fn validated_addresses_have_limits_and_those_of_one_network_displace_only_their_own() {
    for (crowd, at, remembered) in CROWDS {
        for (engine, mut serve, request) in engines() {
            let case = format!("{engine}, {crowd}");
            let honest: Vec<SocketAddr> = (0..16).map(|host| ([60, host, 0, 1], 1).into()).collect();
            for from in &honest {
                assert!(validate(&mut serve, *from, &request), "{case}");
            }
            for member in 0..3000 {
                assert!(validate(&mut serve, at(member), &request), "{case}");
            }
            // Few enough that these requests ask for no token themselves.
            let left = (0..3000).filter(|member| is_remembered(&mut serve, at(*member), &request));
            assert_eq!(left.count(), remembered, "{case}");
            for from in &honest {
                // Crowds of many networks may displace it, which costs it one round trip.
                let is_there = is_remembered(&mut serve, *from, &request);
                assert!(is_there || crowd == "many networks", "{case}");
                assert!(validate(&mut serve, *from, &request), "{case}");
                assert!(is_remembered(&mut serve, *from, &request), "{case}");
            }
            // A newcomer of the crowd's own network is served as well.
            let neighbour = ([203, 0, 113, 251], 9).into();
            assert!(validate(&mut serve, neighbour, &request), "{case}");
        }
    }
}

#[test]
fn a_flood_of_forged_sources_gets_fewer_bytes_than_it_sent_and_no_address_is_remembered_for_it() {
    for (crowd, at, _) in CROWDS {
        for (engine, mut serve, request) in engines() {
            let case = format!("{engine}, {crowd}");
            let honest: SocketAddr = ([60, 0, 0, 1], 1).into();
            assert!(validate(&mut serve, honest, &request), "{case}");
            let stolen = serve(([61, 0, 0, 1], 1).into(), &request);
            assert_eq!(stolen.len(), TOKEN, "{case}");
            let (mut sent, mut answered) = (0, 0);
            for member in 0..3000 {
                // Without a token, with a made-up one, and with another address's.
                for token in [&[][..], &[2; TOKEN], &stolen] {
                    let forged = [token, &request].concat();
                    sent += forged.len();
                    answered += serve(at(member), &forged).len();
                }
            }
            assert!(3 * answered <= sent, "{case}: {answered} B for {sent} B");
            assert_eq!(serve(at(0), &request).len(), TOKEN, "{case}");
            assert!(is_remembered(&mut serve, honest, &request), "{case}");
        }
    }
}
