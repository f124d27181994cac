//! The guarantees of channels, and faults of other implementations, each stated as a law, in virtual time and
//! with printed seeds.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use p2p::{DropReason, Packet};
use p2p_formats::x509::{KeyError, shake256};
use p2p_protocols::p2pke::wire::{self, InitHello};
use p2p_protocols::p2pke::{Channel, Config, Error, Event, Hello, Local, Sealed, Tai64N};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::net::{Net, hello_of, key, local, millis, secs};
use super::strange::{Strange, strange};

#[test]
fn no_state_for_a_source_before_a_valid_hello() {
    let mut net = Net::new(2, 1, &Config::default());
    let hello = hello_of(&mut net, 0, 1);
    let mut wrong_signature = hello.clone();
    let at = wrong_signature.len() - 10;
    wrong_signature[at] ^= 1;
    let mut version_2 = hello.clone();
    version_2[37] = 2;
    let cases: [(Vec<u8>, Error); 8] = [
        (vec![], Error::NoSession),
        (vec![0; 3], Error::NoSession),
        (
            hello[..40].to_vec(),
            Error::Malformed("a hello with a wrong length"),
        ),
        (vec![0; 9], Error::Malformed("a hello without an ephemeral key")),
        (vec![0xff; 1200], Error::NoSession),
        ([&16u32.to_be_bytes()[..], &[7; 60]].concat(), Error::NoSession),
        (wrong_signature, Error::Key(KeyError::BadSignature)),
        (version_2, Error::Version(2)),
    ];
    for (source, (bytes, error)) in cases.into_iter().enumerate() {
        assert_eq!(net.deliver(100 + source as u32, 1, &bytes), Err(error));
        assert_eq!(net.nodes[1].endpoint.channels(), 0);
    }
    assert_eq!(net.nodes[1].endpoint.poll_timeout(), None);
    assert_eq!(net.deliver(100, 1, &hello), Ok(None));
    assert_eq!(net.nodes[1].endpoint.channels(), 1);
}

#[test]
fn a_million_spoofed_hellos_affect_neither_memory_nor_established_traffic() {
    let config = Config {
        half_open: 64,
        ..Config::default()
    };
    let mut net = Net::new(3, 2, &config);
    net.establish(0, 1);
    let mut hello = hello_of(&mut net, 2, 1);
    for packet in 0..1_000_000u32 {
        // Nothing authenticates the ephemeral key, so each of these hellos is valid and has its own id.
        hello[4..8].copy_from_slice(&packet.to_be_bytes());
        let verdict = net.deliver(1000 + packet, 1, &hello);
        assert!(
            matches!(verdict, Ok(None) | Err(Error::RateLimited)),
            "{verdict:?}"
        );
        if packet % 100_000 == 0 {
            assert!(
                net.nodes[1].endpoint.channels() <= 65,
                "{}",
                net.nodes[1].endpoint.channels()
            );
            net.tell(0, 1, b"still here");
            net.run_for(millis(1));
            assert_eq!(
                net.nodes[1].inbox.pop().map(|(_, data)| data),
                Some(b"still here".to_vec())
            );
            net.tell(1, 0, b"and back");
            net.run_for(millis(1));
            assert_eq!(
                net.nodes[0].inbox.pop().map(|(_, data)| data),
                Some(b"and back".to_vec())
            );
        }
    }
    net.run_for(secs(16));
    assert_eq!(
        net.nodes[1].endpoint.channels(),
        1,
        "half-open channels are forgotten"
    );
}

#[test]
fn one_source_cannot_use_up_the_verifications_of_others() {
    let mut net = Net::new(3, 3, &Config::default());
    let mut hello = hello_of(&mut net, 2, 1);
    let mut answered = 0;
    for packet in 0..1000u32 {
        hello[4..8].copy_from_slice(&packet.to_be_bytes());
        answered += usize::from(net.deliver(7, 1, &hello).is_ok());
    }
    assert_eq!(answered, 10, "the rate for one source");
    net.establish(0, 1);
}

#[test]
fn a_handshake_costs_no_side_the_same_verification_twice() {
    let mut net = Net::new(2, 4, &Config::default());
    let counting = strange(&mut net, 1);
    net.duplicate = true;
    net.establish(0, 1);
    assert_eq!(counting.verified.load(Relaxed), 2, "the hello's and the proof's");
}

#[test]
fn a_replayed_hello_is_dropped_before_any_verification() {
    let mut net = Net::new(2, 5, &Config::default());
    let counting = strange(&mut net, 1);
    let old = hello_of(&mut net, 0, 1);
    net.now += secs(1);
    net.establish(0, 1);
    let used = net
        .log
        .iter()
        .find(|(_, to, packet)| *to == 1 && wire::is_init_hello(packet))
        .expect("one")
        .2
        .clone();
    let spent = counting.verified.load(Relaxed);
    assert_eq!(net.deliver(0, 1, &old), Err(Error::Stale));
    let mut same_time = used.clone();
    same_time[4] ^= 1;
    assert_eq!(net.deliver(0, 1, &same_time), Err(Error::Stale));
    assert_eq!(net.deliver(0, 1, &used), Ok(None), "the same hello is known");
    assert_eq!(counting.verified.load(Relaxed), spent);
    assert_eq!(net.nodes[1].endpoint.poll_transmit(), None, "and is not answered");
    net.exchange(0, 1);
}

#[test]
fn a_pending_session_replaces_the_current_one_only_after_key_confirmation() {
    let mut net = Net::new(2, 6, &Config::default());
    net.establish(0, 1);
    let before = net.nodes[1].endpoint.path(&0).expect("established").clone();
    // An attacker replays the time stamp and signature of a newer hello with its own ephemeral keys.
    net.now += secs(1);
    let mut newer = hello_of(&mut net, 0, 1);
    for packet in 0..8u8 {
        newer[4] = packet;
        let _ = net.deliver(0, 1, &newer);
        net.exchange(0, 1);
        let now = net.nodes[1].endpoint.path(&0).expect("established");
        assert!(Arc::ptr_eq(now, &before));
    }
}

#[test]
fn a_spoofer_cannot_block_the_handshake() {
    for seed in 0..20 {
        let mut net = Net::new(2, seed, &Config::default());
        net.now += secs(1);
        let mut spoofed = hello_of(&mut net, 0, 1);
        net.now += secs(1);
        for packet in 0..10u8 {
            spoofed[4] = packet;
            let _ = net.deliver(0, 1, &spoofed);
        }
        // The channel's own rate recovers before the second retransmission.
        net.establish(0, 1);
    }
}

#[test]
fn any_authentic_packet_ends_a_silence() {
    let mut net = Net::new(2, 8, &Config::default());
    net.establish(0, 1);
    for second in 0..110 {
        net.now += secs(1);
        for (from, to) in [(0, 1), (1, 0)] {
            assert_eq!(
                net.seal(from, to, b"tick").map(|(sealed, _)| sealed),
                Ok(Sealed::Fresh),
                "{second} s"
            );
            net.tell(from, to, b"tick");
            net.run_for(Duration::ZERO);
        }
    }
    assert_eq!(net.handshakes(), 1);
}

#[test]
fn silence_requests_a_rekey_and_then_refuses_the_old_session() {
    let mut net = Net::new(2, 9, &Config::default());
    net.establish(0, 1);
    net.now += secs(10);
    assert_eq!(net.seal(0, 1, b"x").map(|(sealed, _)| sealed), Ok(Sealed::Fresh));
    net.now += millis(1);
    assert_eq!(
        net.seal(0, 1, b"x").map(|(sealed, _)| sealed),
        Ok(Sealed::RekeyDue)
    );
    net.now += secs(5);
    assert_eq!(net.seal(0, 1, b"x").map(|_| ()), Err(Error::Silent));
    net.establish(0, 1);
    assert_eq!(net.handshakes(), 2);
}

#[test]
fn a_sender_without_answers_still_reaches_its_peer() {
    let mut net = Net::new(2, 10, &Config::default());
    net.establish(0, 1);
    for second in 0..600 {
        net.now += secs(1);
        net.tell(0, 1, b"one way");
        net.run_for(Duration::ZERO);
        assert_eq!(net.nodes[1].inbox.len(), second + 1);
    }
    assert!((50..70).contains(&net.handshakes()), "{}", net.handshakes());
}

#[test]
fn sessions_are_rekeyed_by_age_before_they_expire() {
    let mut net = Net::new(2, 11, &Config::default());
    net.establish(0, 1);
    for second in 1..=1000 {
        net.now += secs(1);
        for (from, to) in [(0, 1), (1, 0)] {
            net.tell(from, to, b"tick");
            net.run_for(Duration::ZERO);
            assert_eq!(net.nodes[to as usize].inbox.len(), second, "at {second} s");
        }
    }
    assert_eq!(net.handshakes(), 1 + 1000 / 120);
}

#[test]
fn sessions_are_rekeyed_by_message_count() {
    let config = Config {
        rekey_after_messages: 100,
        ..Config::default()
    };
    let mut net = Net::new(2, 12, &config);
    net.establish(0, 1);
    for message in 1..=1000 {
        net.tell(0, 1, b"tick");
        net.run_for(Duration::ZERO);
        assert_eq!(net.nodes[1].inbox.len(), message);
    }
    assert_eq!(net.handshakes(), 10);
}

#[test]
fn nothing_is_sealed_or_opened_after_the_end_of_a_session() {
    let config = Config {
        max_silence: secs(1000),
        ..Config::default()
    };
    let mut net = Net::new(2, 13, &config);
    let begin = net.now;
    net.establish(0, 1);
    net.now = net.expires(0, 1);
    assert_eq!(net.now, begin + secs(180));
    let (_, packet) = net.seal(0, 1, b"at the limit").expect("not yet");
    assert!(net.open(1, 0, &packet).is_ok());
    let (_, packet) = net.seal(0, 1, b"late").expect("not yet");
    net.now += Duration::from_nanos(1);
    assert_eq!(net.seal(0, 1, b"x").map(|_| ()), Err(Error::Expired));
    assert_eq!(net.open(1, 0, &packet), Err(Error::Expired));
    net.run_for(Duration::ZERO);
    for node in &net.nodes[..2] {
        assert_eq!(node.endpoint.channels(), 0, "keys are forgotten");
        assert_eq!(node.endpoint.poll_timeout(), None);
    }
}

#[test]
fn retries_back_off_with_jitter_and_end() {
    let mut starts = Vec::new();
    for seed in 0..20 {
        let mut net = Net::new(1, seed, &Config::default());
        let begin = net.now;
        net.connect(0, 9);
        net.run_for(secs(60));
        let times: Vec<_> = net.times.iter().map(|at| at.saturating_sub(begin)).collect();
        assert!((14..24).contains(&times.len()), "seed {seed}: {times:?}");
        let waits: Vec<_> = times
            .windows(2)
            .map(|pair| pair[1].saturating_sub(pair[0]))
            .collect();
        assert!(
            waits
                .iter()
                .all(|wait| (millis(200)..=millis(1200)).contains(wait)),
            "seed {seed}: {waits:?}"
        );
        assert!(
            waits[5..].iter().all(|wait| *wait >= millis(800)),
            "seed {seed}: {waits:?}"
        );
        assert!(*times.last().expect("some") < secs(15));
        assert!(matches!(net.nodes[0].failed[..], [(9, Error::TimedOut)]));
        assert_eq!(net.nodes[0].endpoint.channels(), 0);
        let (first, _, _) = &net.log[0];
        assert_eq!(*first, 0);
        assert!(
            net.log.iter().all(|(_, _, packet)| packet == &net.log[0].2),
            "the same hello each time"
        );
        starts.push(waits);
    }
    starts.sort();
    starts.dedup();
    assert_eq!(starts.len(), 20, "no two are equal");
}

#[test]
fn an_unauthenticated_packet_changes_nothing() {
    let mut net = Net::new(2, 14, &Config::default());
    net.establish(0, 1);
    let (_, first) = net.seal(0, 1, b"first").expect("established");
    let forged = [&0xffff_0000u32.to_be_bytes()[..], &[9; 40]].concat();
    let heard = net.nodes[1].endpoint.path(&0).expect("established").clone();
    net.now += secs(9);
    assert_eq!(net.open(1, 0, &forged), Err(Error::Unauthenticated));
    let mut raised = first.clone();
    raised[0] = 0x7f;
    assert_eq!(net.open(1, 0, &raised), Err(Error::Unauthenticated));
    assert_eq!(
        net.open(1, 0, &first),
        Ok(b"first".to_vec()),
        "the window has not moved"
    );
    assert_eq!(net.open(1, 0, &first), Err(Error::Replayed));
    drop(heard);
}

#[test]
fn empty_messages_are_delivered() {
    let mut net = Net::new(2, 15, &Config::default());
    net.establish(0, 1);
    net.tell(0, 1, b"");
    net.run_for(Duration::ZERO);
    assert_eq!(net.nodes[1].inbox, [(0, vec![])]);
}

#[test]
fn simultaneous_opens_agree_and_the_lower_hello_has_precedence() {
    for seed in 0..50 {
        let mut net = Net::new(2, seed, &Config::default());
        let mut hellos = Vec::new();
        for (from, to) in [(0, 1), (1, 0)] {
            net.connect(from, to);
            hellos.push(
                net.nodes[from as usize]
                    .endpoint
                    .poll_transmit()
                    .expect("a hello")
                    .1
                    .to_vec(),
            );
        }
        let lower = usize::from(
            p2p_protocols::p2pke::SessionId::of(&hellos[1]) < p2p_protocols::p2pke::SessionId::of(&hellos[0]),
        );
        let higher = 1 - lower;
        let (low, high) = (lower as u32, higher as u32);
        assert_eq!(net.deliver(high, low, &hellos[higher]), Err(Error::Superseded));
        let repeated = net.nodes[lower]
            .endpoint
            .poll_transmit()
            .expect("the hello again")
            .1;
        assert_eq!(*repeated, hellos[lower][..]);
        assert_eq!(net.deliver(high, low, &hellos[higher]), Err(Error::Superseded));
        assert_eq!(
            net.nodes[lower].endpoint.poll_transmit(),
            None,
            "once between two regular transmissions"
        );
        assert_eq!(net.deliver(low, high, &hellos[lower]), Ok(None));
        let answer = net.nodes[higher].endpoint.poll_transmit().expect("an answer").1;
        assert_eq!(wire::counter(&answer), Some(1));
        assert_eq!(net.deliver(high, low, &answer), Ok(None));
        net.run_for(secs(5));
        net.exchange(0, 1);
        assert_eq!(net.handshakes(), 1, "seed {seed}");
    }
}

#[test]
fn handshakes_survive_30_percent_loss() {
    for seed in 0..200 {
        let mut net = Net::new(2, seed, &Config::default());
        net.loss = 30;
        net.connect(0, 1);
        if seed % 2 == 0 {
            net.connect(1, 0);
        }
        let established =
            |net: &Net| (0..2u32).all(|node| net.nodes[node as usize].endpoint.path(&(1 - node)).is_some());
        for _ in 0..40 {
            if !established(&net) {
                net.run_for(secs(1));
            }
        }
        assert!(
            net.nodes[0].failed.is_empty() && net.nodes[1].failed.is_empty(),
            "seed {seed}"
        );
        net.loss = 0;
        net.exchange(0, 1);
    }
}

#[test]
fn an_impostor_at_the_right_address_receives_nothing_and_ends_nothing() {
    let mut net = Net::new(3, 16, &Config::default());
    // Node 2 answers a hello of node 0 to node 1.
    net.connect(0, 1);
    let (_, hello) = net.nodes[0].endpoint.poll_transmit().expect("a hello");
    assert_eq!(net.deliver(0, 2, &hello), Ok(None));
    let (_, answer) = net.nodes[2].endpoint.poll_transmit().expect("an answer");
    assert_eq!(net.deliver(1, 0, &answer), Err(Error::WrongPeer));
    assert_eq!(net.nodes[0].endpoint.poll_transmit(), None);
    // The authentic answer to the same hello still works.
    assert_eq!(net.deliver(0, 1, &hello), Ok(None));
    net.run_for(secs(1));
    net.exchange(0, 1);
    assert!(net.nodes[2].endpoint.path(&0).is_none());
}

#[test]
fn a_handshake_answered_only_by_other_peers_reports_the_wrong_peer() {
    let mut net = Net::new(3, 19, &Config::default());
    net.connect(0, 1);
    for _ in 0..40 {
        net.collect();
        for (from, to, packet) in std::mem::take(&mut net.wire) {
            // Node 2 is at the address of node 1.
            match (from, to) {
                (0, 1) => drop(net.deliver(0, 2, &packet)),
                _ => assert!(net.deliver(1, 0, &packet).is_err()),
            }
        }
        net.now += secs(1);
        for node in &mut net.nodes {
            node.endpoint.handle_timeout(net.now, &mut node.rng);
        }
    }
    net.collect();
    assert_eq!(net.nodes[0].failed, [(1, Error::WrongPeer)]);
    // Without any answer, the error is a timeout.
    net.wire.clear();
    net.connect(0, 1);
    net.loss = 100;
    net.run_for(secs(40));
    assert_eq!(net.nodes[0].failed.last(), Some(&(1, Error::TimedOut)));
}

#[test]
fn a_key_is_pinned_while_its_owner_sends_authentic_packets() {
    let mut net = Net::new(3, 17, &Config::default());
    net.establish(0, 1);
    net.now += secs(1);
    let hello = hello_of(&mut net, 2, 1);
    assert_eq!(net.deliver(0, 1, &hello), Err(Error::WrongPeer));
    net.exchange(0, 1);
    net.now += secs(16);
    let hello = hello_of(&mut net, 2, 1);
    assert_eq!(
        net.deliver(0, 1, &hello),
        Ok(None),
        "after a silence another peer may take the address"
    );
    assert_eq!(
        net.nodes[1].endpoint.path(&0).expect("until confirmed").peer(),
        net.nodes[0].id()
    );
}

#[test]
fn denied_peers_cost_no_verification_and_get_no_answer() {
    let counting = Strange::default();
    let mut net = Net::new(2, 18, &Config::default());
    net.replace(1, counting.local(1).allow(|_| false));
    let hello = hello_of(&mut net, 0, 1);
    assert_eq!(net.deliver(0, 1, &hello), Err(Error::Denied));
    assert_eq!(counting.verified.load(Relaxed), 0);
    let expected = net.nodes[0].id();
    let now = net.now;
    let node = &mut net.nodes[1];
    assert!(matches!(
        node.endpoint.connect(now, &0, Some(expected), &mut node.rng),
        Err(Error::Denied)
    ));
    assert_eq!(node.endpoint.channels(), 0);
}

#[test]
fn channels_are_bounded_and_freed() {
    let config = Config {
        channels: 3,
        ..Config::default()
    };
    let mut net = Net::new(6, 19, &config);
    for peer in 1..4 {
        net.establish(peer, 0);
    }
    let hello = hello_of(&mut net, 4, 0);
    assert_eq!(net.deliver(4, 0, &hello), Err(Error::Full));
    let expected = net.nodes[5].id();
    let now = net.now;
    let node = &mut net.nodes[0];
    assert!(matches!(
        node.endpoint.connect(now, &5, Some(expected), &mut node.rng),
        Err(Error::Full)
    ));
    net.run_for(secs(181));
    net.establish(4, 0);
}

#[test]
fn packets_of_the_previous_session_are_still_opened() {
    let mut net = Net::new(2, 20, &Config::default());
    net.establish(0, 1);
    let (_, straggler) = net.seal(0, 1, b"straggler").expect("established");
    let (_, other) = net.seal(0, 1, &[7; 4000]).expect("established");
    net.now += secs(11);
    net.rekey(0, 1);
    net.run_for(millis(1));
    assert_eq!(net.handshakes(), 2);
    let (_, current) = net.seal(0, 1, b"current").expect("established");
    assert_eq!(net.open(1, 0, &straggler), Ok(b"straggler".to_vec()));
    assert_eq!(net.open(1, 0, &straggler), Err(Error::Replayed));
    assert_eq!(net.open(1, 0, &current), Ok(b"current".to_vec()));
    assert_eq!(net.open(1, 0, &current), Err(Error::Replayed));
    assert_eq!(net.open(1, 0, &other), Ok(vec![7; 4000]));
}

#[test]
fn a_peer_that_lost_its_state_is_reachable_again() {
    let mut net = Net::new(2, 21, &Config::default());
    net.establish(0, 1);
    net.now += secs(1);
    net.replace(1, local(1, Config::default()));
    // The restarted node opens, and its newer hello wins after confirmation.
    net.establish(1, 0);
    net.exchange(0, 1);
    // Or the other side notices the silence.
    net.now += secs(1);
    net.replace(1, local(1, Config::default()));
    net.now += secs(16);
    net.establish(0, 1);
    net.exchange(0, 1);
}

#[test]
fn every_drop_has_a_reason() {
    assert_eq!(Error::Stale.reason(), DropReason::Duplicate);
    assert_eq!(Error::Replayed.reason(), DropReason::Duplicate);
    assert_eq!(Error::Unauthenticated.reason(), DropReason::Unauthenticated);
    assert_eq!(Error::Version(2).reason(), DropReason::Malformed);
    assert_eq!(Error::NoSession.reason(), DropReason::NoPeer);
    assert_eq!(Error::RateLimited.reason(), DropReason::Budget);
    assert_eq!(Error::Denied.reason(), DropReason::Denied);
}

#[test]
fn debug_output_shows_no_secret() {
    let mut net = Net::new(2, 22, &Config::default());
    net.establish(0, 1);
    let shown = format!("{:?} {:?}", net.nodes[0].endpoint, net.nodes[0].endpoint.path(&1));
    let hex =
        |byte: &u8| [byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16).expect("a digit"));
    let secret: String = key(0).secret().iter().flat_map(hex).collect();
    assert!(!shown.contains(&secret));
    assert!(!shown.contains(&format!("{:?}", key(0).secret())));
}

#[test]
fn threads_seal_with_distinct_counters() {
    let mut net = Net::new(2, 23, &Config::default());
    net.establish(0, 1);
    let path = net.nodes[0].endpoint.path(&1).expect("established").clone();
    let now = net.now;
    let mut packets: Vec<Packet> = std::thread::scope(|scope| {
        let seal = || {
            (0..500)
                .map(|_| {
                    let mut packet = Packet::from(b"threads");
                    path.seal(now, &mut packet).map(|_| packet).expect("established")
                })
                .collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(seal)).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("no panic"))
            .collect()
    });
    let back = net.nodes[1].endpoint.path(&0).expect("established").clone();
    for packet in &mut packets {
        assert_eq!(back.open(now, packet), Ok(()));
        assert_eq!(*packet, b"threads");
    }
}

#[test]
fn a_hello_after_a_channel_was_forgotten_at_the_same_time_is_newer_than_the_last() {
    let mut net = Net::new(2, 24, &Config::default());
    for _ in 0..3 {
        net.connect(0, 1);
        net.run_for(Duration::ZERO);
        net.exchange(0, 1);
        net.nodes[0].endpoint.disconnect(&1);
    }
}

#[test]
fn the_second_hello_at_the_same_time_is_newer() {
    let local = Arc::new(local(0, Config::default()));
    let mut rng = StdRng::seed_from_u64(24);
    let mut channel = Channel::new(local);
    let mut stamps = Vec::new();
    for _ in 1..4u8 {
        let expected = shake256(local_key(1).public_key());
        assert!(
            channel
                .connect(secs(5), Some(expected), &mut rng)
                .is_ok_and(|path| path.is_none())
        );
        let hello = channel.poll_transmit().expect("a hello");
        stamps.push(InitHello::parse(&hello).expect("well formed").timestamp);
        // The handshake times out, and the clock goes back.
        channel.handle_timeout(secs(25), &mut rng);
    }
    assert!(stamps.is_sorted_by(|a, b| a < b), "{stamps:?}");
    assert_eq!(stamps[0], Tai64N::from_unix(secs(5)));
    let failed: Vec<_> = std::iter::from_fn(|| channel.poll_event()).collect();
    assert!(matches!(
        failed[..],
        [Event::Failed { .. }, Event::Failed { .. }, Event::Failed { .. }]
    ));
}

fn local_key(node: u8) -> Local {
    local(node.into(), Config::default())
}

#[test]
fn checking_a_hello_changes_nothing() {
    let mut net = Net::new(2, 25, &Config::default());
    let hello = hello_of(&mut net, 0, 1);
    let hello = InitHello::parse(&hello).expect("well formed");
    let mut channel = Channel::new(Arc::new(local(1, Config::default())));
    for _ in 0..3 {
        assert_eq!(channel.check(net.now, &hello), Ok(Hello::New));
        assert!(channel.is_idle() && channel.poll_timeout().is_none());
    }
}

#[test]
fn a_caller_without_an_expected_peer_joins_a_pending_handshake() {
    let mut net = Net::new(2, 26, &Config::default());
    net.connect(0, 1);
    let now = net.now;
    let node = &mut net.nodes[0];
    assert!(matches!(
        node.endpoint.connect(now, &1, None, &mut node.rng),
        Ok(None)
    ));
    net.run_for(secs(1));
    assert_eq!(
        net.log
            .iter()
            .filter(|(_, _, packet)| wire::is_init_hello(packet))
            .count(),
        1
    );
    assert!(net.nodes[0].failed.is_empty());
    net.exchange(0, 1);
}

#[test]
fn no_configuration_makes_a_timer_expire_without_end() {
    let zero = Duration::ZERO;
    let config = Config {
        retry_first: zero,
        retry_max: zero,
        handshake_timeout: secs(1),
        ..Config::default()
    };
    let mut net = Net::new(1, 27, &config);
    net.connect(0, 9);
    net.run_for(secs(2));
    assert!((2..=1001).contains(&net.log.len()), "{}", net.log.len());
}

#[test]
fn forged_answers_have_a_bounded_cost_and_end_nothing() {
    let mut net = Net::new(2, 28, &Config::default());
    net.connect(0, 1);
    net.collect();
    net.wire.clear();
    let mut forged = vec![9; 328];
    forged[..4].copy_from_slice(&1u32.to_be_bytes());
    let verdicts: Vec<_> = (0..1000).map(|_| net.deliver(1, 0, &forged)).collect();
    let looked_at = verdicts
        .iter()
        .filter(|verdict| **verdict == Err(Error::Unauthenticated))
        .count();
    let dropped = verdicts
        .iter()
        .filter(|verdict| **verdict == Err(Error::RateLimited))
        .count();
    assert_eq!((looked_at, dropped), (32, 968));
    net.run_for(secs(1));
    net.exchange(0, 1);
}
