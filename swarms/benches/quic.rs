//! QUIC as a swarm against quinn used directly in the same pattern, and QUIC over a memory swarm.
//!
//! Each figure is the median of rounds that take the two in turn in one run, with one and with two workers. What is
//! compared is ours with the better number of workers against quinn with its better number.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use p2p::{AskSwarm as _, Packet, Swarm as _};
use p2p_formats::x509::{PrivateKey, Registry, certify};
use p2p_swarms::{KeyAddr, MemoryRealm, QuicSwarm};
use quinn::{Connection, Endpoint};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(150);
const LOOPBACK: &str = "127.0.0.1:0";

#[derive(Clone, Copy)]
enum Load {
    /// Asks of 64 bytes, so many in flight.
    Asks(usize),
    /// Tells of so many bytes.
    Tells(usize),
}

/// Quinn with its own defaults and mutual certificates that nobody checks.
mod direct {
    use super::*;
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{ServerName, UnixTime};
    use rustls::{DigitallySignedStruct, SignatureScheme};

    #[derive(Debug)]
    struct Anybody;

    impl ServerCertVerifier for Anybody {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            Ok(ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }
    }

    pub async fn pair() -> (Connection, Connection, [Endpoint; 2]) {
        let key = PrivateKey::ed25519(&[9; 32]);
        let signer = Registry::default().signer(&key).expect("a good key");
        let chain = vec![CertificateDer::from(certify(&*signer))];
        let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.to_pkcs8().to_vec()));
        let server = quinn::ServerConfig::with_single_cert(chain, der).expect("a configuration");
        let crypto = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("a configuration")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(crypto).expect("a configuration");
        let at: SocketAddr = LOOPBACK.parse().expect("an address");
        let there = Endpoint::server(server, at).expect("a free port");
        let here = Endpoint::client(at).expect("a free port");
        let connecting = here
            .connect_with(
                quinn::ClientConfig::new(Arc::new(crypto)),
                there.local_addr().expect("bound"),
                "localhost",
            )
            .expect("it dials");
        let (client, server) = tokio::join!(connecting, async { there.accept().await.expect("open").await });
        (
            client.expect("connected"),
            server.expect("connected"),
            [here, there],
        )
    }

    pub async fn ask(connection: &Connection, payload: &[u8]) {
        let (mut send, mut recv) = connection.open_bi().await.expect("a stream");
        send.write_all(payload).await.expect("written");
        send.finish().expect("finished");
        let response = recv.read_to_end(1 << 20).await.expect("a response");
        assert_eq!(response.len(), payload.len());
    }

    pub async fn serve(connection: Connection) {
        while let Ok((mut send, mut recv)) = connection.accept_bi().await {
            let request = recv.read_to_end(1 << 20).await.expect("a request");
            send.write_all(&request).await.expect("written");
            send.finish().expect("finished");
        }
    }

    pub async fn tell(connection: &Connection, payload: &[u8]) {
        let mut send = connection.open_uni().await.expect("a stream");
        send.write_all(payload).await.expect("written");
        send.finish().expect("finished");
    }

    pub async fn receive(connection: &Connection) -> usize {
        let mut recv = connection.accept_uni().await.expect("a stream");
        recv.read_to_end(1 << 20).await.expect("a message").len()
    }
}

/// Times `step`, which does some work and says how much, for one round: work a second.
async fn rate(mut step: impl AsyncFnMut() -> usize) -> f64 {
    let (begin, mut done) = (Instant::now(), 0);
    while begin.elapsed() < ROUND {
        done += step().await;
    }
    done as f64 / begin.elapsed().as_secs_f64()
}

const BATCH: usize = 64;

async fn run_direct(load: Load, there: &Connection, client: &Connection) -> f64 {
    match load {
        Load::Asks(flying) => {
            let serving = tokio::spawn(direct::serve(there.clone()));
            let payload = [7; 64];
            let rate = if flying == 1 {
                rate(async || {
                    direct::ask(client, &payload).await;
                    1
                })
                .await
            } else {
                let begin = Instant::now();
                let mut askers = JoinSet::new();
                for _ in 0..flying {
                    let client = client.clone();
                    askers.spawn(async move {
                        rate(async || {
                            direct::ask(&client, &payload).await;
                            1
                        })
                        .await
                    });
                }
                let _ = begin;
                askers.join_all().await.into_iter().sum()
            };
            serving.abort();
            let _ = serving.await;
            rate
        }
        Load::Tells(len) => {
            let count = batch_of(len);
            let (there, payload) = (there.clone(), vec![7; len]);
            rate(async || {
                let there = there.clone();
                let reader = tokio::spawn(async move {
                    for _ in 0..count {
                        assert_eq!(direct::receive(&there).await, len);
                    }
                });
                for _ in 0..count {
                    direct::tell(client, &payload).await;
                }
                reader.await.expect("received");
                count
            })
            .await
        }
    }
}

/// Messages that are told before the reader must have them all.
fn batch_of(len: usize) -> usize {
    if len > 100_000 { 8 } else { BATCH * 8 }
}

async fn run_ours<A: p2p::Addr>(load: Load, there: &Arc<QuicSwarm<A>>, here: &Arc<QuicSwarm<A>>) -> f64 {
    let to: KeyAddr<A> = there.local_addrs().remove(0);
    match load {
        Load::Asks(flying) => {
            let server = there.clone();
            let serving = tokio::spawn(async move {
                while let Ok(request) = server.receive_ask().await {
                    let (_, _, payload, responder) = request.into_parts();
                    responder.respond(payload).await.expect("it left");
                }
            });
            let mut askers = JoinSet::new();
            for _ in 0..flying {
                let (here, to) = (here.clone(), to.clone());
                let ask = async move {
                    rate(async || {
                        let response = here.ask(&to, here.packet(&[7; 64])).await.expect("a response");
                        assert_eq!(response.len(), 64);
                        1
                    })
                    .await
                };
                if flying == 1 {
                    let rate = ask.await;
                    serving.abort();
                    let _ = serving.await;
                    return rate;
                }
                askers.spawn(ask);
            }
            let rate = askers.join_all().await.into_iter().sum();
            serving.abort();
            let _ = serving.await;
            rate
        }
        Load::Tells(len) => {
            let (count, payload) = (batch_of(len), vec![7; len]);
            rate(async || {
                let there = there.clone();
                let reader = tokio::spawn(async move {
                    for _ in 0..count {
                        assert_eq!(there.receive().await.expect("a message").payload.len(), len);
                    }
                });
                for _ in 0..count {
                    here.tell(&to, Packet::from(&payload[..])).await.expect("sent");
                }
                reader.await.expect("received");
                count
            })
            .await
        }
    }
}

fn runtime(workers: usize) -> Runtime {
    let mut builder = if workers == 1 {
        Builder::new_current_thread()
    } else {
        Builder::new_multi_thread()
    };
    builder
        .worker_threads(workers)
        .enable_all()
        .build()
        .expect("a runtime")
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn key(seed: u8) -> PrivateKey {
    PrivateKey::ed25519(&[seed; 32])
}

fn compare(name: &str, load: Load, unit: &str, scale: f64) {
    let (mut ours, mut peer) = (0_f64, 0_f64);
    for workers in [1, 2] {
        let (mine, theirs) = runtime(workers).block_on(async {
            // In a task, so that all of it runs on the workers.
            let run = async move {
                let at = LOOPBACK.parse().expect("an address");
                let [there, here] =
                    [1, 2].map(|seed| Arc::new(QuicSwarm::bind_udp(at, &key(seed)).expect("a node")));
                let (client, server, _endpoints) = direct::pair().await;
                let (mut ours, mut peer) = (Vec::new(), Vec::new());
                for _ in 0..ROUNDS {
                    peer.push(run_direct(load, &server, &client).await);
                    ours.push(run_ours(load, &there, &here).await);
                }
                (median(ours), median(peer))
            };
            tokio::spawn(run).await.expect("it runs")
        });
        println!(
            "name=quic_{name}_workers{workers} ours={:.1} peer={:.1} ratio={:.3} unit={unit}",
            mine * scale,
            theirs * scale,
            mine / theirs
        );
        (ours, peer) = (ours.max(mine), peer.max(theirs));
    }
    println!(
        "name=quic_{name} ours={:.1} peer={:.1} ratio={:.3} unit={unit}",
        ours * scale,
        peer * scale,
        ours / peer
    );
}

fn memory() {
    let rate = runtime(1).block_on(async {
        let realm = MemoryRealm::default();
        let [there, here] =
            [1, 2].map(|seed| Arc::new(QuicSwarm::new(realm.open(), &key(seed)).expect("a node")));
        let mut rates = Vec::new();
        for _ in 0..ROUNDS {
            rates.push(run_ours(Load::Tells(1 << 20), &there, &here).await);
        }
        median(rates)
    });
    let gbit = rate * f64::from(8 << 20) / 1e9;
    println!(
        "name=quic_over_mem_1MiB ours={gbit:.2} peer=2.00 ratio={:.2} unit=Gbit/s",
        gbit / 2.0
    );
}

fn main() {
    compare("ask_64B", Load::Asks(1), "1/s", 1.0);
    compare("ask_64B_64_in_flight", Load::Asks(64), "1/s", 1.0);
    compare("tell_64B", Load::Tells(64), "1/s", 1.0);
    compare("tell_1KiB", Load::Tells(1 << 10), "1/s", 1.0);
    compare(
        "tell_1MiB",
        Load::Tells(1 << 20),
        "Gbit/s",
        f64::from(8 << 20) / 1e9,
    );
    memory();
}
