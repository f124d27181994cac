//! Faults of `tell` that show rarely.

use p2p::Error;

use super::fault::{Fate, Fault, Got, SOUND, Told, damaged, one_in};

/// This fate for some messages, and none for the others.
pub(super) fn fate(holds: bool, fate: impl FnOnce() -> Fate) -> Fate {
    if holds { fate() } else { Fate::Sound }
}

/// Damage for some messages.
pub(super) fn damage(holds: bool, told: &Told<'_>) -> Fate {
    fate(holds, || Fate::Changed(damaged(told.payload)))
}

/// Loss of some messages.
pub(super) fn lose(holds: bool) -> Fate {
    fate(holds, || Fate::Lost)
}

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        law: "tell::every_length_up_to_the_mtu_arrives",
        what: "777 bytes never arrive",
        tell: |told| lose(told.payload.len() == 777),
        ..SOUND
    },
    Fault {
        law: "tell::every_length_up_to_the_mtu_arrives",
        what: "lengths that end in 7 never arrive from 500 to 600",
        tell: |told| lose(told.payload.len() % 10 == 7 && (500..600).contains(&told.payload.len())),
        ..SOUND
    },
    Fault {
        law: "tell::a_message_arrives_whole",
        what: "one message in 50 is damaged",
        tell: |told| damage(one_in(50, told.index), told),
        ..SOUND
    },
    Fault {
        law: "tell::a_message_arrives_whole",
        what: "one message in 400 is damaged",
        tell: |told| damage(one_in(400, told.index), told),
        ..SOUND
    },
    Fault {
        law: "tell::a_message_arrives_whole",
        what: "lengths that are no powers of two lose their last byte, 1 in 9",
        tell: |told| {
            fate(
                one_in(9, told.index) && !told.payload.len().is_power_of_two() && told.payload.len() > 20,
                || Fate::Changed(told.payload[..told.payload.len() - 1].to_vec()),
            )
        },
        ..SOUND
    },
    Fault {
        law: "tell::a_burst_arrives_as_far_as_the_medium_lets_it",
        what: "the 700th message is lost",
        tell: |told| lose(told.index == 700),
        ..SOUND
    },
    Fault {
        law: "tell::a_burst_arrives_as_far_as_the_medium_lets_it",
        what: "after 256 messages one in 50 is lost",
        tell: |told| lose(told.index > 256 && one_in(50, told.index)),
        ..SOUND
    },
    Fault {
        law: "tell::tells_of_many_tasks_all_arrive",
        what: "the 600th message is lost",
        tell: |told| lose(told.index == 600),
        ..SOUND
    },
    Fault {
        law: "tell::a_message_reaches_its_destination_alone",
        what: "one message in 100 also goes to another node",
        tell: |told| {
            fate(one_in(100, told.index), || {
                told.other.map_or(Fate::Sound, Fate::Also)
            })
        },
        ..SOUND
    },
    Fault {
        law: "tell::a_message_arrives_at_most_once",
        what: "one message in 100 comes twice",
        tell: |told| fate(one_in(100, told.index), || Fate::Twice),
        ..SOUND
    },
    Fault {
        law: "tell::a_message_arrives_at_most_once",
        what: "one message in 150 is received twice",
        receive: |seen, _| {
            if one_in(150, seen.index) {
                Got::Twice
            } else {
                Got::Sound
            }
        },
        ..SOUND
    },
    Fault {
        law: "tell::a_cancelled_tell_leaves_whole_or_not_at_all",
        what: "a part of one cancelled tell in 20 leaves, above 500 bytes",
        tell: |told| {
            fate(one_in(20, told.index) || told.payload.len() > 1000, || {
                Fate::Partial(usize::from(told.payload.len() > 500))
            })
        },
        ..SOUND
    },
    Fault {
        law: "tell::short_room_is_no_fault",
        what: "without room the MTU is damaged",
        tell: |told| damage(told.tight && told.payload.len() == told.mtu, told),
        ..SOUND
    },
    Fault {
        law: "tell::over_the_mtu_is_mtu_exceeded",
        what: "one in 40 over the MTU is another error",
        tell: |told| {
            fate(told.payload.len() > told.mtu && one_in(40, told.index), || {
                Fate::Refused(Error::invalid("message", "too long"))
            })
        },
        ..SOUND
    },
    Fault {
        law: "tell::over_the_mtu_is_mtu_exceeded",
        what: "65,537 bytes pass for 1",
        tell: |told| {
            fate(
                told.payload.len() > 65_536 && told.payload.len() % 65_536 <= told.mtu,
                || Fate::Changed(told.payload[..told.payload.len() % 65_536].to_vec()),
            )
        },
        ..SOUND
    },
    Fault {
        law: "tell::over_the_mtu_nothing_is_sent",
        what: "a part of one message over the MTU in 40 is sent",
        tell: |told| {
            fate(told.payload.len() > told.mtu && one_in(40, told.index), || {
                Fate::Changed(told.payload[..told.mtu].to_vec())
            })
        },
        ..SOUND
    },
    Fault {
        law: "tell::over_the_mtu_nothing_is_sent",
        what: "a message that is over the MTU is cut, in batches",
        tell: |told| {
            fate(told.payload.len() > told.mtu && told.batch > 1, || {
                Fate::Changed(told.payload[..told.mtu].to_vec())
            })
        },
        ..SOUND
    },
    Fault {
        law: "tell::exactly_the_mtu_works",
        what: "one message of the MTU in 30 is lost",
        tell: |told| lose(told.payload.len() == told.mtu && one_in(30, told.index)),
        ..SOUND
    },
    Fault {
        law: "tell::an_empty_payload_is_a_message",
        what: "one empty message in 40 is lost",
        tell: |told| lose(told.payload.is_empty() && one_in(40, told.index)),
        ..SOUND
    },
    Fault {
        law: "tell::the_mtu_never_changes",
        what: "after 150 messages it is one byte less",
        mtu: |received, mtu| mtu - usize::from(received > 150),
        ..SOUND
    },
    Fault {
        law: "tell::src_can_be_told_to",
        what: "one source in 80 is of no node",
        receive: |seen, message| {
            if one_in(80, seen.index) {
                message.src.place += 1_000_000;
            }
            Got::Sound
        },
        ..SOUND
    },
    Fault {
        law: "tell::dst_is_a_local_address",
        what: "one destination in 80 is the source",
        receive: |seen, message| {
            if one_in(80, seen.index) {
                message.dst = message.src;
            }
            Got::Sound
        },
        ..SOUND
    },
    Fault {
        law: "tell::an_error_means_it_did_not_leave",
        what: "the 701st message is sent and refused",
        tell: |told| {
            fate(told.index == 700, || {
                Fate::SentAndRefused(Error::invalid("message", "no"))
            })
        },
        ..SOUND
    },
];
