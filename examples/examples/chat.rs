//! A chat of nodes that run a DHT, gossip, and a protocol of their own on one mux.
//!
//! Without arguments three nodes of this process talk. In terminals on one or more machines, lines go to all
//! others: `cargo run --example chat -- ann`, and `cargo run --example chat -- bob [ADDR]`, where ADDR is
//! what ann printed.

use std::{slice, sync::Arc, time::Duration};

use p2p::{BoxAddr, BoxSecureAskSwarm, BoxSecureSwarm, BoxSwarm, Swarm};
use p2p_discovery::{Addrs, Combined, Dht, Discovery, Mdns, MdnsConfig, Result, keep_announced, keep_peers};
use p2p_formats::x509::{PrivateKey, Registry};
use p2p_swarms::gossipsub::{self, GossipEvent};
use p2p_swarms::{GossipAddr, GossipSwarm, Identity, KademliaSwarm, Mux, SwarmExt as _, UdpSwarm};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::{sleep, timeout};

const CHAT: &str = "chat";

struct Node {
    dht: Arc<KademliaSwarm<BoxAddr, BoxSecureAskSwarm<BoxAddr>>>,
    gossip: GossipSwarm<BoxAddr, BoxSwarm<BoxAddr>>,
    own: BoxSwarm<BoxAddr>,
}

impl Node {
    fn open(ip: [u8; 4]) -> p2p::Result<Self> {
        let key = PrivateKey::ed25519(&rand::random());
        let sealed = UdpSwarm::bind((ip, 0).into())?.p2pke(&key)?;
        let mux: Mux<_, _> = BoxSecureSwarm::new(sealed.erase()).mux();
        let asks = BoxSecureAskSwarm::new(mux.open("dht")?.mbapp(64 << 10));
        let signing = gossipsub::Signing::strict(Registry::default().signer(&key)?.into())?;
        let gossip = BoxSwarm::new(mux.open("gossip")?.fragment(64 << 10)).gossip(signing)?;
        gossip.subscribe(CHAT)?;
        let dht = Arc::new(asks.kademlia(Identity::Key(&key))?);
        let own = BoxSwarm::new(mux.open("own")?);
        Ok(Self { dht, gossip, own })
    }

    /// The program's own protocol, in one loop: new peers in the chat are greeted, and become contacts of the
    /// DHT.
    async fn greet(&self) -> Result<()> {
        loop {
            tokio::select! {
                greeting = self.own.receive() => println!("{}", String::from_utf8_lossy(&greeting?.payload)),
                event = self.gossip.event() => if let GossipEvent::Subscribed { peer, .. } = event? {
                    drop(self.own.tell(&peer, "* hello, neighbour".into()).await);
                    self.dht.join(slice::from_ref(&peer))?.finish().await?;
                }
            }
        }
    }

    /// Once enough others are present, sends the input lines. Ends with the input, once each of the others
    /// has sent a line.
    async fn talk(&self, name: &str, mut lines: Receiver<String>, others: usize) -> Result<()> {
        while self.gossip.subscribers(CHAT).len() < others {
            sleep(Duration::from_millis(50)).await;
        }
        let (topic, mut awaited, mut has_ended) = (GossipAddr::topic(CHAT), others, false);
        while awaited > 0 || !has_ended {
            tokio::select! {
                line = lines.recv(), if !has_ended => match line {
                    Some(line) => self.gossip.tell(&topic, format!("{name}: {line}").as_bytes().into()).await?,
                    None => has_ended = true,
                },
                message = self.gossip.receive() => {
                    println!("{}", String::from_utf8_lossy(&message?.payload));
                    awaited = awaited.saturating_sub(1);
                }
            }
        }
        Ok(())
    }

    /// Runs all parts concurrently, and finds other nodes by the DHT and by multicast DNS.
    async fn run(self, name: &str, mdns: Option<Mdns>, lines: Receiver<String>, others: usize) -> Result<()> {
        let (topic, ttl) = ("chat-example".parse()?, Duration::from_secs(10));
        let mut ways: Vec<Arc<dyn Discovery>> = vec![Arc::new(Dht::polling(self.dht.clone(), ttl / 10))];
        ways.extend(mdns.map(|mdns| Arc::new(mdns) as _));
        let (ways, addrs) = (Combined::new(ways), Addrs::new(self.own.local_addrs())?);
        let failed = |error| eprintln!("discovery: {error}");
        tokio::select! {
            never = keep_announced(&ways, &topic, &addrs, ttl, failed) => match never {},
            ended = keep_peers(&ways, &topic, &self.gossip, failed) => match ended? {},
            ended = self.greet() => ended,
            ended = self.talk(name, lines, others) => ended,
        }
    }
}

/// Two nodes that know a third one, and find each other by the DHT. Each sends a line to all.
async fn among_three() -> Result<()> {
    let [ann, bob, eve] = [(); 3].map(|()| Node::open([127, 0, 0, 1]).expect("loopback has ports"));
    bob.gossip.add_peer(&ann.own.local_addrs()[0])?;
    eve.gossip.add_peer(&ann.own.local_addrs()[0])?;
    let talk = |name, node: Node| {
        let (say, lines) = channel(1);
        say.try_send("hello, all".to_owned()).expect("room for one");
        node.run(name, None, lines, 2)
    };
    let all = async { tokio::try_join!(talk("ann", ann), talk("bob", bob), talk("eve", eve)) };
    let ended = timeout(Duration::from_mins(1), all).await;
    ended.expect("in time").map(drop)
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let Some(name) = args.next() else {
        return among_three().await;
    };
    let node = Node::open([0; 4])?;
    println!("{}", node.own.local_addrs()[0]);
    args.try_for_each(|addr| node.gossip.add_peer(&node.own.parse_addr(&addr)?))?;
    let mdns = Mdns::new(node.dht.id(), MdnsConfig::default()).map_err(|error| eprintln!("{error}"));
    let (typed, lines) = channel(16);
    std::thread::spawn(move || {
        let mut typing = std::io::stdin().lines().map_while(std::result::Result::ok);
        typing.all(|line| typed.blocking_send(line).is_ok())
    });
    node.run(&name, mdns.ok(), lines, 0).await
}
