//! Asks around a ring: each node asks the next for the hash of what it sends, and checks the answer.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use p2p::{AskSwarm as _, BoxAddr, BoxAskSwarm, Swarm as _};
use p2p_swarms::stack::{Stack, StackText};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::demo::{number, short};
use crate::table::{Table, thousands};
use crate::{Failure, first_addr, open};

/// Asks of each node.
const ASKS: u32 = 250;
/// Asks of a node that are under way at a time.
const UNDER_WAY: usize = 8;
/// Bytes of a request.
const REQUEST: usize = 1000;
/// How long an ask may take here.
const LIMIT: Duration = Duration::from_secs(2);

/// What became of the asks.
#[derive(Debug)]
pub(crate) struct Asked {
    text: String,
    nodes: usize,
    /// How long each right answer took, the quickest first.
    took: Vec<Duration>,
    time: Duration,
}

/// Lets each of `nodes` nodes ask the next one.
pub(crate) async fn ring(text: StackText, nodes: usize) -> Result<Asked, Failure> {
    let stacks: Vec<Stack> = (0..nodes).map(|_| open(&text)).collect::<Result<_, _>>()?;
    let asking: Vec<BoxAskSwarm<BoxAddr>> = stacks.iter().filter_map(Stack::asks).collect();
    let mut servers = JoinSet::new();
    for node in asking.clone() {
        let hash = async |asked: p2p::Asked<BoxAddr>| Ok(blake3::hash(&asked.payload).as_bytes()[..].into());
        servers.spawn(async move { p2p::serve_asks(&node, 256, hash).await });
    }
    let mut askers = JoinSet::new();
    let start = Instant::now();
    for (index, node) in asking.iter().cloned().enumerate() {
        let next = asking.get(index + 1).or(asking.first());
        let to = next.map(first_addr).transpose()?;
        let to = to.ok_or_else(|| Failure::Failed(format!("{text} has no asks")))?;
        askers.spawn(async move {
            let asks = futures_util::stream::iter(0..ASKS).map(|number| ask(&node, &to, number));
            asks.buffer_unordered(UNDER_WAY).collect::<Vec<_>>().await
        });
    }
    let mut took: Vec<Duration> = askers.join_all().await.into_iter().flatten().flatten().collect();
    let time = start.elapsed();
    took.sort_unstable();
    for stack in &stacks {
        stack.close().await;
    }
    Ok(Asked {
        text: text.to_string(),
        nodes,
        took,
        time,
    })
}

/// How long the right answer took, if it came.
async fn ask(node: &BoxAskSwarm<BoxAddr>, to: &BoxAddr, number: u32) -> Option<Duration> {
    let mut request = number.to_be_bytes().to_vec();
    request.resize(REQUEST, 0);
    let start = Instant::now();
    let response = timeout(LIMIT, node.ask(to, node.packet(&request))).await;
    let response = response.ok()?.ok()?;
    (*response == *blake3::hash(&request).as_bytes()).then(|| start.elapsed())
}

impl Asked {
    fn asks(&self) -> u64 {
        self.nodes as u64 * u64::from(ASKS)
    }

    /// Asks without the right answer.
    pub(crate) fn missing(&self) -> u64 {
        self.asks() - self.took.len() as u64
    }

    fn percentile(&self, share: usize) -> Duration {
        let index = self.took.len().saturating_sub(1) * share / 100;
        self.took.get(index).copied().unwrap_or_default()
    }

    fn rate(&self) -> f64 {
        number(self.took.len() as u64) / self.time.as_secs_f64().max(1e-9)
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        let micros = |share| self.percentile(share).as_secs_f64() * 1e6;
        json!({
            "stack": self.text, "nodes": self.nodes, "asks": self.asks(), "answered": self.took.len(),
            "p50_us": micros(50), "p99_us": micros(99), "secs": self.time.as_secs_f64(),
            "asks_per_sec": self.rate(),
        })
    }

    /// A table and what its columns mean.
    pub(crate) fn show(&self) -> String {
        let mark = if self.missing() == 0 { '✓' } else { '✗' };
        let millis = |share| format!("{:.2} ms", self.percentile(share).as_secs_f64() * 1e3);
        let mut table = Table::new(["stack", "asks", "answered", "median", "99 %", "time", "rate"]);
        table.row([
            short(&self.text),
            thousands(self.asks()),
            format!("{} {mark}", thousands(self.took.len() as u64)),
            millis(50),
            millis(99),
            format!("{:.2} s", self.time.as_secs_f64()),
            format!("{:.0}/s", self.rate()),
        ]);
        format!(
            "{}\n\nanswered: asks of {REQUEST} bytes to the next node that got the right hash back, \
             {UNDER_WAY} at a time.",
            table.render()
        )
    }
}
