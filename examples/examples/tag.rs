//! A complete layer, and the conformance suite that checks it.
//!
//! `cargo run --example tag`

use std::marker::PhantomData;

use p2p::{Addr, Counters, Message, Packet, Reason, Result, Swarm, pass_through};
use p2p_swarms::{MemoryAddr, MemoryRealm, MemorySwarm};
use p2p_swarmtest::{Plain, Testbed};

/// Passes only messages with this network's tag.
struct TagSwarm<A, S> {
    inner: S,
    tag: [u8; 4],
    counters: Counters,
    addr: PhantomData<fn() -> A>,
}

impl<A, S> TagSwarm<A, S> {
    fn new(inner: S, tag: [u8; 4]) -> Self {
        Self {
            inner,
            tag,
            counters: Counters::new("tag"),
            addr: PhantomData,
        }
    }
}

impl<A: Addr, S: Swarm<A>> Swarm<A> for TagSwarm<A, S> {
    pass_through!(inner: local_addrs, parse_addr, close);

    fn mtu(&self) -> usize {
        self.inner.mtu().saturating_sub(4)
    }

    async fn tell(&self, dst: &A, mut packet: Packet) -> Result<()> {
        packet.check(self.mtu())?;
        packet.push_front(&self.tag);
        self.inner.tell(dst, packet).await
    }

    async fn receive(&self) -> Result<Message<A>> {
        loop {
            let mut message = self.inner.receive().await?;
            if message.payload.pop_front::<4>() == Some(self.tag) {
                return Ok(message);
            }
            self.counters.dropped(Reason::Malformed);
        }
    }
}

/// Nodes of one network in a separate realm, for the suite.
fn testbed() -> Testbed<MemoryAddr> {
    let realm = MemoryRealm::default();
    Testbed::new(Plain, move |count| {
        let nodes = (0..count)
            .map(|_| TagSwarm::new(realm.open(), *b"demo"))
            .collect();
        std::future::ready(Ok::<Vec<TagSwarm<MemoryAddr, MemorySwarm>>, _>(nodes))
    })
}

#[tokio::main]
async fn main() -> Result<()> {
    // Two networks share a medium; each receives only its own messages.
    let realm = MemoryRealm::default();
    let [alice, bob] = [(); 2].map(|()| TagSwarm::new(realm.open(), *b"demo"));
    let stranger = TagSwarm::new(realm.open(), *b"else");
    let to = bob.local_addrs().remove(0);
    stranger.tell(&to, "dropped".into()).await?;
    alice.tell(&to, "hello".into()).await?;
    let message = bob.receive().await?;
    println!(
        "{} says {:?}",
        message.src,
        String::from_utf8_lossy(&message.payload)
    );
    let dropped = bob.counters.snapshot().dropped(Reason::Malformed);
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

    conformance!(#[tokio::test(start_paused = true)] mod tag: Plain => testbed());
}
