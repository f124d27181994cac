//! An engine on a swarm: the same results as in a simulation, limits, and ends.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use p2p::engine::{Engine, Failure, RequestId, Transmit};
use p2p::{Addr, Error, PeerId, Rejection, Swarm as _};
use p2p_protocols::kademlia::{self, OpId, Outcome, Rules};
use p2p_swarms::drive::drive_with;
use p2p_swarms::{DriveConfig, Driven, MemoryAddr, MemoryRealm, MemorySwarm, drive};
use p2p_swarmtest::sim::{Config, SimAddr, Simulation};

const SECOND: Duration = Duration::from_secs(1);

/// Does what it is told to, and reports what happens to it.
struct Probe<A> {
    out: Vec<Transmit<A>>,
    events: Vec<Event>,
    timeout: Option<Duration>,
    left: Arc<std::sync::atomic::AtomicBool>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    Message(Vec<u8>),
    Answer(u64, Vec<u8>),
    Failure(u64, Failure),
    Timeout(Duration),
}

impl<A: Clone> Probe<A> {
    fn new() -> Self {
        Self {
            out: Vec::new(),
            events: Vec::new(),
            timeout: None,
            left: Arc::default(),
        }
    }

    fn tell(&mut self, to: &A, payload: &[u8]) {
        self.out.insert(
            0,
            Transmit::Tell {
                to: to.clone(),
                payload: payload.to_vec(),
            },
        );
    }

    fn ask(&mut self, to: &A, id: u64, request: &[u8]) {
        self.out.insert(
            0,
            Transmit::Ask {
                to: to.clone(),
                id: RequestId(id),
                request: request.to_vec(),
            },
        );
    }
}

impl<A> Engine for Probe<A> {
    type Addr = A;
    type Event = Event;

    fn handle_message(&mut self, _now: Duration, _from: &A, payload: &[u8]) {
        self.events.insert(0, Event::Message(payload.to_vec()));
    }

    /// Answers with the reversed request; rejects an empty one.
    fn handle_request(&mut self, _now: Duration, _from: &A, request: &[u8]) -> Result<Vec<u8>, Rejection> {
        if request.is_empty() {
            return Err(Rejection::BUSY);
        }
        Ok(request.iter().rev().copied().collect())
    }

    fn handle_answer(&mut self, _now: Duration, id: RequestId, answer: &[u8]) {
        self.events.insert(0, Event::Answer(id.0, answer.to_vec()));
    }

    fn handle_failure(&mut self, _now: Duration, id: RequestId, why: Failure) {
        self.events.insert(0, Event::Failure(id.0, why));
    }

    fn handle_timeout(&mut self, now: Duration) {
        self.timeout = None;
        self.events.insert(0, Event::Timeout(now));
    }

    fn handle_leave(&mut self, _now: Duration) {
        self.left.store(true, std::sync::atomic::Ordering::SeqCst);
    }

    fn poll_transmit(&mut self, _now: Duration) -> Option<Transmit<A>> {
        self.out.pop()
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    fn poll_timeout(&self) -> Option<Duration> {
        self.timeout
    }
}

type Node = Driven<MemorySwarm, Probe<MemoryAddr>>;

fn node(realm: &MemoryRealm) -> Node {
    drive(Probe::new(), realm.open()).expect("a runtime")
}

fn addr(node: &Node) -> MemoryAddr {
    node.swarm().local_addr()
}

/// Lets one node tell and ask another one.
fn exchange<A: Addr>(engine: &mut Probe<A>, to: &A) {
    engine.tell(to, b"hello");
    engine.ask(to, 1, b"abc");
    engine.ask(to, 2, b"");
}

#[tokio::test]
async fn the_same_engine_reports_the_same_events_in_a_simulation_and_on_a_swarm() {
    let mut sim = Simulation::new(Config::default());
    let (here, there) = (sim.add(Probe::new()), sim.add(Probe::new()));
    sim.act(here, |engine, _| {
        engine.timeout = Some(SECOND);
        exchange(engine, &there);
    });
    sim.run_for(2 * SECOND);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for (_, addr, event) in sim.events() {
        if addr == here { &mut ours } else { &mut theirs }.push(event);
    }
    let expected = [
        Event::Answer(1, b"cba".to_vec()),
        Event::Failure(2, Failure::Rejected),
        Event::Timeout(SECOND),
    ];
    assert_eq!(ours, expected);
    assert_eq!(theirs, [Event::Message(b"hello".to_vec())]);

    let realm = MemoryRealm::default();
    let (here, there) = (node(&realm), node(&realm));
    let to = addr(&there);
    here.act(|engine, _| {
        engine.timeout = Some(SECOND);
        exchange(engine, &to);
    })
    .expect("open");
    for expected in &ours {
        let event = here.event().await.expect("an event");
        match (expected, &event) {
            // A real timer is late.
            (Event::Timeout(due), Event::Timeout(at)) => assert!(at >= due, "{at:?}"),
            _ => assert_eq!(event, *expected),
        }
    }
    for expected in theirs {
        assert_eq!(there.event().await.expect("an event"), expected);
    }
}

/// The nodes of a Kademlia network that look one another up, in a simulation and on a swarm.
const NODES: u8 = 16;

fn id(number: u8) -> PeerId {
    PeerId::from([number * 15; 32])
}

fn kademlia<A: Addr>(number: u8, parse: fn(&str) -> Option<A>) -> kademlia::Engine<A> {
    let config = kademlia::Config {
        unproven_ids: true,
        k: 4,
        ..kademlia::Config::default()
    };
    let rules = Rules::new(config, parse, kademlia::NoRecords);
    kademlia::Engine::new(id(number), Arc::new(rules), Duration::ZERO, number.into())
}

fn ids<A>(outcome: Outcome<A>) -> Vec<PeerId> {
    match outcome {
        Outcome::Nodes(nodes) => nodes.into_iter().map(|node| node.id).collect(),
        _ => panic!("the outcome of another operation"),
    }
}

/// Waits for the outcome of an operation.
async fn outcome(
    node: &Driven<MemorySwarm, kademlia::Engine<MemoryAddr>>,
    wanted: OpId,
) -> Outcome<MemoryAddr> {
    loop {
        if let kademlia::Event::Done { op, outcome, .. } = node.event().await.expect("an event")
            && op == wanted
        {
            return outcome;
        }
    }
}

#[tokio::test]
async fn kademlia_finds_the_same_nodes_in_a_simulation_and_on_a_swarm() {
    let mut sim = Simulation::new(Config::default());
    for number in 0..NODES {
        let addr = sim.add(kademlia(number, |text| text.parse().ok()));
        sim.act(addr, |engine, now| engine.join(now, &[SimAddr(0)]).expect("room"));
        sim.run_for(SECOND);
    }
    sim.events().for_each(drop);
    let target = PeerId::from([100; 32]);
    sim.act(SimAddr(9), |engine, now| {
        engine.find_node(now, target).expect("room")
    });
    sim.run_for(SECOND);
    let simulated = sim.events().find_map(|(_, _, event)| match event {
        kademlia::Event::Done { outcome, .. } => Some(ids(outcome)),
        kademlia::Event::Progress { .. } => None,
    });

    let realm = MemoryRealm::default();
    let mut nodes = Vec::new();
    for number in 0..NODES {
        let swarm = realm.open();
        nodes.push(drive(kademlia(number, |text| text.parse().ok()), swarm).expect("a runtime"));
    }
    let bootstrap = nodes[0].swarm().local_addr();
    for node in &nodes {
        let contact = [bootstrap];
        let op = node.act(|engine, now| engine.join(now, &contact).expect("room"));
        outcome(node, op.expect("open")).await;
    }
    let op = nodes[9].act(|engine, now| engine.find_node(now, target).expect("room"));
    let found = ids(outcome(&nodes[9], op.expect("open")).await);
    assert_eq!(found.len(), 4);
    assert_eq!(Some(found), simulated);
}

#[tokio::test(start_paused = true)]
async fn timeouts_and_messages_are_handled_while_the_application_awaits_nothing() {
    let realm = MemoryRealm::default();
    let (here, there) = (node(&realm), node(&realm));
    let to = addr(&there);
    here.act(|engine, _| {
        engine.timeout = Some(SECOND);
        engine.tell(&to, b"1");
    })
    .expect("open");
    tokio::time::sleep(2 * SECOND).await;
    let handled = |node: &Node| {
        let mut events = Vec::new();
        while let Some(event) = futures_util::FutureExt::now_or_never(node.event()) {
            events.push(event.expect("an event"));
        }
        events
    };
    assert!(matches!(*handled(&here), [Event::Timeout(at)] if at >= SECOND && at < 2 * SECOND));
    assert_eq!(handled(&there), [Event::Message(b"1".to_vec())]);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_an_answer_fails_after_the_timeout() {
    let realm = MemoryRealm::default();
    // A node that receives no requests.
    let silent = realm.open();
    let here = node(&realm);
    let to = silent.local_addr();
    here.act(|engine, _| engine.ask(&to, 5, b"?")).expect("open");
    let event = here.event().await.expect("an event");
    assert_eq!(event, Event::Failure(5, Failure::Unreachable));
    assert!(
        here.now() >= DriveConfig::default().ask_timeout,
        "{:?}",
        here.now()
    );
}

#[tokio::test(start_paused = true)]
async fn an_engine_is_not_asked_for_transmissions_at_the_limit_of_requests() {
    let realm = MemoryRealm::default();
    let silent = realm.open();
    let to = silent.local_addr();
    let config = DriveConfig {
        asks: 2,
        ..DriveConfig::default()
    };
    let here = drive_with(Probe::new(), realm.open(), config).expect("a runtime");
    here.act(|engine, _| (0..5).for_each(|id| engine.ask(&to, id, b"?")))
        .expect("open");
    tokio::time::sleep(SECOND).await;
    assert_eq!(here.act(|engine, _| engine.out.len()).expect("open"), 3);
    let mut failed = BTreeSet::new();
    for _ in 0..5 {
        match here.event().await.expect("an event") {
            Event::Failure(id, Failure::Unreachable) => failed.insert(id),
            other => panic!("{other:?}"),
        };
    }
    assert_eq!(failed, (0..5).collect());
}

#[tokio::test(start_paused = true)]
async fn events_beyond_the_limit_are_dropped_and_counted() {
    let realm = MemoryRealm::default();
    let config = DriveConfig {
        events: 3,
        ..DriveConfig::default()
    };
    let there = drive_with(Probe::new(), realm.open(), config).expect("a runtime");
    let (here, to) = (node(&realm), there.swarm().local_addr());
    here.act(|engine, _| (0..5).for_each(|number| engine.tell(&to, &[number])))
        .expect("open");
    tokio::time::sleep(SECOND).await;
    assert_eq!(there.missed_events(), 2);
    for number in 0..3 {
        assert_eq!(
            there.event().await.expect("an event"),
            Event::Message(vec![number])
        );
    }
}

#[tokio::test]
async fn a_cancelled_event_is_not_lost() {
    let realm = MemoryRealm::default();
    let (here, there) = (node(&realm), node(&realm));
    let to = addr(&there);
    for number in 0..100 {
        here.act(|engine, _| engine.tell(&to, &[number])).expect("open");
        // Cancelled after one poll.
        let event = match futures_util::FutureExt::now_or_never(there.event()) {
            Some(event) => event,
            None => there.event().await,
        };
        assert_eq!(event.expect("an event"), Event::Message(vec![number]));
    }
}

#[tokio::test]
async fn a_closed_node_fails_all_calls_and_frees_its_engine() {
    let realm = MemoryRealm::default();
    let here = node(&realm);
    let left = here.act(|engine, _| engine.left.clone()).expect("open");
    let waiting = here.event();
    let (event, ()) = tokio::join!(waiting, here.close());
    assert!(matches!(event, Err(Error::Closed)), "{event:?}");
    assert!(matches!(here.act(|_, _| ()), Err(Error::Closed)));
    assert_eq!(Arc::strong_count(&left), 1, "the engine still exists");
    assert!(matches!(here.swarm().receive().await, Err(Error::Closed)));
}

#[tokio::test]
async fn a_dropped_node_drops_its_swarm() {
    let realm = MemoryRealm::default();
    let swarm = Arc::new(realm.open());
    let here = drive(Probe::new(), swarm.clone()).expect("a runtime");
    here.act(|_, _| ()).expect("open");
    drop(here);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(Arc::strong_count(&swarm), 1);
}

#[tokio::test(start_paused = true)]
async fn a_leaving_node_announces_its_departure_and_then_closes() {
    let realm = MemoryRealm::default();
    let here = node(&realm);
    let left = here.act(|engine, _| engine.left.clone()).expect("open");
    here.leave(SECOND).await;
    assert!(left.load(std::sync::atomic::Ordering::SeqCst));
    assert!(here.now() >= SECOND);
    assert!(matches!(here.event().await, Err(Error::Closed)));
}

#[tokio::test]
async fn a_node_ends_with_its_swarm() {
    let realm = MemoryRealm::default();
    let swarm = Arc::new(realm.open());
    let here = drive(Probe::new(), swarm.clone()).expect("a runtime");
    swarm.close().await;
    assert!(matches!(here.event().await, Err(Error::Closed)));
    assert!(matches!(here.act(|_, _| ()), Err(Error::Closed)));
}
