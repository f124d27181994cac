//! The cost of sealing, opening and handshakes, compared with the bare primitives and with other libraries'
//! ciphers.
//!
//! Each line is the median of nine rounds, in which ours and the other take turns.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::{aead as aws, agreement, signature};
use p2p::{Headroom, Packet};
use p2p_formats::x509::PrivateKey;
use p2p_protocols::p2pke::{Config, Endpoint, Local, wire};
use rand::SeedableRng;
use rand::rngs::StdRng;
use ring::aead as ring_aead;

const ROUNDS: usize = 9;
const NOW: Duration = Duration::from_secs(1_700_000_000);

/// Prints the medians of two alternating measurements, as a rate per second.
fn compare(name: &str, count: u32, mut ours: impl FnMut(), mut peer: impl FnMut()) {
    let mut rates = [const { Vec::new() }; 2];
    for round in 0..=ROUNDS {
        for (turn, work) in [&mut ours as &mut dyn FnMut(), &mut peer].into_iter().enumerate() {
            let begin = Instant::now();
            for _ in 0..count {
                work();
            }
            let rate = f64::from(count) / begin.elapsed().as_secs_f64();
            // The first round is a warm-up.
            if round > 0 {
                rates[turn].push(rate);
            }
        }
    }
    let [ours, peer] = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[ROUNDS / 2]
    });
    println!(
        "name={name} ours={ours:.0}/s peer={peer:.0}/s ratio={:.2}",
        ours / peer
    );
}

fn local(seed: u8) -> Arc<Local> {
    let config = Config {
        hello_rate: u32::MAX,
        hello_rate_per_source: u32::MAX,
        ..Config::default()
    };
    Arc::new(Local::new(&PrivateKey::ed25519(&[seed; 32]), config).expect("a good key"))
}

/// Two nodes after a handshake.
fn established(locals: &[Arc<Local>; 2], rng: &mut StdRng) -> [Endpoint<u8>; 2] {
    let [mut one, mut two] = locals.each_ref().map(|local| Endpoint::new(local.clone(), rng));
    let pending = one.connect(NOW, &2, Some(locals[1].id()), rng);
    assert!(pending.is_ok_and(|path| path.is_none()));
    for _ in 0..2 {
        while let Some((_, packet)) = one.poll_transmit() {
            two.handle(NOW, &1, packet, rng).expect("a good packet");
        }
        while let Some((_, packet)) = two.poll_transmit() {
            one.handle(NOW, &2, packet, rng).expect("a good packet");
        }
    }
    [one, two]
}

fn ciphers(size: usize) {
    let aws_key =
        || aws::LessSafeKey::new(aws::UnboundKey::new(&aws::CHACHA20_POLY1305, &[7; 32]).expect("a key"));
    let ring_key = || {
        ring_aead::LessSafeKey::new(
            ring_aead::UnboundKey::new(&ring_aead::CHACHA20_POLY1305, &[7; 32]).expect("a key"),
        )
    };
    let (ours, peer) = (aws_key(), ring_key());
    let (mut one, mut two) = (vec![1; size], vec![1; size]);
    compare(
        &format!("cipher_seal_{size}_aws_ring"),
        4000,
        || {
            let nonce = aws::Nonce::assume_unique_for_key([1; 12]);
            let tag = ours.seal_in_place_separate_tag(nonce, aws::Aad::from([0; 4]), black_box(&mut one));
            black_box(tag.is_ok());
        },
        || {
            let nonce = ring_aead::Nonce::assume_unique_for_key([1; 12]);
            let tag =
                peer.seal_in_place_separate_tag(nonce, ring_aead::Aad::from([0; 4]), black_box(&mut two));
            black_box(tag.is_ok());
        },
    );
    let mut sealed = vec![1; size];
    let nonce = aws::Nonce::assume_unique_for_key([1; 12]);
    ours.seal_in_place_append_tag(nonce, aws::Aad::from([0; 4]), &mut sealed)
        .expect("a short message");
    let (mut one, mut two) = (sealed.clone(), sealed.clone());
    compare(
        &format!("cipher_open_{size}_aws_ring"),
        4000,
        || {
            one.copy_from_slice(&sealed);
            let nonce = aws::Nonce::assume_unique_for_key([1; 12]);
            assert!(
                ours.open_in_place(nonce, aws::Aad::from([0; 4]), black_box(&mut one))
                    .is_ok()
            );
        },
        || {
            two.copy_from_slice(&sealed);
            let nonce = ring_aead::Nonce::assume_unique_for_key([1; 12]);
            assert!(
                peer.open_in_place(nonce, ring_aead::Aad::from([0; 4]), black_box(&mut two))
                    .is_ok()
            );
        },
    );
}

fn data(size: usize) {
    let mut rng = StdRng::seed_from_u64(1);
    let [one, two] = established(&[local(1), local(2)], &mut rng);
    let (seal, open) = (
        one.path(&2).expect("established"),
        two.path(&1).expect("established"),
    );
    let key = aws::LessSafeKey::new(aws::UnboundKey::new(&aws::CHACHA20_POLY1305, &[7; 32]).expect("a key"));
    let mut packet = Packet::new(Headroom::new(wire::HEADER, wire::TAG), &vec![1; size]);
    let mut bare = vec![1; size + wire::TAG];
    compare(
        &format!("data_seal_and_open_{size}_ours_bare_cipher"),
        2000,
        || {
            let _ = black_box(seal.seal(NOW, &mut packet)).expect("a live session");
            open.open(NOW, &mut packet).expect("a good packet");
        },
        || {
            let nonce = || aws::Nonce::assume_unique_for_key([1; 12]);
            let (body, tag) = bare.split_at_mut(size);
            let sealed = key.seal_in_place_separate_tag(nonce(), aws::Aad::from([0; 4]), body);
            tag.copy_from_slice(sealed.expect("a short message").as_ref());
            assert!(
                key.open_in_place(nonce(), aws::Aad::from([0; 4]), black_box(&mut bare))
                    .is_ok()
            );
        },
    );
}

/// A handshake of both sides, compared with its necessary public-key operations: two ephemeral keys, two
/// agreements, three signatures, three verifications.
fn handshakes() {
    let mut rng = StdRng::seed_from_u64(1);
    let locals = [local(1), local(2)];
    let pair = signature::Ed25519KeyPair::from_seed_unchecked(&[1; 32]).expect("a seed");
    let message = [7; 64];
    compare(
        "handshakes_ours_bare_keys",
        50,
        || {
            black_box(established(&locals, &mut rng));
        },
        || {
            use signature::KeyPair;
            let [one, two] = [1, 2].map(|byte| {
                let key =
                    agreement::PrivateKey::from_private_key(&agreement::X25519, &[byte; 32]).expect("a key");
                let public = key.compute_public_key().expect("a key");
                (key, public)
            });
            for (key, public) in [(&one.0, &two.1), (&two.0, &one.1)] {
                let peer = agreement::UnparsedPublicKey::new(&agreement::X25519, public.as_ref());
                agreement::agree(key, peer, (), |secret| {
                    black_box(secret);
                    Ok(())
                })
                .expect("a good point");
            }
            for _ in 0..3 {
                let signed = pair.sign(black_box(&message));
                signature::UnparsedPublicKey::new(&signature::ED25519, pair.public_key().as_ref())
                    .verify(&message, signed.as_ref())
                    .expect("a good signature");
            }
        },
    );
}

/// Memory of the responder for each of many established peers, compared with the target.
fn memory() {
    const PEERS: u64 = 5000;
    const LIMIT: u64 = 4096;
    let resident = || {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages = pages
            .split(' ')
            .nth(1)
            .and_then(|pages| pages.parse::<u64>().ok());
        pages.unwrap_or_default() * 4096
    };
    let mut rng = StdRng::seed_from_u64(1);
    let locals = [local(1), local(2)];
    let mut hub = Endpoint::new(locals[0].clone(), &mut rng);
    let before = resident();
    for peer in 0..PEERS {
        let mut other = Endpoint::new(locals[1].clone(), &mut rng);
        let pending = other.connect(NOW, &0, None, &mut rng);
        assert!(pending.is_ok_and(|path| path.is_none()));
        for _ in 0..2 {
            while let Some((_, packet)) = other.poll_transmit() {
                hub.handle(NOW, &peer, packet, &mut rng).expect("a good packet");
            }
            while let Some((_, packet)) = hub.poll_transmit() {
                other.handle(NOW, &0, packet, &mut rng).expect("a good packet");
            }
        }
        while hub.poll_event().is_some() {}
    }
    let each = resident().saturating_sub(before) / PEERS;
    let percent = each * 100 / LIMIT;
    println!(
        "name=memory_per_established_peer ours={each}B peer={LIMIT}B ratio={}.{:02}",
        percent / 100,
        percent % 100
    );
}

fn main() {
    memory();
    for size in [64, 1200] {
        ciphers(size);
        data(size);
    }
    handshakes();
}
