//! A distributed hash table: records that outlive their publisher, and providers that are told by id.
//!
//! `cargo run --example dht`

use std::time::Duration;

use p2p::{PeerId, Result, Swarm as _};
use p2p_formats::x509::PrivateKey;
use p2p_swarms::{Identity, KademliaConfig, KademliaSwarm, MemoryRealm, SwarmExt as _};

/// Number of nodes.
const NODES: u8 = 16;

/// The key of a record is the hash of its value, so that no node can give another value for it.
fn key_of(value: &[u8]) -> PeerId {
    PeerId::new(*blake3::hash(value).as_bytes())
}

#[tokio::main]
async fn main() -> Result<()> {
    let realm = MemoryRealm::default();
    let mut nodes = Vec::new();
    for seed in 0..NODES {
        let key = PrivateKey::ed25519(&[seed; 32]);
        let inner = realm.open().p2pke(&key)?.mbapp(64 << 10);
        let mut config =
            KademliaConfig::default().validator(|key: &PeerId, value: &[u8]| key_of(value) == *key);
        // Between nodes of one machine no answer takes longer; the default is 5 s.
        config.engine.request_timeout = Duration::from_secs(1);
        nodes.push(KademliaSwarm::with_config(inner, Identity::Key(&key), config)?);
    }
    let bootstrap = nodes[0].inner().local_addr()?;
    for node in &nodes[1..] {
        node.join(std::slice::from_ref(&bootstrap))?.finish().await?;
    }
    println!(
        "{NODES} nodes; the last knows {}",
        nodes[nodes.len() - 1].contacts()?
    );

    // A record is stored at the nodes nearest to its key, and stays when its publisher leaves.
    let value = b"the meeting is at noon";
    let publisher = nodes.remove(3);
    let copies = publisher
        .put(key_of(value), value, Duration::from_hours(1))?
        .finish()
        .await?;
    println!("{copies} copies stored");
    publisher.close().await;
    let found = nodes[10].get(key_of(value))?.finish().await?;
    if let Some(record) = &found {
        println!("found {:?}", String::from_utf8_lossy(&record.value));
        assert_eq!(record.value, value);
    }

    // Large content stays where it is: a node announces that it provides it, and others ask that node.
    let content = key_of(b"a film");
    nodes[5].provide(content)?.finish().await?;
    let providers = nodes[12].providers(content)?.finish().await?;
    for provider in &providers {
        println!("{} provides it", provider.id);
        nodes[12].tell(&provider.id, nodes[12].packet(b"send it")).await?;
    }
    let wish = nodes[5].receive().await?;
    assert_eq!(wish.src, nodes[12].id());
    println!("{} wants it", wish.src);
    assert!(copies >= 10, "the record is on at least ten nodes");
    Ok(())
}

#[test]
fn it_runs() -> Result<()> {
    main()
}
