//! Two ask engines over a link that loses, duplicates, delays and corrupts datagrams, in virtual time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::time::Duration;

use p2p::{Headroom, Message, Packet, Rejection};
use p2p_protocols::mbapp::{Answer, AskId, Config, Engine, Event, HEADER, Limits, Now, ServeId};
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

const INNER_MTU: usize = 100;
const MTU: usize = 4000;

/// Faults of the link, each with its probability per datagram.
#[derive(Clone, Copy, Debug)]
struct Faults {
    loss: f64,
    duplicate: f64,
    mangle: f64,
    /// The maximum delay; datagrams overtake one another.
    delay: Duration,
}

/// A datagram in flight.
type Flight = Reverse<(Duration, u64, usize, Vec<u8>)>;

/// A node, the ask that it serves, and the request.
type Work = (usize, ServeId<usize>, Vec<u8>);

struct Link {
    faults: Faults,
    rng: StdRng,
    now: Duration,
    engines: [Engine<usize>; 2],
    flights: BinaryHeap<Flight>,
    serial: u64,
    /// Number of times that the handler ran, by request.
    ran: HashMap<Vec<u8>, u32>,
    /// Responses of slow handlers.
    working: BTreeMap<(Duration, u64), Work>,
    /// Pending asks of both nodes.
    asked: [HashMap<AskId, Vec<u8>>; 2],
    responses: usize,
    timeouts: usize,
    /// Whether handlers take seconds.
    slow: bool,
}

/// Returns the handler's response to a request: longer or shorter than it.
fn response(request: &[u8]) -> Vec<u8> {
    let len = (request.len() * 7919) % MTU;
    request.iter().rev().copied().cycle().take(len).collect()
}

/// Returns whether the handler rejects a request, which depends on its first byte.
fn rejects(request: &[u8]) -> bool {
    request.first() == Some(&0xee)
}

impl Link {
    fn new(seed: u64, faults: Faults, config: Config) -> Self {
        let engine = |node| Engine::new(config, INNER_MTU, Headroom::new(8, 4), seed + node);
        Self {
            faults,
            rng: StdRng::seed_from_u64(seed),
            now: Duration::ZERO,
            engines: [engine(0), engine(1)],
            flights: BinaryHeap::new(),
            serial: 0,
            ran: HashMap::new(),
            working: BTreeMap::new(),
            asked: [HashMap::new(), HashMap::new()],
            responses: 0,
            timeouts: 0,
            slow: false,
        }
    }

    /// Returns a node's time; the clocks of the nodes differ by hours.
    fn clock(&self, node: usize) -> Now {
        Now {
            elapsed: self.now,
            unix_ms: 1_700_000_000_000 + self.now.as_millis() as u64 + 10_000_000 * node as u64,
        }
    }

    fn ask(&mut self, node: usize, request: Vec<u8>, timeout: Duration) {
        let now = self.clock(node);
        let packet = Packet::from(request.clone());
        let id = self.engines[node]
            .ask(now, &(1 - node), packet, timeout)
            .expect("it fits");
        self.asked[node].insert(id, request);
        self.drain(node);
    }

    fn next(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    fn drain(&mut self, node: usize) {
        while let Some((dst, packet)) = self.engines[node].poll_transmit() {
            assert_eq!(dst, 1 - node);
            assert!(packet.len() <= INNER_MTU);
            let copies = 1 + usize::from(self.rng.random_bool(self.faults.duplicate));
            for _ in 0..copies {
                if self.rng.random_bool(self.faults.loss) {
                    continue;
                }
                let mut bytes = packet.to_vec();
                if self.rng.random_bool(self.faults.mangle) && bytes.len() > HEADER {
                    // Corrupts the header only; only a secure layer can protect the body.
                    let at = self.rng.random_range(0..HEADER);
                    bytes[at] ^= self.rng.random_range(1..=u8::MAX);
                }
                let delay = self.rng.random_range(Duration::ZERO..=self.faults.delay);
                let serial = self.next();
                self.flights.push(Reverse((self.now + delay, serial, dst, bytes)));
            }
        }
        while let Some(event) = self.engines[node].poll_event() {
            match event {
                Event::Asked { id, message, .. } => self.serve(node, id, &message.payload),
                Event::Answered { id, answer } => {
                    let request = self.asked[node].remove(&id).expect("one outcome for each ask");
                    match answer {
                        Answer::Response(packet) => {
                            self.responses += 1;
                            // A corrupted header can exchange parts, which only a secure layer below can
                            // detect.
                            let right = *packet == *response(&request);
                            assert!(right || self.faults.mangle > 0.0, "a response was modified");
                        }
                        Answer::Rejected(why) => {
                            self.responses += 1;
                            let right = why == Rejection::BUSY && rejects(&request);
                            assert!(right || self.faults.mangle > 0.0, "{why:?}");
                        }
                        Answer::TimedOut(_) => self.timeouts += 1,
                    }
                }
                Event::Told(_) | Event::Dropped { .. } => {}
            }
        }
    }

    fn serve(&mut self, node: usize, id: ServeId<usize>, request: &[u8]) {
        *self.ran.entry(request.to_vec()).or_default() += 1;
        let takes = if self.slow {
            Duration::from_millis(self.rng.random_range(0..8000))
        } else {
            Duration::from_millis(self.rng.random_range(0..3_u64).pow(8))
        };
        let serial = self.next();
        self.working
            .insert((self.now + takes, serial), (node, id, request.to_vec()));
    }

    /// Advances the time until nothing is left to do.
    fn run(&mut self) {
        for steps in 0.. {
            assert!(steps < 2_000_000, "the run does not end");
            if !self.step() {
                return;
            }
        }
    }

    /// Processes the next event. Returns `false` if nothing is left to do.
    fn step(&mut self) -> bool {
        let flight = self.flights.peek().map(|Reverse((at, ..))| *at);
        let worked = self.working.first_key_value().map(|((at, _), _)| *at);
        let timers = [0, 1].map(|node| {
            let busy = self.engines[node].pending() > 0;
            self.engines[node].poll_timeout().filter(|_| busy)
        });
        let Some(next) = [flight, worked, timers[0], timers[1]].into_iter().flatten().min() else {
            return false;
        };
        self.now = self.now.max(next);
        if flight == Some(next)
            && let Some(Reverse((_, _, dst, bytes))) = self.flights.pop()
        {
            let message = Message {
                src: 1 - dst,
                dst,
                payload: Packet::from(bytes),
            };
            let now = self.clock(dst);
            self.engines[dst].handle_message(now, message);
            self.drain(dst);
        } else if worked == Some(next)
            && let Some((_, (node, id, request))) = self.working.pop_first()
        {
            let outcome = if rejects(&request) {
                Err(Rejection::BUSY)
            } else {
                Ok(Packet::from(response(&request)))
            };
            let now = self.clock(node);
            self.engines[node].respond(now, &id, outcome).expect("it fits");
            self.drain(node);
        } else {
            for node in [0, 1] {
                if timers[node] == Some(next) {
                    let now = self.clock(node);
                    self.engines[node].handle_timeout(now);
                    self.drain(node);
                }
            }
        }
        true
    }

    /// Cancels a pending ask, if there is one; its slot is free at once.
    fn cancel(&mut self, node: usize) -> bool {
        let Some(id) = self.asked[node].keys().next().copied() else {
            return false;
        };
        let before = self.engines[node].pending();
        self.asked[node].remove(&id);
        self.engines[node].cancel(id);
        assert_eq!(self.engines[node].pending(), before - 1);
        self.drain(node);
        true
    }

    /// Checks, after nothing is left to do, that every ask has ended and none ran twice.
    fn check(&self, seed: u64) {
        assert!(
            self.asked.iter().all(HashMap::is_empty),
            "seed {seed}: an ask did not end"
        );
        let twice = self.ran.values().filter(|ran| **ran > 1).count();
        assert_eq!(twice, 0, "seed {seed}: asks ran more than once");
    }
}

#[test]
fn hundreds_of_asks_in_flight_with_slow_handlers_and_cancellations_each_end_once() {
    for seed in 100..108 {
        println!("seed {seed}");
        let faults = Faults {
            loss: 0.2,
            duplicate: 0.3,
            mangle: 0.0,
            // Copies of a request arrive while its handler runs, and long after its answer.
            delay: Duration::from_secs(4),
        };
        let mut link = Link::new(seed, faults, config());
        link.slow = true;
        let (mut asked, mut cancelled) = (0, 0);
        while asked < 1500 {
            let in_flight: usize = link.asked.iter().map(HashMap::len).sum();
            let draw = link.rng.random_range(0..20);
            if in_flight < 400 && draw < 10 {
                let len = if draw == 0 { 2000 } else { 30 };
                let node = asked as usize % 2;
                link.ask(node, request(asked, len), Duration::from_mins(1));
                asked += 1;
            } else if draw == 19 && link.rng.random_bool(0.2) {
                cancelled += usize::from(link.cancel(asked as usize % 2));
            } else {
                link.step();
            }
        }
        link.run();
        link.check(seed);
        assert!(cancelled > 0 && link.timeouts == 0, "{} timeouts", link.timeouts);
        assert_eq!(link.responses + cancelled, 1500);
        assert!(link.engines.iter().all(|engine| engine.pending() == 0));
    }
}

#[test]
fn an_honest_peer_is_answered_during_floods_from_one_or_many_sources() {
    for many in [false, true] {
        let source = |number: u32| if many { 10 + number as usize } else { 7 };
        let floods: [&dyn Fn(u32) -> (usize, Vec<u8>); 4] = [
            // First parts, parts that claim thousands, asks, and inquiries about unknown asks.
            &|number| (source(number), forged(false, number, 0, 40, 76)),
            &|number| (source(number), forged(true, number, 0, u16::MAX, 1)),
            &|number| (source(number), forged(true, 1 + number, 0, 1, 8)),
            &|number| (source(number), forged(true, 0, 0, 1, 8)),
        ];
        for forge in floods {
            let mut engine = flood(5000, forge);
            let now = |millis| Now {
                elapsed: Duration::from_secs(1) + Duration::from_millis(millis),
                unix_ms: 1_700_000_001_000 + millis,
            };
            // The honest peer asks and is asked, in parts, during the flood.
            let id = engine
                .ask(now(0), &1, Packet::from(vec![7; 200]), Duration::from_secs(5))
                .expect("there is room for own asks");
            let mut sent = 0;
            while let Some((dst, _)) = engine.poll_transmit() {
                sent += usize::from(dst == 1);
            }
            assert_eq!(sent, 3);
            let mut served = false;
            for part in 0..3 {
                let (src, bytes) = forge(1_000_000 + u32::from(part));
                let honest = (1, forged(true, 77, part, 3, 76));
                for (src, bytes) in [(src, bytes), honest] {
                    let message = Message {
                        src,
                        dst: 0,
                        payload: Packet::from(bytes),
                    };
                    engine.handle_message(now(u64::from(part)), message);
                    while let Some(event) = engine.poll_event() {
                        served |= matches!(event, Event::Asked { message, .. } if message.src == 1);
                    }
                }
            }
            assert!(served, "an honest ask runs");
            engine.cancel(id);
            assert_eq!(engine.pending(), 0);
        }
    }
}

fn config() -> Config {
    Config {
        mtu: MTU,
        ..Config::default()
    }
}

/// Makes a unique request.
fn request(serial: u32, len: usize) -> Vec<u8> {
    let mut request = serial.to_be_bytes().to_vec();
    request.resize(len.max(4), serial as u8);
    request.rotate_left(3);
    request
}

#[test]
fn ten_thousand_asks_over_thirty_percent_loss_each_run_once() {
    let seed = 20;
    let faults = Faults {
        loss: 0.3,
        duplicate: 0.1,
        mangle: 0.0,
        delay: Duration::from_millis(40),
    };
    let mut link = Link::new(seed, faults, config());
    for batch in 0..100 {
        for number in 0..100 {
            let serial = batch * 100 + number;
            let len = if serial % 10 == 0 { 2000 } else { 30 };
            link.ask(serial as usize % 2, request(serial, len), Duration::from_secs(30));
        }
        link.run();
    }
    link.check(seed);
    assert_eq!((link.responses, link.timeouts), (10_000, 0));
    assert_eq!(link.ran.len(), 10_000);
}

#[test]
fn a_lossless_link_carries_each_message_once() {
    let faults = Faults {
        loss: 0.0,
        duplicate: 0.0,
        mangle: 0.0,
        delay: Duration::ZERO,
    };
    let mut link = Link::new(1, faults, config());
    for len in [4, 76, 77, 152, 153, 1000] {
        let before = link.serial;
        let request = request(len as u32, len);
        let datagrams = len.div_ceil(76) + response(&request).len().div_ceil(76).max(1);
        link.ask(0, request, Duration::from_secs(30));
        // One more step is the handler's.
        while let Some(Reverse((_, _, dst, bytes))) = link.flights.pop() {
            let message = Message {
                src: 1 - dst,
                dst,
                payload: Packet::from(bytes),
            };
            let now = link.clock(dst);
            link.engines[dst].handle_message(now, message);
            link.drain(dst);
            while let Some((_, (node, id, request))) = link.working.pop_first() {
                let now = link.clock(node);
                let reply = Ok(Packet::from(response(&request)));
                link.engines[node].respond(now, &id, reply).expect("it fits");
                link.drain(node);
            }
        }
        assert_eq!(link.serial - before, datagrams as u64 + 1, "for {len} bytes");
    }
    link.check(1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_ask_ends_once_and_runs_at_most_once(
        seed in any::<u32>(),
        loss in 0.0..0.9,
        duplicate in 0.0..0.9,
        mangle in prop_oneof![Just(0.0), 0.0..0.5],
        delay in 0_u64..3000,
        asks in proptest::collection::vec((0..2_usize, 4..MTU, 0_u64..20_000), 1..20),
        source_replies in prop_oneof![1..10_usize, Just(1000)],
        retry in 1_u64..2000,
    ) {
        let faults = Faults { loss, duplicate, mangle, delay: Duration::from_millis(delay) };
        // With room for all replies and no corruption, an ask fails because of loss only.
        let config = Config {
            retry: Duration::from_millis(retry),
            limits: Limits { source_replies: source_replies.max(20), ..Limits::default() },
            ..config()
        };
        let mut link = Link::new(seed.into(), faults, config);
        let count = asks.len();
        for (serial, (node, len, timeout)) in (0..).zip(asks) {
            link.ask(node, request(serial, len), Duration::from_millis(timeout));
        }
        link.run();
        let mangled = mangle > 0.0;
        prop_assert!(link.asked.iter().all(HashMap::is_empty));
        prop_assert_eq!(link.responses + link.timeouts, count);
        // A corrupted counter makes a different ask.
        prop_assert!(mangled || link.ran.values().all(|ran| *ran == 1));
    }

    #[test]
    fn no_sequence_of_datagrams_panics_or_exceeds_the_limits(
        datagrams in proptest::collection::vec(
            (0..5_usize, 0..8_u8, proptest::collection::vec(any::<u8>(), 0..60)), 0..200),
    ) {
        let limits = Limits {
            part_bytes: 20_000,
            source_part_bytes: 10_000,
            reply_bytes: 20_000,
            source_reply_bytes: 10_000,
            peers: 2,
            ..Limits::default()
        };
        let config = Config { mtu: 500, limits, ..Config::default() };
        let mut engine = Engine::new(config, INNER_MTU, Headroom::default(), 1);
        for (step, (src, form, mut bytes)) in datagrams.into_iter().enumerate() {
            let now = Now { elapsed: Duration::from_millis(step as u64 * 50), unix_ms: 1_700_000_000_000 };
            // Some of the fields as an attacker would choose them.
            if let Some(flags) = bytes.first_mut() && form & 1 != 0 {
                *flags &= 0xc0;
            }
            if bytes.len() >= HEADER && form & 2 != 0 {
                bytes[4..11].fill(0);
                bytes[12..15].fill(0);
                (bytes[16], bytes[17], bytes[18], bytes[19]) = (0, bytes[17] % 4, 0, 4);
            }
            if bytes.len() >= HEADER && form & 4 != 0 {
                bytes[8..12].fill(0);
            }
            engine.handle_message(now, Message { src, dst: 9, payload: Packet::from(bytes) });
            engine.handle_timeout(now);
            while engine.poll_transmit().is_some() {}
            while let Some(event) = engine.poll_event() {
                if let Event::Asked { id, message, .. } = event {
                    engine.respond(now, &id, Ok(message.payload)).expect("the response is not longer than the request");
                }
            }
            prop_assert!(engine.held() <= 60_000, "{} bytes", engine.held());
        }
    }
}

/// A source forges `count` datagrams; the engine must stay within its limits, and an honest ask must succeed.
fn flood(count: u32, forge: impl Fn(u32) -> (usize, Vec<u8>)) -> Engine<usize> {
    let limits = Limits {
        part_bytes: 1 << 20,
        source_part_bytes: 256 << 10,
        reply_bytes: 1 << 20,
        source_reply_bytes: 256 << 10,
        peers: 64,
        ..Limits::default()
    };
    let config = Config { limits, ..config() };
    let mut engine = Engine::new(config, INNER_MTU, Headroom::default(), 1);
    for number in 0..count {
        let now = Now {
            elapsed: Duration::from_micros(number.into()),
            unix_ms: 1_700_000_000_000,
        };
        let (src, bytes) = forge(number);
        let message = Message {
            src,
            dst: 0,
            payload: Packet::from(bytes),
        };
        engine.handle_message(now, message);
        while engine.poll_transmit().is_some() {}
        while let Some(event) = engine.poll_event() {
            if let Event::Asked { id, .. } = event {
                engine
                    .respond(now, &id, Ok(Packet::from(vec![0; 500])))
                    .expect("it fits");
            }
        }
        assert!(engine.held() <= 2 << 20, "{} bytes are kept", engine.held());
    }
    engine
}

fn forged(is_ask: bool, counter: u32, part: u16, parts: u16, body: usize) -> Vec<u8> {
    use p2p_protocols::mbapp::{Header, Key, PhaseTime};
    let header = Header {
        is_ask,
        is_reply: false,
        error_code: 0,
        key: Key {
            counter,
            origin: PhaseTime::new(1_700_000_000_000),
        },
        total_size: (usize::from(parts) * body) as u32,
        part_index: part,
        part_count: parts,
        timeout_ms: u32::MAX,
    };
    [&header.emit()[..], &vec![0; body]].concat()
}

#[test]
fn a_flood_of_first_parts_stays_within_the_budget() {
    flood(20_000, |number| {
        (number as usize, forged(false, number, 0, 40, 76))
    });
    flood(20_000, |number| (7, forged(true, number, 3998, 4000, 1)));
}

#[test]
fn a_flood_of_asks_stays_within_the_budget() {
    let mut engine = flood(20_000, |number| {
        (number as usize, forged(true, 1 + number, 0, 1, 8))
    });
    assert!(engine.remembered() < 2000);
    // Remembered asks expire, so that nothing of the flood remains.
    let later = Now {
        elapsed: Duration::from_hours(1),
        unix_ms: 1_700_003_600_000,
    };
    engine.handle_timeout(later);
    assert_eq!((engine.remembered(), engine.held()), (0, 0));
    flood(20_000, |number| (7, forged(true, 1 + number, 0, 1, 8)));
}
