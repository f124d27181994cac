//! Faults of keys and of addresses with a wrong identity that show rarely.

use p2p::Error;

use super::fault::{Fate, Fault, Got, LookFate, SOUND, Told, one_in};
use super::tells::{fate, lose};

/// A message to a wrong identity reaches the node that is there.
fn reaches(holds: bool, told: &Told<'_>) -> Fate {
    match told.there {
        Some(there) => fate(holds, || Fate::Also(there)),
        None => Fate::Sound,
    }
}

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        law: "secure::src_is_who_it_says",
        what: "one message in 50 names the source of the one before",
        receive: |seen, message| {
            if let Some(last) = seen.last_src.filter(|_| one_in(50, seen.index)) {
                message.src = last;
            }
            Got::Sound
        },
        ..SOUND
    },
    Fault {
        law: "secure::nodes_have_keys_of_their_own",
        what: "the eighth node has the first one's key",
        special: "has one key of seven",
        ..SOUND
    },
    Fault {
        law: "secure::lookup_gives_the_other_nodes_key",
        what: "one lookup in 20 gives the own key",
        look: |looked| {
            if one_in(20, looked.index) {
                LookFate::Own
            } else {
                LookFate::Sound
            }
        },
        ..SOUND
    },
    Fault {
        law: "secure::a_wrong_id_reaches_no_node",
        what: "one message in 20 to a wrong identity arrives",
        tell: |told| reaches(one_in(20, told.index), told),
        ..SOUND
    },
    Fault {
        law: "secure::a_wrong_id_reaches_no_node",
        what: "the last of a batch to a wrong identity arrives",
        tell: |told| reaches(told.batch > 8 && told.place + 1 == told.batch, told),
        ..SOUND
    },
    Fault {
        law: "secure::a_wrong_id_has_no_key",
        what: "one lookup in 20 of a wrong identity gives the key of the node that is there",
        look: |looked| match looked.there {
            Some(there) if one_in(20, looked.index) => LookFate::Of(there),
            _ => LookFate::Sound,
        },
        ..SOUND
    },
    Fault {
        law: "secure::a_wrong_id_reaches_no_node_beside_the_true_one",
        what: "one message in 50 to a wrong identity arrives",
        tell: |told| reaches(one_in(50, told.index), told),
        ..SOUND
    },
    Fault {
        law: "secure::a_wrong_id_reaches_no_node_beside_the_true_one",
        what: "between two messages to the true one in a batch, one to a wrong identity arrives",
        tell: |told| reaches(told.batch == 3 && told.place == 1, told),
        ..SOUND
    },
    Fault {
        law: "secure::a_wrong_id_makes_no_node_unreachable",
        what: "after 30 messages to wrong identities at a node's place, those to it are lost",
        tell: |told| lose(told.there.is_none() && told.wronged >= 30),
        ..SOUND
    },
    Fault {
        law: "secure::a_flooded_node_proves_its_key",
        what: "a flooded node proves its key to one node alone",
        look: |looked| {
            if looked.unread >= 40 && looked.of_all > 0 {
                LookFate::Refused(Error::TimedOut {
                    doing: "a lookup",
                    limit: std::time::Duration::ZERO,
                })
            } else {
                LookFate::Sound
            }
        },
        ..SOUND
    },
];
