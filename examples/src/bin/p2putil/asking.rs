//! Asks around a ring: each node asks the next for the hash of a request, and checks the response.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use p2p::{AskSwarm as _, BoxAddr, BoxAskSwarm, Swarm as _};
use p2p_swarms::stack::{Stack, StackText};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::{Failure, first_addr, open_many};
use p2p_examples::row::Row;

/// Number of asks of each node.
const ASKS: u32 = 250;
/// Maximum number of asks of a node in flight.
pub(crate) const IN_FLIGHT: usize = 8;
/// Length of a request in bytes.
pub(crate) const REQUEST: usize = 1000;
/// Timeout of an ask.
const LIMIT: Duration = Duration::from_secs(2);

/// Makes each of `nodes` nodes ask the next one.
pub(crate) async fn ring(text: StackText, nodes: usize) -> Result<Row, Failure> {
    let stacks = open_many(&text, nodes).await?;
    let asking: Vec<BoxAskSwarm<BoxAddr>> = stacks.iter().filter_map(Stack::asks).collect();
    let mut servers = JoinSet::new();
    for node in asking.clone() {
        let hash =
            async |request: p2p::Message<BoxAddr>| Ok(blake3::hash(&request.payload).as_bytes()[..].into());
        servers.spawn(async move { p2p::serve_asks(&node, 256, hash).await });
    }
    let mut askers = JoinSet::new();
    let mut row = Row::new(&text.to_string(), "asks", nodes, nodes * ASKS as usize);
    for (index, node) in asking.iter().cloned().enumerate() {
        let next = asking.get(index + 1).or(asking.first());
        let to = next.map(first_addr).transpose()?;
        let to = to.ok_or_else(|| Failure::Failed(format!("{text} does not support asks")))?;
        askers.spawn(async move {
            let asks = futures_util::stream::iter(0..ASKS).map(|number| ask(&node, &to, number));
            asks.buffer_unordered(IN_FLIGHT).collect::<Vec<_>>().await
        });
    }
    let took = askers.join_all().await;
    row.end();
    took.into_iter()
        .flatten()
        .flatten()
        .for_each(|took| row.done(took));
    for stack in &stacks {
        stack.close().await;
    }
    Ok(row)
}

/// Returns the time until the correct response, if it arrived.
async fn ask(node: &BoxAskSwarm<BoxAddr>, to: &BoxAddr, number: u32) -> Option<Duration> {
    let mut request = number.to_be_bytes().to_vec();
    request.resize(REQUEST, 0);
    let start = Instant::now();
    let response = timeout(LIMIT, node.ask(to, node.packet(&request))).await;
    let response = response.ok()?.ok()?;
    (*response == *blake3::hash(&request).as_bytes()).then(|| start.elapsed())
}
