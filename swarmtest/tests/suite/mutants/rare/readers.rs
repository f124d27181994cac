//! Faults of readers that stopped, of nodes that are gone, and of `receive`, that show rarely.

use std::time::Duration;

use super::fault::{Fate, Fault, Got, SOUND, one_in};
use super::node::FULL;
use super::tells::{fate, lose};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        law: "tell::a_tell_never_waits_for_the_reader",
        what: "it waits in a second flood",
        tell: |told| fate(told.floods > 0 && told.unread >= FULL, || Fate::Waits),
        ..SOUND
    },
    Fault {
        law: "tell::a_stopped_reader_costs_bounded_memory",
        what: "in a second flood twice as many are kept",
        tell: |told| fate(told.floods > 0 && told.unread >= FULL, || Fate::Stashed),
        special: "stashes",
        ..SOUND
    },
    Fault {
        law: "tell::a_second_flood_keeps_no_more",
        what: "in a second flood twice as many are kept",
        tell: |told| fate(told.floods > 0 && told.unread >= FULL, || Fate::Stashed),
        special: "stashes",
        ..SOUND
    },
    Fault {
        law: "tell::messages_arrive_again_after_a_flood",
        what: "after two floods one message in 60 is lost",
        tell: |told| lose(told.floods > 1 && one_in(60, told.index)),
        ..SOUND
    },
    Fault {
        law: "tell::messages_arrive_again_after_a_flood",
        what: "after a flood one longer message in 20 is lost",
        tell: |told| lose(told.floods > 0 && told.payload.len() > 100 && one_in(20, told.index)),
        ..SOUND
    },
    Fault {
        law: "tell::a_stopped_reader_stalls_no_other",
        what: "while one is full one message in 50 to others is lost",
        tell: |told| lose(told.others_unread >= FULL && one_in(50, told.index)),
        ..SOUND
    },
    Fault {
        law: "tell::a_stopped_reader_stalls_no_other",
        what: "while one is full longer messages to others are lost",
        tell: |told| lose(told.others_unread >= FULL && told.payload.len() > 1000),
        ..SOUND
    },
    Fault {
        law: "tell::telling_a_stopped_reader_takes_no_longer",
        what: "one tell in 10 takes 10 ms where the reader stopped",
        tell: |told| {
            fate(told.unread >= FULL && one_in(10, told.index), || {
                Fate::Late(Duration::from_millis(10))
            })
        },
        ..SOUND
    },
    Fault {
        law: "tell::a_destination_that_is_gone_delays_no_other",
        what: "one tell in 5 to a node that is gone takes 200 ms, and others wait for it",
        tell: |told| {
            fate(told.gone && told.index % 10 < 2, || {
                Fate::Late(Duration::from_millis(200))
            })
        },
        special: "one tell at a time",
        ..SOUND
    },
    Fault {
        law: "tell::a_full_sibling_stalls_nothing",
        what: "while a sibling is full one message in 50 is lost",
        tell: |told| lose(told.siblings_unread >= FULL && one_in(50, told.index)),
        ..SOUND
    },
    Fault {
        law: "receive::a_message_goes_to_one_caller",
        what: "one message in 100 goes to two callers",
        receive: |seen, _| {
            if one_in(100, seen.index) && seen.waiting > 2 {
                Got::Twice
            } else {
                Got::Sound
            }
        },
        ..SOUND
    },
    Fault {
        law: "receive::every_waiting_caller_is_woken",
        what: "of callers that wait at the same time, six are woken",
        special: "wakes six",
        ..SOUND
    },
    Fault {
        law: "receive::cancelling_loses_nothing",
        what: "one receive in 25 loses its message when it is cancelled late",
        holds: |seen| usize::from(one_in(25, seen.index)),
        ..SOUND
    },
    Fault {
        law: "receive::a_cancelled_caller_passes_its_turn_on",
        what: "three cancelled callers let one turn be forgotten",
        special: "forgets turns",
        ..SOUND
    },
];
