//! Stacks with layers that have a private key.

use p2p::{Addr, BoxAddr, Error};
use p2p_formats::x509::{Fingerprint, Registry, sha3_256, shake256};

use super::*;

fn key(number: u8) -> PrivateKey {
    PrivateKey::ed25519(&[number; 32])
}

/// Returns the id that a layer derives from a key.
fn id(fingerprint: Fingerprint, key: &PrivateKey) -> PeerId {
    fingerprint(Registry::default().signer(key).expect("a key").public_key())
}

fn quic_id(key: &PrivateKey) -> PeerId {
    id(sha3_256, key)
}

fn p2pke_id(key: &PrivateKey) -> PeerId {
    id(shake256, key)
}

async fn built(text: &str, number: u8) -> Stack {
    let stack = parse(text).build_with(&key(number)).await;
    stack.unwrap_or_else(|error| panic!("{error}"))
}

fn addr(stack: &Stack) -> BoxAddr {
    stack.local_addrs().remove(0)
}

fn counted(stack: &Stack) -> Vec<&'static str> {
    let mut layers = Vec::new();
    stack.visit_counters(&mut |counters| layers.push(counters.layer()));
    layers
}

#[tokio::test]
async fn a_node_has_the_given_key_or_a_random_one() {
    for text in ["udp/quic", "mem=keys/p2pke/quic/frag", "udp/mux=a/quic/faulty"] {
        assert!(parse(text).takes_key());
        assert_eq!(addr(&built(text, 1).await).peer_id(), Some(quic_id(&key(1))));
        let (one, other) = (built_of(&parse(text)).await, built_of(&parse(text)).await);
        assert_ne!(addr(&one).peer_id(), addr(&other).peer_id());
    }
    let node = built("udp/p2pke/frag", 1).await;
    assert_eq!(addr(&node).peer_id(), Some(p2pke_id(&key(1))));
    assert!(!parse("mem/frag/mbapp").takes_key());
}

#[tokio::test]
async fn all_layers_of_a_node_share_its_key() {
    let (p2pke, quic) = (p2pke_id(&key(1)), quic_id(&key(1)));
    let text = addr(&built("mem=share/quic/frag/p2pke", 1).await).to_string();
    assert!(text.starts_with(&format!("{p2pke}@{quic}@")), "{text}");
    let node = built("mem=share/p2pke/frag/quic", 1).await;
    let text = addr(&node).to_string();
    assert!(text.starts_with(&format!("{quic}@{p2pke}@")), "{text}");
    assert_eq!(node.parse_addr(&text).ok(), Some(addr(&node)));
}

#[tokio::test]
async fn an_address_with_an_identity_opens_only_with_its_key() {
    let text = parse("mem=which_key/quic/frag");
    let node = text.build_with(&key(1)).await.expect("built");
    let free = format!("{}@77", quic_id(&key(1)));
    let free = node.parse_addr(&free).expect("an address");
    let error = text.build_at(&free, &key(2)).await.expect_err("another key");
    assert!(error.reason().contains("needs the key"), "{error}");
    let again = built_again(&text, &free, &key(1)).await;
    assert_eq!(addr(&again), free);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_id_at_a_used_address_is_unreachable() {
    for (text, fingerprint) in [
        ("mem=forged/quic/mux=a", sha3_256 as Fingerprint),
        ("mem=forged/p2pke/mbapp", shake256),
    ] {
        let (a, b) = (built(text, 1).await, built(text, 2).await);
        let wrong = forged(&addr(&b), id(fingerprint, &key(3))).expect("it has an id");
        assert_eq!(wrong, a.parse_addr(&wrong.to_string()).expect("its own text"));
        let error = a
            .tell(&wrong, "to a wrong id".into())
            .await
            .expect_err("no such node");
        assert!(
            matches!(error, Error::Unreachable { .. } | Error::TimedOut { .. }),
            "{error}"
        );
        assert_eq!(forged(&wrong, id(fingerprint, &key(2))), Some(addr(&b)));
    }
    assert!(forged(&addr(&built("udp/p2pke", 1).await), PeerId::ZERO).is_some());
    assert!(forged(&addr(&built("udp/quic", 1).await), PeerId::ZERO).is_some());
    assert_eq!(
        forged(&addr(&built("mem=forged/frag", 1).await), PeerId::ZERO),
        None
    );
}

#[tokio::test]
async fn quic_directly_on_udp_has_its_own_socket() {
    assert_eq!(
        counted(&built("udp/quic", 1).await),
        ["quic", "quic-ask", "quic-handshake"]
    );
    let over = counted(&built("udp/faulty/quic", 1).await);
    assert!(over.contains(&"quic-socket") && over.contains(&"udp"), "{over:?}");
    let error = parse("udp=192.0.2.1:1/quic").build().await.expect_err("not here");
    assert!(!error.is_in_text() && error.at() == 0, "{error}");
}

#[tokio::test]
async fn a_secure_layer_over_a_small_mtu_is_an_error_at_its_position() {
    for (text, at, least) in [
        ("udp,mtu=1199/quic", 13, "1200"),
        ("udp,mtu=1199/mux=a/quic", 19, "1200"),
        ("mem/frag=1000/quic/frag", 14, "1200"),
        ("udp,mtu=165/p2pke", 12, "166"),
        ("udp,mtu=166/mux16=1/p2pke/frag", 20, "166"),
    ] {
        let error = parse(text).build().await.expect_err("too little");
        assert_eq!((error.at(), error.is_in_text()), (at, true), "{error}");
        assert!(error.reason().contains(least), "{error}");
    }
    built("udp,mtu=1200/quic", 1).await;
    built("udp,mtu=166/p2pke", 1).await;
}

#[tokio::test]
async fn messages_and_asks_cross_secure_layers_at_any_position() {
    for text in [
        "udp/quic=3000000",
        "udp,mtu=9000/quic=3000000",
        "udp/mux=a/quic=3000000/mux16=7",
        "mem=cross/quic/frag=3000/quic=3000000",
        "mem=cross/p2pke/mbapp=3000000",
        "udp/p2pke/quic=3000000/p2pke/mbapp=2999000",
    ] {
        let (a, b) = (built(text, 1).await, built(text, 2).await);
        let to = a.parse_addr(&addr(&b).to_string()).expect("its own text");
        assert_eq!(to, addr(&b));
        let payload: Packet = vec![7; a.mtu()].into();
        assert!(payload.len() >= 2_999_000);
        a.tell(&to, payload.clone()).await.expect("told");
        let message = b.receive().await.expect("received");
        assert_eq!((&message.payload, &message.src), (&payload, &addr(&a)), "{text}");
        let (asks, answers) = (a.asks().expect("asks"), b.asks().expect("asks"));
        let answer = async {
            let request = answers.receive_ask().await.expect("asked");
            let same = request.message.payload.clone();
            request.respond(same).await.expect("responded");
        };
        let (response, ()) = tokio::join!(asks.ask(&to, payload.clone()), answer);
        assert_eq!(response.expect("answered"), payload, "{text}");
    }
}

#[tokio::test]
async fn an_allow_list_accepts_ids_above_a_layer_that_proves_them() {
    let friend = p2pke_id(&key(1));
    let node = built(&format!("mem=ids/p2pke/allow={friend}"), 9).await;
    let (one, other) = (built("mem=ids/p2pke", 1).await, built("mem=ids/p2pke", 2).await);
    other.tell(&addr(&node), "no".into()).await.expect("told");
    one.tell(&addr(&node), "yes".into()).await.expect("told");
    assert_eq!(&*node.receive().await.expect("received").payload, b"yes");

    let text = format!("mem=ids/p2pke/allow={friend};{friend}@1x");
    let error = parse(&text).build().await.expect_err("no address");
    assert_eq!(error.at(), text.len() - 1, "{error}");
}

/// Stacks over memory, most of which can be built.
fn over_memory() -> impl Strategy<Value = String> {
    let layer = prop_oneof![
        3 => prop_oneof![Just("p2pke"), Just("quic"), Just("mbapp"), Just("frag"), Just("faulty,loss=0.5"), Just("kad"), Just("chord")].prop_map(str::to_owned),
        1 => "(frag|mbapp|quic)=[1-9][0-9]{0,4}",
        1 => "mux(16|32|64|v|)=[0-9]{1,4}",
        1 => "allow=[0-9]{1,2}",
    ];
    proptest::collection::vec(layer, 0..5)
        .prop_map(|layers| [vec!["mem=over_memory".to_owned()], layers].concat().join("/"))
}

proptest! {
    #[test]
    fn a_stack_over_memory_is_built_with_parsable_addresses_or_has_an_error_with_a_position(text in over_memory()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let _entered = runtime.enter();
        let built = match text.parse::<StackText>() {
            Ok(stack) => runtime.block_on(stack.build()),
            Err(error) => Err(error),
        };
        match built {
            Ok(stack) => for addr in stack.local_addrs() {
                prop_assert_eq!(stack.parse_addr(&addr.to_string()).ok(), Some(addr));
            },
            Err(error) => {
                prop_assert!(error.at() >= 4 && text.is_char_boundary(error.at()), "{}", error);
                prop_assert!(error.is_in_text(), "{}", error);
            }
        }
    }
}
