//! Records that a node stores for others.

use std::sync::Arc;
use std::time::Duration;

use p2p_protocols::kademlia::wire::{Answer, Ask, Message};
use p2p_protocols::kademlia::{Config, Engine, NoRecords, Refusal, Rules};

use super::setup::{HOUR, NOW, ask, engine, provide, put, record, sent};
use crate::net::{BAD, Place, id};

#[test]
fn expired_entries_are_never_returned() {
    let mut engine = engine(&Config::default());
    engine
        .handle_request(NOW, &Place::new(1), &put(1, 7, &[1]))
        .expect("a good record");
    engine
        .handle_request(NOW, &Place::new(1), &provide(1, 8))
        .expect("a good provider");
    let last = NOW + Duration::from_secs(u64::from(HOUR) - 1);
    let end = last + Duration::from_secs(1);
    let request = ask(9, Ask::Providers(*id(8).as_bytes()));
    let mut providers = |now| {
        let bytes = engine
            .handle_request(now, &Place::new(9), &request)
            .expect("a good request");
        match Message::<Answer<'_>>::parse(&bytes).expect("a good answer").body {
            Answer::Providers { providers, .. } => providers.len(),
            other => panic!("{other:?}"),
        }
    };
    // No timeout is handled in between.
    assert_eq!((providers(last), providers(end)), (1, 0));
    assert_eq!(record(&mut engine, last, 7), Some(vec![1]));
    assert_eq!(record(&mut engine, end, 7), None);
    engine.handle_timeout(end);
    assert_eq!((engine.stored(), engine.kept_providers()), ((0, 0), (0, 0)));
}

#[test]
fn invalid_records_are_refused_and_valid_ones_stay() {
    let mut engine = engine(&Config::default());
    let from = Place::new(1);
    let mut try_put = |value: &[u8]| engine.handle_request(NOW, &from, &put(1, 7, value)).map(|_| ());
    assert_eq!(try_put(&[5, 5]), Ok(()));
    assert_eq!(try_put(&[4, 9]), Err(Refusal::Stale));
    assert_eq!(try_put(&[BAD]), Err(Refusal::Invalid));
    assert_eq!(
        try_put(&vec![9; Config::default().value + 1]),
        Err(Refusal::Oversize)
    );
    assert_eq!(try_put(&vec![9; 1 << 20]), Err(Refusal::Oversize));
    let key = *id(7).as_bytes();
    let expired = ask(
        1,
        Ask::Put {
            key,
            ttl: 0,
            value: &[9],
        },
    );
    assert_eq!(engine.handle_request(NOW, &from, &expired), Err(Refusal::Expired));
    assert_eq!(record(&mut engine, NOW, 7), Some(vec![5, 5]));
    assert_eq!(engine.counts().refused, 5);
    engine
        .handle_request(NOW, &from, &put(1, 7, &[6]))
        .expect("a better record");
    assert_eq!(record(&mut engine, NOW, 7), Some(vec![6]));
    assert_eq!(engine.stored(), (1, 1));
    // No node keeps a record for longer than the limit.
    let key = *id(8).as_bytes();
    let forever = ask(
        1,
        Ask::Put {
            key,
            ttl: u32::MAX,
            value: &[1],
        },
    );
    engine
        .handle_request(NOW, &from, &forever)
        .expect("a good record");
    assert_eq!(record(&mut engine, NOW + Config::default().record_ttl, 8), None);
}

#[test]
fn a_flood_of_puts_stays_within_limits() {
    let config = Config {
        records: 50,
        record_bytes: 4000,
        records_per_source: 10,
        ..Config::default()
    };
    let mut engine = engine(&config);
    for key in 0..1000 {
        let _ = engine.handle_request(NOW, &Place::new(1), &put(1, key, &[1; 100]));
        assert!(engine.stored().0 <= 10);
    }
    for number in 2..500 {
        for key in 0..20 {
            let key = u64::from(number) * 1000 + key;
            let _ = engine.handle_request(NOW, &Place::new(number), &put(number, key, &[1; 100]));
            let (records, bytes) = engine.stored();
            assert!(records <= 50 && bytes <= 4000 && bytes == 100 * records);
        }
    }
    assert_eq!(engine.stored(), (40, 4000));
    assert!(engine.counts().refused > 5000);
}

#[test]
fn a_network_without_records_refuses_them() {
    let parse = |text: &str| text.parse().ok().map(Place::new);
    let rules = Rules::new(Config::default(), parse, NoRecords);
    let mut engine = Engine::new(id(0), Arc::new(rules), NOW, 1);
    let refused = engine.handle_request(NOW, &Place::new(1), &put(1, 7, &[1]));
    assert_eq!(refused, Err(Refusal::Invalid));
    sent(&mut engine);
    assert!(engine.put(NOW, id(7), &[1], Duration::from_mins(1)).is_err());
    assert!(sent(&mut engine).is_empty());
}
