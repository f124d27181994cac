//! One engine at 0 with chosen neighbours.

use std::fmt;
use std::time::Duration;

use p2p::{Addr, PeerId};
use p2p_protocols::chord::wire::{Answer, Ask, Record};
use p2p_protocols::chord::{Config, Engine, Event, Failure, Refusal};

use crate::place::{Place, answer, ask, id, key, node, parse, rules, sent};

pub(crate) const NOW: Duration = Duration::from_secs(1000);
pub(crate) const HOUR: u32 = 3600;

pub(crate) fn engine(config: Config) -> Engine<Place> {
    Engine::new(id(0), rules(config), NOW, 1)
}

/// Makes an engine at 0 with this successor and predecessor, and these nodes after the successor.
pub(crate) fn between(config: Config, predecessor: u16, successor: u16, after: &[u16]) -> Engine<Place> {
    let mut engine = engine(config);
    let stabilize = ask(predecessor, Ask::Stabilize);
    engine
        .handle_request(NOW, &Place(predecessor), &stabilize)
        .expect("a good request");
    for _ in 0..10 {
        let now = NOW;
        for transmit in sent(&mut engine) {
            let Ask::Stabilize = parse(&transmit.request) else {
                engine.handle_failure(now, transmit.id, Failure::Rejected);
                continue;
            };
            let neighbours = Answer::Neighbours {
                predecessor: Some(node(if transmit.to.0 == successor { 0 } else { successor })),
                successors: after.iter().map(|number| node(*number)).collect(),
            };
            engine.handle_answer(now, transmit.id, &answer(transmit.to.0, neighbours));
        }
        if engine.in_flight() == 0 {
            break;
        }
    }
    assert_eq!(
        engine.successors().first().map(|node| node.id),
        Some(id(successor))
    );
    while engine.events_left() {}
    sent(&mut engine);
    engine
}

pub(crate) trait Drain {
    fn events_left(&mut self) -> bool;
}

impl<A: Addr> Drain for Engine<A> {
    fn events_left(&mut self) -> bool {
        self.poll_event().is_some()
    }
}

/// A configuration in which a join is tried once.
pub(crate) fn once() -> Config {
    Config {
        join_tries: 1,
        ..Config::default()
    }
}

/// Returns the first event that is not progress.
pub(crate) fn ended(engine: &mut Engine<Place>) -> Option<Event<Place>> {
    let mut events = std::iter::from_fn(|| engine.poll_event());
    events.find(|event| !matches!(event, Event::Progress { .. }))
}

pub(crate) fn record(number: u32, value: &[u8]) -> Record<'_> {
    Record {
        key: *key(number).as_bytes(),
        ttl: HOUR,
        value,
    }
}

pub(crate) fn keep(
    engine: &mut Engine<Place>,
    from: u16,
    number: u32,
    value: &[u8],
) -> Result<Vec<u8>, Refusal> {
    engine.handle_request(NOW, &Place(from), &ask(from, Ask::Keep(record(number, value))))
}

/// An address in a network that authenticates an id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Networked(pub(crate) Place, pub(crate) [u8; 4]);

impl fmt::Display for Networked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Addr for Networked {
    fn peer_id(&self) -> Option<PeerId> {
        self.0.peer_id()
    }

    fn socket_addr(&self) -> Option<std::net::SocketAddr> {
        Some((self.1, 1).into())
    }
}
