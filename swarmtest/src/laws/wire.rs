//! Laws of secure swarms that observe the medium below, on the suite's own [wire](crate::wire).
//!
//! An attacker on the path records, drops, changes, repeats and diverts packets, and may put another node at
//! the address of a closed one. Not tried: guessing keys, and traffic analysis.

pub(super) mod harness;
mod impostor;
mod lengths;
mod plain;
mod replay;
mod restart;
mod tamper;

pub use impostor::{
    an_impostor_gets_no_ask, an_impostor_gets_no_message, an_impostor_has_no_key, an_impostor_has_no_say,
    diverted_packets_bring_nothing, messages_arrive_again_after_diversion,
};
pub use lengths::{
    no_length_can_be_read_on_the_wire, tampering_at_any_length_changes_no_message,
    the_same_message_never_looks_the_same,
};
pub use plain::{asks_cannot_be_read_on_the_wire, tells_cannot_be_read_on_the_wire};
pub use replay::{
    messages_arrive_again_after_replay, replay_repeats_no_ask, replay_repeats_no_message,
    replay_repeats_no_message_however_late,
};
pub use restart::replay_after_a_restart_repeats_nothing;
pub use tamper::{
    messages_arrive_again_after_tampering, tampering_changes_no_ask, tampering_changes_no_message,
};
