//! A composed secure stack: asks of any length between authenticated nodes, over plain UDP.
//!
//! `cargo run --example secure`

use std::net::SocketAddr;
use std::time::Duration;

use p2p::{AskSwarm, PeerId, Result, SecureSwarm, Swarm as _};
use p2p_formats::x509::PrivateKey;
use p2p_swarms::{KeyAddr, SwarmExt as _, UdpSwarm};
use tokio::time::timeout;

/// The address of a node: its identity, and its socket address.
type Addr = KeyAddr<SocketAddr>;

/// Returns a node with asks of up to 64 KiB over a secure channel over UDP.
fn node(key: &PrivateKey) -> Result<impl AskSwarm<Addr> + SecureSwarm<Addr>> {
    let udp = UdpSwarm::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    Ok(udp.p2pke(key)?.mbapp(64 << 10))
}

#[tokio::main]
async fn main() -> Result<()> {
    // A node that keeps its identity over restarts keeps its key; `p2putil keygen` creates one.
    let key = || PrivateKey::ed25519(&rand::random());
    let (alice, bob) = (node(&key())?, node(&key())?);
    let to = bob.local_addrs().swap_remove(0);
    println!("bob is {}\n    at {}", to.id, to.addr);

    let answer = async {
        let request = bob.receive_ask().await?;
        println!(
            "a request of {} bytes arrived from {}",
            request.message.payload.len(),
            request.message.src.id
        );
        assert_eq!(
            request.message.src,
            alice.local_addrs().swap_remove(0),
            "proved, not claimed"
        );
        let mut response = request.message.payload.clone();
        response.make_ascii_uppercase();
        request.respond(response).await
    };
    let question = "what do you say? ".repeat(1000);
    let (response, answered) = tokio::join!(alice.ask(&to, alice.packet(question.as_bytes())), answer);
    answered?;
    let response = response?;
    assert_eq!(*response, *question.to_uppercase().as_bytes());
    println!("a response of {} bytes arrived", response.len());

    // Each end knows the other's key.
    assert_eq!(alice.lookup_public_key(&to).await?, bob.public_key());

    // A tell to another identity at the same address reaches no node.
    let wrong = KeyAddr::new(PeerId::ZERO, to.addr);
    let told = timeout(
        Duration::from_millis(300),
        alice.tell(&wrong, alice.packet(b"psst")),
    )
    .await;
    assert!(!matches!(told, Ok(Ok(()))), "it is not sent");
    println!("no node at that address proves the identity {}", wrong.id);

    bob.close().await;
    alice.close().await;
    Ok(())
}

#[test]
fn it_runs() -> Result<()> {
    main()
}
