//! A composed transport stack: long messages and named channels over a bad UDP network.
//!
//! `cargo run --example compose`

use std::net::SocketAddr;
use std::time::Duration;

use p2p::{Error, Packet, Result, Swarm};
use p2p_swarms::faulty::FaultyConfig;
use p2p_swarms::{Faults, LinkFaults, SwarmExt as _, UdpSwarm};
use tokio::time::timeout;

/// Returns a channel called "chat" over fragments over UDP that loses one datagram in twenty.
fn node(faults: &Faults<SocketAddr>) -> Result<impl Swarm<SocketAddr>> {
    let udp = UdpSwarm::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    udp.faulty(faults.clone()).fragment(64 << 10).mux().open("chat")
}

#[tokio::main]
async fn main() -> Result<()> {
    let faults = Faults::new(FaultyConfig {
        seed: 7,
        link: LinkFaults {
            loss: 0.05,
            ..LinkFaults::default()
        },
        ..FaultyConfig::default()
    })?;
    let (alice, bob) = (node(&faults)?, node(&faults)?);
    let to = bob.local_addrs().into_iter().next();
    let to = to.ok_or(Error::Closed)?;
    println!("bob is at {to}; a message carries up to {} bytes", bob.mtu());

    // A tell is not acknowledged: a sender that needs delivery repeats it.
    let letter = "a long message ".repeat(700);
    for attempt in 1.. {
        alice.tell(&to, alice.packet(letter.as_bytes())).await?;
        if let Ok(message) = timeout(Duration::from_millis(50), bob.receive()).await {
            let message = message?;
            println!(
                "{} bytes arrived from {} at attempt {attempt}",
                message.payload.len(),
                message.src
            );
            assert_eq!(&*message.payload, letter.as_bytes());
            break;
        }
    }

    // A message over the MTU is refused, not truncated.
    let too_long: Packet = vec![0; bob.mtu() + 1].into();
    if let Err(error) = alice.tell(&to, too_long).await {
        println!("{error}");
    }

    // Each layer counts the fate of every message.
    let mut layers = 0;
    alice.visit_counters(&mut |counters| {
        let now = counters.snapshot();
        let (sent, dropped) = (now.sent, now.dropped_total());
        println!("{:>10}: {sent} sent, {dropped} dropped", counters.layer());
        layers += 1;
    });
    bob.close().await;
    alice.close().await;
    assert!(layers >= 4, "each layer has counters");
    Ok(())
}

#[test]
fn it_runs() -> Result<()> {
    main()
}
