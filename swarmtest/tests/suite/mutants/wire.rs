//! Faults of secure swarms that show on the wire alone.

use std::future::ready;
use std::time::Duration;

use p2p_swarmtest::wire::Tap;
use p2p_swarmtest::{Law, Profile, Report, SecureAsk, Testbed, Verdict};

use crate::sealed::{ASKS, Fault, Keys, Name, QUEUE};

/// Each fault, and the law that it breaks.
const FAULTS: [(Fault, &str); 25] = [
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
    (Fault::ReadableTail, "no_length_can_be_read_on_the_wire"),
    (Fault::PairedStream, "the_same_message_never_looks_the_same"),
    (Fault::MalleableTail, "tampering_at_any_length_changes_no_message"),
    (Fault::WindowRestarts, "replay_repeats_no_message_however_late"),
    (Fault::Derived, "replay_after_a_restart_repeats_nothing"),
    (Fault::Shuns, "messages_arrive_again_after_garbage"),
    (Fault::Uncounted, "garbage_is_counted"),
];

/// A law that needs something beside the nodes.
const SIBLING: &str = "tell::a_full_sibling_stalls_nothing";

/// Faults that show rarely, and the law that finds each.
const RARE: [(Fault, &str); 22] = [
    (Fault::ReadableAtTimes, "tells_cannot_be_read_on_the_wire"),
    (Fault::ReadableAsksAtTimes, "asks_cannot_be_read_on_the_wire"),
    (Fault::MalleableAtTimes, "tampering_changes_no_message"),
    (Fault::MalleableAsksAtTimes, "tampering_changes_no_ask"),
    (Fault::RepeatedAtTimes, "replay_repeats_no_message"),
    (Fault::RepeatedAsksAtTimes, "replay_repeats_no_ask"),
    (Fault::UncheckedTellsLate, "an_impostor_gets_no_message"),
    (Fault::UncheckedAsksLate, "an_impostor_gets_no_ask"),
    (Fault::NamedByPortAtTimes, "an_impostor_has_no_say"),
    (Fault::KeyByPortAtTimes, "an_impostor_has_no_key"),
    (Fault::KeyForAllAtTimes, "diverted_packets_bring_nothing"),
    (
        Fault::EndedByMuchTampering,
        "messages_arrive_again_after_tampering",
    ),
    (Fault::EndedByMuchReplay, "messages_arrive_again_after_replay"),
    (Fault::ResentfulLate, "messages_arrive_again_after_diversion"),
    (Fault::DerivedLate, "replay_after_a_restart_repeats_nothing"),
    (Fault::SharedStream, "no_length_can_be_read_on_the_wire"),
    (Fault::ReadableAtTimes, "no_length_can_be_read_on_the_wire"),
    (Fault::LatePairs, "the_same_message_never_looks_the_same"),
    (Fault::MalleableOnce, "tampering_at_any_length_changes_no_message"),
    (
        Fault::WindowRestartsLate,
        "replay_repeats_no_message_however_late",
    ),
    (Fault::PanicsOnShort, "messages_arrive_again_after_garbage"),
    (Fault::UncountedEmpty, "garbage_is_counted"),
];

/// Groups of laws that no fault of cryptography concerns, and that take long on a swarm with real keys.
const UNCONCERNED: [&str; 4] = ["batch::", "contents::", "counters::", "exchange::"];

/// Runs the suite on the secure swarm with this fault.
async fn grade(fault: Fault) -> Report {
    let profile = UNCONCERNED
        .into_iter()
        .fold(Profile::default().quick(), |profile, group| {
            profile.waive(group, "no fault of cryptography concerns it")
        });
    testbed(fault, profile).run().await
}

/// Checks this law on every rare fault that names it, and says how many there are.
pub(crate) async fn rare_are_found(law: &'static Law) -> usize {
    let mut faults = 0;
    for (fault, name) in RARE {
        if law.name.split_once("::").is_some_and(|(_, law)| law == name) {
            let checked = testbed(fault, Profile::default()).check(law).await;
            assert!(
                matches!(checked.verdict, Verdict::Failed(_)),
                "{fault:?}: {checked}"
            );
            faults += 1;
        }
    }
    faults
}

/// The testbed of the secure swarm with this fault.
fn testbed(fault: Fault, profile: Profile) -> Testbed<Name> {
    let profile = Profile {
        holds: QUEUE,
        asks: ASKS,
        patience: Duration::from_secs(2),
        ..profile
    };
    let keys = Keys::default();
    let old = keys.clone();
    let testbed = Testbed::over(SecureAsk, move |taps: Vec<Tap>| {
        let nodes = taps.into_iter().map(|tap| keys.node(tap, fault));
        ready(Ok(nodes.collect()))
    })
    .restart(SecureAsk, move |tap, name| ready(old.again(tap, &name, fault)));
    let forged = |id_of: &Name, place_of: &Name| Name {
        id: id_of.id,
        at: place_of.at,
    };
    testbed.profile(profile).forge(forged)
}

/// Checks that the suite finds every fault that breaks this law, and nothing else in it.
pub(crate) async fn are_found(breaks: &str) {
    let mut faults = FAULTS
        .iter()
        .filter(|(_, law)| breaks.split_once("::").is_some_and(|(_, name)| name == *law))
        .peekable();
    assert!(faults.peek().is_some(), "no fault breaks {breaks}");
    for (fault, _) in faults {
        let report = grade(*fault).await;
        assert_eq!(super::broken(&report, breaks), [breaks], "{fault:?}\n{report}");
        // The address of a node that is gone is freed, which laws above see; a node that takes it has another key.
        assert!(
            report.waived().all(|checked| {
                let law = checked.law.name;
                UNCONCERNED.iter().any(|group| law.starts_with(group))
                    || law.contains("_frees_")
                    || law.contains("_made_again_")
                    || law == SIBLING
            }),
            "{report}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_secure_swarm_that_breaks_nothing_passes() {
    grade(Fault::None).await.assert_ok();
}
