//! Floods of the limits of layers, from one peer and from many: honest peers are served meanwhile, and the
//! flooded node can send tells and asks.

use std::sync::Arc;

use p2p::{AskSwarm as _, CounterSnapshot, Counters, DropReason, Error, Packet, Rejection, Swarm};
use p2p_swarms::allow::{Policy, Rule};
use p2p_swarms::inbox::Limits;
use p2p_swarms::mux::MuxConfig;
use p2p_swarms::stack::StackText;
use p2p_swarms::{AllowSwarm, FragmentSwarm, MemoryAddr, MemoryRealm, MemorySwarm, Mux, MuxSwarm};
use tokio::task::JoinSet;

type Channel = MuxSwarm<MemoryAddr, MemorySwarm>;

/// Messages and requests that may wait in a queue of these tests.
const QUEUE: usize = 32;
/// Messages of a flood.
const FLOOD: usize = 500;

fn layer<A: p2p::Addr>(swarm: &impl Swarm<A>, name: &str) -> CounterSnapshot {
    let mut found = CounterSnapshot::default();
    swarm.visit_counters(&mut |counters: &Counters| {
        if counters.layer() == name {
            found = counters.snapshot();
        }
    });
    found
}

fn mux(realm: &MemoryRealm) -> Mux<MemoryAddr, MemorySwarm> {
    let limits = Limits {
        items: QUEUE,
        ..Limits::default()
    };
    let config = MuxConfig {
        channels: 4,
        messages: limits,
        asks: limits,
        ..MuxConfig::default()
    };
    Mux::with_config(realm.open(), config)
}

fn addr(channel: &Channel) -> MemoryAddr {
    channel.local_addrs().remove(0)
}

/// `sources` peers flood one channel of a mux, and channels that are not open, with tells and asks. An honest
/// peer is served on another channel all the time, and on the flooded one as soon as that is read.
async fn flood_a_channel(sources: usize) {
    let realm = MemoryRealm::default();
    let (node, honest) = (mux(&realm), mux(&realm));
    let (flooded, quiet) = (
        Arc::new(node.open("flooded").expect("new")),
        Arc::new(node.open("quiet").expect("new")),
    );
    let (ours, ours_flooded) = (
        honest.open("quiet").expect("new"),
        honest.open("flooded").expect("new"),
    );
    let attackers: Vec<_> = (0..sources).map(|_| mux(&realm)).collect();
    let attackers: Vec<_> = attackers
        .iter()
        .map(|mux| {
            (
                Arc::new(mux.open("flooded").expect("new")),
                mux.open("unknown").expect("new"),
            )
        })
        .collect();
    let to = addr(&quiet);
    let mut serving = JoinSet::new();
    let server = quiet.clone();
    serving.spawn(async move {
        while let Ok(request) = server.receive_ask().await {
            request
                .respond("served".into())
                .await
                .expect("the asker is waiting");
        }
    });
    let mut asking = JoinSet::new();
    for number in 0..FLOOD {
        let (flood, unknown) = &attackers[number % sources];
        flood.tell(&to, flood.packet(b"flood")).await.expect("told");
        unknown.tell(&to, unknown.packet(b"flood")).await.expect("told");
        let (flood, to) = (flood.clone(), to);
        asking.spawn(async move { flood.ask(&to, flood.packet(b"flood")).await });
        if number % 50 == 0 {
            ours.tell(&to, ours.packet(b"honest")).await.expect("told");
            let message = quiet.receive().await.expect("open");
            assert_eq!((message.src, &*message.payload), (addr(&ours), &b"honest"[..]));
            let answer = ours.ask(&to, ours.packet(b"honest")).await.expect("answered");
            assert_eq!(&*answer, b"served");
            quiet
                .tell(&addr(&ours), quiet.packet(b"own"))
                .await
                .expect("told");
            assert_eq!(&*ours.receive().await.expect("open").payload, b"own");
        }
    }
    // The queued messages are there first, then the honest peer's messages and asks.
    let mut kept = Vec::new();
    while kept.len() < QUEUE {
        flooded.receive_batch(&mut kept, QUEUE).await.expect("open");
    }
    ours_flooded
        .tell(&to, ours_flooded.packet(b"honest"))
        .await
        .expect("told");
    while &*flooded.receive().await.expect("open").payload != b"honest" {}
    let counts = layer(&flooded, "mux");
    assert_eq!(counts.dropped(DropReason::NoChannel), FLOOD as u64);
    assert!(
        counts.dropped(DropReason::QueueFull) >= FLOOD as u64 / 2,
        "{counts:?}"
    );
    let mut held = 0;
    loop {
        tokio::select! {
            biased;
            request = flooded.receive_ask() => {
                held += 1;
                request.expect("open").respond("late".into()).await.expect("the asker is waiting");
            }
            asked = asking.join_next() => match asked.map(|asked| asked.expect("no panic")) {
                None => break,
                Some(Ok(answer)) => assert_eq!(&*answer, b"late"),
                Some(Err(Error::Rejected(rejection))) => assert_eq!(rejection, Rejection::BUSY),
                Some(Err(error)) => panic!("{error}"),
            },
        }
    }
    assert!(held >= QUEUE, "{held}");
    let answer = async {
        flooded
            .receive_ask()
            .await
            .expect("open")
            .respond("served".into())
            .await
    };
    let (asked, answered) = tokio::join!(ours_flooded.ask(&to, ours_flooded.packet(b"honest")), answer);
    assert_eq!(&*asked.expect("answered"), b"served");
    answered.expect("the asker is waiting");
}

#[tokio::test]
async fn one_peer_that_floods_a_channel_blocks_no_other_channel() {
    flood_a_channel(1).await;
}

#[tokio::test]
async fn many_peers_that_flood_a_channel_block_no_other_channel() {
    flood_a_channel(50).await;
}

#[tokio::test]
async fn a_mux_at_its_channel_limit_serves_all_channels_and_refuses_more() {
    let realm = MemoryRealm::default();
    let (node, peer) = (mux(&realm), mux(&realm));
    let names = ["a", "b", "c", "d"];
    let open: Vec<Channel> = names.iter().map(|name| node.open(*name).expect("room")).collect();
    assert!(matches!(node.open("e"), Err(Error::Limit { .. })));
    for (name, channel) in names.iter().zip(&open) {
        let theirs = peer.open(*name).expect("room");
        theirs
            .tell(&addr(channel), theirs.packet(name.as_bytes()))
            .await
            .expect("told");
        assert_eq!(&*channel.receive().await.expect("open").payload, name.as_bytes());
    }
    open[0].close().await;
    node.open("e").expect("there is room again");
}

#[tokio::test]
async fn a_flood_of_denied_peers_does_not_affect_allowed_ones() {
    for sources in [1, 50] {
        let realm = MemoryRealm::default();
        let node = AllowSwarm::new(realm.open(), Policy::Deny);
        let (honest, to) = (realm.open(), node.local_addrs().remove(0));
        node.set(Rule::Addr(honest.local_addr()), Policy::Allow);
        let attackers: Vec<_> = (0..sources).map(|_| realm.open()).collect();
        for number in 0..FLOOD {
            let attacker = &attackers[number % sources];
            attacker
                .tell(&to, Packet::from(&b"flood"[..]))
                .await
                .expect("told");
            let asked = async { attacker.ask(&to, Packet::from(&b"flood"[..])).await };
            if number % 50 == 49 {
                honest
                    .tell(&to, Packet::from(&b"honest"[..]))
                    .await
                    .expect("told");
                assert_eq!(&*node.receive().await.expect("open").payload, b"honest");
                let answer = async {
                    node.receive_ask()
                        .await
                        .expect("open")
                        .respond("served".into())
                        .await
                };
                let ask = honest.ask(&to, Packet::from(&b"honest"[..]));
                let (denied, served, answered) = tokio::join!(asked, ask, answer);
                assert!(matches!(denied, Err(Error::Rejected(rejection)) if rejection == Rejection::DENIED));
                assert_eq!(&*served.expect("answered"), b"served");
                answered.expect("the asker is waiting");
                node.tell(&honest.local_addr(), node.packet(b"own"))
                    .await
                    .expect("told");
                assert_eq!(&*honest.receive().await.expect("open").payload, b"own");
            }
        }
        assert_eq!(
            layer(&node, "allow").dropped(DropReason::Denied),
            (FLOOD + FLOOD / 50) as u64
        );
    }
}

/// Fragments of messages that are never completed, while long messages of an honest peer and of this node
/// are.
#[tokio::test]
async fn a_flood_of_incomplete_messages_blocks_no_long_one() {
    for sources in [1, 50] {
        let realm = MemoryRealm::new(p2p_swarms::memory::MemoryConfig {
            mtu: 1000,
            ..p2p_swarms::memory::MemoryConfig::default()
        });
        let (node, honest) = (
            FragmentSwarm::new(realm.open(), 20_000),
            FragmentSwarm::new(realm.open(), 20_000),
        );
        let (to, back) = (node.local_addrs().remove(0), honest.local_addrs().remove(0));
        let attackers: Vec<_> = (0..sources).map(|_| realm.open()).collect();
        let long = vec![7; 20_000];
        for id in 0..20_u8 {
            for number in 0..FLOOD {
                // Fragment 0 of 255, with ids of one byte.
                let begun = [&[number as u8 & 0x7f, 0, 0xff, 1][..], &[id; 900]].concat();
                attackers[number % sources]
                    .tell(&to, Packet::from(&begun[..]))
                    .await
                    .expect("told");
            }
            honest.tell(&to, honest.packet(&long)).await.expect("told");
            assert_eq!(&*node.receive().await.expect("open").payload, &long[..]);
            node.tell(&back, node.packet(&long)).await.expect("told");
            assert_eq!(&*honest.receive().await.expect("open").payload, &long[..]);
        }
    }
}

#[test]
fn a_text_of_any_length_is_refused_at_its_limits() {
    let layers = |count: usize| format!("mem{}", "/mux=a".repeat(count));
    layers(31).parse::<StackText>().expect("32 layers");
    for text in [layers(32), layers(100_000)] {
        let error = text.parse::<StackText>().expect_err("too many layers");
        assert_eq!(error.at(), "mem".len() + 31 * "/mux=a".len() + 1, "{error}");
    }
    let joins = |count: usize| format!("mem/mbapp/kad={}", vec!["1"; count].join(";"));
    joins(16).parse::<StackText>().expect("16 addresses");
    for text in [joins(17), joins(100_000)] {
        text.parse::<StackText>().expect_err("too many addresses");
    }
}
