//! Chord as a swarm: nodes by id, directly or over relays, and the effects of hostile packets.

use std::time::Duration;

use p2p::{
    Addr, AskSwarm, BoxAddr, BoxSecureAskSwarm, CounterSnapshot, Counters, DropReason, Error, Packet, PeerId,
    SecureSwarm, Swarm,
};
use p2p_formats::x509::PrivateKey;
use p2p_protocols::overlay::wire::Header;
use p2p_swarms::overlay::Identity;
use p2p_swarms::{ChordConfig, ChordSwarm, Faults, KeyAddr, MemoryAddr, MemoryRealm, SwarmExt as _};
use tokio::time::{Instant, timeout};

const HOUR: Duration = Duration::from_hours(1);

/// The inner type of overlays in stacks: overlays over it are already compiled.
type Inner = BoxSecureAskSwarm<BoxAddr>;
type Node = ChordSwarm<BoxAddr, Inner>;

fn boxed<A: Addr, S: AskSwarm<A> + SecureSwarm<A>>(inner: S) -> Inner {
    Inner::new(inner.erase())
}

/// Returns the address of a node in memory, below all layers.
fn place(node: &Node) -> MemoryAddr {
    let addr = node.inner().local_addrs().remove(0);
    let sealed = addr
        .downcast_ref()
        .map(|sealed: &KeyAddr<MemoryAddr>| sealed.addr);
    sealed
        .or_else(|| addr.downcast_ref().copied())
        .expect("an address in memory")
}

fn key(seed: u8) -> PrivateKey {
    PrivateKey::ed25519(&[seed; 32])
}

/// A medium, and the nodes of one network on it.
struct Net {
    realm: MemoryRealm,
    faults: Faults<MemoryAddr>,
    nodes: Vec<Node>,
}

impl Net {
    async fn joined(count: u8, change: impl Fn(&mut ChordConfig)) -> Self {
        let mut net = Self {
            realm: MemoryRealm::default(),
            faults: Faults::seeded(1),
            nodes: Vec::new(),
        };
        for seed in 0..count {
            let node = net.node(seed, &change);
            net.join(&node).await;
            net.nodes.push(node);
        }
        net
    }

    /// A node that is not a member of the network, but exchanges messages with its members.
    fn sealed(&self, seed: u8) -> Inner {
        let base = self.realm.open().faulty(self.faults.clone());
        boxed(base.p2pke(&key(seed)).expect("a node").mbapp(64 << 10))
    }

    fn node(&self, seed: u8, change: impl Fn(&mut ChordConfig)) -> Node {
        let valid = |_: &PeerId, value: &[u8]| value.starts_with(b"good");
        let mut config = ChordConfig::default().validator(valid);
        change(&mut config);
        ChordSwarm::with_config(self.sealed(seed), Identity::Key(&key(seed)), config).expect("a node")
    }

    async fn join(&self, node: &Node) {
        if let Some(first) = self.nodes.first() {
            let joining = node.join(&first.inner().local_addrs()).expect("room");
            joining.finish().await.expect("a successor");
        }
    }

    /// Cuts the links between two nodes.
    fn cut(&self, a: &Node, b: &Node) {
        self.faults.partition(&[place(a)], &[place(b)]);
    }
}

fn default(_: &mut ChordConfig) {}

fn counts(node: &Node, layer: &str) -> CounterSnapshot {
    let mut found = None;
    node.visit_counters(&mut |counters: &Counters| {
        if counters.layer() == layer {
            found.get_or_insert(counters.snapshot());
        }
    });
    found.expect("a layer of this name")
}

/// Returns the number of messages that nodes relayed for others.
fn passed_on(nodes: &[&Node]) -> u64 {
    let relays = nodes.iter().map(|node| counts(node, "chord-relay"));
    relays.map(|relays| relays.sent).sum()
}

async fn received(node: &Node) -> (PeerId, Vec<u8>) {
    let message = timeout(Duration::from_mins(1), node.receive()).await;
    let message = message.expect("a message in time").expect("open");
    (message.src, message.payload.to_vec())
}

async fn nothing_comes(node: &Node) {
    let came = timeout(Duration::from_secs(5), node.receive()).await;
    assert!(came.is_err(), "{came:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_is_told_and_asked_by_its_id() {
    let net = Net::joined(10, default).await;
    let (a, b) = (&net.nodes[4], &net.nodes[8]);
    a.tell(&b.id(), a.packet(b"hello"))
        .await
        .expect("it is reachable");
    assert_eq!(received(b).await, (a.id(), b"hello".to_vec()));
    let serving = async {
        let request = b.receive_ask().await.expect("open");
        assert_eq!((request.message.src, request.message.dst), (a.id(), b.id()));
        request.respond(Packet::from(b"answer")).await.expect("it fits");
    };
    let id = b.id();
    let (answer, ()) = tokio::join!(a.ask(&id, a.packet(b"ask")), serving);
    assert_eq!(answer.expect("an answer"), b"answer");
    assert_eq!(a.lookup_public_key(&b.id()).await.expect("a key"), b.public_key());
    let others: Vec<&Node> = net.nodes.iter().collect();
    assert_eq!(passed_on(&others), 0);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_id_is_an_error_in_time() {
    let net = Net::joined(6, default).await;
    let (a, nobody) = (&net.nodes[0], PeerId::new([9; 32]));
    let start = Instant::now();
    let told = a.tell(&nobody, a.packet(b"hello")).await;
    assert!(matches!(told, Err(Error::Unreachable { .. })), "{told:?}");
    let asked = a.ask(&nobody, a.packet(b"hello")).await;
    assert!(matches!(asked, Err(Error::Unreachable { .. })), "{asked:?}");
    assert!(a.lookup_public_key(&nobody).await.is_err());
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    // A closed node takes as long as a request to it, and an attempt to reach it over relays.
    let gone = net.nodes[3].id();
    net.nodes[3].close().await;
    let told = a.tell(&gone, a.packet(b"hello")).await;
    assert!(told.is_err());
    assert!(start.elapsed() < Duration::from_mins(1), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_node_without_a_network_reaches_no_node() {
    let net = Net::joined(1, default).await;
    let (a, other) = (&net.nodes[0], PeerId::new([9; 32]));
    assert!(matches!(
        a.tell(&other, a.packet(b"hello")).await,
        Err(Error::Unreachable { .. })
    ));
    a.tell(&a.id(), a.packet(b"hello")).await.expect("itself");
    assert_eq!(received(a).await, (a.id(), b"hello".to_vec()));
}

#[tokio::test(start_paused = true)]
async fn a_node_without_a_direct_path_is_told_and_asked_over_relays() {
    let net = Net::joined(8, default).await;
    let (a, b) = (&net.nodes[3], &net.nodes[6]);
    net.cut(a, b);
    a.tell(&b.id(), a.packet(b"hello"))
        .await
        .expect("a route over relays");
    assert_eq!(received(b).await, (a.id(), b"hello".to_vec()));
    b.tell(&a.id(), b.packet(b"hello, too"))
        .await
        .expect("a route over relays");
    assert_eq!(received(a).await, (b.id(), b"hello, too".to_vec()));
    // As long as the MTU permits, in both directions.
    let long = vec![7; a.mtu()];
    let serving = async {
        let request = b.receive_ask().await.expect("open");
        assert_eq!((request.message.src, &*request.message.payload), (a.id(), &*long));
        let response = request.message.payload.to_vec();
        request.respond(Packet::from(response)).await.expect("it fits");
    };
    let id = b.id();
    let (answer, ()) = tokio::join!(a.ask(&id, a.packet(&long)), serving);
    assert_eq!(answer.expect("an answer"), *long);
    let others: Vec<&Node> = net
        .nodes
        .iter()
        .filter(|node| ![a.id(), b.id()].contains(&node.id()))
        .collect();
    assert!(passed_on(&others) > 8);
    // Keys of the swarm below cannot be looked up over relays.
    assert!(a.lookup_public_key(&b.id()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_reachable_again_is_told_directly() {
    let net = Net::joined(8, default).await;
    let (a, b) = (&net.nodes[3], &net.nodes[6]);
    net.cut(a, b);
    a.tell(&b.id(), a.packet(b"1"))
        .await
        .expect("a route over relays");
    assert_eq!(received(b).await.1, b"1");
    net.faults.heal();
    // It is looked up again, concurrently with the first message after some time.
    tokio::time::sleep(Duration::from_secs(61)).await;
    a.tell(&b.id(), a.packet(b"2")).await.expect("a way");
    assert_eq!(received(b).await.1, b"2");
    tokio::time::sleep(Duration::from_secs(20)).await;
    let others: Vec<&Node> = net.nodes.iter().filter(|node| node.id() != a.id()).collect();
    let before = passed_on(&others);
    for _ in 0..10 {
        a.tell(&b.id(), a.packet(b"3")).await.expect("a way");
        assert_eq!(received(b).await.1, b"3");
    }
    assert_eq!(passed_on(&others), before);
}

#[tokio::test(start_paused = true)]
async fn relaying_can_be_switched_off() {
    let net = Net::joined(6, |config| config.overlay.relay = false).await;
    let (a, b) = (&net.nodes[2], &net.nodes[5]);
    net.cut(a, b);
    let start = Instant::now();
    let told = a.tell(&b.id(), a.packet(b"hello")).await;
    assert!(told.is_err(), "{told:?}");
    assert!(start.elapsed() < Duration::from_mins(1), "{:?}", start.elapsed());
    let others: Vec<&Node> = net.nodes.iter().filter(|node| node.id() != a.id()).collect();
    assert_eq!(passed_on(&others), 0);
    let refused = others
        .iter()
        .map(|node| counts(node, "chord-relay").dropped(DropReason::Denied));
    assert!(refused.sum::<u64>() > 0);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_moves_is_known_at_its_new_address_with_its_first_message() {
    let mut net = Net::joined(6, default).await;
    let b = net.nodes.pop().expect("six nodes");
    let a = &net.nodes[2];
    a.tell(&b.id(), a.packet(b"1")).await.expect("it is reachable");
    assert_eq!(received(&b).await.1, b"1");
    let id = b.id();
    drop(b);
    let b = net.node(5, default);
    assert_eq!(b.id(), id);
    net.join(&b).await;
    b.tell(&a.id(), b.packet(b"2")).await.expect("it is reachable");
    assert_eq!(received(a).await, (id, b"2".to_vec()));
    a.tell(&id, a.packet(b"3")).await.expect("it is reachable");
    assert_eq!(received(&b).await.1, b"3");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_moves_silently_is_found_again_within_minutes() {
    let mut net = Net::joined(6, default).await;
    let b = net.nodes.pop().expect("six nodes");
    let a = &net.nodes[2];
    a.tell(&b.id(), a.packet(b"1")).await.expect("it is reachable");
    assert_eq!(received(&b).await.1, b"1");
    drop(b);
    let b = net.node(5, default);
    net.join(&b).await;
    let mut rounds = 0;
    loop {
        let _ = a.tell(&b.id(), a.packet(b"2")).await;
        if let Ok(message) = timeout(Duration::from_secs(20), b.receive()).await {
            assert_eq!(message.expect("open").src, a.id());
            break;
        }
        rounds += 1;
        assert!(rounds < 12, "the node is not found again");
    }
}

#[tokio::test(start_paused = true)]
async fn records_are_found_with_progress_and_a_leaving_node_hands_them_over() {
    let net = Net::joined(12, |config| config.engine.copies = 1).await;
    let (a, b, key) = (&net.nodes[1], &net.nodes[9], PeerId::new([7; 32]));
    let put = a.put(key, b"good news", HOUR).expect("room");
    put.finish().await.expect("a node stores it");
    assert!(a.put(key, b"bad news", HOUR).is_err());
    let again = b.put(key, b"good enough", HOUR).expect("room");
    let again = again.finish().await;
    assert!(
        matches!(again, Err(Error::Invalid { what: "record", .. })),
        "{again:?}"
    );
    let mut looking = b.lookup(key).expect("room");
    let mut seen = Vec::new();
    while let Some(progress) = looking.progressed().await {
        seen.push(progress.answered);
    }
    assert!(!seen.is_empty() && seen.is_sorted(), "{seen:?}");
    let owner = looking
        .finish()
        .await
        .expect("an owner")
        .owner
        .expect("another node");
    let record = b.get(key).expect("room").finish().await.expect("an owner");
    assert_eq!(record.expect("a record"), b"good news");
    let leaver = net
        .nodes
        .iter()
        .find(|node| node.id() == owner.id)
        .expect("one of the operations");
    leaver
        .leave()
        .expect("the first call")
        .finish()
        .await
        .expect("open");
    assert!(leaver.leave().is_err());
    leaver.close().await;
    let [a, b] = [2, 9, 10]
        .map(|at| &net.nodes[at])
        .into_iter()
        .filter(|node| node.id() != owner.id)
        .take(2)
        .collect::<Vec<_>>()
        .try_into()
        .expect("two remaining nodes");
    let record = b.get(key).expect("room").finish().await.expect("an owner");
    assert_eq!(record.expect("a record"), b"good news");
    let getting = a.get(key).expect("room");
    a.close().await;
    assert!(matches!(getting.finish().await, Err(Error::Closed)));
    assert!(matches!(a.get(key), Err(Error::Closed)));
}

#[tokio::test(start_paused = true)]
async fn a_join_is_retried_and_then_fails() {
    let mut net = Net::joined(1, default).await;
    let first = net.nodes.pop().expect("a node");
    let at = first.inner().local_addrs();
    let newcomer = net.node(1, default);
    net.faults.partition(&[place(&first)], &[place(&newcomer)]);
    let start = Instant::now();
    let mut joining = newcomer.join(&at).expect("room");
    let failed = joining.progressed().await.expect("under way").failed;
    assert_eq!(failed, 1);
    net.faults.heal();
    let successor = joining.finish().await.expect("a successor");
    assert_eq!(successor.id, first.id());
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    // No node exists.
    first.close().await;
    let late = net.node(2, default);
    let start = Instant::now();
    let joined = late.join(&at).expect("room").finish().await;
    assert!(matches!(joined, Err(Error::Unreachable { .. })), "{joined:?}");
    let took = start.elapsed();
    assert!(
        took > Duration::from_secs(10) && took < Duration::from_mins(2),
        "{took:?}"
    );
    assert!(late.join(&[]).is_err());
}

#[tokio::test(start_paused = true)]
async fn nodes_that_start_together_find_each_other() {
    let net = Net::joined(1, default).await;
    let nodes: Vec<Node> = (1..12).map(|seed| net.node(seed, default)).collect();
    // All nodes but one join through that one, which is itself joining and accepts none: they retry.
    let mut joining = Vec::new();
    for (at, node) in nodes.iter().enumerate() {
        let by = if at == 5 { &net.nodes[0] } else { &nodes[5] };
        joining.push(node.join(&by.inner().local_addrs()).expect("room"));
    }
    for joining in joining {
        joining.finish().await.expect("a successor");
    }
    for (at, node) in nodes.iter().enumerate() {
        let other = &nodes[(at + 5) % nodes.len()];
        node.tell(&other.id(), node.packet(b"hello"))
            .await
            .expect("it is reachable");
        assert_eq!(received(other).await, (node.id(), b"hello".to_vec()));
    }
}

/// Tells a node raw bytes with this header.
async fn tell_raw(from: &Inner, to: &Node, header: Header, payload: &[u8]) {
    let mut packet = Packet::from(payload);
    header.push(&mut packet);
    let to = to.inner().local_addrs().remove(0);
    from.tell(&to, packet).await.expect("it is reachable");
}

#[tokio::test(start_paused = true)]
async fn no_node_can_send_in_the_name_of_another() {
    let net = Net::joined(4, default).await;
    let (a, b) = (&net.nodes[1], &net.nodes[2]);
    let stranger = net.sealed(99);
    let (src, dst) = (b.id(), a.id());
    tell_raw(&stranger, a, Header::Named { src, dst }, b"I am b").await;
    for at in 0..100 {
        tell_raw(&stranger, a, Header::Relayed { hops: 9, src, dst }, &[at; 100]).await;
    }
    nothing_comes(a).await;
    assert_eq!(counts(a, "chord").dropped(DropReason::Malformed), 1);
    // Messages that b itself sends still arrive.
    b.tell(&a.id(), b.packet(b"I am b"))
        .await
        .expect("it is reachable");
    assert_eq!(received(a).await, (b.id(), b"I am b".to_vec()));
}

#[tokio::test(start_paused = true)]
async fn invalid_messages_are_dropped_and_counted() {
    let net = Net::joined(2, default).await;
    let (a, stranger) = (&net.nodes[0], net.sealed(99));
    let to = a.inner().local_addrs().remove(0);
    let odd: [&[u8]; 5] = [b"", &[9, 1, 2], &[2; 10], &[3; 65], &[1, 1]];
    for bytes in odd {
        stranger
            .tell(&to, Packet::from(bytes))
            .await
            .expect("it is reachable");
        let asked = stranger.ask(&to, Packet::from(bytes)).await;
        assert!(matches!(asked, Err(Error::Rejected(_))), "{asked:?}");
    }
    nothing_comes(a).await;
    assert_eq!(counts(a, "chord").dropped(DropReason::Malformed), 5);
    assert_eq!(counts(a, "chord-ask").dropped(DropReason::Malformed), 4);
    assert_eq!(counts(a, "chord-request").dropped(DropReason::Refused), 1);
}

#[tokio::test(start_paused = true)]
async fn relaying_has_a_budget_and_a_hop_limit() {
    let net = Net::joined(4, |config| {
        config.overlay.relay_bytes_each = 1000;
        config.overlay.relay_bytes = 1500;
    })
    .await;
    let (a, b) = (&net.nodes[1], &net.nodes[2]);
    let (one, two) = (net.sealed(98), net.sealed(99));
    let (src, dst) = (PeerId::new([3; 32]), b.id());
    let relayed = |hops| Header::Relayed { hops, src, dst };
    tell_raw(&one, a, relayed(0), &[0; 100]).await;
    for _ in 0..100 {
        tell_raw(&one, a, relayed(9), &[0; 100]).await;
    }
    for _ in 0..100 {
        tell_raw(&two, a, relayed(9), &[0; 100]).await;
    }
    nothing_comes(b).await;
    let relays = counts(a, "chord-relay");
    assert_eq!((relays.received, relays.sent), (201, 15));
    assert_eq!(relays.dropped(DropReason::Expired), 1);
    assert_eq!(relays.dropped(DropReason::Budget), 185);
    // A message to an unknown id is dropped, or goes to a nearer node, which knows no nearer one.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before: u64 = passed_on(&net.nodes.iter().collect::<Vec<_>>());
    let dst = PeerId::new([77; 32]);
    tell_raw(&one, a, Header::Relayed { hops: 255, src, dst }, &[0; 100]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after: u64 = passed_on(&net.nodes.iter().collect::<Vec<_>>());
    assert!(after - before < 4, "{} times", after - before);
}

#[tokio::test(start_paused = true)]
async fn nodes_without_keys_reach_each_other_over_relays() {
    let (realm, faults) = (MemoryRealm::default(), Faults::seeded(1));
    let mut nodes = Vec::new();
    for number in 0..6_u8 {
        let inner = boxed(realm.open().faulty(faults.clone()));
        let identity = Identity::Unproven(PeerId::new([number.wrapping_mul(41); 32]));
        nodes.push(ChordSwarm::new(inner, identity).expect("a node"));
    }
    let first = nodes[0].inner().local_addrs();
    for node in &nodes[1..] {
        node.join(&first).expect("room").finish().await.expect("open");
    }
    let (a, b) = (&nodes[2], &nodes[4]);
    faults.partition(&[place(a)], &[place(b)]);
    a.tell(&b.id(), a.packet(b"hello"))
        .await
        .expect("a route over relays");
    let message = timeout(Duration::from_mins(1), b.receive()).await;
    let message = message.expect("in time").expect("open");
    assert_eq!((message.src, &*message.payload), (a.id(), &b"hello"[..]));
}

#[tokio::test]
async fn quic_runs_over_a_route_over_relays() {
    let net = Net::joined(5, default).await;
    let (cut, mut quic) = ([1, 3], Vec::new());
    net.cut(&net.nodes[cut[0]], &net.nodes[cut[1]]);
    let Net { nodes, .. } = net;
    let mut others = Vec::new();
    for (at, node) in nodes.into_iter().enumerate() {
        if cut.contains(&at) {
            quic.push(node.quic(&key(200 + at as u8)).expect("a node"));
        } else {
            others.push(node);
        }
    }
    let [a, b] = <[_; 2]>::try_from(quic).expect("two nodes");
    let to = b.local_addrs().remove(0);
    let long = vec![7; 100_000];
    let serving = async {
        let request = b.receive_ask().await.expect("open");
        assert_eq!(*request.message.payload, *long);
        request.respond(Packet::from(b"answer")).await.expect("it fits");
    };
    let asking = async {
        // The first handshakes may end before the route over relays is found.
        for _ in 0..10 {
            if let Ok(answer) = a.ask(&to, Packet::from(long.clone())).await {
                return answer;
            }
        }
        panic!("no answer");
    };
    let (answer, ()) = tokio::join!(asking, serving);
    assert_eq!(answer, b"answer");
    assert!(passed_on(&others.iter().collect::<Vec<_>>()) > 10);
}

#[tokio::test]
async fn an_invalid_configuration_is_refused() {
    let realm = MemoryRealm::default();
    let no_id = ChordSwarm::new(boxed(realm.open()), Identity::Proven);
    assert!(matches!(
        no_id,
        Err(Error::Invalid {
            what: "inner swarm",
            ..
        })
    ));
    let sealed = realm.open().p2pke(&key(1)).expect("a node").mbapp(9000);
    let other_key = ChordSwarm::new(boxed(sealed), Identity::Key(&key(2)));
    assert!(matches!(
        other_key,
        Err(Error::Invalid {
            what: "private key",
            ..
        })
    ));
    let narrow = realm.open().p2pke(&key(1)).expect("a node").mbapp(500);
    let narrow = ChordSwarm::new(boxed(narrow), Identity::Key(&key(1)));
    assert!(matches!(
        narrow,
        Err(Error::Invalid {
            what: "inner swarm",
            ..
        })
    ));
}
