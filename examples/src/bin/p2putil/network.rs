//! A Kademlia network of nodes on loopback: joined through one of them, with records, messages by id, and
//! gossip.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use p2p::{BoxAddr, PeerId, Swarm as _};
use p2p_formats::x509::PrivateKey;
use p2p_swarms::stack::{Kademlia, Overlay, Stack, StackNode, StackText};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::{Failure, publishing};
use p2p_examples::row::Row;

const STACK: &str = "udp=127.0.0.1:0/p2pke/mbapp/kad";
/// Number of concurrent operations.
const AT_A_TIME: usize = 8;
/// Number of records of others that a node gets.
const GETS: usize = 4;
/// Number of nodes that a node tells.
const TELLS: usize = 8;
/// Lifetime of a record.
const TTL: Duration = Duration::from_mins(10);
/// Time without an arrival after which messages in flight count as lost.
const LOST_AFTER: Duration = Duration::from_secs(2);

/// Returns the key of a node of the demonstration. It is not secret, since all nodes are on loopback and
/// short-lived.
pub(crate) fn key(seed: u64, number: usize) -> PrivateKey {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_be_bytes()).update(&number.to_be_bytes());
    PrivateKey::ed25519(hasher.finalize().as_bytes())
}

/// Makes `nodes` nodes join through the first, store records, and tell each other by id.
///
/// Calls `show` with each row as soon as it is complete.
pub(crate) async fn run(
    nodes: usize,
    seed: u64,
    show: &mut dyn FnMut(&Row) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let first: StackText = STACK.parse()?;
    let first = first.build_node(&key(seed, 0)).await?;
    let (joined, members) = join(first, nodes, seed).await?;
    let kads: Vec<Kademlia> = members.iter().filter_map(kademlia).collect();
    show(&joined)?;
    show(&put(&kads, seed).await)?;
    show(&get(&kads, seed).await)?;
    show(&tell(&members).await?)?;
    show(&publishing::run(&members, seed).await?)?;
    for member in &members {
        member.stack.close().await;
    }
    Ok(())
}

fn kademlia(node: &StackNode) -> Option<Kademlia> {
    node.overlays.iter().find_map(|overlay| match overlay {
        Overlay::Kademlia(kad) => Some(kad.clone()),
        _ => None,
    })
}

async fn join(first: StackNode, nodes: usize, seed: u64) -> Result<(Row, Vec<StackNode>), Failure> {
    let bootstrap = first.overlays.iter().flat_map(Overlay::bootstraps).next();
    let bootstrap = bootstrap.ok_or_else(|| Failure::Failed("a node has no address".to_owned()))?;
    // A separate text for each node, as if it were a separate process: it knows only the bootstrap node.
    let text = format!("{STACK}={bootstrap}");
    let mut row = Row::new(STACK, "join", nodes, nodes - 1);
    let joining = futures_util::stream::iter(1..nodes).map(|number| {
        let text = &text;
        async move {
            let start = Instant::now();
            let text: StackText = text.parse()?;
            let node = text.build_node(&key(seed, number)).await?;
            Ok::<_, Failure>((node, start.elapsed()))
        }
    });
    let mut members = vec![first];
    let joined: Vec<_> = joining.buffer_unordered(AT_A_TIME).collect().await;
    for joined in joined {
        let (node, took) = joined?;
        members.push(node);
        row.done(took);
    }
    row.end();
    Ok((row, members))
}

/// Returns the record that node `number` puts.
fn record(seed: u64, number: usize) -> (PeerId, Vec<u8>) {
    let value = format!("record {number} of seed {seed}").into_bytes();
    (PeerId::new(*blake3::hash(&value).as_bytes()), value)
}

async fn put(kads: &[Kademlia], seed: u64) -> Row {
    let mut row = Row::new(STACK, "put", kads.len(), kads.len());
    let putting = futures_util::stream::iter(kads.iter().enumerate()).map(|(number, kad)| async move {
        let (key, value) = record(seed, number);
        let start = Instant::now();
        let putting = kad.swarm().put(key, &value, TTL).ok()?;
        let copies = putting.finish().await.unwrap_or(0);
        (copies > 0).then(|| start.elapsed())
    });
    row.collect(putting.buffer_unordered(AT_A_TIME)).await;
    row
}

async fn get(kads: &[Kademlia], seed: u64) -> Row {
    let count = kads.len();
    let mut row = Row::new(STACK, "get", count, count * GETS);
    let wanted = (0..count * GETS).map(|at| (at % count, at / count));
    let getting = futures_util::stream::iter(wanted).map(|(number, nth)| async move {
        // Those halfway around, a third around, and so on.
        let (key, value) = record(seed, (number + count / (nth + 2)) % count);
        let start = Instant::now();
        let getting = kads.get(number)?.swarm().get(key).ok()?;
        let found = getting.finish().await.ok()??;
        (found.value == value).then(|| start.elapsed())
    });
    row.collect(getting.buffer_unordered(AT_A_TIME)).await;
    row
}

/// Each node tells some others by id; a message is correct if its source and destination are.
async fn tell(members: &[StackNode]) -> Result<Row, Failure> {
    let count = members.len();
    let tells = TELLS.min(count - 1);
    let mut row = Row::new(STACK, "tell", count, count * tells);
    let (arrived, arriving) = unbounded_channel();
    let mut readers = JoinSet::new();
    for member in members {
        readers.spawn(read(member.stack.clone(), arrived.clone()));
    }
    drop(arrived);
    let mut expected = HashMap::new();
    let mut telling = Vec::new();
    for at in 0..count * tells {
        let (from, to) = (at % count, (at + 1 + at / count) % count);
        let (Some(from), Some(to)) = (members.get(from), members.get(to)) else {
            continue;
        };
        let (src, dst) = (crate::first_addr(&from.stack)?, crate::first_addr(&to.stack)?);
        expected.insert(at as u64, (src, dst.clone()));
        telling.push((&from.stack, dst, at as u64));
    }
    row.begin();
    let telling = futures_util::stream::iter(telling).map(|(from, to, number)| async move {
        let told = Instant::now();
        drop(from.tell(&to, from.packet(&number.to_be_bytes())).await);
        (number, told)
    });
    let told: HashMap<u64, Instant> = telling.buffer_unordered(AT_A_TIME).collect().await;
    collect(&mut row, arriving, &expected, &told).await;
    row.end();
    readers.shutdown().await;
    Ok(row)
}

/// A received message: its number, source, destination, and arrival time.
type Arrival = (u64, BoxAddr, BoxAddr, Instant);

async fn read(node: Stack, arrived: UnboundedSender<Arrival>) {
    while let Ok(message) = node.receive().await {
        let Ok(number) = <[u8; 8]>::try_from(&*message.payload) else {
            continue;
        };
        let arrival = (
            u64::from_be_bytes(number),
            message.src,
            message.dst,
            Instant::now(),
        );
        if arrived.send(arrival).is_err() {
            return;
        }
    }
}

async fn collect(
    row: &mut Row,
    mut arriving: UnboundedReceiver<Arrival>,
    expected: &HashMap<u64, (BoxAddr, BoxAddr)>,
    told: &HashMap<u64, Instant>,
) {
    let mut missing = expected.clone();
    while !missing.is_empty() {
        let Ok(Some((number, src, dst, at))) = timeout(LOST_AFTER, arriving.recv()).await else {
            return;
        };
        if missing.get(&number) == Some(&(src, dst)) {
            missing.remove(&number);
            let told = told.get(&number).copied().unwrap_or(at);
            row.done(at.saturating_duration_since(told));
        }
    }
}
