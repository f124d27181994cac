//! One engine, and messages of other nodes to it.

use std::borrow::Cow;
use std::time::Duration;

use p2p::{Addr, PeerId};
use p2p_protocols::kademlia::wire::{Answer, Ask, Message, Node};
use p2p_protocols::kademlia::{Config, Engine, RequestTransmit};

use crate::net::{Place, id, rules};

pub(crate) const NOW: Duration = Duration::from_secs(1000);
pub(crate) const HOUR: u32 = 3600;

pub(crate) fn engine(config: &Config) -> Engine<Place> {
    Engine::new(id(0), rules(config), NOW, 1)
}

pub(crate) fn ask(from: u32, ask: Ask<'_>) -> Vec<u8> {
    Message::new(*id(u64::from(from)).as_bytes(), ask).emit()
}

pub(crate) fn answer(from: u32, answer: Answer<'_>) -> Vec<u8> {
    Message::new(*id(u64::from(from)).as_bytes(), answer).emit()
}

pub(crate) fn put(from: u32, key: u64, value: &[u8]) -> Vec<u8> {
    let key = *id(key).as_bytes();
    ask(
        from,
        Ask::Put {
            key,
            ttl: HOUR,
            value,
        },
    )
}

pub(crate) fn provide(from: u32, key: u64) -> Vec<u8> {
    let key = *id(key).as_bytes();
    ask(from, Ask::Provide { key, ttl: HOUR })
}

pub(crate) fn sent<A: Addr>(engine: &mut Engine<A>) -> Vec<RequestTransmit<A>> {
    std::iter::from_fn(|| engine.poll_transmit()).collect()
}

/// Lets a node send a request and answer the ping that follows.
pub(crate) fn meet(engine: &mut Engine<Place>, now: Duration, number: u32) {
    let from = Place::new(number);
    engine
        .handle_request(now, &from, &ask(number, Ask::Ping))
        .expect("a good request");
    for transmit in sent(engine) {
        if transmit.to == from {
            engine.handle_answer(now, transmit.id, &answer(number, Answer::Pong));
        }
    }
}

pub(crate) fn node(number: u32) -> Node<'static> {
    Node {
        id: *id(u64::from(number)).as_bytes(),
        addr: Cow::Owned(number.to_string()),
    }
}

pub(crate) fn record(engine: &mut Engine<Place>, now: Duration, key: u64) -> Option<Vec<u8>> {
    let request = ask(9, Ask::Get(*id(key).as_bytes()));
    let bytes = engine
        .handle_request(now, &Place::new(9), &request)
        .expect("a good request");
    match Message::<Answer<'_>>::parse(&bytes).expect("a good answer").body {
        Answer::Record { value, .. } => Some(value.to_vec()),
        _ => None,
    }
}

pub(crate) fn provided(engine: &mut Engine<Place>, key: u64) -> Vec<PeerId> {
    let request = ask(9, Ask::Providers(*id(key).as_bytes()));
    let bytes = engine.handle_request(NOW, &Place::new(9), &request);
    let bytes = bytes.expect("a good request");
    match Message::<Answer<'_>>::parse(&bytes).expect("a good answer").body {
        Answer::Providers { providers, .. } => providers.iter().map(|node| PeerId::new(node.id)).collect(),
        other => panic!("{other:?}"),
    }
}
