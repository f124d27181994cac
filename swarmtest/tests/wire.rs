//! A correct secure swarm on the suite's wire keeps every law, whatever is tried.

mod sealed;

use std::future::ready;
use std::time::Duration;

use p2p_swarmtest::wire::Tap;
use p2p_swarmtest::{Profile, SecureAsk, Testbed, Verdict, conformance};
use sealed::{ASKS, Fault, Name, QUEUE, Sealed};

fn bed(seed: u64) -> Testbed<Name> {
    let profile = Profile {
        holds: QUEUE,
        asks: ASKS,
        patience: Duration::from_secs(2),
        seed,
        ..Profile::default()
    };
    Testbed::over(SecureAsk, |taps: Vec<Tap>| {
        let nodes = taps.into_iter().map(|tap| Sealed::new(tap, Fault::None));
        ready(Ok(nodes.collect()))
    })
    .profile(profile)
    .forge(|id_of, place_of| Name {
        id: id_of.id,
        at: place_of.at,
    })
}

conformance!(#[tokio::test(start_paused = true)] mod on_the_wire: SecureAsk => bed(0));
conformance!(#[tokio::test] mod in_real_time: SecureAsk => bed(0));

#[tokio::test(start_paused = true)]
async fn the_correct_secure_swarm_passes_100_of_100() {
    for seed in 0..100 {
        let report = bed(seed).run().await;
        assert!(report.is_ok(), "seed {seed}:\n{report}");
        for checked in report.waived() {
            assert!(checked.law.name.ends_with("_frees_the_address"), "{checked}");
        }
        assert!(
            report
                .iter()
                .filter(|checked| checked.verdict == Verdict::Passed)
                .any(|checked| checked.law.group() == "wire")
        );
    }
}
