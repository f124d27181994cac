//! A correct secure swarm on the suite's wire keeps every law, whatever is tried.

use std::future::ready;
use std::time::Duration;

use crate::sealed::{ASKS, Fault, Keys, Name, QUEUE};
use p2p_swarmtest::wire::Tap;
use p2p_swarmtest::{LAWS, Law, Profile, SecureAsk, Testbed, Verdict, conformance};

fn testbed(seed: u64) -> Testbed<Name> {
    let profile = Profile {
        holds: QUEUE,
        asks: ASKS,
        patience: Duration::from_secs(2),
        seed,
        ..Profile::default()
    };
    let keys = Keys::default();
    let old = keys.clone();
    Testbed::over(SecureAsk, move |taps: Vec<Tap>| {
        let nodes = taps.into_iter().map(|tap| keys.node(tap, Fault::None));
        ready(Ok(nodes.collect()))
    })
    .restart(SecureAsk, move |tap, name| {
        ready(old.again(tap, &name, Fault::None))
    })
    .profile(profile)
    .forge(|id_of, place_of| Name {
        id: id_of.id,
        at: place_of.at,
    })
}

conformance!(#[tokio::test(start_paused = true)] mod on_the_wire: SecureAsk => testbed(0));
conformance!(#[tokio::test] mod in_real_time: SecureAsk => testbed(0));

/// As [`testbed`], for runs of many seeds.
fn quick(seed: u64) -> Testbed<Name> {
    let testbed = testbed(seed);
    let profile = testbed.the_profile().clone().quick();
    testbed.profile(profile)
}

/// Runs the laws that leave anything to chance.
async fn passes_all_of(seeds: std::ops::Range<u64>) {
    // Those of every length and of long runs take too long for so many seeds.
    let long = |law: &Law| law.name.contains("_at_any_length_") || law.name.contains("_however_late");
    let by_chance = |law: &&Law| (law.name.contains("tamper") || law.name.contains("replay")) && !long(law);
    let attacks: Vec<_> = LAWS.iter().filter(by_chance).collect();
    assert_eq!(attacks.len(), 7);
    for seed in seeds {
        for law in &attacks {
            let checked = quick(seed).check(law).await;
            assert_eq!(checked.verdict, Verdict::Passed, "seed {seed}: {checked}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_correct_secure_swarm_passes_20_of_20_attacks() {
    passes_all_of(0..20).await;
}
