//! Faults of `close` that show rarely.

use p2p::Error;

use super::fault::{AskFate, Fate, Fault, LookFate, SOUND, one_in};
use super::tells::lose;

/// A fault of `close`.
const fn close(law: &'static str, what: &'static str, special: &'static str) -> Fault {
    Fault {
        law,
        what,
        special,
        ..SOUND
    }
}

/// What a call after `close` may fail with by a fault.
fn late() -> Error {
    Error::TimedOut {
        doing: "a call",
        limit: std::time::Duration::ZERO,
    }
}

pub(super) const FAULTS: &[Fault] = &[
    close(
        "close::closing_frees_the_address",
        "a node that told something keeps its address",
        "keeps the address of a teller",
    ),
    close(
        "close::closing_frees_an_address_in_use",
        "a node that told something keeps its address",
        "keeps the address of a teller",
    ),
    close(
        "close::dropping_frees_the_address",
        "a dropped node keeps its address",
        "keeps the address",
    ),
    close(
        "close::dropping_frees_an_address_in_use",
        "a dropped node keeps its address",
        "keeps the address",
    ),
    close(
        "close::close_takes_effect_at_its_first_poll",
        "a node that received something closes later",
        "closes later once used",
    ),
    close(
        "close::close_is_idempotent",
        "the third close waits for ever",
        "closes twice",
    ),
    close(
        "close::close_may_be_called_by_many_tasks",
        "the twelfth close waits for ever",
        "closes 11 times",
    ),
    Fault {
        tell: |told| {
            if told.gone && told.index > 1 {
                Fate::Refused(Error::Closed)
            } else {
                Fate::Sound
            }
        },
        ..close(
            "close::a_closed_peer_is_no_closed_swarm",
            "the third tell to a peer that is gone is Closed",
            "",
        )
    },
    Fault {
        tell: |told| {
            if told.gone && told.index > 0 {
                Fate::Lost
            } else {
                Fate::Sound
            }
        },
        ..close(
            "close::a_node_made_again_is_reached_by_others",
            "a peer that was closed is told nothing more",
            "",
        )
    },
    Fault {
        tell: |told| {
            if told.place > 2 && told.batch > 4 {
                Fate::Lost
            } else {
                Fate::Sound
            }
        },
        ..close(
            "close::what_was_told_before_close_arrives",
            "the ends of batches before close are lost",
            "",
        )
    },
    close(
        "close::a_pending_receive_is_closed",
        "of many that wait, forty are closed",
        "closes forty receives",
    ),
    close(
        "close::a_pending_receive_ask_is_closed",
        "of many that wait, forty are closed",
        "closes forty receives",
    ),
    Fault {
        ask: |asked| {
            if asked.under_way >= 20 {
                AskFate::Open
            } else {
                AskFate::Sound
            }
        },
        ..close(
            "close::a_pending_ask_is_closed",
            "of many that wait, twenty are closed",
            "",
        )
    },
    Fault {
        look: |looked| {
            if looked.under_way >= 8 {
                LookFate::Open
            } else {
                LookFate::Sound
            }
        },
        ..close(
            "close::a_pending_lookup_is_closed",
            "of many that wait, eight are closed",
            "",
        )
    },
    Fault {
        tell: |told| lose(told.own_closed && one_in(20, told.index)),
        ..close(
            "close::later_tells_are_closed",
            "one tell in 20 after close succeeds",
            "",
        )
    },
    close(
        "close::later_receives_are_closed",
        "the sixth receive after close waits for ever",
        "the sixth receive after close hangs",
    ),
    close(
        "close::later_receive_asks_are_closed",
        "the sixth receive_ask after close waits for ever",
        "the sixth receive after close hangs",
    ),
    Fault {
        ask: |asked| {
            if asked.own_closed && asked.request.len() > 100 {
                AskFate::Refused(late())
            } else {
                AskFate::Sound
            }
        },
        ..close(
            "close::later_asks_are_closed",
            "longer asks after close time out",
            "",
        )
    },
    Fault {
        look: |looked| {
            if looked.own_closed && looked.index > 0 {
                LookFate::Cached
            } else {
                LookFate::Sound
            }
        },
        ..close(
            "close::later_lookups_are_closed",
            "keys that were looked up are known after close",
            "",
        )
    },
    Fault {
        tell: |told| lose(told.closed > 1 && !told.gone && one_in(20, told.index)),
        ..close(
            "close::closing_closes_no_other_node",
            "after two nodes are closed one message in 20 to others is lost",
            "",
        )
    },
    close(
        "close::what_was_answered_before_close_arrives",
        "the fourth answer is lost where the node closes at once",
        "sends the fourth answer later",
    ),
    close(
        "close::close_waits_for_no_call_that_is_held",
        "it waits for all but ten receives",
        "waits for ten receives",
    ),
    close(
        "close::closing_in_a_flood_ends_every_call",
        "after a hundred messages every third receive goes on",
        "closes two of three receives in a flood",
    ),
];
