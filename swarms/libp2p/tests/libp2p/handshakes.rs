//! TLS handshakes with peers that break the rules for certificates, in both roles, over TCP and QUIC.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::Ed25519KeyPair;
use p2p::Error;
use p2p_formats::x509::{CertificateExtension, CertificateFields, ObjectIdentifier};
use p2p_libp2p::tls::certificate::generate;
use p2p_libp2p::{Host, HostAddr, HostEvent, HostEvents};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use crate::certificates::Material;
use crate::nodes::{Way, dialling_host, host, private, until};
use crate::raw::{Shown, accept_connection, keypair, place};

/// Encodes an element of DER whose contents have at most 65,535 bytes.
fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let contents = parts.concat();
    let length = u16::try_from(contents.len())
        .expect("short contents")
        .to_be_bytes();
    let mut bytes = vec![tag];
    match length {
        [0, short @ ..0x80] => bytes.push(short),
        [0, long] => bytes.extend([0x81, long]),
        long => bytes.extend([&[0x82], &long[..]].concat()),
    }
    bytes.extend(contents);
    bytes
}

/// Returns a certificate with `old` replaced by `new` in its signed part, and signed again.
fn changed(material: &Material, old: &[u8], new: &[u8]) -> Vec<u8> {
    let certificate = material.certificate(&[material.extension()]);
    let signed = CertificateFields::parse(&certificate)
        .expect("a certificate")
        .signed;
    let at = signed.windows(old.len()).position(|window| window == old);
    let at = at.expect("the bytes are in the certificate");
    let mut signed = signed.to_vec();
    signed[at..at + old.len()].copy_from_slice(new);
    let signature = material
        .key
        .sign(&SystemRandom::new(), &signed)
        .expect("randomness");
    let algorithm = element(
        0x30,
        &[&element(0x06, &[&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]])],
    );
    element(
        0x30,
        &[&signed, &algorithm, &element(0x03, &[&[0], signature.as_ref()])],
    )
}

/// What peers show that break one rule each.
fn bad() -> Vec<(&'static str, Shown)> {
    let material = Material::new();
    let ours = material.extension();
    let key = material.key.to_pkcs8v1().expect("a key");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.as_ref().to_vec()));
    let shown = |certificate: Vec<u8>| Shown::new(vec![CertificateDer::from(certificate)], &key);
    let (good, good_key) = generate(&keypair(9)).expect("randomness");
    let (other, other_key) = generate(&keypair(8)).expect("randomness");
    let ed25519 = Ed25519KeyPair::generate()
        .expect("randomness")
        .to_pkcs8v1()
        .expect("a key");
    let ed25519 = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(ed25519.as_ref().to_vec()));
    let unknown = CertificateExtension {
        oid: ObjectIdentifier::new_unwrap("1.3.6.1.4.1.53594.9"),
        critical: true,
        value: b"",
    };
    let foreign = Material::new();
    let mut self_signature = material.certificate(&[ours]);
    let last = self_signature.len() - 1;
    self_signature[last] ^= 1;
    vec![
        (
            "two certificates",
            Shown::new(vec![good.clone(), other], &good_key),
        ),
        (
            "the same certificate twice",
            Shown::new(vec![good.clone(), good.clone()], &good_key),
        ),
        (
            "no longer valid",
            shown(changed(&material, b"99991231235959Z", b"19991231235959Z")),
        ),
        (
            "not valid yet",
            shown(changed(
                &material,
                b"\x17\x0d700101000000Z",
                b"\x17\x0d491231235959Z",
            )),
        ),
        ("a bad self-signature", shown(self_signature)),
        ("no extension", shown(material.certificate(&[]))),
        ("the extension twice", shown(material.certificate(&[ours, ours]))),
        (
            "another critical extension",
            shown(material.certificate(&[ours, unknown])),
        ),
        (
            "an identity that signed another key",
            shown(material.certificate(&[foreign.extension()])),
        ),
        ("no certificate in the bytes", shown(b"certificate".to_vec())),
        (
            "a handshake signed by another key",
            Shown::new(vec![good.clone()], &other_key),
        ),
        (
            "a handshake signed by another algorithm",
            Shown::new(vec![good], &ed25519),
        ),
    ]
}

/// Returns the first peer that connects.
async fn first_peer(events: &mut HostEvents) -> HostAddr {
    until(events, |event| match event {
        HostEvent::Connected(connection) => Some(connection.peer),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn diallers_with_a_bad_certificate_never_become_a_connection() {
    for way in [Way::Tls, Way::Quic] {
        let host = host(1, way).await;
        let mut events = host.events();
        let none = Shown {
            chain: Vec::new(),
            ..Shown::of(9)
        };
        for (what, shown) in [("no certificate", none)].into_iter().chain(bad()) {
            // The dialler finishes before the listener has checked its certificate; then the listener ends it.
            if way == Way::Tls {
                let ended = match shown.dial_tcp(&host).await {
                    Ok(mut stream) => stream.read_u8().await.map(drop),
                    Err(error) => Err(error),
                };
                assert!(ended.is_err(), "{way:?}: {what}");
            } else {
                let endpoint = shown.endpoint();
                let connecting = endpoint
                    .connect(crate::raw::at(&host), "libp2p")
                    .expect("it dials");
                let reason = match connecting.await {
                    Ok(connection) => connection.closed().await,
                    Err(error) => error,
                };
                // An alert of TLS.
                let text = reason.to_string();
                assert!(
                    text.contains("the cryptographic handshake failed"),
                    "{what}: {text}"
                );
            }
        }
        assert!(host.connections().is_empty());
        // A good one is accepted, and was the first.
        let good = Shown::of(7);
        let kept = match way {
            Way::Quic => (Some(good.dial_quic(&host).await), None),
            _ => (None, Some(good.dial_tcp(&host).await.expect("a connection"))),
        };
        assert_eq!(
            first_peer(&mut events).await.libp2p_id(),
            Some(keypair(7).peer_id())
        );
        drop(kept);
    }
}

#[tokio::test]
async fn listeners_with_a_bad_certificate_are_an_error_of_the_dialler() {
    let dialler = dialling_host(1).await;
    let mut events = dialler.events();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("a bound port").port();
    let tcp: HostAddr = format!("/ip4/127.0.0.1/tcp/{port}")
        .parse()
        .expect("a valid address");
    let dialler_tls = Host::builder(&private(1)).security(&[p2p_libp2p::Security::Tls]);
    let dialler_tls = dialler_tls.start().await.expect("no port");
    for (what, shown) in bad() {
        let answer = async {
            let (socket, _) = listener.accept().await.expect("a dial");
            let _ = shown.answer_tcp(socket).await;
        };
        let (outcome, ()) = tokio::join!(dialler_tls.connect(&tcp), answer);
        assert!(
            matches!(outcome, Err(Error::Unreachable { .. })),
            "TCP, {what}: {outcome:?}"
        );

        let endpoint = shown.endpoint();
        let answer = async {
            if let Some(incoming) = endpoint.accept().await {
                let _ = incoming.await;
            }
        };
        let at = place(&endpoint);
        let (outcome, ()) = tokio::join!(dialler.connect(&at), answer);
        assert!(
            matches!(outcome, Err(Error::Unreachable { .. })),
            "QUIC, {what}: {outcome:?}"
        );
    }
    // A good one is accepted, and was the first.
    let good = Shown::of(7);
    let endpoint = good.endpoint();
    let at = place(&endpoint);
    let answer = async { accept_connection(&endpoint).await };
    let (outcome, _kept) = tokio::join!(dialler.connect(&at), answer);
    assert_eq!(
        outcome.expect("a connection").libp2p_id(),
        Some(keypair(7).peer_id())
    );
    assert_eq!(
        first_peer(&mut events).await.libp2p_id(),
        Some(keypair(7).peer_id())
    );
    assert!(dialler_tls.connections().is_empty());
}
