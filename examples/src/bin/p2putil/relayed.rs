//! QUIC between two nodes without a direct path: over a Kademlia network and a relay.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use p2p::{Addr as _, AskSwarm as _, BoxAddr, BoxSecureAskSwarm, PeerId, Swarm as _};
use p2p_swarms::{
    Faults, Identity, KademliaConfig, KademliaSwarm, KeyAddr, QuicSwarm, SwarmExt as _, UdpSwarm,
};
use tokio::time::timeout;

use crate::Failure;
use crate::network::key;
use p2p_examples::row::Row;

const STACK: &str = "udp=127.0.0.1:0/p2pke/mbapp/kad/quic";
/// Number of asks, and the maximum in flight.
const ASKS: usize = 64;
const IN_FLIGHT: usize = 4;
/// Length of a request in bytes.
const REQUEST: usize = 16 << 10;
/// Timeout for finding the route, and for all asks.
const LIMIT: Duration = Duration::from_secs(10);
/// Bytes that the relay forwards per second for each of the nodes.
const PASSED_ON: u64 = 64 << 20;

/// The inner type of overlays in stacks: overlays over it are already compiled.
type Inner = BoxSecureAskSwarm<BoxAddr>;
type Kad = KademliaSwarm<BoxAddr, Inner>;

fn node(faults: &Faults<SocketAddr>, seed: u64, number: usize) -> Result<Kad, Failure> {
    let udp = UdpSwarm::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let key = key(seed, number);
    let inner = udp.faulty(faults.clone()).p2pke(&key)?.mbapp(64 << 10);
    let mut config = KademliaConfig::default();
    config.overlay.relay_bytes = 2 * PASSED_ON;
    config.overlay.relay_bytes_each = PASSED_ON;
    // A response that has not arrived by then does not arrive.
    config.engine.request_timeout = Duration::from_millis(500);
    let inner = Inner::new(inner.erase());
    Ok(KademliaSwarm::with_config(inner, Identity::Key(&key), config)?)
}

/// Asks over QUIC where the only route leads through a third node.
pub(crate) async fn run(seed: u64) -> Result<Row, Failure> {
    let faults = Faults::seeded(seed);
    // Numbers beyond those of the other network.
    let [one, other, between] = [1000, 1001, 1002].map(|number| node(&faults, seed, number));
    let (one, other, between) = (one?, other?, between?);
    let place = |node: &Kad| {
        node.inner()
            .local_addrs()
            .into_iter()
            .filter_map(|addr| addr.socket_addr())
            .collect::<Vec<_>>()
    };
    faults.partition(&place(&one), &place(&other));
    for node in [&one, &other] {
        node.join(&between.inner().local_addrs())?.finish().await?;
    }
    let passed_on = || {
        let mut passed_on = 0;
        between.visit_counters(&mut |counters| {
            if counters.layer() == "kad-relay" {
                passed_on = counters.snapshot().sent;
            }
        });
        passed_on
    };
    let mut row = Row::new(STACK, "asks over 1", 3, ASKS).shown_as("relayed");
    let (one, other) = (one.quic(&key(seed, 1000))?, other.quic(&key(seed, 1001))?);
    let to = other.local_addrs().into_iter().next();
    let to = to.ok_or_else(|| Failure::Failed("a node has no address".to_owned()))?;
    let hash = async |request: p2p::Message<KeyAddr<PeerId>>| {
        Ok(blake3::hash(&request.payload).as_bytes()[..].into())
    };
    let asking = async {
        // The first handshakes may end before the route is found.
        let found = async { while ask(&one, &to, 0).await.is_none() {} };
        if timeout(LIMIT, found).await.is_err() {
            return;
        }
        row.begin();
        let asks = futures_util::stream::iter(0..ASKS).map(|number| ask(&one, &to, number));
        let collecting = row.collect(asks.buffer_unordered(IN_FLIGHT));
        drop(timeout(LIMIT, collecting).await);
    };
    tokio::select! {
        () = asking => {}
        served = p2p::serve_asks(&other, 256, hash) => drop(served),
    }
    if passed_on() < ASKS as u64 {
        return Err(Failure::Failed(
            "messages were not relayed by the third node".to_owned(),
        ));
    }
    tokio::join!(one.close(), other.close(), between.close());
    Ok(row)
}

/// Returns the time until the correct response, if it arrived.
async fn ask(from: &QuicSwarm<PeerId>, to: &KeyAddr<PeerId>, number: usize) -> Option<Duration> {
    let mut request = number.to_be_bytes().to_vec();
    request.resize(REQUEST, 0);
    let start = Instant::now();
    let response = from.ask(to, from.packet(&request)).await.ok()?;
    (*response == *blake3::hash(&request).as_bytes()).then(|| start.elapsed())
}
