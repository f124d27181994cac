//! Nodes of one Kademlia network, on P2PKE in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use p2p::{BoxAddr, BoxSecureAskSwarm, Swarm as _};
use p2p_discovery::Dht;
use p2p_discovery::laws::{Member, Testbed, Timing};
use p2p_swarms::{Identity, KademliaConfig, KademliaSwarm, MemoryRealm, SwarmExt as _};
use tokio::sync::Mutex;

use super::key;

/// The inner type of overlays in stacks: overlays over it are already compiled.
type Sealed = BoxSecureAskSwarm<BoxAddr>;
pub(crate) type DhtNode = Dht<BoxAddr, Sealed>;

/// How long nodes store records of others.
const KEPT: Duration = Duration::from_secs(4);

#[derive(Default)]
pub(crate) struct DhtTestbed {
    realm: MemoryRealm,
    count: AtomicU8,
    first: Mutex<Option<Vec<BoxAddr>>>,
    nodes: Mutex<Vec<DhtNode>>,
}

impl DhtTestbed {
    pub(crate) async fn node(&self) -> DhtNode {
        let key = key(self.count.fetch_add(1, Ordering::Relaxed));
        let sealed = self.realm.open().p2pke(&key).expect("a node").mbapp(64 << 10);
        let sealed = Sealed::new(sealed.erase());
        let mut config = KademliaConfig::default();
        config.engine.provider_ttl = KEPT;
        config.engine.upkeep_every = Duration::from_secs(1);
        let node = KademliaSwarm::with_config(sealed, Identity::Key(&key), config).expect("a node");
        let mut first = self.first.lock().await;
        match &*first {
            None => *first = Some(node.inner().local_addrs()),
            Some(first) => {
                let joined = node.join(first).expect("room").finish().await.expect("open");
                assert!(joined > 0);
            }
        }
        let node = Dht::polling(Arc::new(node), Duration::from_millis(500));
        // It stays in the network after its test.
        self.nodes.lock().await.push(node.clone());
        node
    }
}

#[async_trait]
impl Testbed for DhtTestbed {
    async fn member(&self) -> Member {
        let node = self.node().await;
        Member {
            id: node.id(),
            addrs: node.addrs().expect("it has some"),
            discovery: Arc::new(node),
            others: None,
        }
    }

    fn timing(&self) -> Timing {
        Timing {
            ttl: Duration::from_secs(6),
            propagation: Duration::from_secs(2),
            staleness: KEPT,
        }
    }
}
