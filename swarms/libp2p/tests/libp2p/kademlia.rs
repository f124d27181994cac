//! Kademlia of hosts in memory, in virtual time: a network of twenty, a peer that writes messages itself, and hostile
//! peers.

use std::time::Duration;

use p2p::{Addr as _, DropReason, Error};
use p2p_formats::varint;
use p2p_libp2p::kademlia::{Kademlia, KademliaConfig, Mode, Namespaces, PROTOCOL};
use p2p_libp2p::{Host, HostAddr, HostConfig, Stream};
use p2p_protocols::kademlia::libp2p::{Message, MessageType, Peer, Record};
use p2p_swarms::MemoryRealm;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::nodes::{WAYS, host as host_at, in_memory};

fn config(mode: Mode) -> KademliaConfig {
    let namespaces = Namespaces::default().with("v", |_: &p2p::PeerId, value: &[u8]| value != b"bad");
    KademliaConfig {
        mode,
        namespaces,
        ..KademliaConfig::default()
    }
}

async fn node_with(seed: u32, realm: &MemoryRealm, config: KademliaConfig) -> Kademlia {
    let host = in_memory(seed, realm, HostConfig::default()).await;
    host.kademlia(config).expect("a node")
}

async fn node(seed: u32, realm: &MemoryRealm, mode: Mode) -> Kademlia {
    node_with(seed, realm, config(mode)).await
}

fn host(node: &Kademlia) -> Host {
    node.host().expect("an open node")
}

fn addr(node: &Kademlia) -> HostAddr {
    host(node).local_addrs().remove(0)
}

fn peer(node: &Kademlia) -> HostAddr {
    HostAddr::of_peer(host(node).peer_id())
}

/// Starts servers, each of which joins through the first.
async fn network(count: u32, realm: &MemoryRealm) -> Vec<Kademlia> {
    let first = node(0, realm, Mode::Server).await;
    let bootstrap = addr(&first);
    let mut nodes = vec![first];
    for seed in 1..count {
        let node = node(seed, realm, Mode::Server).await;
        let known = node
            .bootstrap(std::slice::from_ref(&bootstrap))
            .await
            .expect("a join");
        assert!(known > 0, "node {seed} knows no other");
        nodes.push(node);
    }
    nodes
}

fn dropped(node: &Kademlia, reason: DropReason) -> u64 {
    let mut count = 0;
    node.visit_counters(&mut |counters| count += counters.snapshot().dropped(reason));
    count
}

/// Returns a message with its length in front.
fn framed(message: &[u8]) -> Vec<u8> {
    let mut length = [0; varint::MAX_LEN];
    let length = varint::write(message.len() as u64, &mut length);
    [length, message].concat()
}

/// Writes a message on a stream, behind its length.
async fn write(stream: &mut Stream, message: &[u8]) {
    stream.write_all(&framed(message)).await.expect("an open stream");
    stream.flush().await.expect("an open stream");
}

/// Reads a message from a stream.
async fn read(stream: &mut Stream) -> std::io::Result<Vec<u8>> {
    let mut length = Vec::new();
    loop {
        let byte = stream.read_u8().await?;
        length.push(byte);
        if byte < 0x80 {
            break;
        }
    }
    let (length, _) = varint::read(&length).expect("a length");
    let mut message = vec![0; usize::try_from(length).expect("it fits")];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

#[tokio::test(start_paused = true)]
async fn twenty_hosts_find_nodes_records_and_providers() {
    let realm = MemoryRealm::default();
    let nodes = network(20, &realm).await;
    for (from, to) in [(1, 19), (19, 1), (7, 12)] {
        let target = host(&nodes[to]).peer_id();
        let found = nodes[from].find_node(target).await.expect("a lookup");
        assert_eq!(found.first(), Some(&peer(&nodes[to])));
        // All but the asker.
        assert_eq!(found.len(), 19);
        let ids: Vec<_> = found.iter().map(|addr| addr.peer_id().expect("an id")).collect();
        let nearest = ids.windows(2).all(|pair| {
            let distance = |id| p2p_protocols::kademlia::Distance::between(&ids[0], id);
            distance(&pair[0]) < distance(&pair[1])
        });
        assert!(nearest, "the nearest is first");
    }
    assert_eq!(nodes[3].put(b"/v/key", b"value").await.expect("a put"), 19);
    let found = nodes[15].get(b"/v/key").await.expect("a lookup");
    assert_eq!(found.as_deref(), Some(&b"value"[..]));
    assert_eq!(nodes[15].get(b"/v/other").await.expect("a lookup"), None);

    assert_eq!(nodes[4].provide(b"multihash").await.expect("an announcement"), 19);
    let found = nodes[17].find_providers(b"multihash").await.expect("a lookup");
    assert_eq!(found, [peer(&nodes[4])]);
    // Their addresses lead to them.
    let stranger = host(&nodes[17]);
    stranger.connect(&found[0]).await.expect("a connection");
    assert_eq!(nodes[17].find_providers(b"other").await.expect("a lookup"), []);
}

#[tokio::test(start_paused = true)]
async fn clients_use_the_network_and_are_in_no_bucket() {
    let realm = MemoryRealm::default();
    let nodes = network(4, &realm).await;
    let client = node(9, &realm, Mode::Client).await;
    assert_eq!(client.bootstrap(&[addr(&nodes[1])]).await.expect("a join"), 4);
    assert_eq!(client.put(b"/v/key", b"value").await.expect("a put"), 4);
    assert_eq!(client.provide(b"multihash").await.expect("an announcement"), 4);
    let found = nodes[2].find_providers(b"multihash").await.expect("a lookup");
    assert_eq!(found, [peer(&client)]);
    let found = nodes[2]
        .find_node(host(&client).peer_id())
        .await
        .expect("a lookup");
    assert_eq!(found.len(), 3, "the client is not named: {found:?}");
    for node in &nodes {
        assert!(!node.contacts().expect("open").contains(&peer(&client)));
        let refused = host(node).open(&peer(&client), &[PROTOCOL]).await;
        assert!(refused.is_err(), "a client does not accept the protocol");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_is_learned_and_forgotten_by_what_it_says_in_identify() {
    let realm = MemoryRealm::default();
    let (ours, theirs) = (
        node(1, &realm, Mode::Server).await,
        in_memory(2, &realm, HostConfig::default()).await,
    );
    let them = HostAddr::of_peer(theirs.peer_id());
    theirs.connect(&addr(&ours)).await.expect("a connection");
    let settle = || tokio::time::sleep(Duration::from_secs(5));
    settle().await;
    assert_eq!(ours.contacts().expect("open"), []);
    let server = theirs.kademlia(config(Mode::Server)).expect("a node");
    settle().await;
    // Each has told the other on the connection that was there before.
    assert_eq!(ours.contacts().expect("open"), [them]);
    assert_eq!(server.contacts().expect("open"), [peer(&ours)]);
    server.close().await;
    settle().await;
    assert_eq!(ours.contacts().expect("open"), []);
}

#[tokio::test(start_paused = true)]
async fn a_closed_node_ends_its_calls_and_leaves_the_host_open() {
    let realm = MemoryRealm::default();
    let (ours, theirs) = (
        node(1, &realm, Mode::Server).await,
        node(2, &realm, Mode::Server).await,
    );
    let host = host(&ours);
    let silent = async |_: Stream| std::future::pending().await;
    let hostile = in_memory(3, &realm, HostConfig::default()).await;
    hostile.handle(PROTOCOL, silent).expect("a new protocol");
    let at = hostile.local_addrs();
    let join = ours.bootstrap(&at);
    let (joined, ()) = tokio::join!(join, async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        ours.close().await;
    });
    assert!(matches!(joined, Err(Error::Closed)), "{joined:?}");
    assert!(matches!(ours.get(b"/v/key").await, Err(Error::Closed)));
    host.connect(&addr(&theirs)).await.expect("the host is open");
    // The protocol is free again.
    host.kademlia(config(Mode::Server)).expect("another node");
}

#[tokio::test(start_paused = true)]
async fn several_requests_of_one_stream_are_answered_in_order() {
    let realm = MemoryRealm::default();
    let ours = node(1, &realm, Mode::Server).await;
    let them = in_memory(2, &realm, HostConfig::default()).await;
    let mut stream = them.open(&addr(&ours), &[PROTOCOL]).await.expect("a stream");
    let put = Message {
        record: Some(Record {
            key: b"/v/key",
            value: b"value",
            time_received: b"",
        }),
        ..Message::new(MessageType::PutValue, b"/v/key")
    };
    let id = them.peer_id().to_bytes();
    let provide = Message {
        provider_peers: vec![Peer {
            id: &id,
            ..Peer::default()
        }],
        ..Message::new(MessageType::AddProvider, b"key")
    };
    // The announcement has no answer.
    write(&mut stream, &put.write()).await;
    write(&mut stream, &provide.write()).await;
    write(&mut stream, &Message::new(MessageType::Ping, b"").write()).await;
    write(
        &mut stream,
        &Message::new(MessageType::GetValue, b"/v/key").write(),
    )
    .await;
    write(
        &mut stream,
        &Message::new(MessageType::GetProviders, b"key").write(),
    )
    .await;
    assert_eq!(read(&mut stream).await.expect("an answer"), put.write());
    let pong = read(&mut stream).await.expect("an answer");
    assert_eq!(
        Message::read(&pong).expect("a message").message.message_type,
        MessageType::Ping
    );
    let got = read(&mut stream).await.expect("an answer");
    let got = Message::read(&got).expect("a message").message;
    assert_eq!(got.record, put.record);
    let providers = read(&mut stream).await.expect("an answer");
    let providers = Message::read(&providers)
        .expect("a message")
        .message
        .provider_peers;
    assert_eq!(providers.len(), 1);
    assert_eq!(providers[0].id, id);
    assert!(
        !providers[0].addrs.is_empty(),
        "the peer's address is known from its connection"
    );
    stream.shutdown().await.expect("an open stream");
    assert_eq!(stream.read(&mut [0; 1]).await.expect("the end"), 0);
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_not_valid_reset_their_stream_and_keep_nothing() {
    let realm = MemoryRealm::default();
    let ours = node(1, &realm, Mode::Server).await;
    let them = in_memory(2, &realm, HostConfig::default()).await;
    let other = in_memory(3, &realm, HostConfig::default())
        .await
        .peer_id()
        .to_bytes();
    let record = |key, value| {
        Some(Record {
            key,
            value,
            time_received: b"",
        })
    };
    let put = |key, record| Message {
        record,
        ..Message::new(MessageType::PutValue, key)
    };
    let provide = Message {
        provider_peers: vec![Peer {
            id: &other,
            ..Peer::default()
        }],
        ..Message::new(MessageType::AddProvider, b"key")
    };
    let frame = |message: Message<'_>| framed(&message.write());
    let requests = [
        (
            "a value that is not valid",
            frame(put(b"/v/key", record(b"/v/key", b"bad"))),
        ),
        (
            "a namespace without a validator",
            frame(put(b"/ipns/key", record(b"/ipns/key", b"value"))),
        ),
        (
            "a false public key",
            frame(put(b"/pk/key", record(b"/pk/key", b"value"))),
        ),
        (
            "the record of another key",
            frame(put(b"/v/key", record(b"/v/other", b"value"))),
        ),
        ("no record", frame(put(b"/v/key", None))),
        ("another provider", frame(provide)),
        ("no key", frame(Message::new(MessageType::FindNode, b""))),
        ("no message", b"\x02\xff\xff".to_vec()),
        ("no shortest length", b"\x80\x00\x07".to_vec()),
        ("a length beyond the limit", b"\xff\xff\xff\x7f".to_vec()),
        ("an endless length", vec![0xff; 64]),
    ];
    for (what, request) in requests {
        let mut stream = them.open(&addr(&ours), &[PROTOCOL]).await.expect("a stream");
        stream.write_all(&request).await.expect("an open stream");
        let answer = stream.read(&mut [0; 1]).await;
        assert!(answer.is_err(), "{what}: {answer:?}");
    }
    assert_eq!(dropped(&ours, DropReason::Refused), 8);
    assert_eq!(dropped(&ours, DropReason::Malformed), 2);
    assert_eq!(dropped(&ours, DropReason::Oversize), 1);
    assert_eq!(ours.get(b"/v/key").await.expect("a lookup"), None);
    assert_eq!(ours.find_providers(b"key").await.expect("a lookup"), []);
    let error = ours.put(b"/v/key", b"bad").await.expect_err("an invalid record");
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
    let error = ours.put(&[b'/'; 2000], b"value").await.expect_err("a long key");
    assert!(matches!(error, Error::MtuExceeded { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn streams_of_a_peer_are_bounded_and_end_when_they_are_idle() {
    let realm = MemoryRealm::default();
    let config = KademliaConfig {
        peer_streams: 3,
        ..config(Mode::Server)
    };
    let ours = node_with(1, &realm, config).await;
    let them = in_memory(2, &realm, HostConfig::default()).await;
    let ping = Message::new(MessageType::Ping, b"").write();
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = them.open(&addr(&ours), &[PROTOCOL]).await.expect("a stream");
        write(&mut stream, &ping).await;
        read(&mut stream).await.expect("an answer");
        streams.push(stream);
    }
    // The reset may overtake the answer to the proposal.
    if let Ok(mut fourth) = them.open(&addr(&ours), &[PROTOCOL]).await {
        assert!(fourth.read_u8().await.is_err(), "the stream is reset");
    }
    assert_eq!(dropped(&ours, DropReason::Budget), 1);
    tokio::time::sleep(Duration::from_secs(61)).await;
    for stream in &mut streams {
        assert_eq!(stream.read(&mut [0; 1]).await.expect("an end"), 0);
    }
    let mut stream = them.open(&addr(&ours), &[PROTOCOL]).await.expect("a stream");
    write(&mut stream, &ping).await;
    read(&mut stream).await.expect("there is room again");
}

/// Starts a host that answers each request with these bytes, behind their length unless they are raw.
async fn hostile(
    seed: u32,
    realm: &MemoryRealm,
    answer: impl Fn(Message<'_>) -> Vec<u8> + Send + Sync + 'static,
    is_raw: bool,
) -> Host {
    let host = in_memory(seed, realm, HostConfig::default()).await;
    let answer = std::sync::Arc::new(answer);
    let handler = move |mut stream: Stream| {
        let answer = answer.clone();
        async move {
            while let Ok(request) = read(&mut stream).await {
                let answer = answer(Message::read(&request).expect("a message").message);
                let answer = if is_raw { answer } else { framed(&answer) };
                // Fails where the node has given the stream up.
                if stream.write_all(&answer).await.is_err() {
                    return;
                }
            }
            let _ = stream.shutdown().await;
        }
    };
    host.handle(PROTOCOL, handler).expect("a new protocol");
    host
}

/// Answers with this many peers that do not exist.
fn strangers(request: &Message<'_>, count: u32) -> Vec<u8> {
    let ids: Vec<_> = (0..count)
        .map(|number| [&[0x12, 32][..], &[7; 28], &number.to_be_bytes()].concat())
        .collect();
    let peers = ids.iter().map(|id| Peer {
        id,
        ..Peer::default()
    });
    let mut answer = Message::new(request.message_type, request.key);
    answer.closer_peers = peers.collect();
    answer.write()
}

#[tokio::test(start_paused = true)]
async fn an_answer_with_ten_thousand_peers_is_bounded_and_counted() {
    let realm = MemoryRealm::default();
    // Ten thousand do not fit into a message.
    let liar = hostile(3, &realm, |request| strangers(&request, 10_000), false).await;
    let ours = node(1, &realm, Mode::Server).await;
    assert_eq!(ours.bootstrap(&liar.local_addrs()).await.expect("a join"), 0);
    assert!(ours.counts().expect("open").failed > 0);

    let liar = hostile(2, &realm, |request| strangers(&request, 1_500), false).await;
    assert_eq!(ours.bootstrap(&liar.local_addrs()).await.expect("a join"), 1);
    ours.find_node(liar.peer_id()).await.expect("a lookup");
    let counts = ours.counts().expect("open");
    assert!(
        counts.surplus >= 44,
        "the engine counts those of a list beyond k: {counts:?}"
    );
    assert!(
        ours.ignored() >= 1_436,
        "the codec counts those beyond 64: {}",
        ours.ignored()
    );
    assert_eq!(
        ours.contacts().expect("open"),
        [HostAddr::of_peer(liar.peer_id())]
    );
    assert!(
        host(&ours).peers().len() <= 3,
        "peers without addresses are not remembered"
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_endless_or_false_length_fails_its_request() {
    let realm = MemoryRealm::default();
    let ours = node(1, &realm, Mode::Server).await;
    for (seed, answer) in [
        (2, vec![0xff; 64]),
        (3, b"\x80\x00\x01".to_vec()),
        (4, b"\x00".to_vec()),
        (5, b"\x7f\x08\x04".to_vec()),
        (6, b"\x02\x08\x03".to_vec()),
    ] {
        let liar = hostile(seed, &realm, move |_| answer.clone(), true).await;
        let began = tokio::time::Instant::now();
        assert_eq!(
            ours.bootstrap(&liar.local_addrs()).await.expect("a join"),
            0,
            "liar {seed}"
        );
        assert!(
            began.elapsed() <= Duration::from_secs(25),
            "liar {seed}: {:?}",
            began.elapsed()
        );
    }
    assert_eq!(ours.contacts().expect("open"), []);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_names_others_at_its_own_address_hides_none() {
    let realm = MemoryRealm::default();
    let nodes = network(3, &realm).await;
    let victim = host(&nodes[2]).peer_id();
    let (id, place) = (
        victim.to_bytes(),
        std::sync::Arc::new(std::sync::OnceLock::<Vec<u8>>::new()),
    );
    let lie = {
        let (place, id) = (place.clone(), id.clone());
        move |request: Message<'_>| {
            let mut answer = Message::new(request.message_type, request.key);
            answer.closer_peers.push(Peer {
                id: &id,
                addrs: place.get().map(|place| &place[..]).into_iter().collect(),
                ..Peer::default()
            });
            answer.write()
        }
    };
    let liar = hostile(8, &realm, lie, false).await;
    let at = liar.local_addrs().remove(0);
    place.set(at.place().to_vec()).expect("set once");
    let ours = node(9, &realm, Mode::Client).await;
    ours.bootstrap(&[at, addr(&nodes[0])]).await.expect("a join");
    let found = ours.find_node(victim).await.expect("a lookup");
    assert_eq!(found.first(), Some(&HostAddr::of_peer(victim)));
}

#[tokio::test(start_paused = true)]
async fn records_that_do_not_validate_are_not_returned() {
    let realm = MemoryRealm::default();
    let nodes = network(3, &realm).await;
    let lie = |request: Message<'_>| {
        let mut answer = Message::new(request.message_type, request.key);
        answer.record = Some(Record {
            key: request.key,
            value: b"bad",
            time_received: b"",
        });
        answer.write()
    };
    let liar = hostile(8, &realm, lie, false).await;
    let ours = node(9, &realm, Mode::Client).await;
    ours.bootstrap(&[liar.local_addrs().remove(0), addr(&nodes[0])])
        .await
        .expect("a join");
    assert_eq!(ours.get(b"/v/key").await.expect("a lookup"), None);
    nodes[0].put(b"/v/key", b"value").await.expect("a put");
    let found = ours.get(b"/v/key").await.expect("a lookup");
    assert_eq!(found.as_deref(), Some(&b"value"[..]));
    assert!(ours.counts().expect("open").bad_records >= 1);
}

#[tokio::test(start_paused = true)]
async fn records_and_announcements_are_published_again_before_they_expire() {
    let realm = MemoryRealm::default();
    // As the defaults, with minutes for hours.
    let engine = p2p_libp2p::kademlia::Config {
        record_ttl: Duration::from_mins(48),
        provider_ttl: Duration::from_mins(48),
        republish_every: Duration::from_mins(22),
        ..KademliaConfig::engine_config()
    };
    let mut nodes: Vec<Kademlia> = Vec::new();
    for seed in 0..3 {
        let config = KademliaConfig {
            engine,
            ..config(Mode::Server)
        };
        let node = node_with(seed, &realm, config).await;
        let bootstrap: Vec<_> = nodes.first().map(addr).into_iter().collect();
        node.bootstrap(&bootstrap).await.expect("a join");
        nodes.push(node);
    }
    nodes[1].put(b"/v/key", b"value").await.expect("a put");
    nodes[1].provide(b"multihash").await.expect("an announcement");
    nodes[2].put(b"/v/once", b"value").await.expect("a put");
    assert!(nodes[2].unpublish(b"/v/once").expect("open"));
    tokio::time::sleep(Duration::from_mins(50)).await;
    let found = nodes[0].get(b"/v/key").await.expect("a lookup");
    assert_eq!(found.as_deref(), Some(&b"value"[..]));
    assert_eq!(nodes[0].get(b"/v/once").await.expect("a lookup"), None);
    let providers = async || nodes[0].find_providers(b"multihash").await.expect("a lookup");
    assert_eq!(providers().await, [peer(&nodes[1])]);
    assert!(nodes[1].stop_providing(b"multihash").expect("open"));
    tokio::time::sleep(Duration::from_mins(50)).await;
    assert_eq!(providers().await, []);
}

#[tokio::test]
async fn nodes_agree_over_every_transport_and_a_refusal_costs_no_place() {
    for way in WAYS {
        let mut nodes = Vec::new();
        for seed in 1..4 {
            let mut config = config(if seed == 1 { Mode::Server } else { Mode::Client });
            if seed == 2 {
                // The server has no validator for it.
                config.namespaces = config.namespaces.with("other", |_: &p2p::PeerId, _: &[u8]| true);
            }
            nodes.push(host_at(seed, way).await.kademlia(config).expect("a node"));
        }
        let [server, ours, theirs] = &nodes[..] else {
            panic!("three nodes")
        };
        for node in [ours, theirs] {
            assert_eq!(
                node.bootstrap(&[addr(server)]).await.expect("a join"),
                1,
                "{way:?}"
            );
        }
        assert_eq!(ours.put(b"/v/key", b"value").await.expect("a put"), 1, "{way:?}");
        let found = theirs.get(b"/v/key").await.expect("a lookup");
        assert_eq!(found.as_deref(), Some(&b"value"[..]), "{way:?}");
        assert_eq!(
            ours.provide(b"multihash").await.expect("an announcement"),
            1,
            "{way:?}"
        );
        let found = theirs.find_providers(b"multihash").await.expect("a lookup");
        assert_eq!(found, [peer(ours)], "{way:?}");
        // The server knows where the provider listens, also if it dialled from another port.
        host(ours).disconnect(&peer(theirs));
        host(theirs).connect(&found[0]).await.expect("a connection");

        assert_eq!(
            ours.put(b"/other/key", b"value").await.expect("a put"),
            0,
            "{way:?}"
        );
        assert_eq!(ours.contacts().expect("open"), [peer(server)], "{way:?}");
        assert_eq!(
            ours.find_node(host(server).peer_id())
                .await
                .expect("a lookup")
                .len(),
            1,
            "{way:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_arrive_in_part_are_bounded() {
    let realm = MemoryRealm::default();
    let mut config = config(Mode::Server);
    config.engine.message = 600;
    config.engine.value = 300;
    config.peer_reassembly = 800;
    let ours = node_with(1, &realm, config).await;
    let them = in_memory(2, &realm, HostConfig::default()).await;
    let mut begun = Vec::new();
    for _ in 0..2 {
        let mut stream = them.open(&addr(&ours), &[PROTOCOL]).await.expect("a stream");
        stream
            .write_all(b"\xf4\x03beginning")
            .await
            .expect("an open stream");
        // The node has read it.
        them.pinger(&addr(&ours))
            .await
            .expect("a stream")
            .ping()
            .await
            .expect("an answer");
        begun.push(stream);
    }
    assert!(begun[1].read_u8().await.is_err(), "the stream is reset");
    assert_eq!(dropped(&ours, DropReason::Budget), 1);
    assert!(
        begun[0].read_u8().await.is_err(),
        "the rest does not arrive in time"
    );
    assert_eq!(dropped(&ours, DropReason::Expired), 1);
}

/// Returns a message with a few bytes changed, or cut off.
fn damaged(rng: &mut StdRng, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    for _ in 0..rng.random_range(0..4) {
        if !message.is_empty() {
            let at = rng.random_range(0..message.len());
            message[at] = rng.random();
        }
    }
    if rng.random_bool(0.2) {
        message.truncate(rng.random_range(0..=message.len()));
    }
    message
}

#[tokio::test(start_paused = true)]
async fn damaged_requests_and_answers_end_nothing_but_themselves() {
    const SEED: u64 = 11;
    println!("seed {SEED}");
    let realm = MemoryRealm::default();
    let ours = node(1, &realm, Mode::Server).await;
    let them = in_memory(2, &realm, HostConfig::default()).await;
    let id = them.peer_id().to_bytes();
    let place = them.local_addrs()[0].place().to_vec();
    let types = [
        MessageType::PutValue,
        MessageType::GetValue,
        MessageType::AddProvider,
        MessageType::GetProviders,
        MessageType::FindNode,
        MessageType::Ping,
    ];
    let message = move |message_type| {
        let peer = Peer {
            id: &id,
            addrs: vec![&place],
            ..Peer::default()
        };
        let record = Some(Record {
            key: b"/v/key",
            value: b"value",
            time_received: b"now",
        });
        Message {
            record,
            closer_peers: vec![peer.clone()],
            provider_peers: vec![peer],
            ..Message::new(message_type, b"/v/key")
        }
        .write()
    };
    let rng = std::sync::Mutex::new(StdRng::seed_from_u64(SEED));
    for round in 0..300 {
        let request = {
            let mut rng = rng.lock().expect("no panic");
            damaged(&mut rng, &message(types[round % types.len()]))
        };
        let mut stream = them.open(&addr(&ours), &[PROTOCOL]).await.expect("a stream");
        write(&mut stream, &request).await;
        stream.shutdown().await.expect("an open stream");
        // An answer, an end or a reset.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    let lie = move |request: Message<'_>| {
        let mut rng = rng.lock().expect("no panic");
        damaged(&mut rng, &message(request.message_type))
    };
    let liar = hostile(3, &realm, lie, false).await;
    for _ in 0..50 {
        ours.bootstrap(&liar.local_addrs()).await.expect("a join");
        ours.find_node(liar.peer_id()).await.expect("a lookup");
        ours.get(b"/v/key").await.expect("a lookup");
        ours.find_providers(b"/v/key").await.expect("a lookup");
        ours.provide(b"/v/key").await.expect("an announcement");
    }
    let counts = ours.counts().expect("open");
    assert!(counts.answered > 50 && counts.malformed > 5, "{counts:?}");
    // The node goes on serving.
    let client = node(4, &realm, Mode::Client).await;
    assert_eq!(client.bootstrap(&[addr(&ours)]).await.expect("a join"), 1);
}
