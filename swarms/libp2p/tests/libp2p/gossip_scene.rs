//! A gossip node with an honest peer and a hostile one, in virtual time.

use std::time::Duration;

use bytes::Bytes;
use p2p::{CounterSnapshot, Swarm as _};
use p2p_formats::varint;
use p2p_libp2p::{Host, HostAddr, HostConfig, HostGossip, HostGossipConfig, Stream};
use p2p_protocols::gossipsub::wire::{Rpc, SubOpts};
use p2p_swarms::MemoryRealm;
use p2p_swarms::gossipsub::{GossipEvent, Refused};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::gossip::{node, publish, signing, until_subscribed};
use crate::nodes::in_memory;

pub(crate) const TOPIC: &str = "news";
pub(crate) const PROTOCOL: &str = "/meshsub/1.2.0";

/// A node, an honest peer that is subscribed as it is, and a host that speaks the protocol as it likes.
pub(crate) struct Scene {
    pub(crate) realm: MemoryRealm,
    pub(crate) node: HostGossip,
    pub(crate) honest: HostGossip,
    pub(crate) attacker: Host,
    /// The streams that the node opened to the attacker.
    pub(crate) streams: mpsc::UnboundedReceiver<Stream>,
    pub(crate) to: HostAddr,
}

impl Scene {
    pub(crate) async fn new() -> Self {
        Self::with(HostGossipConfig::default()).await
    }

    pub(crate) async fn with(config: HostGossipConfig) -> Self {
        let realm = MemoryRealm::default();
        let host = in_memory(1, &realm, HostConfig::default()).await;
        let to = host.local_addrs().remove(0);
        let node_ = host.gossip(signing(1), config).expect("a node");
        let honest = node(2, &realm).await;
        for node in [&node_, &honest] {
            node.subscribe(TOPIC).expect("a valid topic");
        }
        honest.add_peer(&to).expect("room");
        until_subscribed(&node_, 1).await;
        let attacker = in_memory(3, &realm, HostConfig::default()).await;
        let (sender, streams) = mpsc::unbounded_channel();
        let handled = attacker.handle(PROTOCOL, move |stream| {
            let sender = sender.clone();
            async move {
                // The receiver is gone at the end of the test.
                let _ = sender.send(stream);
            }
        });
        handled.expect("a valid id");
        Self {
            realm,
            node: node_,
            honest,
            attacker,
            streams,
            to,
        }
    }

    /// Returns another attacker.
    pub(crate) async fn attacker_of(&self, seed: u32) -> Host {
        let attacker = in_memory(seed, &self.realm, HostConfig::default()).await;
        let handled = attacker.handle(PROTOCOL, async |stream| {
            let _stream: Stream = stream;
            std::future::pending::<()>().await;
        });
        handled.expect("a valid id");
        attacker
    }

    pub(crate) async fn open(&self) -> Stream {
        open(&self.attacker, &self.to).await
    }

    /// Opens a stream, becomes a peer, and subscribes.
    pub(crate) async fn subscribe(&mut self) -> Stream {
        let mut stream = self.open().await;
        write(&mut stream, &framed(&subscriptions(1))).await;
        until_subscribed(&self.node, 2).await;
        stream
    }

    pub(crate) fn attacker(&self) -> HostAddr {
        HostAddr::of_peer(self.attacker.peer_id())
    }

    pub(crate) fn counted(&self) -> CounterSnapshot {
        let mut counted = None;
        self.node.visit_counters(&mut |counters| {
            if counters.layer() == "libp2p-gossip" {
                counted = Some(counters.snapshot());
            }
        });
        counted.expect("the counters of its streams")
    }

    /// Publishes at both honest nodes; each receives what the other published.
    pub(crate) async fn serves_the_honest(&self) {
        for (from, to) in [(&self.node, &self.honest), (&self.honest, &self.node)] {
            publish(from, b"hello").await;
            let received = timeout(Duration::from_secs(2), to.receive()).await;
            let message = received.expect("no delay").expect("an open node");
            assert_eq!(message.payload, b"hello");
        }
    }

    /// Returns the reasons for which RPCs of the attacker were refused so far.
    pub(crate) async fn refused(&self) -> Vec<Refused> {
        let mut refused = Vec::new();
        while let Ok(event) = timeout(Duration::from_millis(1), self.node.event()).await {
            if let GossipEvent::Rejected { peer, reason } = event.expect("an open node") {
                assert_eq!(peer, self.attacker());
                refused.push(reason);
            }
        }
        refused
    }
}

pub(crate) async fn open(attacker: &Host, to: &HostAddr) -> Stream {
    let opened = attacker.open(to, &[PROTOCOL]).await;
    opened.expect("the node supports it")
}

pub(crate) fn framed(rpc: &[u8]) -> Vec<u8> {
    let mut bytes = varint::write(rpc.len() as u64, &mut [0; varint::MAX_LEN]).to_vec();
    bytes.extend_from_slice(rpc);
    bytes
}

/// An RPC with subscriptions to as many topics, the first of which is that of the others.
pub(crate) fn subscriptions(count: usize) -> Bytes {
    let topics = (0..count).map(|number| match number {
        0 => TOPIC.to_owned(),
        number => format!("{number}"),
    });
    let subscriptions = topics.map(|topic| SubOpts {
        subscribe: Some(true),
        topicid: Some(topic),
    });
    let rpc = Rpc {
        subscriptions: subscriptions.collect(),
        ..Rpc::default()
    };
    rpc.emit()
}

pub(crate) async fn write(stream: &mut Stream, bytes: &[u8]) {
    // The node may refuse the rest.
    let _ = stream.write_all(bytes).await;
    let _ = stream.flush().await;
}

/// Waits until the node has reset a stream.
pub(crate) async fn until_reset(stream: &mut Stream) {
    let read = timeout(Duration::from_mins(1), stream.read_u8()).await;
    assert!(read.expect("the stream ends").is_err());
}
