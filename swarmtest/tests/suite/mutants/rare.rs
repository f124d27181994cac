//! Faults that show rarely or under a condition: a second one for each law, and more.
//!
//! A [`Fault`] is a row of hooks on a correct node. [`are_found`] checks the one law that a fault names, in a run of
//! normal effort; the fault may break others too.

mod asks;
mod batches;
mod closing;
mod contents;
mod fault;
mod keys;
mod node;
mod readers;
mod tells;

use std::future::ready;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use p2p_swarmtest::reference::{Address, Config, Network};
use p2p_swarmtest::{Law, Profile, SecureAsk, Testbed, Verdict};

use fault::{Fault, SOUND};
use node::{Crowd, Rare};

/// Every table of faults.
const TABLES: [&[Fault]; 7] = [
    tells::FAULTS,
    readers::FAULTS,
    batches::FAULTS,
    contents::FAULTS,
    asks::FAULTS,
    keys::FAULTS,
    closing::FAULTS,
];

/// The testbed of the swarm with this fault.
fn testbed(fault: &'static Fault) -> Testbed<Address> {
    let config = Config {
        asks: 64,
        ..(fault.medium)(Config::default())
    };
    let profile = Profile {
        holds: Config::default().queue,
        asks: config.asks,
        patience: Duration::from_secs(1),
        ..Profile::default()
    };
    let network = Network::new(config);
    let again = network.clone();
    let beside = network.clone();
    let crowds = Arc::new(Mutex::new(Vec::new()));
    let made = crowds.clone();
    let testbed = Testbed::new(SecureAsk, move |count| {
        let crowd = Crowd::of(fault);
        crate::mutants::lock(&made).push(crowd.clone());
        ready(Ok(Rare::all(&crowd, network.nodes(count))))
    });
    let testbed = testbed.profile(profile).forge(|id_of, place_of| Address {
        id: id_of.id,
        place: place_of.place,
    });
    let testbed = testbed.beside(move |count| {
        let crowd = Crowd::of(fault);
        let mut nodes = Rare::all(&crowd, beside.nodes(2 * count));
        let siblings = nodes.split_off(count);
        crate::mutants::lock(&crowd.siblings).extend(siblings.iter().map(|node| node.addr));
        ready(Ok(nodes.into_iter().zip(siblings).collect()))
    });
    testbed.rebind(move |addr: Address| {
        let kept = crate::mutants::lock(&crowds)
            .iter()
            .any(|crowd| crowd.keeps(&addr));
        ready(if kept {
            Err(p2p::Error::invalid("address", "taken"))
        } else {
            again.node_at(addr)
        })
    })
}

/// Checks this law on every fault that names it, and says how many there are.
pub(crate) async fn are_found(law: &'static Law) -> usize {
    let mut faults = 0;
    for fault in TABLES
        .iter()
        .copied()
        .flatten()
        .filter(|fault| fault.law == law.name)
    {
        let checked = testbed(fault).check(law).await;
        assert!(
            matches!(checked.verdict, Verdict::Failed(_)),
            "{}: {checked}",
            fault.what
        );
        faults += 1;
    }
    faults
}

#[test]
fn every_fault_names_a_law() {
    for fault in TABLES.iter().copied().flatten() {
        assert!(Law::named(fault.law).is_some(), "{}: {}", fault.law, fault.what);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_fault_every_law_holds() {
    const NONE: &Fault = &SOUND;
    testbed(NONE).run().await.assert_ok();
}
