//! Signed envelopes and peer records.

use p2p_formats::x509::PrivateKey;
use p2p_libp2p::envelope::{
    Envelope, EnvelopeError, MAX_ADDRS, MAX_ENVELOPE, PEER_RECORD_DOMAIN, PeerRecord,
};
use p2p_libp2p::key::KeyError;
use p2p_libp2p::{Keypair, Multiaddr};
use proptest::prelude::*;

fn keypair(seed: u8) -> Keypair {
    Keypair::new(&PrivateKey::ed25519(&[seed; 32])).expect("an Ed25519 key")
}

fn place(port: usize) -> Multiaddr {
    format!("/ip4/192.0.2.1/tcp/{port}").parse().expect("a multiaddr")
}

#[test]
fn a_record_is_opened_by_anyone() {
    let keypair = keypair(1);
    let bytes = PeerRecord::sign(&keypair, 42, &[place(1), place(2)]);
    let record = PeerRecord::open(&bytes).expect("a valid record");
    assert_eq!((record.peer_id, record.seq), (keypair.peer_id(), 42));
    assert_eq!(record.addrs, [place(1), place(2)]);
}

#[test]
fn the_bytes_of_a_record_are_pinned() {
    let bytes = PeerRecord::sign(&keypair(1), 1, &[place(1)]);
    // The key, the payload type 03 01, the payload with the id, the number and the address, and the signature.
    let keypair = keypair(1);
    let mut expected = vec![0x0a, 0x24];
    expected.extend(keypair.public().encode());
    expected.extend([0x12, 0x02, 0x03, 0x01]);
    let mut payload = vec![0x0a, 0x26];
    payload.extend(keypair.peer_id().to_bytes());
    payload.extend([0x10, 0x01, 0x1a, 0x0a, 0x0a, 0x08, 4, 192, 0, 2, 1, 6, 0, 1]);
    expected.extend([0x1a, payload.len() as u8]);
    expected.extend(&payload);
    let mut signed = vec![18];
    signed.extend(b"libp2p-peer-record\x02\x03\x01");
    signed.push(payload.len() as u8);
    signed.extend(&payload);
    expected.extend([0x2a, 0x40]);
    expected.extend(keypair.sign(&signed));
    assert_eq!(bytes, expected);
}

#[test]
fn another_domain_another_type_and_another_peer_are_refused() {
    let ours = keypair(1);
    let theirs = keypair(2);
    let bytes = PeerRecord::sign(&ours, 1, &[place(1)]);
    let opened = Envelope::open(&bytes, "another domain");
    assert_eq!(opened, Err(EnvelopeError::Key(KeyError::BadSignature)));

    let record = Envelope::open(&bytes, PEER_RECORD_DOMAIN).expect("a valid envelope");
    let retyped = Envelope::sign(&ours, PEER_RECORD_DOMAIN, b"type", &record.payload);
    assert_eq!(PeerRecord::open(&retyped), Err(EnvelopeError::PayloadType));
    let foreign = Envelope::sign(&theirs, PEER_RECORD_DOMAIN, &record.payload_type, &record.payload);
    assert_eq!(PeerRecord::open(&foreign), Err(EnvelopeError::ForeignPeer));
}

#[test]
fn every_changed_byte_is_refused_or_changes_nothing() {
    let bytes = PeerRecord::sign(&keypair(1), 1, &[place(1)]);
    let record = PeerRecord::open(&bytes).expect("a valid record");
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(
            PeerRecord::open(&changed).is_err_and(|_| true)
                || PeerRecord::open(&changed).is_ok_and(|changed| changed == record)
        );
    }
}

#[test]
fn lengths_are_bounded() {
    let keypair = keypair(1);
    let many: Vec<_> = (0..300).map(place).collect();
    let record = PeerRecord::open(&PeerRecord::sign(&keypair, 1, &many)).expect("a valid record");
    assert_eq!(record.addrs.len(), MAX_ADDRS);
    let long = Envelope::sign(&keypair, "d", b"t", &vec![0; MAX_ENVELOPE]);
    assert!(matches!(
        Envelope::open(&long, "d"),
        Err(EnvelopeError::TooLong(_))
    ));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        prop_assert!(PeerRecord::open(&bytes).is_err());
    }
}
