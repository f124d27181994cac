use p2p::{AskSwarm, DropReason, Packet, PeerId, Swarm};
use p2p_formats::x509::PrivateKey;
use proptest::prelude::*;

use super::*;
use crate::faulty::LinkFaults;

mod secure;
mod words;

fn parse(text: &str) -> StackText {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

async fn built_of(text: &StackText) -> Stack {
    text.build().await.unwrap_or_else(|error| panic!("{error}"))
}

/// Returns the error of a text, checking its position.
#[track_caller]
fn refused(text: &str, at: usize) -> String {
    let error = text.parse::<StackText>().expect_err(text);
    assert_eq!(error.at(), at, "{error}");
    assert!(error.is_in_text());
    error.reason().to_owned()
}

#[test]
fn a_text_becomes_typed_layers() {
    let stack = parse("udp=[::1]:0,mtu=1452/faulty,loss=0.1,delay=5,seed=7/frag=9000/mux=chat/mux16=65535");
    let expected = [
        Layer::Udp {
            addr: Some("[::1]:0".parse().expect("an address")),
            mtu: Some(1452),
        },
        Layer::Faulty {
            seed: 7,
            link: LinkFaults {
                loss: 0.1,
                delay: std::time::Duration::from_millis(5),
                ..LinkFaults::default()
            },
        },
        Layer::Frag { mtu: Some(9000) },
        Layer::Mux(Channel::Name("chat".into())),
        Layer::Mux(Channel::U16(65535)),
    ];
    assert!(stack.layers().eq(&expected), "{stack:?}");
}

#[test]
fn omitted_arguments_have_defaults() {
    assert!(parse("mem").layers().eq([&Layer::Mem { realm: None }]));
    assert_eq!(parse("udp/frag").to_string(), "udp/frag");
    assert_eq!(parse("mem/faulty,loss=0").to_string(), "mem/faulty");
}

#[test]
fn an_error_has_a_position_and_says_what_is_expected() {
    assert!(refused("", 0).contains("mem, udp"));
    assert!(refused("tcp=1.2.3.4:5", 0).contains("mem, udp"));
    assert!(refused("frag=9000", 0).contains("mem, udp"));
    assert!(refused("mem/frog=9", 4).contains("faulty, frag, mux, mux16"));
    assert!(refused("mem/", 4).contains("frag"));
    assert!(refused("mem//frag", 4).contains("frag"));
    assert!(refused("mem/udp=127.0.0.1:0", 4).contains("a base"));
    assert!(refused("udp=127.0.0.1", 13).contains("port"));
    assert!(refused("udp=,mtu=9", 4).contains("IP address"));
    assert!(refused("udp=127.0.0.1:0,mtu=0", 20).contains("1 to 65507"));
    assert!(refused("udp=127.0.0.1:0,mut=9", 16).contains("mtu"));
    assert!(refused("mem,mtu=9", 4).contains("none"));
    assert!(refused("mem/faulty,loss=2", 16).contains("0 to 1"));
    assert!(refused("mem/faulty,loss=NaN", 16).contains("0 to 1"));
    assert!(refused("mem/faulty,loss", 15).contains("name=value"));
    assert!(refused("mem/faulty,loss=0,loss=1", 18).contains("twice"));
    assert!(refused("mem/faulty=0.1", 11).contains("faulty,loss="));
    assert!(refused("mem/faulty,lose=0.1", 11).contains("loss, dup, reorder, corrupt"));
    assert!(refused("mem/quic=0", 9).contains("1 to 4294967295"));
    assert!(refused("mem/quic,mtu=9", 9).contains("none"));
    assert!(refused("mem/p2pke=9", 10).contains("no argument"));
    assert!(refused("quic/udp", 0).contains("below"));
    assert!(refused("mem/mux", 7).contains("mux="));
    assert!(refused("mem/mux16=65536", 10).contains("65535"));
    assert!(refused("mem/allow=a;;b", 12).contains("expected"));
    assert!(refused(&format!("mem{}", "/frag".repeat(40)), 3 + 31 * 5 + 1).contains("32 layers"));
    let options: Vec<String> = (0..20).map(|option| format!(",{option:02}=0")).collect();
    let options = options.concat();
    assert!(refused(&format!("mem/faulty{options}"), 10 + 16 * 5 + 1).contains("16 options"));
}

#[test]
fn a_caret_marks_the_position() {
    let error = "mem/über=9".parse::<StackText>().expect_err("no such layer");
    let text = error.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(&lines[1..], ["  mem/über=9", "      ^"], "{text}");
    let error = "mem/mux=ü/frag=\n9".parse::<StackText>().expect_err("no number");
    let text = error.to_string();
    assert_eq!(text.lines().count(), 3, "{text}");
    assert_eq!(text.lines().last().expect("a caret").len(), 2 + 15 + 1, "{text}");
}

#[tokio::test]
async fn an_allow_list_is_parsed_by_the_stack_below() {
    let stack = parse(&format!("mem=allow-list/allow={};17", PeerId::ZERO));
    stack.build().await.expect("an id and an address");
    let error = parse("mem=allow-list/frag/allow=17;1x")
        .build()
        .await
        .expect_err("no address");
    assert_eq!((error.at(), error.is_in_text()), (30, true), "{error}");
}

/// Returns whether a stack has asks and keys.
async fn has(text: &str) -> (bool, bool) {
    let stack = parse(text)
        .build()
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    (stack.asks().is_some(), stack.keys().is_some())
}

#[tokio::test]
async fn swarm_ext_methods_hide_no_method_of_a_stack() {
    use crate::SwarmExt as _;
    let stack = parse("udp/faulty").build().await.expect("a stack");
    assert!(stack.asks().is_none() && stack.keys().is_none());
    let asking = stack.mbapp(4000);
    assert_eq!(asking.mtu(), 4000);
    // The former name, on swarms without a method of that name.
    let swarm = crate::MemoryRealm::default().open().fragment(9000).mbapp(4000);
    assert_eq!(swarm.mtu(), 4000);
}

#[tokio::test]
async fn a_stack_has_the_capabilities_of_all_its_layers() {
    assert_eq!(has("mem").await, (true, true));
    for (text, at) in [
        ("mem/faulty/mux=a", None),
        ("udp/mux=a", Some(0)),
        ("mem/frag/mux=a", Some(4)),
        ("mem/mbapp/frag/mux=a", Some(10)),
        ("udp/frag=9000/mbapp=100000/mux=a", None),
        ("udp/quic/mux=a", None),
        ("udp/quic/p2pke/mux=a", Some(9)),
        ("mem/kad/mux=a", None),
        ("mem/kad/frag/mux=a", Some(8)),
    ] {
        let error = parse(text).check_asks().err();
        assert_eq!(error.as_ref().map(StackError::at), at);
        assert_eq!(
            has(text).await.0,
            error.is_none(),
            "the check agrees with the built stack"
        );
        assert!(error.is_none_or(|error| error.reason().contains("and mbapp, and on them faulty")));
    }
    assert_eq!(
        has("mem/faulty/mux=a/mux16=1/mux32=1/mux64=1/muxv=1/allow=1").await,
        (true, true)
    );
    assert_eq!(has("mem/frag=9000").await, (false, true), "asks end at frag");
    assert_eq!(has("udp").await, (false, false));
    assert_eq!(has("udp/faulty/frag/mux=a").await, (false, false));
    assert_eq!(has("udp/mbapp/faulty").await, (true, false));
    assert_eq!(has("mem/frag/mbapp").await, (true, true));
    assert_eq!(has("udp/p2pke").await, (false, true));
    assert_eq!(has("udp/p2pke/mbapp").await, (true, true));
    assert_eq!(has("udp/quic/mux=a").await, (true, true));
    assert_eq!(has("udp/quic/frag").await, (false, true));
}

#[tokio::test]
async fn nodes_of_one_realm_reach_each_other_on_the_same_channel() {
    let text = parse("mem=nodes_of_one_realm_meet/faulty/mux=chat");
    let (a, b) = (built_of(&text).await, built_of(&text).await);
    let other = built_of(&parse("mem=another/mux=chat")).await;
    let to = b.local_addrs().remove(0);
    a.tell(&to, "hello".into()).await.expect("told");
    other.tell(&to, "not here".into()).await.expect("told, and lost");
    let message = b.receive().await.expect("received");
    assert_eq!(
        (&*message.payload, &message.src),
        (&b"hello"[..], &a.local_addrs()[0])
    );
    let (asks, answers) = (a.asks().expect("asks"), b.asks().expect("asks"));
    let answer = async {
        let request = answers.receive_ask().await.expect("asked");
        request.respond("pong".into()).await.expect("responded");
    };
    let (response, ()) = tokio::join!(asks.ask(&to, "ping".into()), answer);
    assert_eq!(&*response.expect("answered"), b"pong");
}

#[tokio::test]
async fn a_message_crosses_udp_in_fragments() {
    let text = parse("udp=127.0.0.1:0/frag=65536/mux=chat");
    let (a, b) = (built_of(&text).await, built_of(&text).await);
    assert!(a.mtu() > 65_000);
    let payload: Packet = vec![7; a.mtu()].into();
    a.tell(&b.local_addrs()[0], payload.clone()).await.expect("told");
    assert_eq!(b.receive().await.expect("received").payload, payload);
    let mut layers = Vec::new();
    a.visit_counters(&mut |counters| layers.push(counters.layer()));
    assert_eq!(layers.first(), Some(&"mux"));
    assert_eq!(layers.last(), Some(&"udp"));
}

/// Opens a node at `addr` as soon as it is free: tasks of the former node may have to end first.
async fn built_again(text: &StackText, addr: &p2p::BoxAddr, key: &PrivateKey) -> Stack {
    let free = async {
        loop {
            match text.build_at(addr, key).await {
                Ok(node) => return node,
                Err(error) => assert_eq!(error.at(), 0, "the base is not free: {error}"),
            }
            tokio::task::yield_now().await;
        }
    };
    let limit = std::time::Duration::from_secs(10);
    tokio::time::timeout(limit, free)
        .await
        .expect("the address is released")
}

#[tokio::test]
async fn a_node_opens_at_the_address_of_a_closed_one() {
    let key = PrivateKey::ed25519(&[1; 32]);
    for text in [
        "udp/frag",
        "mem=opens_again/frag",
        "udp/quic",
        "udp/frag/quic/mux=a",
        "mem=opens_again/quic/faulty/p2pke",
        "udp/p2pke/mbapp",
    ] {
        let text = parse(text);
        let first = text.build_with(&key).await.expect("built");
        let addr = first.local_addrs().remove(0);
        let taken = text
            .build_at(&addr, &key)
            .await
            .expect_err("the address is in use");
        assert_eq!(taken.at(), 0, "{taken}");
        first.close().await;
        drop(first);
        let again = built_again(&text, &addr, &key).await;
        assert_eq!(again.local_addrs(), [addr]);
    }
}

#[tokio::test]
async fn a_base_that_the_system_refuses_is_not_an_error_in_the_text() {
    let error = parse("udp=192.0.2.1:1/frag")
        .build()
        .await
        .expect_err("not an address of this host");
    assert!(!error.is_in_text() && error.at() == 0, "{error}");
}

#[tokio::test]
async fn nodes_of_one_text_draw_faults_of_their_own() {
    let text = parse("mem=faults_of_their_own/faulty,loss=0.5,seed=1");
    let (a, b) = (built_of(&text).await, built_of(&text).await);
    let fates = |from: Stack, to: Stack| async move {
        let to = to.local_addrs().remove(0);
        let mut fates = Vec::new();
        for _ in 0..64 {
            from.tell(&to, Packet::default()).await.expect("told");
            let mut lost = 0;
            from.visit_counters(&mut |counters| lost += counters.snapshot().dropped(DropReason::Lost));
            fates.push(lost);
        }
        fates
    };
    let (one, other) = (fates(a.clone(), b.clone()).await, fates(b, a).await);
    assert_ne!(one, other);
    assert!(one.last().expect("64") > &10);
}

/// Texts that are almost stacks.
fn nearly() -> impl Strategy<Value = String> {
    let layer = prop_oneof![
        Just("mem".to_owned()),
        Just("udp=127.0.0.1:0,mtu=99".to_owned()),
        "mem=[a-z]{0,3}",
        "(loss|dup|seed|rate|x)=[0-9.]{1,6}".prop_map(|option| format!("faulty,{option}")),
        "faulty,loss=0\\.[0-9]{1,4},seed=[0-9]{1,9},rate=[0-9]{1,9},delay=[0-9]{1,4}",
        "(frag|mbapp|quic)=[0-9]{1,6}",
        "(p2pke|quic)=?",
        "(mux|mux16|mux32|mux64|muxv)=[0-9]{1,6}",
        "mux=[a-z=:.]{1,6}",
        "allow=[a-z0-9;]{1,9}",
        "kad(=[0-9;]{0,9})?",
        "gossip(=[a-z@%]{0,3})?(,peers=[0-9;]{0,9})?",
        ".{0,5}",
    ];
    proptest::collection::vec(layer, 1..5).prop_map(|layers| layers.join("/"))
}

proptest! {
    #[test]
    fn any_text_is_a_stack_or_an_error_with_a_position_within_the_text(text in prop_oneof![nearly(), nearly(), ".{0,40}"]) {
        match text.parse::<StackText>() {
            Ok(stack) => {
                let again = stack.to_string().parse::<StackText>();
                prop_assert_eq!(again.map_err(|error| TestCaseError::fail(error.to_string()))?, stack);
            }
            Err(error) => {
                prop_assert!(text.is_char_boundary(error.at()), "{}", error);
                prop_assert_eq!(error.to_string().lines().count(), 3);
            }
        }
    }
}
