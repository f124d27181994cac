//! Keys and peer ids, held against the vectors of the specification.

use aws_lc_rs::encoding::{AsBigEndian as _, AsDer as _, EcPublicKeyCompressedBin, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256K1_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _,
    RSA_PKCS1_SHA256, RsaKeyPair,
};
use p2p_formats::x509::PrivateKey;
use p2p_libp2p::key::{KeyError, KeyType};
use p2p_libp2p::{Keypair, PeerId, PublicKey, identity};
use proptest::prelude::*;

pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text
        .chars()
        .map(|c| c.to_digit(16).expect("hexadecimal") as u8)
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

pub(crate) fn vectors() -> serde_json::Value {
    serde_json::from_str(include_str!("../vectors/identity.json")).expect("valid JSON")
}

fn keypair(seed: u8) -> Keypair {
    Keypair::new(&PrivateKey::ed25519(&[seed; 32])).expect("an Ed25519 key")
}

#[test]
fn encoded_keys_are_those_of_the_specification() {
    let vectors = vectors();
    for (name, key_type) in [
        ("rsa", KeyType::Rsa),
        ("ed25519", KeyType::Ed25519),
        ("secp256k1", KeyType::Secp256k1),
        ("ecdsa", KeyType::Ecdsa),
    ] {
        let bytes = hex(vectors["public_keys"][name].as_str().expect("a key"));
        let key = PublicKey::decode(&bytes).expect("a valid key");
        assert_eq!(key.key_type(), key_type);
        assert_eq!(key.encode(), bytes);
        assert_eq!(PublicKey::new(key_type, key.data()).expect("the same data"), key);
    }
}

#[test]
fn the_public_key_follows_from_the_private_key_of_the_specification() {
    let vectors = vectors();
    // The protobuf has a type, a length of 64, the seed, and the public key.
    let private = hex(vectors["ed25519_private_key"].as_str().expect("a key"));
    let seed = private[4..36].try_into().expect("32 bytes");
    let keypair = Keypair::new(&PrivateKey::ed25519(&seed)).expect("a valid key");
    let public = hex(vectors["public_keys"]["ed25519"].as_str().expect("a key"));
    assert_eq!(keypair.public().encode(), public);
}

#[test]
fn peer_ids_are_parsed_in_both_forms_and_printed_in_base58() {
    let cid = "bafzbeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxe";
    let base58 = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N";
    let addr: p2p_libp2p::HostAddr = format!("/p2p/{base58}").parse().expect("a valid id");
    assert_eq!(addr.to_string(), format!("/p2p/{base58}"));
    let from_cid: p2p_libp2p::HostAddr = format!("/p2p/{cid}").parse().expect("a valid id");
    assert_eq!(from_cid, addr);
    assert_eq!(from_cid.to_string(), format!("/p2p/{base58}"));
}

#[test]
fn the_identity_of_a_peer_is_the_hash_of_its_id() {
    let keypair = keypair(1);
    let bytes = keypair.peer_id().to_bytes();
    assert_eq!(&bytes[..6], [0x00, 0x24, 0x08, 0x01, 0x12, 0x20]);
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes);
    assert_eq!(identity(&keypair.peer_id()).as_bytes(), hash.as_ref());
    assert_eq!(keypair.id(), identity(&keypair.peer_id()));
}

#[test]
fn signatures_of_all_key_types_are_verified() {
    let rng = SystemRandom::new();
    let message = b"message";
    let ours = keypair(1);
    let mut signed = vec![(ours.public().clone(), ours.sign(message))];

    let key = EcdsaKeyPair::generate(&ECDSA_P256K1_SHA256_ASN1_SIGNING).expect("randomness");
    let compressed: EcPublicKeyCompressedBin<'_> = key.public_key().as_be_bytes().expect("a point");
    let public = PublicKey::new(KeyType::Secp256k1, compressed.as_ref()).expect("33 bytes");
    signed.push((
        public,
        key.sign(&rng, message).expect("a signature").as_ref().to_vec(),
    ));

    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("randomness");
    let spki: PublicKeyX509Der<'_> = key.public_key().as_der().expect("a key");
    let public = PublicKey::new(KeyType::Ecdsa, spki.as_ref()).expect("a short key");
    signed.push((
        public,
        key.sign(&rng, message).expect("a signature").as_ref().to_vec(),
    ));

    let key = RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).expect("randomness");
    let spki: PublicKeyX509Der<'_> = key.public_key().as_der().expect("a key");
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &rng, message, &mut signature)
        .expect("a signature");
    signed.push((
        PublicKey::new(KeyType::Rsa, spki.as_ref()).expect("a short key"),
        signature,
    ));

    for (key, signature) in &signed {
        assert_eq!(key.verify(message, signature), Ok(()), "{key:?}");
        assert_eq!(key.verify(b"another", signature), Err(KeyError::BadSignature));
        assert_eq!(key.verify(message, &signature[1..]), Err(KeyError::BadSignature));
        assert_eq!(key.verify(message, &[0; 2000]), Err(KeyError::BadSignature));
    }
    for (key, _) in &signed {
        let others = signed.iter().filter(|(other, _)| other != key);
        for (_, signature) in others {
            assert_eq!(key.verify(message, signature), Err(KeyError::BadSignature));
        }
    }
}

#[test]
fn keys_that_are_no_keys_verify_nothing() {
    for (key_type, len) in [
        (KeyType::Rsa, 300),
        (KeyType::Ed25519, 32),
        (KeyType::Secp256k1, 33),
        (KeyType::Ecdsa, 91),
    ] {
        let key = PublicKey::new(key_type, &vec![0xff; len]).expect("a permitted length");
        assert_eq!(key.verify(b"message", &[1; 64]), Err(KeyError::BadSignature));
    }
}

#[test]
fn encodings_with_anything_else_are_refused() {
    let key = keypair(1).public().encode().to_vec();
    let mut reversed = key[2..].to_vec();
    reversed.extend(&key[..2]);
    let mut longer = key.clone();
    longer.extend([0x18, 0]);
    let mut overlong = vec![0x08, 0x81, 0x00];
    overlong.extend(&key[2..]);
    for bytes in [&reversed[..], &longer, &overlong, &key[..30], &key[2..], &[]] {
        assert!(
            matches!(PublicKey::decode(bytes), Err(KeyError::Encoding { .. })),
            "{bytes:?}"
        );
    }
    assert_eq!(
        PublicKey::decode(&[0x08, 9, 0x12, 1, 0]),
        Err(KeyError::UnknownType(9))
    );
    assert!(matches!(
        PublicKey::decode(&[0x08, 1, 0x12, 1, 0]),
        Err(KeyError::Length { len: 1, .. })
    ));
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_a_key_only_in_its_one_encoding(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        if let Ok(key) = PublicKey::decode(&bytes) {
            prop_assert_eq!(key.encode(), &bytes[..]);
            prop_assert_eq!(PeerId::from_bytes(&key.peer_id().to_bytes()).ok(), Some(key.peer_id()));
        }
    }
}
