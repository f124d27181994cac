//! The laws on small stacks in memory under paused time: seconds for all of them.
//!
//! Every layer without a protocol of its own is tested here with the suite's laws, and with its own laws.
//! `cargo mutants` runs this target; `docs/mutants.md` has the command and the figures.

mod allow;
mod core;
mod counters;
mod faulty;
mod floods;
mod fragment;
mod map;
mod multi;
mod mux;
mod packets;
#[path = "../../../p2p/tests/peer_id.rs"]
mod peer_id;

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use p2p::{Addr, CounterSnapshot, Swarm};
use p2p_swarms::{MemoryRealm, MemorySwarm};
use p2p_swarmtest::{Profile, Testbed};
use tokio::time::timeout;

/// Bound, in virtual time, for an operation that completes at once.
const SOON: Duration = Duration::from_secs(5);

fn profile() -> Profile {
    let profile = Profile {
        holds: 1024,
        ..Profile::default()
    };
    profile.waive("wire::", "messages move between nodes in memory, without a wire")
}

async fn keeps_all_laws<A: Addr>(bed: Testbed<A>) {
    bed.run().await.assert_ok();
}

/// A testbed of the memory swarm under the layer that `layer` adds.
macro_rules! over_memory {
    ($kind:expr, $layer:expr) => {{
        let realm = p2p_swarms::MemoryRealm::default();
        let again = realm.clone();
        let layer = $layer;
        let layer_again = layer.clone();
        p2p_swarmtest::Testbed::new($kind, move |count| {
            let nodes = (0..count).map(|_| layer(realm.open()));
            std::future::ready(nodes.collect::<p2p::Result<Vec<_>>>())
        })
        .rebind(move |addr| std::future::ready(again.open_at(addr).and_then(&layer_again)))
        .profile(crate::profile())
    }};
}
pub(crate) use over_memory;

fn pair() -> [MemorySwarm; 2] {
    let realm = MemoryRealm::default();
    [realm.open(), realm.open()]
}

async fn hears<A: Addr>(node: &impl Swarm<A>, payload: &[u8]) -> A {
    let message = timeout(SOON, node.receive()).await;
    let message = message.expect("it arrives").expect("the swarm is open");
    assert_eq!(*message.payload, *payload);
    message.src
}

/// Returns the counters of all layers with this name.
fn counted<A: Addr>(node: &impl Swarm<A>, layer: &str) -> CounterSnapshot {
    let mut sum = CounterSnapshot::default();
    node.visit_counters(&mut |counters| {
        if counters.layer() == layer {
            sum += counters.snapshot();
        }
    });
    sum
}

fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}
