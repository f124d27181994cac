//! Providers that a node stores for others, and those that a lookup finds.

use p2p_protocols::kademlia::wire::{Answer, Ask, Message};
use p2p_protocols::kademlia::{Config, Event, Outcome};

use super::setup::{HOUR, NOW, answer, ask, engine, meet, node, provide, provided};
use crate::net::{Place, id};

#[test]
fn a_flood_of_providers_stays_within_limits_and_displaces_no_other() {
    let config = Config {
        provider_keys: 50,
        provided_per_source: 10,
        ..Config::default()
    };
    let mut engine = engine(&config);
    engine
        .handle_request(NOW, &Place::new(1), &provide(1, 7))
        .expect("room");
    for number in 2..2000 {
        let _ = engine.handle_request(NOW, &Place::new(number), &provide(number, 7));
    }
    assert_eq!(engine.kept_providers(), (1, config.providers_per_key));
    let request = ask(9, Ask::Providers(*id(7).as_bytes()));
    let bytes = engine
        .handle_request(NOW, &Place::new(9), &request)
        .expect("a good request");
    let answer = Message::<Answer<'_>>::parse(&bytes).expect("a good answer");
    assert!(
        matches!(answer.body, Answer::Providers { providers, .. } if providers.first() == Some(&node(1)))
    );
    for key in 100..1100 {
        let _ = engine.handle_request(NOW, &Place::new(1), &provide(1, key));
    }
    assert!(engine.kept_providers().0 <= 10, "keys of one source");
    for number in 2..100 {
        for key in 0..20 {
            let key = u64::from(number) * 1000 + key;
            let _ = engine.handle_request(NOW, &Place::new(number), &provide(number, key));
        }
    }
    assert!(engine.kept_providers().0 <= 50);
    // One public network provides a key from a few nodes.
    let mut kept = 0;
    for number in 0x2000_0000..0x2000_0020 {
        kept += usize::from(
            engine
                .handle_request(NOW, &Place::new(number), &provide(number, 7_000_000))
                .is_ok(),
        );
    }
    assert!(kept <= config.providers_per_prefix, "{kept} of one network");
}

#[test]
fn networks_that_fill_a_node_leave_room_for_others() {
    let config = Config {
        records: 40,
        records_per_source: 10,
        provider_keys: 40,
        provided_per_source: 10,
        ..Config::default()
    };
    let mut engine = engine(&config);
    // Keys as near to the node's id as an attacker chooses, from many nodes of four networks.
    let near = |number: u32| {
        let mut key = *id(0).as_bytes();
        key[28..].copy_from_slice(&number.to_be_bytes());
        key
    };
    for number in 0..400 {
        let from = 0x2000_0000 + 0x100 * (number % 4) + number / 4 % 16;
        let (key, value) = (near(number), &[1][..]);
        let put = Ask::Put {
            key,
            ttl: HOUR,
            value,
        };
        let _ = engine.handle_request(NOW, &Place::new(from), &ask(from, put));
        let provide = Ask::Provide { key, ttl: HOUR };
        let _ = engine.handle_request(NOW, &Place::new(from), &ask(from, provide));
    }
    assert_eq!((engine.stored().0, engine.kept_providers().0), (40, 40));
    // A key at the maximum distance still gets a place.
    let honest = 0x2200_0001;
    let mut far = *id(0).as_bytes();
    for byte in &mut far {
        *byte ^= 0xff;
    }
    let put = Ask::Put {
        key: far,
        ttl: HOUR,
        value: &[1],
    };
    assert!(
        engine
            .handle_request(NOW, &Place::new(honest), &ask(honest, put))
            .is_ok()
    );
    let provide = Ask::Provide { key: far, ttl: HOUR };
    assert!(
        engine
            .handle_request(NOW, &Place::new(honest), &ask(honest, provide))
            .is_ok()
    );
    assert_eq!((engine.stored().0, engine.kept_providers().0), (40, 40));
    let get = engine.handle_request(NOW, &Place::new(9), &ask(9, Ask::Get(far)));
    let get = get.expect("a good request");
    let answer = Message::<Answer<'_>>::parse(&get).expect("a good answer");
    assert!(matches!(answer.body, Answer::Record { .. }));
    // It stays while the attack continues.
    for number in 400..800 {
        let from = 0x2000_0000 + 0x100 * (number % 4) + number / 4 % 16;
        let (key, value) = (near(number), &[1][..]);
        let put = Ask::Put {
            key,
            ttl: HOUR,
            value,
        };
        let _ = engine.handle_request(NOW, &Place::new(from), &ask(from, put));
    }
    let get = engine.handle_request(NOW, &Place::new(9), &ask(9, Ask::Get(far)));
    let get = get.expect("a good request");
    let answer = Message::<Answer<'_>>::parse(&get).expect("a good answer");
    assert!(matches!(answer.body, Answer::Record { .. }));
}

#[test]
fn twenty_ids_of_five_networks_do_not_exclude_other_providers_of_a_key() {
    let config = Config::default();
    let honest = 0x2200_0001;
    // Four nodes of each of five networks, or one of each of twenty.
    for (networks, each) in [(5, 4), (20, 1)] {
        let mut engine = engine(&config);
        for network in 0..networks {
            for node in 0..each {
                let number = 0x2000_0000 + 0x100 * network + node;
                engine
                    .handle_request(NOW, &Place::new(number), &provide(number, 7))
                    .expect("room");
            }
        }
        assert_eq!(engine.kept_providers(), (1, 20));
        let before = provided(&mut engine, 7);
        engine
            .handle_request(NOW, &Place::new(honest), &provide(honest, 7))
            .expect("room");
        assert_eq!(engine.kept_providers(), (1, 20));
        let after = provided(&mut engine, 7);
        assert!(after.contains(&id(honest.into())), "{networks} networks");
        assert_eq!(after[..10], before[..10], "the older half stays");
        // It stays while the nodes of those networks repeat their announcements.
        for number in 0x2000_0000..0x2000_0000 + 0x100 * 5 {
            let _ = engine.handle_request(NOW, &Place::new(number), &provide(number, 7));
        }
        if networks == 5 {
            assert!(provided(&mut engine, 7).contains(&id(honest.into())));
        }
    }
}

#[test]
fn one_answer_full_of_made_up_providers_does_not_hide_the_true_one() {
    let mut engine = engine(&Config::default());
    for number in 1..=10 {
        meet(&mut engine, NOW, number);
    }
    engine.providers(NOW, id(7)).expect("room");
    while let Some(transmit) = engine.poll_transmit() {
        let number = transmit.to.number;
        let providers = if number <= 4 {
            (0..20).map(|it| node(1000 * number + it)).collect()
        } else {
            vec![node(500)]
        };
        let nodes = Vec::new();
        let providers = Answer::Providers { providers, nodes };
        engine.handle_answer(NOW, transmit.id, &answer(number, providers));
    }
    let last = std::iter::from_fn(|| engine.poll_event()).last();
    match last {
        Some(Event::Done {
            outcome: Outcome::Providers(found),
            ..
        }) => {
            assert_eq!(found.first().map(|node| node.id), Some(id(500)));
            assert_eq!(found.len(), Config::default().providers_wanted);
        }
        other => panic!("{other:?}"),
    }
}
