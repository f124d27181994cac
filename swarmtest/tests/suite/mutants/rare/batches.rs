//! Faults of batches that show rarely.

use super::fault::{Fault, Got, SOUND, one_in};
use super::tells::{damage, lose};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        law: "batch::tell_batch_sends_what_tells_would",
        what: "in batches of over 64 the 65th message is damaged",
        tell: |told| damage(told.batch > 64 && told.place == 64, told),
        ..SOUND
    },
    Fault {
        law: "batch::tell_batch_sends_what_tells_would",
        what: "batches of 33 lose their last message",
        tell: |told| lose(told.batch == 33 && told.place == 32),
        ..SOUND
    },
    Fault {
        law: "batch::a_refused_message_holds_up_none_behind_it",
        what: "a message behind one that is refused at place 10 or later is lost",
        tell: |told| lose(told.batch > 20 && told.place == told.batch - 1),
        ..SOUND
    },
    Fault {
        law: "batch::tell_batch_says_what_was_refused",
        what: "batches of over 64 say that one more was sent",
        batch_says: |count, says| {
            says.map_err(|mut error| {
                error.sent += usize::from(count > 64);
                error
            })
        },
        ..SOUND
    },
    Fault {
        law: "batch::tell_batch_empties_the_batch",
        what: "a batch of 65 keeps one message",
        batch_leaves: |count| usize::from(count == 65),
        ..SOUND
    },
    Fault {
        law: "batch::tell_batch_empties_the_batch",
        what: "a batch of over 128 keeps one message",
        batch_leaves: |count| usize::from(count > 128),
        ..SOUND
    },
    Fault {
        law: "batch::receive_batch_takes_what_receives_would",
        what: "the 9th message of one receive_batch is lost",
        receive: |seen, _| if seen.place == 8 { Got::Lost } else { Got::Sound },
        ..SOUND
    },
    Fault {
        law: "batch::receive_batch_keeps_to_its_maximum",
        what: "a maximum of 33 is taken for 34",
        max: |_, _, max| max + usize::from(max == 33),
        ..SOUND
    },
    Fault {
        law: "batch::receive_batch_appends",
        what: "of a buffer that held 33 messages the first is gone",
        forgets: |held, _| usize::from(held == 33),
        ..SOUND
    },
    Fault {
        law: "batch::receive_batch_of_none_returns_at_once",
        what: "after 50 calls it waits for one",
        max: |calls, _, max| if calls > 50 { max.max(1) } else { max },
        ..SOUND
    },
    Fault {
        law: "batch::cancelling_receive_batch_loses_nothing",
        what: "one receive_batch in 25 loses its messages when it is cancelled late",
        holds: |seen| usize::from(seen.batch.is_some() && one_in(25, seen.index)),
        ..SOUND
    },
];
