//! Several transports as one swarm: addresses, fairness, and the end of one transport.

use p2p::{
    Addr as _, AskSwarm, BoxAddr, BoxAskSwarm, BoxSecureSwarm, BoxSwarm, Error, Headroom, Packet, PeerId,
    SecureSwarm, Swarm,
};
use p2p_swarms::map::EraseSwarm;
use p2p_swarms::memory::MemoryConfig;
use p2p_swarms::multi::{MixedSwarm, MultiAddr, MultiSwarm};
use p2p_swarms::{MemoryRealm, MemorySwarm, SwarmExt as _};
use p2p_swarmtest::{Ask, Profile, Testbed};
use proptest::prelude::*;
use serde_json::Value;

use crate::{counted, keeps_all_laws, profile};

fn erased(swarm: MemorySwarm) -> BoxAskSwarm<BoxAddr> {
    BoxAskSwarm::new(EraseSwarm::erase(swarm))
}

fn realms() -> [MemoryRealm; 2] {
    [0, 1].map(|_| MemoryRealm::default())
}

/// A node with a transport in each realm.
fn node(realms: &[MemoryRealm; 2]) -> MultiSwarm<BoxAskSwarm<BoxAddr>> {
    let transports = [("red", &realms[0]), ("blue", &realms[1])];
    MultiSwarm::new(transports.map(|(scheme, realm)| (scheme, erased(realm.open())))).expect("two schemes")
}

fn addr(node: &impl Swarm<MultiAddr>, scheme: &str) -> MultiAddr {
    let mut addrs = node.local_addrs().into_iter();
    addrs.find(|addr| addr.scheme() == scheme).expect("has one")
}

#[tokio::test(start_paused = true)]
async fn several_transports_keep_all_laws() {
    let realms = realms();
    let bed = Testbed::new(Ask, move |count| {
        std::future::ready(Ok((0..count).map(|_| node(&realms)).collect()))
    });
    let holds = Profile {
        holds: 2048,
        ..profile()
    };
    keeps_all_laws(bed.profile(holds)).await;
}

#[tokio::test]
async fn each_message_goes_through_the_transport_of_its_scheme() {
    let realms = realms();
    let (a, b) = (node(&realms), node(&realms));
    assert_eq!(
        b.local_addrs()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["red://1", "blue://1"]
    );
    let mut batch: Vec<(MultiAddr, Packet)> = Vec::new();
    for count in 0..10 {
        let scheme = ["red", "blue"][count % 2];
        batch.push((addr(&b, scheme), scheme.into()));
    }
    a.tell_batch(&mut batch).await.expect("told");
    for scheme in ["red", "blue"] {
        let transport = a.transport(scheme).expect("the transport exists");
        assert_eq!(counted(transport, "mem").sent, 5);
    }
    assert!(a.transport("green").is_none());
    let mut out = Vec::new();
    while out.len() < 10 {
        b.receive_batch(&mut out, 100).await.expect("received");
    }
    assert_eq!(counted(&a, "multi").sent, 10);
    let counts = counted(&b, "multi");
    assert_eq!((counts.received, counts.delivered), (10, 10));
    assert_eq!(counted(&b, "mem").delivered, 10, "over all transports");
    for message in out {
        assert_eq!(message.src, addr(&a, message.dst.scheme()));
        assert_eq!(&*message.payload, message.dst.scheme().as_bytes());
    }
    let answer = async {
        let request = b.receive_ask().await.expect("asked");
        assert_eq!(request.message.src, addr(&a, "blue"));
        request.respond("pong".into()).await.expect("responded");
    };
    let to = addr(&b, "blue");
    let (response, ()) = tokio::join!(a.ask(&to, "ping".into()), answer);
    assert_eq!(&*response.expect("answered"), b"pong");
}

#[tokio::test]
async fn a_busy_transport_does_not_starve_a_quiet_one() {
    let realms = realms();
    let (a, b) = (node(&realms), node(&realms));
    for _ in 0..100 {
        a.tell(&addr(&b, "red"), "busy".into()).await.expect("told");
    }
    a.tell(&addr(&b, "blue"), "quiet".into()).await.expect("told");
    a.tell(&addr(&b, "blue"), "quiet".into()).await.expect("told");
    let mut schemes = Vec::new();
    for _ in 0..4 {
        let message = b.receive().await.expect("received");
        schemes.push(message.dst.scheme().to_owned());
    }
    assert_eq!(schemes, ["red", "blue", "red", "blue"]);
    // Also of three, and in batches.
    let realms = [0, 1, 2].map(|_| MemoryRealm::default());
    let [a, b] = [0, 1].map(|_| {
        let transports = ["red", "green", "blue"].into_iter().zip(&realms);
        MultiSwarm::new(transports.map(|(scheme, realm)| (scheme, erased(realm.open()))))
            .expect("three schemes")
    });
    for to in b.local_addrs().iter().cycle().take(30) {
        a.tell(to, to.scheme().into()).await.expect("told");
    }
    let mut schemes = Vec::new();
    for _ in 0..6 {
        let mut out = Vec::new();
        assert_eq!(b.receive_batch(&mut out, 1).await.expect("received"), 1);
        schemes.push(out[0].dst.scheme().to_owned());
    }
    assert_eq!(schemes, ["red", "green", "blue", "red", "green", "blue"]);
}

#[tokio::test]
async fn cancelling_a_receive_loses_nothing() {
    let realms = realms();
    let (a, b) = (node(&realms), node(&realms));
    for count in 0..200 {
        let to = addr(&b, ["red", "blue"][count % 2]);
        let arrival = async {
            tokio::task::yield_now().await;
            a.tell(&to, Packet::default()).await.expect("told");
        };
        // The receive waits before the message arrives, and is cancelled as it arrives.
        tokio::select! {
            biased;
            message = b.receive() => panic!("{message:?} arrived before it was sent"),
            () = arrival => {}
        }
        assert_eq!(b.receive().await.expect("received").dst, to);
    }
}

#[tokio::test]
async fn one_transport_closing_leaves_the_others() {
    let realms = realms();
    let red = erased(realms[0].open());
    let blue = erased(realms[1].open());
    let a = MultiSwarm::new([("red", red.clone()), ("blue", blue.clone())]).expect("two schemes");
    let b = node(&realms);
    red.close().await;
    a.tell(&addr(&b, "blue"), "on".into()).await.expect("told");
    let error = a.tell(&addr(&b, "red"), Packet::default()).await;
    assert!(matches!(error, Err(Error::Unreachable { .. })), "{error:?}");
    let mut batch = vec![(addr(&b, "red"), "no".into()), (addr(&b, "blue"), "yes".into())];
    let error = a.tell_batch(&mut batch).await.expect_err("one is refused");
    assert_eq!((error.sent, error.refused), (1, 1));
    b.tell(&addr(&a, "blue"), "back".into()).await.expect("told");
    assert_eq!(&*a.receive().await.expect("received").payload, b"back");
    blue.close().await;
    assert!(matches!(a.receive().await, Err(Error::Closed)));
    assert!(matches!(
        a.tell(&addr(&b, "blue"), Packet::default()).await,
        Err(Error::Closed)
    ));
}

#[tokio::test]
async fn closing_wakes_waiting_calls_even_without_asks() {
    let realms = realms();
    let plain = BoxSwarm::new(EraseSwarm::erase(realms[0].open()));
    let transports = [
        ("plain", MixedSwarm::from(plain)),
        ("asks", MixedSwarm::from(erased(realms[1].open()))),
    ];
    let node = MultiSwarm::new(transports).expect("two schemes");
    let to = node.parse_addr("plain://0").expect("an address");
    let error = node.ask(&to, Packet::default()).await;
    assert!(matches!(error, Err(Error::Unreachable { .. })), "{error:?}");
    let (ask, message, ()) = tokio::join!(node.receive_ask(), node.receive(), async {
        tokio::task::yield_now().await;
        node.close().await;
        node.close().await;
    });
    assert!(matches!(ask, Err(Error::Closed)) && matches!(message, Err(Error::Closed)));
    // A transport without asks reports that, until it is closed.
    let alone = MixedSwarm::from(BoxSwarm::new(EraseSwarm::erase(realms[0].open())));
    let error = alone.ask(to.addr(), Packet::default()).await;
    assert!(matches!(error, Err(Error::Unreachable { .. })), "{error:?}");
    alone.close().await;
    let error = alone.ask(to.addr(), Packet::default()).await;
    assert!(matches!(error, Err(Error::Closed)), "{error:?}");
    assert!(matches!(
        node.ask(&to, Packet::default()).await,
        Err(Error::Closed)
    ));
}

#[tokio::test]
async fn keys_exist_if_all_transports_have_them() {
    let realms = realms();
    let open = || {
        let secure = |realm: &MemoryRealm| BoxSecureSwarm::new(EraseSwarm::erase(realm.open()));
        MultiSwarm::new([("red", secure(&realms[0])), ("blue", secure(&realms[1]))]).expect("two schemes")
    };
    let (a, b) = (open(), open());
    for to in b.local_addrs() {
        assert_eq!(a.lookup_public_key(&to).await.expect("known"), b.public_key());
    }
}

#[tokio::test]
async fn the_mtu_is_the_smallest_and_holds_for_all() {
    let small = MemoryRealm::new(MemoryConfig {
        mtu: 100,
        ..MemoryConfig::default()
    });
    let realms = [small, MemoryRealm::default()];
    let (a, b) = (node(&realms), node(&realms));
    assert_eq!(a.mtu(), 100);
    for scheme in ["red", "blue"] {
        let to = addr(&b, scheme);
        a.tell(&to, vec![0; 100].into()).await.expect("told");
        let error = a.tell(&to, vec![0; 101].into()).await;
        assert!(
            matches!(error, Err(Error::MtuExceeded { size: 101, mtu: 100 })),
            "{error:?}"
        );
    }
}

#[test]
fn schemes_that_cannot_be_parsed_back_are_refused() {
    let swarm = || erased(MemorySwarm::new());
    for schemes in [vec![], vec![""], vec!["a://b"], vec!["a", "b", "a"]] {
        let transports: Vec<_> = schemes.iter().map(|scheme| (*scheme, swarm())).collect();
        assert!(
            matches!(MultiSwarm::new(transports), Err(Error::Invalid { .. })),
            "{schemes:?}"
        );
    }
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("../vectors/addrs.json")).expect("the vectors are JSON")
}

fn text<'a>(case: &'a Value, name: &str) -> &'a str {
    case[name].as_str().expect("a text")
}

#[test]
fn texts_are_those_of_the_go_library() {
    for case in vectors()["multi_text"].as_array().expect("a list") {
        let inner = text(case, "inner");
        let socket = inner
            .rsplit_once(':')
            .and_then(|(ip, port)| Some((ip.parse().ok()?, port.parse().ok()?)))
            .map(|(ip, port): (std::net::IpAddr, u16)| BoxAddr::new(std::net::SocketAddr::from((ip, port))));
        let addr = match (text(case, "scheme"), socket) {
            (_, Some(socket)) => socket,
            ("p2pke", None) => continue, // its inner address belongs to another layer
            (_, None) => BoxAddr::new(inner.parse::<p2p_swarms::MemoryAddr>().expect("a number")),
        };
        // The Go library writes IPv6 without brackets and cannot parse that; this crate writes what both
        // parse.
        let written = MultiAddr::new(text(case, "scheme"), addr).to_string();
        assert_eq!(written.replace(['[', ']'], ""), text(case, "text"));
    }
}

#[test]
fn texts_parse_as_in_the_go_library() {
    let node = node_of_mem();
    let mut seen = 0;
    for case in vectors()["multi_parse"].as_array().expect("a list") {
        let text = text(case, "text");
        if text.starts_with("udp") || text.starts_with("p2pke") {
            continue; // tested with these transports
        }
        seen += 1;
        match node.parse_addr(text) {
            Ok(addr) => {
                assert_eq!(case["accepted"], true, "{text}");
                assert_eq!(case["text_again"], addr.to_string());
                assert_eq!(
                    (&case["scheme"], &case["inner"]),
                    (&Value::from(addr.scheme()), &Value::from(addr.addr().to_string()))
                );
            }
            Err(Error::InvalidAddr { text: whole, at, .. }) => {
                assert_eq!(case["accepted"], false, "{text}");
                assert!(&*whole == text && at <= text.len(), "{text}: byte {at}");
            }
            Err(error) => panic!("{text}: {error}"),
        }
    }
    assert!(seen >= 9, "{seen}");
}

fn node_of_mem() -> MultiSwarm<BoxAskSwarm<BoxAddr>> {
    let transports = ["mem", "other"].map(|scheme| (scheme, erased(MemorySwarm::new())));
    MultiSwarm::new(transports).expect("two schemes")
}

#[test]
fn an_error_has_a_position_and_says_what_is_expected() {
    let node = node_of_mem();
    let error = node.parse_addr("nope://3").expect_err("unknown").to_string();
    assert!(
        error.contains("byte 0") && error.contains("mem, other"),
        "{error}"
    );
    let error = node.parse_addr("mem://1x").expect_err("not a number").to_string();
    assert!(error.contains("byte 7"), "{error}");
    let error = node.parse_addr("mem").expect_err("no scheme").to_string();
    assert!(error.contains("byte 3"), "{error}");
}

#[test]
fn an_address_has_the_identity_and_socket_of_its_inner_address() {
    let within = |addr| MultiAddr::new("any", addr);
    let socket = std::net::SocketAddr::from(([127, 0, 0, 1], 9));
    let (local, peer) = (
        within(BoxAddr::new(socket)),
        within(BoxAddr::new(PeerId::new([7; 32]))),
    );
    assert_eq!((local.socket_addr(), local.peer_id()), (Some(socket), None));
    assert_eq!(
        (peer.socket_addr(), peer.peer_id()),
        (None, Some(PeerId::new([7; 32])))
    );
}

#[test]
fn a_packet_has_room_for_the_headers_of_every_transport() {
    let plain = |swarm| BoxSwarm::new(EraseSwarm::erase(swarm));
    let long_name = MemorySwarm::new()
        .mux()
        .open("a".repeat(30).as_str())
        .expect("the first");
    let transports = [
        ("bare", plain(MemorySwarm::new())),
        (
            "parts",
            BoxSwarm::new(EraseSwarm::erase(MemorySwarm::new().fragment(1 << 20))),
        ),
        ("channel", BoxSwarm::new(EraseSwarm::erase(long_name))),
    ];
    let rooms = transports.clone().map(|(_, transport)| transport.headroom());
    let most = rooms.iter().fold(Headroom::default(), |most, room| {
        Headroom::new(most.front.max(room.front), most.back.max(room.back))
    });
    assert_eq!(rooms[0], Headroom::default());
    assert_eq!(
        MultiSwarm::new(transports).expect("three schemes").headroom(),
        most
    );
}

#[tokio::test]
async fn an_address_of_no_transport_is_unreachable() {
    let node = node_of_mem();
    let nowhere = MultiAddr::new("nope", BoxAddr::new(PeerId::ZERO));
    let error = node.tell(&nowhere, Packet::default()).await;
    assert!(matches!(error, Err(Error::Unreachable { .. })), "{error:?}");
}

proptest! {
    #[test]
    fn any_text_is_an_address_that_displays_or_an_error_within_the_text(
        text in ".{0,30}|(mem|other)://.{0,10}|(mem|other)://[0-9]{1,20}"
    ) {
        let node = node_of_mem();
        match node.parse_addr(&text) {
            Ok(addr) => prop_assert_eq!(node.parse_addr(&addr.to_string()).expect("parses back"), addr),
            Err(Error::InvalidAddr { at, .. }) => prop_assert!(at <= text.len()),
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        }
    }
}
