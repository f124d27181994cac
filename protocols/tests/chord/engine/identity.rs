//! Authentication of ids.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use p2p::{Addr, PeerId};
use p2p_protocols::chord::wire::{Answer, Ask};
use p2p_protocols::chord::{Config, Engine, Refusal, Rules};

use super::setup::{NOW, between, engine, record};
use crate::place::{Place, answer, ask, id, key, node, sent};

#[test]
fn no_node_can_speak_in_anothers_name() {
    let mut engine = engine(Config::default());
    let refused = |engine: &mut Engine<Place>, at: u16, says: u16| {
        engine.handle_request(NOW, &Place(at), &ask(says, Ask::Stabilize))
    };
    assert_eq!(refused(&mut engine, 1, 2), Err(Refusal::FalseId));
    assert_eq!(
        refused(&mut engine, 0, 0),
        Err(Refusal::FalseId),
        "the node's own id"
    );
    assert!(engine.predecessor().is_none() && engine.successors().is_empty());
    assert_eq!(engine.counts().false_ids, 2);

    // A node that another node answers for is not alive.
    let mut engine = between(Config::default(), 0xf000, 0x1000, &[0x2000]);
    engine.lookup(NOW, key(0x0800_0000)).unwrap();
    let asked = sent(&mut engine).remove(0);
    assert_eq!(asked.to, Place(0x1000));
    let step = Answer::Step {
        mine: true,
        predecessor: None,
        nearer: Vec::new(),
        owners: Vec::new(),
    };
    engine.handle_answer(NOW, asked.id, &answer(0x1001, step));
    assert_eq!(engine.successors()[0].id, id(0x2000));
    assert_eq!(sent(&mut engine).remove(0).to, Place(0x2000));
}

#[test]
fn unproven_ids_are_accepted_only_if_configured() {
    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    struct Anywhere;
    impl fmt::Display for Anywhere {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("anywhere")
        }
    }
    impl Addr for Anywhere {}
    for (unproven_ids, served) in [(false, false), (true, true)] {
        let config = Config {
            unproven_ids,
            ..Config::default()
        };
        let rules = Arc::new(Rules::new(
            config,
            |_| Some(Anywhere),
            |_: &PeerId, _: &[u8]| true,
        ));
        let mut engine = Engine::new(id(0), rules, NOW, 1);
        let answer = engine.handle_request(NOW, &Anywhere, &ask(1, Ask::Ping));
        assert_eq!(answer.is_ok(), served);
    }
}

#[test]
fn an_unvalidated_source_gets_fewer_bytes_than_it_sent() {
    let config = Config {
        unproven_ids: true,
        ..Config::default()
    };
    let parse = |text: &str| text.parse().ok();
    let rules = Rules::new(config, parse, |_: &PeerId, _: &[u8]| true);
    let mut engine: Engine<SocketAddr> = Engine::new(id(0), Arc::new(rules), NOW, 1);
    // A neighbour forms a ring with it, and stores records.
    let neighbour = SocketAddr::from(([32, 0, 0, 1], 1));
    let serve = |engine: &mut Engine<SocketAddr>, body: Ask<'_>| {
        let request = ask(0xf000, body);
        let answer = engine
            .handle_request(NOW, &neighbour, &request)
            .expect("an answer");
        if answer.first() == Some(&2) {
            let request = [&answer[..], &request].concat();
            return engine
                .handle_request(NOW, &neighbour, &request)
                .expect("its token");
        }
        answer
    };
    serve(&mut engine, Ask::Stabilize);
    for number in 0..20 {
        serve(&mut engine, Ask::Keep(record(number, &[1; 500])));
    }
    sent(&mut engine);
    let all = Ask::Keys(*key(0xffff_0000).as_bytes(), *key(0xfffe_0000).as_bytes());
    assert!(serve(&mut engine, all.clone()).len() > 5000);
    let mut victim = SocketAddr::from(([198, 51, 100, 1], 1));
    let (mut received, mut answered) = (0, 0);
    for round in 0..100_u16 {
        victim.set_port(1 + round);
        let far = node(0xf800);
        for body in [
            Ask::Ping,
            all.clone(),
            Ask::Stabilize,
            Ask::Step(*key(5).as_bytes(), 0),
            Ask::Get(*key(5).as_bytes()),
            Ask::Keep(record(5, b"x")),
            Ask::Nearer(far),
        ] {
            let request = ask(0xf800, body);
            for forged in [&[2; 9][..], &[]] {
                let request = [forged, &request].concat();
                received += request.len();
                let answer = engine.handle_request(NOW, &victim, &request);
                answered += answer.map_or(0, |answer| answer.len());
                answered += sent(&mut engine)
                    .iter()
                    .map(|sent| sent.request.len())
                    .sum::<usize>();
            }
        }
    }
    assert!(answered * 3 < received, "{answered} B for {received} B");
    assert_eq!(engine.counts().challenged, 1 + 100 * 14);
    // This node in turn gets a token once, and sends the same request again with it.
    engine.lookup(NOW, key(0x8000_0000)).expect("room");
    let transmit = engine.poll_transmit().expect("the neighbour is asked");
    engine.handle_answer(NOW, transmit.id, &[2; 9]);
    let again = engine.poll_transmit().expect("the same again");
    assert_eq!(again.request, [&[2; 9], &transmit.request[..]].concat());
    engine.handle_answer(NOW, again.id, &[2; 9]);
    assert!(
        engine
            .poll_transmit()
            .is_none_or(|next| next.request.first() == Some(&1))
    );
}
