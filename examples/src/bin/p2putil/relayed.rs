//! QUIC between two nodes that cannot reach one another: over a Kademlia network, and one node of it that passes on.

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
/// Asks, and how many of them are under way at a time.
const ASKS: usize = 64;
const UNDER_WAY: usize = 4;
/// Bytes of a request.
const REQUEST: usize = 16 << 10;
/// How long it may take until they have found a way, and until all is done.
const LIMIT: Duration = Duration::from_secs(10);
/// Bytes that the node between them passes on in a second for each of them.
const PASSED_ON: u64 = 64 << 20;

/// What overlays of stacks stand on, too: over this they are compiled already.
type Inner = BoxSecureAskSwarm<BoxAddr>;
type Kad = KademliaSwarm<BoxAddr, Inner>;

fn node(faults: &Faults<SocketAddr>, seed: u64, number: usize) -> Result<Kad, Failure> {
    let udp = UdpSwarm::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let key = key(seed, number);
    let inner = udp.faulty(faults.clone()).p2pke(&key)?.mbapp(64 << 10);
    let mut config = KademliaConfig::default();
    config.overlay.relay_bytes = 2 * PASSED_ON;
    config.overlay.relay_bytes_each = PASSED_ON;
    // Here an answer that has not come by then does not come.
    config.engine.request_timeout = Duration::from_millis(500);
    let inner = Inner::new(inner.erase());
    Ok(KademliaSwarm::with_config(inner, Identity::Key(&key), config)?)
}

/// Asks over QUIC where the only way is over a third node.
pub(crate) async fn run(seed: u64) -> Result<Row, Failure> {
    let faults = Faults::seeded(seed);
    // Beyond those of the other network.
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
    let hash =
        async |asked: p2p::Asked<KeyAddr<PeerId>>| Ok(blake3::hash(&asked.payload).as_bytes()[..].into());
    let asking = async {
        // First handshakes may end before the way is found.
        let found = async { while ask(&one, &to, 0).await.is_none() {} };
        if timeout(LIMIT, found).await.is_err() {
            return;
        }
        row.begin();
        let asks = futures_util::stream::iter(0..ASKS).map(|number| ask(&one, &to, number));
        let collecting = row.collect(asks.buffer_unordered(UNDER_WAY));
        drop(timeout(LIMIT, collecting).await);
    };
    tokio::select! {
        () = asking => {}
        served = p2p::serve_asks(&other, 256, hash) => drop(served),
    }
    if passed_on() < ASKS as u64 {
        return Err(Failure::Failed(
            "what should go over another node did not".to_owned(),
        ));
    }
    tokio::join!(one.close(), other.close(), between.close());
    Ok(row)
}

/// How long the right answer took, if it came.
async fn ask(from: &QuicSwarm<PeerId>, to: &KeyAddr<PeerId>, number: usize) -> Option<Duration> {
    let mut request = number.to_be_bytes().to_vec();
    request.resize(REQUEST, 0);
    let start = Instant::now();
    let response = from.ask(to, from.packet(&request)).await.ok()?;
    (*response == *blake3::hash(&request).as_bytes()).then(|| start.elapsed())
}
