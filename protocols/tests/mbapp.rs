//! The ask engine, compared with recorded traffic of a go-p2p peer.

use std::time::Duration;

use p2p::{DropReason, Headroom, Message, Packet, Rejection};
use p2p_protocols::mbapp::{Answer, Config, Engine, Event, HEADER, Header, Key, Limits, Now, PhaseTime};
use serde_json::Value;

use hex::hex;

mod hex;

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors/mbapp.json")).expect("the vectors are JSON")
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().expect("a list")
}

fn number<T: TryFrom<u64, Error: std::fmt::Debug>>(value: &Value, name: &str) -> T {
    T::try_from(value[name].as_u64().expect("a number")).expect("a number that fits")
}

fn header(vector: &Value) -> Header {
    Header {
        is_ask: vector["is_ask"].as_bool().expect("a bool"),
        is_reply: vector["is_reply"].as_bool().expect("a bool"),
        error_code: number(vector, "error_code"),
        key: Key {
            counter: number(vector, "counter"),
            origin: PhaseTime(number(vector, "origin_time")),
        },
        total_size: number(vector, "total_size"),
        part_index: number(vector, "part_index"),
        part_count: number(vector, "part_count"),
        timeout_ms: number(vector, "timeout_ms"),
    }
}

const START: Now = Now {
    elapsed: Duration::ZERO,
    unix_ms: 1_700_000_000_000,
};

/// The peer of the engine under test.
const PEER: &str = "peer";

fn engine(inner_mtu: usize) -> Engine<&'static str> {
    Engine::new(Config::default(), inner_mtu, Headroom::default(), 1)
}

fn from_peer(bytes: &[u8]) -> Message<&'static str> {
    Message {
        src: PEER,
        dst: "us",
        payload: Packet::from(bytes),
    }
}

fn sent(engine: &mut Engine<&'static str>) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| engine.poll_transmit())
        .map(|(dst, packet)| {
            assert_eq!(dst, PEER);
            packet.to_vec()
        })
        .collect()
}

#[test]
fn headers_equal_the_vectors() {
    for vector in list(&vectors(), "encode") {
        let (encoded, body) = (hex(&vector["encoded"]), hex(&vector["body"]));
        let expected = header(vector);
        let bytes = [&expected.emit()[..], &body].concat();
        assert_eq!(bytes, encoded, "{}", vector["name"]);
        let parsed = Header::parse(&encoded);
        assert_eq!(parsed, Some((expected, &body[..])), "{}", vector["name"]);
    }
}

#[test]
fn unknown_header_bits_are_ignored() {
    let plain = header(&list(&vectors(), "encode")[2]);
    let mut bytes = plain.emit();
    bytes[0] |= 0x3f;
    bytes[1] = 0xff;
    bytes[2] = 0xff;
    assert_eq!(Header::parse(&bytes), Some((plain, &[][..])));
}

#[test]
fn a_truncated_header_is_rejected() {
    for vector in list(&vectors(), "too_short") {
        let bytes = vec![0; number(vector, "length")];
        let rejected = vector["rejected"].as_bool().expect("a bool");
        assert_eq!(Header::parse(&bytes).is_none(), rejected);
    }
}

#[test]
fn phase_times_equal_the_vectors() {
    for vector in list(&vectors(), "phase_time_unit_ms") {
        let unix_ms: u64 = number(vector, "unix_ms");
        let phase = PhaseTime(number(vector, "phase_time"));
        assert_eq!(PhaseTime::new(unix_ms), phase, "of {unix_ms}");
        for recovered in list(vector, "recovered") {
            let skew = recovered["receiver_clock_minus_sender_ms"]
                .as_i64()
                .expect("a number");
            let clock = unix_ms
                .checked_add_signed(skew)
                .expect("a clock after the Unix epoch");
            let expected: u64 = number(recovered, "recovered_unix_ms");
            assert_eq!(phase.recover(clock), expected, "{unix_ms} with skew {skew}");
        }
    }
}

#[test]
fn messages_are_reassembled_as_in_the_vectors() {
    for vector in list(&vectors(), "reassembly") {
        let mut engine = engine(100);
        for step in list(vector, "steps") {
            let header = Header {
                is_ask: false,
                is_reply: false,
                error_code: 0,
                key: Key {
                    counter: 1,
                    origin: PhaseTime(1),
                },
                total_size: number(step, "total_size"),
                part_index: number(step, "part_index"),
                part_count: number(step, "part_count"),
                timeout_ms: 1000,
            };
            let bytes = [&header.emit()[..], &hex(&step["body"])].concat();
            engine.handle_message(START, from_peer(&bytes));
            let mut delivered = Vec::new();
            while let Some(event) = engine.poll_event() {
                if let Event::Told(message) = event {
                    delivered.push(message.payload.to_vec());
                }
            }
            let expected: Vec<_> = step["delivered"]
                .as_array()
                .map_or_else(Vec::new, |all| all.iter().map(hex).collect());
            assert_eq!(delivered, expected, "{}", vector["name"]);
        }
        // The go-p2p peer keeps messages with inconsistent sizes, and some of them block it. Here they leave
        // no state.
        let contradictory = vector["name"]
            .as_str()
            .is_some_and(|name| name.starts_with("last part longer") || name.starts_with("offset beyond"));
        assert_eq!(
            engine.held() == 0,
            contradictory || number::<u64>(vector, "partial_left") == 0
        );
    }
}

/// The time at which the messages of a capture were created.
fn at(origin: u32) -> Now {
    Now {
        unix_ms: PhaseTime(origin).recover(START.unix_ms),
        ..START
    }
}

/// Returns the payload in the datagrams of one message.
fn payload(messages: &[&Value]) -> Vec<u8> {
    messages
        .iter()
        .flat_map(|message| hex(&message["bytes"])[HEADER..].to_vec())
        .collect()
}

#[test]
fn sent_datagrams_equal_those_of_a_go_peer() {
    let mut asker = engine(100);
    for vector in list(&vectors(), "wire") {
        let name = &vector["name"];
        let of = |name: &str| -> Vec<&Value> {
            list(vector, "messages")
                .iter()
                .filter(|message| message["from"] == name)
                .collect()
        };
        let bytes = |messages: &[&Value]| -> Vec<_> {
            messages.iter().map(|message| hex(&message["bytes"])).collect()
        };
        let (outgoing, replied) = (of("asker"), of("server"));
        let first = header(outgoing[0]);
        let now = at(first.key.origin.0);
        let packet = Packet::from(payload(&outgoing));
        if !first.is_ask {
            asker.tell(now, &PEER, packet).expect("it fits");
            let mut expected = bytes(&outgoing);
            for datagram in &mut expected {
                // These swarms have no deadline for a tell.
                datagram[20..24].copy_from_slice(&(1_u32 << 28).to_be_bytes());
            }
            assert_eq!(sent(&mut asker), expected, "{name}");
            continue;
        }
        let timeout = Duration::from_millis(first.timeout_ms.into());
        let id = asker.ask(now, &PEER, packet, timeout).expect("it fits");
        assert_eq!(sent(&mut asker), bytes(&outgoing), "{name}");

        let mut server = engine(100);
        for datagram in bytes(&outgoing) {
            server.handle_message(now, from_peer(&datagram));
        }
        let Some(Event::Asked {
            id: serving,
            message,
            until,
        }) = server.poll_event()
        else {
            panic!("{name}: the server was not outgoing");
        };
        assert_eq!(message.payload, &*payload(&outgoing), "{name}");
        assert_eq!(until, now.elapsed + timeout);
        let code = header(replied[0]).error_code;
        let response = match std::num::NonZeroU8::new(code) {
            None => Ok(Packet::from(payload(&replied))),
            Some(code) => Err(Rejection::new(code)),
        };
        let expected = match &response {
            Ok(packet) => Answer::Response(packet.clone()),
            Err(why) => Answer::Rejected(*why),
        };
        server.respond(now, &serving, response).expect("it fits");
        assert_eq!(sent(&mut server), bytes(&replied), "{name}");

        for datagram in bytes(&replied) {
            asker.handle_message(now, from_peer(&datagram));
        }
        match asker.poll_event() {
            Some(Event::Answered { id: answered, answer }) => {
                assert_eq!((answered, answer), (id, expected), "{name}");
            }
            other => panic!("{name}: {other:?} instead of an answer"),
        }
        assert_eq!(vector["ask_failed"].as_bool(), Some(code != 0), "{name}");
    }
    assert_eq!(asker.pending(), 0);
}

#[test]
fn a_restarted_node_does_not_reuse_ask_keys() {
    let mut server = engine(100);
    for first in [7, 100, 1 << 31, u32::MAX - 50] {
        let mut asker = engine(100).counting_from(first);
        for ask in 0..3 {
            let begun = asker.ask(START, &PEER, Packet::from(&[ask]), Duration::from_secs(1));
            begun.expect("it fits");
        }
        for (ask, datagram) in (0..).zip(sent(&mut asker)) {
            server.handle_message(START, from_peer(&datagram));
            match server.poll_event() {
                Some(Event::Asked { message, .. }) => assert_eq!(*message.payload, [ask]),
                other => panic!("from {first}: {other:?} of the ask {ask}"),
            }
        }
    }
}

#[test]
fn a_reply_is_accepted_only_from_the_asked_peer() {
    let mut asker = engine(100);
    asker
        .ask(START, &PEER, Packet::from(b"ping"), Duration::from_secs(1))
        .expect("it fits");
    let mut reply = sent(&mut asker).remove(0);
    reply[0] |= 0x40;
    let stranger = Message {
        src: "other",
        ..from_peer(&reply)
    };
    asker.handle_message(START, stranger);
    assert!(matches!(
        asker.poll_event(),
        Some(Event::Dropped { src: "other", .. })
    ));
    // A reply with another origin time is not accepted either.
    reply[7] ^= 1;
    asker.handle_message(START, from_peer(&reply));
    assert!(matches!(asker.poll_event(), Some(Event::Dropped { .. })));
    assert_eq!(asker.pending(), 1);
}

/// A go-p2p server runs a repeated ask again, so the request must be sent only once, however long the answer
/// takes.
#[test]
fn a_peer_that_ignores_inquiries_gets_an_ask_once() {
    let mut asker = engine(100);
    let timeout = Duration::from_secs(30);
    asker
        .ask(START, &PEER, Packet::from(b"ping"), timeout)
        .expect("it fits");
    assert_eq!(sent(&mut asker).len(), 1);
    let mut inquiries = 0;
    while let Some(at) = asker.poll_timeout() {
        asker.handle_timeout(Now { elapsed: at, ..START });
        for datagram in sent(&mut asker) {
            let (header, _) = Header::parse(&datagram).expect("a header");
            // A go-p2p peer drops a reply to an unknown ask, and its asks never have counter 0.
            assert!(header.is_ask && header.is_reply && header.key.counter == 0 && header.error_code != 0);
            inquiries += 1;
        }
    }
    assert!(inquiries > 20, "{inquiries} inquiries");
    assert!(matches!(
        asker.poll_event(),
        Some(Event::Answered { answer: Answer::TimedOut(limit), .. }) if limit == timeout
    ));
}

#[test]
fn more_asks_than_the_limit_are_an_error() {
    let config = Config {
        limits: Limits {
            asks: 2,
            ..Limits::default()
        },
        ..Config::default()
    };
    let mut asker = Engine::new(config, 100, Headroom::default(), 1);
    let mut ask = || asker.ask(START, &PEER, Packet::from(b"ping"), Duration::from_secs(1));
    let id = ask().expect("the first fits");
    ask().expect("the second fits");
    assert!(matches!(ask(), Err(p2p::Error::Limit { limit: 2, .. })));
    asker.cancel(id);
    asker
        .ask(START, &PEER, Packet::from(b"ping"), Duration::from_secs(1))
        .expect("a cancelled ask frees its slot");
}

#[test]
fn the_mtu_passes_and_one_byte_more_is_an_error() {
    let config = Config {
        mtu: 1000,
        ..Config::default()
    };
    let mut engine = Engine::new(config, 100, Headroom::default(), 1);
    let second = Duration::from_secs(1);
    let packet = |len| Packet::from(vec![7; len]);
    engine.tell(START, &PEER, packet(1000)).expect("the MTU fits");
    engine
        .ask(START, &PEER, packet(1000), second)
        .expect("the MTU fits");
    let over = engine.tell(START, &PEER, packet(1001));
    assert!(matches!(
        over,
        Err(p2p::Error::MtuExceeded {
            size: 1001,
            mtu: 1000
        })
    ));
    let over = engine.ask(START, &PEER, packet(1001), second);
    assert!(matches!(
        over,
        Err(p2p::Error::MtuExceeded {
            size: 1001,
            mtu: 1000
        })
    ));
}

#[test]
fn a_message_over_the_peers_mtu_is_rejected_at_once() {
    let config = |mtu| Config {
        mtu,
        ..Config::default()
    };
    let mut asker = Engine::new(config(1000), 100, Headroom::default(), 1);
    let mut server = Engine::new(config(500), 100, Headroom::default(), 2);
    asker
        .ask(START, &PEER, Packet::from(vec![7; 501]), Duration::from_secs(1))
        .expect("it fits");
    for datagram in sent(&mut asker) {
        server.handle_message(START, from_peer(&datagram));
    }
    assert_eq!(server.held(), 0);
    for datagram in sent(&mut server) {
        asker.handle_message(START, from_peer(&datagram));
    }
    assert!(matches!(
        asker.poll_event(),
        Some(Event::Answered {
            answer: Answer::Rejected(Rejection::OVERSIZE),
            ..
        })
    ));
}

#[test]
fn a_forgotten_ask_does_not_run_again() {
    let config = Config {
        limits: Limits {
            source_replies: 4,
            ..Limits::default()
        },
        ..Config::default()
    };
    let mut asker = engine(100);
    let mut server = Engine::new(config, 100, Headroom::default(), 2);
    let mut asks = Vec::new();
    for number in 0..10 {
        let now = Now {
            unix_ms: START.unix_ms + number,
            ..START
        };
        asker
            .ask(now, &PEER, Packet::from(b"ping"), Duration::from_secs(1))
            .expect("it fits");
        asks.extend(sent(&mut asker));
    }
    let mut ran = 0;
    let mut codes = Vec::new();
    for ask in asks.iter().chain(&asks) {
        server.handle_message(START, from_peer(ask));
        while let Some(event) = server.poll_event() {
            if let Event::Asked { id, .. } = event {
                ran += 1;
                server
                    .respond(START, &id, Ok(Packet::from(b"pong")))
                    .expect("it fits");
            }
        }
        for reply in sent(&mut server) {
            codes.push(Header::parse(&reply).expect("a header").0.error_code);
        }
    }
    assert_eq!(ran, 10);
    let forgotten = Rejection::FORGOTTEN.code().get();
    assert_eq!(codes[..10], [0; 10]);
    assert_eq!(
        codes[10..],
        [forgotten; 6],
        "the last four replies are not retransmitted so soon"
    );
}

/// Makes a datagram of a peer's message with `body` as this part.
fn part(
    is_ask: bool,
    counter: u32,
    index: u16,
    count: u16,
    total: usize,
    timeout_ms: u32,
    body: &[u8],
) -> Vec<u8> {
    let header = Header {
        is_ask,
        is_reply: false,
        error_code: 0,
        key: Key {
            counter,
            origin: PhaseTime::new(START.unix_ms),
        },
        total_size: total as u32,
        part_index: index,
        part_count: count,
        timeout_ms,
    };
    [&header.emit(), body].concat()
}

fn after(elapsed: Duration) -> Now {
    Now {
        elapsed: START.elapsed + elapsed,
        unix_ms: START.unix_ms + elapsed.as_millis() as u64,
    }
}

#[test]
fn a_message_with_too_many_parts_for_its_length_is_not_kept() {
    let mut server = Engine::new(Config::default(), 1232, Headroom::default(), 1);
    // A part "0 of 65,535", and inquiries that would scan all of them.
    let first = part(true, 1, 0, u16::MAX, 65_535, 1000, &[7]);
    server.handle_message(START, from_peer(&first));
    assert!(matches!(
        server.poll_event(),
        Some(Event::Dropped {
            reason: DropReason::Malformed,
            ..
        })
    ));
    assert_eq!(server.held(), 0);
    // A peer with datagrams of a tenth of our size is accepted.
    let first = part(true, 2, 0, 30, 30 * 120, 1000, &[7; 120]);
    server.handle_message(START, from_peer(&first));
    assert!(server.poll_event().is_none() && server.held() > 0);
}

#[test]
fn an_ask_without_a_timeout_runs_once_within_the_maximum_timeout() {
    let mut server = engine(100);
    let ask = part(true, 1, 0, 1, 4, 0, b"ping");
    let mut ran = 0;
    for seconds in [0, 1, 14, 17, 31, 60, 300, 599] {
        let now = after(Duration::from_secs(seconds));
        server.handle_timeout(now);
        server.handle_message(now, from_peer(&ask));
        while let Some(event) = server.poll_event() {
            ran += usize::from(matches!(event, Event::Asked { .. }));
        }
    }
    assert_eq!(ran, 1);
    server.handle_timeout(after(Duration::from_secs(616)));
    assert_eq!((server.remembered(), server.held()), (0, 0));
}

#[test]
fn a_message_with_a_long_timeout_does_not_delay_the_expiry_of_others() {
    let mut server = engine(100);
    let long = part(true, 1, 0, 2, 100, 600_000, &[7; 76]);
    server.handle_message(START, from_peer(&long));
    let only_long = server.held();
    for counter in 2..50 {
        let tell = part(false, counter, 0, 2, 100, 0, &[7; 76]);
        server.handle_message(START, from_peer(&tell));
    }
    let timeout = server.poll_timeout().expect("something expires");
    assert_eq!(
        timeout,
        START.elapsed + Limits::default().timeout,
        "the tells, not the ask"
    );
    server.handle_timeout(after(Limits::default().timeout));
    assert_eq!(server.held(), only_long);
    let mut expired = 0;
    while let Some(event) = server.poll_event() {
        expired += usize::from(matches!(
            event,
            Event::Dropped {
                reason: DropReason::Expired,
                ..
            }
        ));
    }
    assert_eq!(expired, 48);
    server.handle_timeout(after(Duration::from_mins(10)));
    assert_eq!((server.held(), server.poll_timeout()), (0, None));
}
