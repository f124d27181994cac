//! Faults of addresses, counters, contents and long exchanges that show rarely.

use p2p::Error;
use p2p_swarmtest::reference::Address;

use super::fault::{Fate, Fault, Got, SOUND, one_in};
use super::tells::{damage, fate, lose};

/// The address in a text that begins with a byte order mark.
fn unmarked(text: &str) -> Option<Address> {
    let (id, place) = text.strip_prefix('\u{feff}')?.split_once('@')?;
    Some(Address {
        id: id.parse().ok()?,
        place: place.parse().ok()?,
    })
}

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        law: "addr::parse_addr_is_the_inverse_of_display",
        what: "one address in 100 is not read",
        parse: |calls, text, read| {
            if one_in(100, calls) {
                Err(Error::addr(text, 0, "not now"))
            } else {
                read
            }
        },
        ..SOUND
    },
    Fault {
        law: "addr::a_parsed_address_can_be_told_to",
        what: "one message in 40 to an address that was read is lost",
        tell: |told| lose(told.parsed && one_in(40, told.index)),
        ..SOUND
    },
    Fault {
        law: "addr::garbage_is_invalid_addr",
        what: "one error in 50 is another one",
        parse: |calls, _, read| {
            read.map_err(|error| {
                if one_in(50, calls) {
                    Error::invalid("address", "bad")
                } else {
                    error
                }
            })
        },
        ..SOUND
    },
    Fault {
        law: "addr::junk_around_an_address_is_not_passed_over",
        what: "a byte order mark is passed over",
        parse: |_, text, read| read.or_else(|error| unmarked(text).ok_or(error)),
        ..SOUND
    },
    Fault {
        law: "counters::sent_is_what_left",
        what: "after 300 messages one in 100 is not counted",
        count: |[sent, delivered, duplicated, dropped]| {
            [
                sent - sent.saturating_sub(300) / 100,
                delivered,
                duplicated,
                dropped,
            ]
        },
        ..SOUND
    },
    Fault {
        law: "counters::delivered_is_what_was_received",
        what: "after 200 messages one is not counted",
        count: |[sent, delivered, duplicated, dropped]| {
            [
                sent,
                delivered - usize::from(delivered > 200),
                duplicated,
                dropped,
            ]
        },
        ..SOUND
    },
    Fault {
        law: "counters::every_drop_is_counted",
        what: "drops in batches of over 64 are not counted",
        tell: |told| lose(told.batch > 64 && told.place > 64),
        special: "counts what is lost",
        ..SOUND
    },
    Fault {
        law: "counters::they_balance_over_all_nodes",
        what: "after 300 messages one in 50 is lost and not counted",
        tell: |told| fate(told.index > 300 && one_in(50, told.index), || Fate::Lost),
        special: "counts what is lost",
        ..SOUND
    },
    Fault {
        law: "contents::any_content_of_any_length_arrives_whole",
        what: "all ones from 300 to 400 bytes are damaged",
        tell: |told| {
            damage(
                (300..400).contains(&told.payload.len()) && told.payload.iter().all(|byte| *byte == 0xff),
                told,
            )
        },
        ..SOUND
    },
    Fault {
        law: "contents::any_content_of_any_length_arrives_whole",
        what: "3 bytes are lost",
        tell: |told| lose(told.payload.len() == 3),
        ..SOUND
    },
    Fault {
        law: "contents::every_byte_arrives_whole",
        what: "0x7e alone is lost",
        tell: |told| lose(told.payload == [0x7e]),
        ..SOUND
    },
    Fault {
        law: "contents::what_looks_like_a_header_arrives_whole",
        what: "what begins with eight zeros is lost, from 48 bytes",
        tell: |told| {
            lose(
                told.payload.len() >= 48
                    && told.payload.starts_with(&[0; 8])
                    && told.payload[8..].iter().any(|byte| *byte != 0),
            )
        },
        ..SOUND
    },
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
