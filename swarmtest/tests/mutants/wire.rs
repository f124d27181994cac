//! Faults of secure swarms that show on the wire alone.

use std::future::ready;
use std::time::Duration;

use p2p_swarmtest::wire::Tap;
use p2p_swarmtest::{Profile, Report, SecureAsk, Testbed};

use crate::sealed::{ASKS, Fault, Name, QUEUE, Sealed};

/// Each fault, and the law that it breaks.
const FAULTS: [(Fault, &str); 18] = [
    (Fault::ReadableTells, "tells_cannot_be_read_on_the_wire"),
    (Fault::OneByte, "tells_cannot_be_read_on_the_wire"),
    (Fault::OneStream, "tells_cannot_be_read_on_the_wire"),
    (Fault::ReadableAsks, "asks_cannot_be_read_on_the_wire"),
    (Fault::MalleableTells, "tampering_changes_no_message"),
    (Fault::MalleableAsks, "tampering_changes_no_ask"),
    (Fault::RepeatedTells, "replay_repeats_no_message"),
    (Fault::ForgetfulWindow, "replay_repeats_no_message"),
    (Fault::Reflected, "replay_repeats_no_message"),
    (Fault::RepeatedAsks, "replay_repeats_no_ask"),
    (Fault::UncheckedTells, "an_impostor_gets_no_message"),
    (Fault::UncheckedAsks, "an_impostor_gets_no_ask"),
    (Fault::NamedByPort, "an_impostor_has_no_say"),
    (Fault::KeyByPort, "an_impostor_has_no_key"),
    (Fault::KeyForAll, "diverted_packets_bring_nothing"),
    (Fault::EndedByTampering, "messages_arrive_again_after_tampering"),
    (Fault::EndedByReplay, "messages_arrive_again_after_replay"),
    (Fault::Resentful, "messages_arrive_again_after_diversion"),
];

/// Runs the whole suite on the secure swarm with this fault.
async fn grade(fault: Fault) -> Report {
    let profile = Profile {
        holds: QUEUE,
        asks: ASKS,
        patience: Duration::from_secs(2),
        ..Profile::default()
    };
    let bed = Testbed::over(SecureAsk, move |taps: Vec<Tap>| {
        let nodes = taps.into_iter().map(|tap| Sealed::new(tap, fault));
        ready(Ok(nodes.collect()))
    });
    let forged = |id_of: &Name, place_of: &Name| Name {
        id: id_of.id,
        at: place_of.at,
    };
    bed.profile(profile).forge(forged).run().await
}

/// Checks that the suite finds every fault that breaks this law, and nothing else in it.
pub(crate) async fn are_found(breaks: &str) {
    let mut faults = FAULTS
        .iter()
        .filter(|(_, law)| breaks.strip_prefix("wire::") == Some(law))
        .peekable();
    assert!(faults.peek().is_some(), "no fault breaks {breaks}");
    for (fault, _) in faults {
        let report = grade(*fault).await;
        let failed: Vec<&str> = report.failures().map(|checked| checked.law.name).collect();
        assert_eq!(failed, [breaks], "{fault:?}\n{report}");
        // The address of a node that is gone is freed, which laws above see; who takes it has another key.
        assert!(
            report
                .waived()
                .all(|checked| checked.law.name.ends_with("_frees_the_address")),
            "{report}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_secure_swarm_that_breaks_nothing_passes() {
    grade(Fault::None).await.assert_ok();
}
