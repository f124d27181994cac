#![expect(clippy::cast_precision_loss, reason = "rates are shown rounded")]
//! QUIC, and asks over P2PKE, beside quinn used directly: the same streams, cipher, certificates and checks.
//!
//! `cargo bench -p p2p-swarms --bench secure [-- NAME… rounds=N]`. Both ends are in one runtime, of one thread or of
//! two workers; each side counts with the better of the two. Rounds alternate; each line has the medians, and
//! the ratio is the median of each round's ratio. Rates are deliveries per second, or Gbit/s of delivered
//! data.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use p2p::{Addr, AskSwarm, Swarm};
use p2p_formats::x509::PrivateKey;
use p2p_swarms::{QuicSwarm, SwarmExt as _, UdpSwarm};

use self::rounds::{Chosen, GBIT, all, rate};

mod bulk;
mod plain;
mod rounds;

/// The start of a round is not counted: handshakes, and windows that grow.
const WARM_UP: Duration = Duration::from_millis(150);
/// Maximum length of a message that the peer reads to its end.
const LONGEST: usize = 1 << 20;

/// A name, both sides, and the weight of a delivery.
type Bench = (&'static str, fn(usize) -> f64, fn(usize) -> f64, f64);

fn main() {
    let chosen = Chosen::from_args();
    let benches: [Bench; 9] = [
        ("p2pke_ask", p2pke_ask::<1>, peer_ask::<1>, 1.0),
        ("p2pke_ask_64_in_flight", p2pke_ask::<64>, peer_ask::<64>, 1.0),
        ("quic_ask", quic_ask::<1>, peer_ask::<1>, 1.0),
        ("quic_ask_64_in_flight", quic_ask::<64>, peer_ask::<64>, 1.0),
        ("quic_tell_64", quic_tell::<64>, peer_tell::<64>, 1.0),
        ("quic_tell_1024", quic_tell::<1024>, peer_tell::<1024>, 1.0),
        ("quic_bulk_gbit", bulk::on_sockets, bulk::peer, GBIT),
        (
            "quic_bulk_gbit_long_datagrams",
            bulk::on_sockets,
            bulk::peer_with_long_datagrams,
            GBIT,
        ),
        // Quinn cannot run in memory: the figure is compared with quinn on UDP.
        ("quic_on_memory_bulk_gbit", bulk::on_memory, bulk::peer, GBIT),
    ];
    for (name, ours, peer, unit) in benches {
        chosen.run(name, &ours, &peer, unit);
    }
}

fn key(seed: u8) -> PrivateKey {
    PrivateKey::ed25519(&[seed; 32])
}

fn loopback() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

fn on_udp(seed: u8) -> QuicSwarm<SocketAddr> {
    QuicSwarm::bind_udp(loopback(), &key(seed)).expect("a free port")
}

fn quic_ask<const IN_FLIGHT: usize>(workers: usize) -> f64 {
    rate(workers, |count| async {
        asks(on_udp(1), on_udp(2), IN_FLIGHT, count).await;
    })
}

/// The stack `udp/p2pke/mbapp`.
fn p2pke_ask<const IN_FLIGHT: usize>(workers: usize) -> f64 {
    let node = |seed| {
        let udp = UdpSwarm::bind(loopback()).expect("a free port");
        udp.p2pke(&key(seed)).expect("a good key").mbapp(64 << 10)
    };
    rate(workers, |count| async move {
        asks(node(1), node(2), IN_FLIGHT, count).await;
    })
}

async fn asks<A: Addr, S: AskSwarm<A>>(a: S, b: S, in_flight: usize, count: Arc<AtomicU64>) {
    let (a, to) = (Arc::new(a), b.local_addrs().remove(0));
    tokio::spawn(async move {
        while let Ok(request) = b.receive_ask().await {
            // The asker exists until the round ends.
            let _ = request.responder.respond(request.message.payload).await;
        }
    });
    all((0..in_flight).map(|_| {
        let (a, to, count) = (a.clone(), to.clone(), count.clone());
        async move {
            while let Ok(response) = a.ask(&to, a.packet(&[7; 64])).await {
                assert_eq!(response.len(), 64);
                count.fetch_add(1, Relaxed);
            }
        }
    }))
    .await;
}

fn peer_ask<const IN_FLIGHT: usize>(workers: usize) -> f64 {
    rate(workers, |count| async move {
        let (a, b) = plain::connected().await;
        tokio::spawn(async move {
            while let Ok((mut send, mut recv)) = b.accept_bi().await {
                let request = recv.read_to_end(LONGEST).await.unwrap_or_default();
                // The asker exists until the round ends.
                let _ = send.write_all(&request).await;
                let _ = send.finish();
            }
        });
        all((0..IN_FLIGHT).map(|_| {
            let (a, count) = (a.clone(), count.clone());
            async move {
                while let Some(response) = plain_ask(&a).await {
                    assert_eq!(response.len(), 64);
                    count.fetch_add(1, Relaxed);
                }
            }
        }))
        .await;
    })
}

async fn plain_ask(connection: &quinn::Connection) -> Option<Vec<u8>> {
    let (mut send, mut recv) = connection.open_bi().await.ok()?;
    send.write_all(&[7; 64]).await.ok()?;
    send.finish().ok()?;
    recv.read_to_end(LONGEST).await.ok()
}

fn quic_tell<const LEN: usize>(workers: usize) -> f64 {
    rate(workers, |count| async {
        tell::<LEN, _, _>(on_udp(1), on_udp(2), count).await;
    })
}

async fn tell<const LEN: usize, A: Addr, S: Swarm<A>>(a: S, b: S, count: Arc<AtomicU64>) {
    let to = b.local_addrs().remove(0);
    tokio::spawn(async move {
        let payload = vec![7; LEN];
        while a.tell(&to, a.packet(&payload)).await.is_ok() {}
    });
    while let Ok(message) = b.receive().await {
        assert_eq!(message.payload.len(), LEN);
        count.fetch_add(1, Relaxed);
    }
}

fn peer_tell<const LEN: usize>(workers: usize) -> f64 {
    rate(workers, |count| async move {
        let (a, b) = plain::connected().await;
        tokio::spawn(async move {
            let payload = vec![7; LEN];
            while let Ok(mut send) = a.open_uni().await {
                // The receiver exists until the round ends.
                let _ = send.write_all(&payload).await;
                let _ = send.finish();
            }
        });
        while let Ok(mut recv) = b.accept_uni().await {
            let Ok(message) = recv.read_to_end(LONGEST).await else {
                return;
            };
            assert_eq!(message.len(), LEN);
            count.fetch_add(1, Relaxed);
        }
    })
}
