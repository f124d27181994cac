//! Floods of relayed messages, from one identity, one network and many: in the names of nodes that are known and silent, and of
//! ids that are unknown. They start no lookup, this node's operations begin and end, and an honest node is reached over relays.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use futures_util::future::join_all;
use p2p::{
    Addr, AskSwarm, BoxAddr, BoxSecureAskSwarm, Counters, Error, Packet, PeerId, Result, SecureSwarm, Swarm,
};
use p2p_formats::x509::PrivateKey;
use p2p_protocols::kademlia::Config;
use p2p_protocols::overlay::wire::Header;
use p2p_protocols::p2pke::{self, Endpoint, Local};
use p2p_swarms::map::Translate;
use p2p_swarms::overlay::Identity;
use p2p_swarms::{Faults, KademliaConfig, KademliaSwarm, LinkFaults, MemoryAddr, MemoryRealm, SwarmExt as _};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::time::{sleep, timeout};

/// The inner type of overlays in stacks: overlays over it are already compiled.
type Inner = BoxSecureAskSwarm<BoxAddr>;
type Node = KademliaSwarm<BoxAddr, Inner>;

/// Places of public networks in memory.
struct Ip;

impl Translate<SocketAddr, MemoryAddr> for Ip {
    fn down(&self, addr: &SocketAddr) -> Result<MemoryAddr> {
        match addr {
            SocketAddr::V4(at) => Ok(MemoryAddr::new(u32::from(*at.ip()).into())),
            SocketAddr::V6(_) => Err(Error::invalid("address", "the address is not in this network")),
        }
    }

    fn up(&self, addr: MemoryAddr) -> Option<SocketAddr> {
        let ip = u32::try_from(addr.number()).ok()?;
        Some((Ipv4Addr::from(ip), 443).into())
    }

    fn parse(&self, text: &str, _: impl Fn(&str) -> Result<MemoryAddr>) -> Result<SocketAddr> {
        text.parse()
            .map_err(|_| Error::addr(text, 0, "not an IP address and a port"))
    }
}

fn key(number: u32) -> PrivateKey {
    let mut bytes = [7; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    PrivateKey::ed25519(&bytes)
}

fn erase<A: Addr, S: AskSwarm<A> + SecureSwarm<A>>(inner: S) -> Inner {
    Inner::new(inner.erase())
}

fn place(network: u8, host: u8) -> MemoryAddr {
    MemoryAddr::new(u32::from(Ipv4Addr::new(8, 8, network, host)).into())
}

/// A medium, and the members of one overlay on it, each in a network of its own.
struct Net {
    realm: MemoryRealm,
    faults: Faults<MemoryAddr>,
    members: Vec<Node>,
}

impl Net {
    async fn new(members: u8) -> Self {
        let faults = Faults::seeded(1);
        let delay = LinkFaults {
            delay: Duration::from_millis(20),
            ..LinkFaults::default()
        };
        faults.set_all(delay).expect("in range");
        let mut net = Self {
            realm: MemoryRealm::default(),
            faults,
            members: Vec::new(),
        };
        for network in 1..=members {
            let config = KademliaConfig::default();
            let inner = net.sealed(network, 1, network.into());
            let node = KademliaSwarm::with_config(inner, Identity::Key(&key(network.into())), config);
            let node = node.expect("a node");
            if let Some(first) = net.members.first() {
                let joining = node.join(&first.inner().local_addrs()).expect("room");
                assert!(joining.finish().await.expect("open") > 0);
            }
            net.members.push(node);
        }
        net
    }

    /// A node that is not a member, but exchanges messages with the members.
    fn sealed(&self, network: u8, host: u8, number: u32) -> Inner {
        let base = self.realm.open_at(place(network, host)).expect("free");
        let base = base.faulty(self.faults.clone()).map(Ip);
        erase(base.p2pke(&key(number)).expect("a node").mbapp(64 << 10))
    }

    /// The members of a crowd: the neighbours that relay the flood.
    fn crowd(&self, at: fn(u8) -> (u8, u8), count: u8) -> Vec<Inner> {
        let nodes = (0..count).map(|nth| {
            let (network, host) = at(nth);
            self.sealed(network, host, 1000 + u32::from(nth))
        });
        nodes.collect()
    }
}

/// A crowd's name, how many members it has at most, and their networks and hosts.
type Crowd = (&'static str, u8, fn(u8) -> (u8, u8));

const CROWDS: [Crowd; 3] = [
    ("one identity", 1, |_| (100, 1)),
    ("one network", u8::MAX, |nth| (100, nth)),
    ("many networks", u8::MAX, |nth| (100 + nth, 1)),
];

/// Tells a node raw bytes with this header; returns how many.
async fn tell_raw(from: &Inner, to: &Node, header: Header, payload: &[u8]) -> usize {
    let mut packet = Packet::from(payload);
    header.push(&mut packet);
    let len = packet.len();
    let to = to.inner().local_addrs().remove(0);
    from.tell(&to, packet).await.expect("it is reachable");
    len
}

/// A P2PKE hello, signed with a key of its own each time: a second hello of one key would be dropped as a replay.
fn hello() -> Vec<u8> {
    static NUMBER: AtomicU32 = AtomicU32::new(5000);
    let number = NUMBER.fetch_add(1, Relaxed);
    let mut rng = StdRng::seed_from_u64(number.into());
    let local = Local::new(&key(number), p2pke::Config::default()).expect("a good key");
    let mut endpoint = Endpoint::<u8>::new(Arc::new(local), &mut rng);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let begun = endpoint.connect(now.expect("after 1970"), &0, None, &mut rng);
    assert!(begun.is_ok_and(|path| path.is_none()));
    endpoint.poll_transmit().expect("a hello").1.to_vec()
}

/// Relays a hello in the name of each of these sources, 16 for each neighbour and second. Returns the bytes that were sent.
async fn relay_hellos(crowd: &[Inner], to: &Node, sources: &[PeerId]) -> usize {
    let mut sent = 0;
    for second in sources.chunks(16 * crowd.len()) {
        for (from, sources) in crowd.iter().zip(second.chunks(16)) {
            for src in sources {
                let (hops, dst) = (0, to.id());
                let header = Header::Relayed { hops, src: *src, dst };
                sent += tell_raw(from, to, header, &hello()).await;
            }
        }
        // A little more, since the first packets wait for the handshake below.
        sleep(Duration::from_millis(1100)).await;
    }
    sent
}

/// Returns how many bytes a crowd gets until nothing comes for a second.
async fn answered(crowd: &[Inner]) -> usize {
    let answers = crowd.iter().map(async |from| {
        let mut bytes = 0;
        while let Ok(answer) = timeout(Duration::from_secs(1), from.receive()).await {
            bytes += answer.expect("open").payload.len();
        }
        bytes
    });
    join_all(answers).await.into_iter().sum()
}

fn requests(node: &Node) -> u64 {
    let mut sent = 0;
    node.visit_counters(&mut |counters: &Counters| {
        if counters.layer() == "kad-request" {
            sent = counters.snapshot().sent;
        }
    });
    sent
}

/// Checks that as many operations as a node may have begin and end.
async fn operations_work(node: &Node, case: &str) {
    let begun = (0..Config::default().operations).map(|at| node.find_node(PeerId::new([at as u8; 32])));
    let begun: Vec<_> = begun
        .collect::<Result<_>>()
        .unwrap_or_else(|error| panic!("{case}: {error}"));
    for operation in begun {
        let found = timeout(Duration::from_mins(1), operation.finish()).await;
        assert!(!found.expect("in time").expect("open").is_empty(), "{case}");
    }
}

/// Checks that a message of one node reaches the other.
async fn reaches(from: &Node, to: &Node, case: &str) {
    let telling = async {
        from.tell(&to.id(), from.packet(b"hello")).await?;
        to.receive().await
    };
    let told = timeout(Duration::from_mins(1), telling).await;
    let told = told.unwrap_or_else(|_| panic!("{case}: nothing arrives"));
    assert_eq!(
        told.unwrap_or_else(|error| panic!("{case}: {error}")).src,
        from.id()
    );
}

#[tokio::test(start_paused = true)]
async fn relayed_messages_in_the_names_of_silent_nodes_start_no_lookup() {
    for (case, most, at) in CROWDS {
        let net = Net::new(6).await;
        let a = &net.members[1];
        // Nodes that sent one message each, and were not heard of since: the next message to each would be due for a lookup.
        let mut silent = Vec::new();
        for nth in 0..80 {
            let node = net.sealed(10 + nth, 1, 2000 + u32::from(nth));
            tell_raw(&node, a, Header::Direct, b"here I am").await;
            assert_eq!(a.receive().await.expect("open").payload, b"here I am");
            silent.push(node.local_addrs()[0].peer_id().expect("proven"));
        }
        let crowd = net.crowd(at, most.min(8));
        sleep(KademliaConfig::default().overlay.due_after).await;
        let before = requests(a);
        let sent = relay_hellos(&crowd, a, &silent).await;
        let begun = requests(a) - before;
        // Lookups of the silent nodes would send 25; upkeep may send some.
        assert!(
            begun < 10,
            "{case}: {begun} requests for {} messages",
            silent.len()
        );
        relay_hellos(&crowd, a, &silent[..16]).await;
        operations_work(a, case).await;
        let bytes = answered(&crowd).await;
        assert!(bytes <= 2 * sent, "{case}: {bytes} B for {sent} B");
        reaches(&net.members[4], a, case).await;
        reaches(a, &net.members[3], case).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_honest_node_is_reached_over_relays_during_a_flood_of_relayed_hellos() {
    for (case, most, at) in CROWDS {
        let net = Net::new(6).await;
        let (a, b) = (&net.members[1], &net.members[4]);
        net.faults.partition(&[place(2, 1)], &[place(5, 1)]);
        let crowd = net.crowd(at, most.min(70));
        let before = requests(a);
        let flooding = async {
            let mut sent = 0;
            for second in 0..3_u8 {
                let sources: Vec<PeerId> = (0..16 * crowd.len() as u32)
                    .map(|number| {
                        let mut bytes = [second; 32];
                        bytes[..4].copy_from_slice(&number.to_be_bytes());
                        PeerId::new(bytes)
                    })
                    .collect();
                sent += relay_hellos(&crowd, a, &sources).await;
            }
            sent
        };
        let honest = async {
            sleep(Duration::from_millis(1500)).await;
            reaches(b, a, case).await;
            reaches(a, b, case).await;
            operations_work(a, case).await;
        };
        let (sent, ()) = tokio::join!(flooding, honest);
        let bytes = answered(&crowd).await;
        assert!(bytes > 0 && bytes <= 2 * sent, "{case}: {bytes} B for {sent} B");
        // Its own operations, and no lookup for a message of the flood.
        let begun = requests(a) - before;
        assert!(begun < 600, "{case}: {begun} requests");
    }
}
