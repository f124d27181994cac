//! Faults of `tell`, `receive`, batches, addresses and counters that show rarely.

use super::fault::{Fate, Fault, SOUND, damaged, one_in};

pub(super) const FAULTS: &[Fault] = &[Fault {
    law: "tell::a_message_arrives_whole",
    what: "one message in 5 is damaged",
    tell: |told| {
        if one_in(5, told.index) {
            Fate::Changed(damaged(told.payload))
        } else {
            Fate::Sound
        }
    },
    ..SOUND
}];
