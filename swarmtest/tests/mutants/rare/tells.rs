//! Faults of `tell`, `receive`, batches, addresses and counters that show rarely.

use super::fault::{Fate, Fault, Got, SOUND, Told, damaged, one_in};

/// This fate for some messages, and none for the others.
fn fate(holds: bool, fate: impl FnOnce() -> Fate) -> Fate {
    if holds { fate() } else { Fate::Sound }
}

/// Damage for some messages.
fn damage(holds: bool, told: &Told<'_>) -> Fate {
    fate(holds, || Fate::Changed(damaged(told.payload)))
}

/// Loss of some messages.
fn lose(holds: bool) -> Fate {
    fate(holds, || Fate::Lost)
}

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        law: "exchange::a_long_exchange_keeps_every_message",
        what: "with three senders 1 message in 200 is lost",
        tell: |told| lose(told.senders > 2 && one_in(200, told.to_dst)),
        ..SOUND
    },
    Fault {
        law: "exchange::a_long_exchange_keeps_every_message",
        what: "messages of all zeros are damaged",
        tell: |told| {
            damage(
                told.payload.len() > 8 && told.payload.iter().all(|byte| *byte == 0),
                told,
            )
        },
        ..SOUND
    },
    Fault {
        law: "exchange::a_long_exchange_keeps_every_message",
        what: "once in 100 receive_batch gives the source of the message before",
        receive: |seen, message| {
            if let Some(src) = seen.last_src
                && seen.batch.is_some()
                && one_in(100, seen.index)
            {
                message.src = src;
            }
            Got::Sound
        },
        ..SOUND
    },
    Fault {
        law: "exchange::two_nodes_exchange_thousands",
        what: "the 1,001st message of a node comes twice",
        tell: |told| fate(told.index == 1000, || Fate::Twice),
        ..SOUND
    },
    Fault {
        law: "exchange::two_nodes_exchange_thousands",
        what: "a receive that is cancelled loses its message, after 500",
        holds: |seen| usize::from(seen.index > 500 && seen.batch.is_none()),
        ..SOUND
    },
    Fault {
        law: "exchange::many_senders_are_told_apart",
        what: "with six senders, the source of one message in 60 is that of the one before",
        receive: |seen, message| {
            if let Some(src) = seen.last_src
                && one_in(60, seen.index)
            {
                message.src = src;
            }
            Got::Sound
        },
        ..SOUND
    },
    Fault {
        law: "exchange::many_senders_are_told_apart",
        what: "after 256 messages to one reader one is lost",
        tell: |told| lose(told.to_dst == 300 && told.senders > 5),
        ..SOUND
    },
];
