//! The simulator: the same seed gives the same run, packets and asks are accounted for, and its network does what it says.

use std::time::{Duration, Instant};

use p2p::{DropReason, Rejection};
use p2p_swarmtest::sim::{
    Arrival, Churn, Config, Distribution, Engine, Failure, Latency, Links, Matrix, RequestId, SimAddr,
    Simulation, Transmit, Uplink,
};
use proptest::prelude::*;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Floods each message that it has not seen to its neighbours, and asks one of them for an echo every second.
struct Flood {
    neighbours: Vec<SimAddr>,
    seen: Vec<u8>,
    next_ping: Option<Duration>,
    pings: u64,
    out: Vec<Transmit<SimAddr>>,
    events: Vec<Event>,
}

#[derive(Debug, PartialEq, Eq)]
enum Event {
    Saw(u8),
    Pong(u64, Result<Vec<u8>, Failure>),
    Bye,
}

impl Flood {
    fn new(neighbours: impl IntoIterator<Item = u32>) -> Self {
        Self {
            neighbours: neighbours.into_iter().map(SimAddr).collect(),
            seen: Vec::new(),
            next_ping: None,
            pings: 0,
            out: Vec::new(),
            events: Vec::new(),
        }
    }

    fn pinging(self) -> Self {
        Self {
            next_ping: Some(Duration::ZERO),
            ..self
        }
    }

    fn publish(&mut self, message: u8) {
        if self.seen.contains(&message) {
            return;
        }
        self.seen.push(message);
        self.events.push(Event::Saw(message));
        self.out.extend(self.neighbours.iter().map(|dst| Transmit::Tell {
            to: *dst,
            payload: vec![message],
        }));
    }

    fn ping(&mut self, dst: SimAddr) {
        self.pings += 1;
        self.out.push(Transmit::Ask {
            to: dst,
            id: RequestId(self.pings),
            request: self.pings.to_le_bytes().to_vec(),
        });
    }
}

impl Engine for Flood {
    type Addr = SimAddr;
    type Event = Event;

    fn handle_message(&mut self, _now: Duration, _from: &SimAddr, payload: &[u8]) {
        self.publish(payload[0]);
    }

    fn handle_request(
        &mut self,
        _now: Duration,
        _from: &SimAddr,
        request: &[u8],
    ) -> Result<Vec<u8>, Rejection> {
        (request.len() == 8)
            .then(|| request.to_vec())
            .ok_or(Rejection::DROPPED)
    }

    fn handle_answer(&mut self, _now: Duration, id: RequestId, answer: &[u8]) {
        self.events.push(Event::Pong(id.0, Ok(answer.to_vec())));
    }

    fn handle_failure(&mut self, _now: Duration, id: RequestId, why: Failure) {
        self.events.push(Event::Pong(id.0, Err(why)));
    }

    fn handle_timeout(&mut self, now: Duration) {
        self.next_ping = Some(now + SECOND);
        let turn = self.pings as usize % self.neighbours.len();
        self.ping(self.neighbours[turn]);
    }

    fn handle_leave(&mut self, _now: Duration) {
        self.events.push(Event::Bye);
    }

    fn poll_transmit(&mut self, _now: Duration) -> Option<Transmit<SimAddr>> {
        self.out.pop()
    }

    fn poll_timeout(&self) -> Option<Duration> {
        self.next_ping
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }
}

/// Each node knows a few others, by arithmetic.
fn neighbours(node: u32, nodes: u32) -> Vec<u32> {
    (0..4).map(|power| (node + 7_u32.pow(power)) % nodes).collect()
}

fn balanced<E: Engine<Addr = SimAddr>>(sim: &Simulation<E>) {
    let counters = sim.counters();
    assert_eq!(
        counters.sent,
        counters.delivered + counters.dropped_total() + sim.in_flight(),
        "{counters:?}"
    );
    let asks = sim.asks();
    assert_eq!(
        asks.asked,
        asks.answered + asks.failed + asks.abandoned + sim.asks_pending(),
        "{asks:?}"
    );
}

/// Two nodes that know each other.
fn pair(links: Links) -> Simulation<Flood> {
    let mut sim = Simulation::new(Config {
        links,
        ..Config::default()
    });
    sim.add(Flood::new([1]));
    sim.add(Flood::new([0]));
    sim
}

/// A run with everything in it: loss, jitter, uplinks, churn, a partition and a script.
fn turmoil(seed: u64, nodes: u32, end: Duration) -> Simulation<Flood> {
    let mut sim = Simulation::new(Config {
        seed,
        links: Links {
            latency: Latency::PerLink(Distribution::Uniform(10 * MS, 90 * MS)),
            jitter: Some(Distribution::Uniform(Duration::ZERO, 20 * MS)),
            loss: 0.05,
            uplink: Some(Uplink {
                bytes_per_second: 300,
                overhead: 28,
                queue: 200 * MS,
            }),
        },
        ask_timeout: 300 * MS,
        ..Config::default()
    });
    for node in 0..nodes {
        sim.add(Flood::new(neighbours(node, nodes)).pinging());
    }
    let churn = Churn {
        session: Distribution::Uniform(SECOND, 10 * SECOND),
        absence: Distribution::Uniform(MS, 2 * SECOND),
        announced: 0.5,
        until: Duration::MAX,
    };
    sim.churn(churn, move |Arrival { addr, now, .. }| Flood {
        next_ping: Some(now),
        ..Flood::new(neighbours(addr.0, nodes))
    });
    for message in 0..10_u8 {
        sim.at(SECOND * u32::from(message), move |sim| {
            let first = sim.nodes().next().map(|(addr, _)| addr);
            if let Some(first) = first {
                sim.act(first, |engine, _| engine.publish(message));
            }
        });
    }
    sim.at(3 * SECOND, |sim| sim.partition(|node| node.0 % 2));
    sim.at(5 * SECOND, Simulation::heal);
    sim.run_until(end);
    sim
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn packets_and_asks_are_accounted_for_at_any_time(seed: u64, ms in 0..12_000_u64) {
        balanced(&turmoil(seed, 30, Duration::from_millis(ms)));
    }

    #[test]
    fn the_same_seed_gives_the_same_run_and_another_gives_another(seed: u64) {
        let (mut one, mut same) = (turmoil(seed, 30, 8 * SECOND), turmoil(seed, 30, 8 * SECOND));
        prop_assert_eq!(one.trace(), same.trace());
        prop_assert_eq!(one.counters(), same.counters());
        prop_assert!(one.events().eq(same.events()));
        let other = turmoil(seed ^ 1, 30, 8 * SECOND);
        prop_assert_ne!(one.trace(), other.trace());
    }
}

#[test]
fn a_turmoil_has_all_fates() {
    let sim = turmoil(1, 30, 12 * SECOND);
    let counters = sim.counters();
    for reason in [
        DropReason::Lost,
        DropReason::NoPeer,
        DropReason::Partitioned,
        DropReason::QueueFull,
        DropReason::Expired,
    ] {
        assert!(counters.dropped(reason) > 0, "{reason}: {counters:?}");
    }
    let asks = sim.asks();
    assert!(
        asks.answered > 0 && asks.failed > 0 && asks.abandoned > 0,
        "{asks:?}"
    );
}

#[test]
fn the_clock_stops_where_it_was_told_to_and_stopping_changes_nothing() {
    let whole = turmoil(3, 20, 4 * SECOND);
    let mut parts = turmoil(3, 20, SECOND);
    for ms in (1000..=4000).step_by(37).chain([4000]) {
        parts.run_until(Duration::from_millis(ms));
        assert_eq!(parts.now(), Duration::from_millis(ms));
    }
    assert_eq!(whole.trace(), parts.trace());
}

#[test]
fn a_flood_reaches_everyone_on_the_shortest_way() {
    let mut sim = Simulation::new(Config::default());
    for node in 0..100 {
        sim.add(Flood::new([(node + 1) % 100, (node + 10) % 100]));
    }
    sim.act(SimAddr(0), |engine, _| engine.publish(1));
    sim.run_until(10 * SECOND);
    let mut seen = 0;
    for (at, node, event) in sim.events() {
        assert_eq!(event, Event::Saw(1));
        assert_eq!(at, 50 * MS * (node.0 / 10 + node.0 % 10), "{node}");
        seen += 1;
    }
    assert_eq!(seen, 100);
    balanced(&sim);
    assert_eq!((sim.counters().sent, sim.in_flight()), (200, 0));
}

/// How an ask of node 0 to node 1 ended, and when.
fn outcome(sim: &mut Simulation<Flood>) -> Vec<(Duration, Event)> {
    sim.run_for(10 * SECOND);
    balanced(sim);
    assert_eq!((sim.asks_pending(), sim.in_flight()), (0, 0));
    sim.events().map(|(at, _, event)| (at, event)).collect()
}

fn answered(at: Duration) -> Vec<(Duration, Event)> {
    vec![(at, Event::Pong(1, Ok(1_u64.to_le_bytes().to_vec())))]
}

fn failed(at: Duration, why: Failure) -> Vec<(Duration, Event)> {
    vec![(at, Event::Pong(1, Err(why)))]
}

#[test]
fn an_ask_takes_a_round_trip() {
    let mut sim = pair(Links::default());
    sim.act(SimAddr(0), |engine, _| engine.ping(SimAddr(1)));
    assert_eq!(outcome(&mut sim), answered(100 * MS));
}

#[test]
fn a_refused_ask_is_rejected_after_a_round_trip() {
    let mut sim = pair(Links::default());
    sim.act(SimAddr(0), |engine, _| {
        engine.out.push(Transmit::Ask {
            to: SimAddr(1),
            id: RequestId(1),
            request: vec![1, 2, 3],
        });
    });
    assert_eq!(outcome(&mut sim), failed(100 * MS, Failure::Rejected));
}

#[test]
fn an_ask_of_nobody_times_out() {
    for dst in [1, 77] {
        let mut sim = pair(Links::default());
        sim.fail(SimAddr(1));
        sim.act(SimAddr(0), |engine, _| engine.ping(SimAddr(dst)));
        assert_eq!(outcome(&mut sim), failed(500 * MS, Failure::Unreachable));
    }
}

#[test]
fn an_ask_that_is_lost_on_either_way_times_out() {
    // With a seed each, both ways are lost now and then, and now and then neither.
    let (mut lost_there, mut lost_back, mut whole) = (0, 0, 0);
    for seed in 0..60 {
        let mut sim = Simulation::new(Config {
            seed,
            links: Links {
                loss: 0.5,
                ..Links::default()
            },
            ..Config::default()
        });
        sim.add(Flood::new([1]));
        sim.add(Flood::new([0]));
        sim.act(SimAddr(0), |engine, _| engine.ping(SimAddr(1)));
        let outcome = outcome(&mut sim);
        match (sim.counters().sent, sim.counters().delivered) {
            (1, 0) => lost_there += 1,
            (2, 1) => lost_back += 1,
            (2, 2) => {
                whole += 1;
                assert_eq!(outcome, answered(100 * MS));
                continue;
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(outcome, failed(500 * MS, Failure::Unreachable));
    }
    assert!(
        lost_there > 15 && lost_back > 5 && whole > 5,
        "{lost_there} {lost_back} {whole}"
    );
}

#[test]
fn an_answer_that_comes_too_late_is_dropped_and_the_ask_fails_in_time() {
    for (latency, handled) in [(300, 1), (600, 1)] {
        let mut sim = pair(Links {
            latency: Latency::PerPacket(Distribution::Constant(latency * MS)),
            ..Links::default()
        });
        sim.act(SimAddr(0), |engine, _| engine.ping(SimAddr(1)));
        assert_eq!(outcome(&mut sim), failed(500 * MS, Failure::Unreachable));
        assert_eq!(
            sim.counters().delivered,
            handled,
            "the request arrives all the same"
        );
        assert_eq!(sim.counters().dropped(DropReason::Expired), 1);
    }
}

#[test]
fn a_partition_cuts_what_is_under_way_and_heals() {
    let mut sim = pair(Links::default());
    sim.act(SimAddr(0), |engine, _| engine.ping(SimAddr(1)));
    sim.at(75 * MS, |sim| sim.partition(|node| node.0));
    sim.at(600 * MS, Simulation::heal);
    sim.at(600 * MS, |sim| {
        sim.act(SimAddr(0), |engine, _| engine.ping(SimAddr(1)));
    });
    let outcome = outcome(&mut sim);
    assert_eq!(outcome[0], (500 * MS, Event::Pong(1, Err(Failure::Unreachable))));
    assert_eq!(outcome[1].0, 700 * MS);
    assert_eq!(sim.counters().dropped(DropReason::Partitioned), 1);
}

#[test]
fn an_asker_that_came_back_gets_no_answer_of_its_earlier_life() {
    let mut sim = pair(Links::default());
    sim.act(SimAddr(0), |engine, _| engine.ping(SimAddr(1)));
    sim.run_until(60 * MS);
    sim.restart(SimAddr(0), Flood::new([1]));
    assert_eq!(outcome(&mut sim), []);
    assert_eq!(sim.asks().abandoned, 1);
}

#[test]
fn who_leaves_says_goodbye_and_stops_later() {
    let mut sim = pair(Links::default());
    sim.leave(SimAddr(1));
    sim.run_until(1999 * MS);
    assert_eq!(sim.up(), 2);
    sim.run_until(2 * SECOND);
    assert_eq!((sim.up(), sim.engine(SimAddr(1)).is_none()), (1, true));
    assert_eq!(
        sim.events().map(|event| event.2).collect::<Vec<_>>(),
        [Event::Bye]
    );
}

#[test]
fn an_uplink_spaces_packets_out_and_drops_beyond_its_queue() {
    let mut sim = pair(Links {
        uplink: Some(Uplink {
            bytes_per_second: 1000,
            overhead: 99,
            queue: 250 * MS,
        }),
        ..Links::default()
    });
    sim.act(SimAddr(0), |engine, _| {
        (0..10).for_each(|message| engine.publish(message));
    });
    sim.run_until(10 * SECOND);
    let seen: Vec<Duration> = sim
        .events()
        .filter(|(_, node, _)| *node == SimAddr(1))
        .map(|(at, ..)| at)
        .collect();
    assert_eq!(
        seen,
        [150 * MS, 250 * MS, 350 * MS],
        "a tenth of a second each, and 50 ms of way"
    );
    assert_eq!(sim.counters().dropped(DropReason::QueueFull), 7);
    balanced(&sim);
}

#[test]
fn a_matrix_says_how_long_each_way_is() {
    let rows = [vec![MS, 20 * MS], vec![70 * MS, MS]];
    let mut sim = pair(Links {
        latency: Latency::Matrix(Matrix::new(&rows).unwrap()),
        ..Links::default()
    });
    sim.act(SimAddr(0), |engine, _| engine.ping(SimAddr(1)));
    assert_eq!(outcome(&mut sim), answered(90 * MS));
}

#[test]
fn churn_keeps_the_share_of_nodes_up_that_its_distributions_say() {
    let mut sim = Simulation::new(Config::default());
    for node in 0..200 {
        sim.add(Flood::new(neighbours(node, 200)));
    }
    let exponential = |mean| Distribution::Exponential { mean };
    let churn = Churn {
        session: exponential(30 * SECOND),
        absence: exponential(10 * SECOND),
        announced: 0.0,
        until: 2000 * SECOND,
    };
    sim.churn(churn, |arrival| {
        assert!(arrival.contact.is_some_and(|contact| contact != arrival.addr));
        Flood::new(neighbours(arrival.addr.0, 200))
    });
    let (mut up, mut looks) = (0, 0);
    for second in 100..2000 {
        sim.run_until(SECOND * second);
        (up, looks) = (up + sim.up(), looks + 200);
    }
    let per_mille = up * 1000 / looks;
    assert!((730..=770).contains(&per_mille), "{per_mille}");
    sim.run_until(2000 * SECOND);
    let up = sim.up();
    sim.run_until(3000 * SECOND);
    assert_eq!(sim.up(), up, "churn has ended");
}

#[test]
#[should_panic(expected = "sim:0 is due again at once")]
fn an_engine_that_is_always_due_is_found_out() {
    struct Stuck;
    impl Engine for Stuck {
        type Addr = SimAddr;
        type Event = ();
        fn poll_transmit(&mut self, _now: Duration) -> Option<Transmit<SimAddr>> {
            None
        }
        fn poll_timeout(&self) -> Option<Duration> {
            Some(Duration::ZERO)
        }
    }
    let mut sim = Simulation::new(Config::default());
    sim.add(Stuck);
    sim.run_until(SECOND);
}

#[test]
fn ten_thousand_nodes_and_a_million_packets_run_in_seconds() {
    let begin = Instant::now();
    let mut sim = Simulation::new(Config::default());
    for node in 0..10_000 {
        sim.add(Flood::new(neighbours(node, 10_000)).pinging());
    }
    for message in 0..10 {
        sim.act(SimAddr(message), |engine, _| engine.publish(message as u8));
    }
    sim.run_until(60 * SECOND);
    balanced(&sim);
    assert!(sim.processed() > 1_500_000, "{}", sim.processed());
    println!(
        "name=sim_events value={} seconds={:.2}",
        sim.processed(),
        begin.elapsed().as_secs_f64()
    );
}

#[test]
fn addresses_have_one_spelling() {
    for addr in [SimAddr(0), SimAddr(7), SimAddr(u32::MAX)] {
        assert_eq!(addr.to_string().parse::<SimAddr>().unwrap(), addr);
    }
    for text in ["", "7", "sim:", "sim:+7", "sim:07", "sim:4294967296", "sim:7 "] {
        assert!(text.parse::<SimAddr>().is_err(), "{text}");
    }
}
