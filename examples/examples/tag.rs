//! A complete layer, and the conformance suite that checks it.
//!
//! `cargo run --example tag`

use p2p::{Addr, DropReason, Filter, FilterSwarm, Headroom, Packet, Result, Swarm};
use p2p_swarms::{MemoryAddr, MemoryRealm, MemorySwarm, SwarmExt};
use p2p_swarmtest::{SecureAsk, Testbed};

/// Lets only messages that carry this network's tag through.
struct Tag([u8; 4]);

impl<A: Addr> Filter<A> for Tag {
    const LAYER: &'static str = "tag";

    fn overhead(&self) -> Headroom {
        Headroom::new(4, 0)
    }

    fn outgoing(&self, _to: &A, packet: &mut Packet) -> Result<()> {
        packet.push_front(&self.0);
        Ok(())
    }

    fn incoming(&self, _from: &A, packet: &mut Packet) -> Result<(), DropReason> {
        if packet.pop_front() == Some(self.0) {
            Ok(())
        } else {
            Err(DropReason::Malformed)
        }
    }
}

type Tagged = FilterSwarm<MemoryAddr, MemorySwarm, Tag>;

/// Nodes of one network in a separate realm, for the suite.
fn testbed() -> Testbed<MemoryAddr> {
    let realm = MemoryRealm::default();
    Testbed::new(SecureAsk, move |count| {
        let nodes = (0..count).map(|_| realm.open().filter(Tag(*b"demo"))).collect();
        std::future::ready(Ok::<Vec<Tagged>, _>(nodes))
    })
}

#[tokio::main]
async fn main() -> Result<()> {
    // Two networks share a medium; each receives only its own messages.
    let realm = MemoryRealm::default();
    let [alice, bob] = [(); 2].map(|()| realm.open().filter(Tag(*b"demo")));
    let stranger = realm.open().filter(Tag(*b"else"));
    let to = bob.local_addr()?;
    stranger.tell(&to, "unheard".into()).await?;
    alice.tell(&to, "hello".into()).await?;
    let message = bob.receive().await?;
    println!(
        "{} says {:?}",
        message.src,
        String::from_utf8_lossy(&message.payload)
    );
    let mut dropped = 0;
    bob.visit_counters(&mut |layer| dropped += layer.snapshot().dropped(DropReason::Malformed));
    println!("{dropped} message of another network was dropped\n");

    // The laws of a swarm, each with its verdict.
    let report = testbed().run().await;
    println!("{report}");
    report.assert_ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::testbed;
    use p2p_swarmtest::conformance;

    conformance!(#[tokio::test(start_paused = true)] mod tag: SecureAsk => testbed());
}
