//! `demo`: a ring of nodes that send a file to the next, over several stacks; asks around the ring; a network
//! of nodes that are reached by id, and QUIC over it through a relay.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use p2p::{BoxAddr, CounterSnapshot, DropReason, Error, Message, Packet, Swarm};
use p2p_swarms::stack::{Stack, StackText};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use crate::cli::Demo;
use crate::output::{Out, columns, print};
use crate::{Failure, asking, first_addr, network, open_many, publishing, relayed};
use p2p_examples::row::{Row, number, short, table};
use p2p_examples::table::{Columns, Table, bytes, thousands};
use p2p_examples::transfer::{self, HEADER, Read, Receiver, Sender};

/// Timeout of one stack; files that are incomplete by then are shown as missing.
const LIMIT: Duration = Duration::from_mins(1);
/// Bytes of this program that are sent if no file is given.
const OF_THIS: u64 = 16 << 20;
/// Maximum number of bytes of a node in flight: about the size of a socket buffer.
const IN_FLIGHT: usize = 96 << 10;
/// After the last chunk is acknowledged, messages in flight are awaited until none arrives for this time.
const QUIET: Duration = Duration::from_millis(20);
/// Maximum number of nodes in a ring.
const IN_RING: usize = 8;
/// Maximum number of messages received at a time.
const BATCH: usize = 64;

pub(crate) async fn run(args: Demo, out: Out) -> Result<(), Failure> {
    let (path, most) = match &args.file {
        Some(path) => (path.clone(), u64::MAX),
        None => (std::env::current_exe()?, OF_THIS),
    };
    let mut file = Vec::new();
    let read = File::open(&path).and_then(|content| content.take(most).read_to_end(&mut file));
    read.map_err(|error| Failure::Failed(format!("{} cannot be read: {error}", path.display())))?;
    let file: Arc<[u8]> = file.into();
    let nodes = usize::from(args.nodes);
    let in_ring = nodes.min(IN_RING);
    if !out.is_json() {
        let name = path.file_name().unwrap_or(path.as_os_str());
        print(&format!(
            "{nodes} nodes over UDP on loopback, {in_ring} of them in a ring; the file of the ring:\n{}{}, {}\n",
            if file.len() as u64 == most {
                "the beginning of "
            } else {
                ""
            },
            Path::new(name).display(),
            bytes(number(file.len() as u64)),
        ))?;
    }
    let mut shown = Shown::new(out, nodes)?;
    let hash = *blake3::hash(&file).as_bytes();
    let stacks = [
        "udp=127.0.0.1:0/frag=65536".to_owned(),
        format!("udp=127.0.0.1:0/faulty,loss=0.1,seed={}/frag=4800", args.seed),
        "udp=127.0.0.1:0/p2pke/frag=65536".to_owned(),
        "udp=127.0.0.1:0/quic".to_owned(),
    ];
    let mut rings = Vec::new();
    for text in stacks {
        let text: StackText = text.parse()?;
        let ring = ring(text, &file, hash, in_ring).await?;
        shown.add(&ring.row, || ring.json())?;
        rings.push(ring);
    }
    shown.about("each node asks the next");
    let asks = asking::ring("udp=127.0.0.1:0/p2pke/mbapp".parse()?, in_ring).await?;
    shown.add(&asks, || asks.json())?;
    shown.about("a network: join, put, get, tell, publish");
    network::run(nodes, args.seed, &mut |row| shown.add(row, || row.json())).await?;
    shown.about("asks over a third node");
    let relayed = relayed::run(args.seed).await?;
    shown.add(&relayed, || relayed.json())?;
    let missing = shown.end();
    if !out.is_json() {
        print(EXPLAINED)?;
        if args.verbose {
            show_layers(&rings)?;
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::Failed(format!("incomplete: {}", missing.join(", "))))
}

/// The output of the demonstration: each row as soon as it is complete, and the current activity.
struct Shown {
    out: Out,
    table: Columns,
    bar: ProgressBar,
    missing: Vec<String>,
}

impl Shown {
    fn new(out: Out, nodes: usize) -> Result<Self, Failure> {
        let table = table(columns(), publishing::arrivals(nodes));
        if !out.is_json() {
            print(&table.heading())?;
        }
        Ok(Self {
            out,
            table,
            bar: ProgressBar::hidden(),
            missing: Vec::new(),
        })
    }

    /// Shows the activity until the next row, on standard error if that is a terminal.
    fn about(&mut self, what: &'static str) {
        let style = ProgressStyle::with_template("{spinner} {msg}  {elapsed}");
        self.bar = ProgressBar::new_spinner().with_message(what);
        self.bar
            .set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        self.bar.enable_steady_tick(Duration::from_millis(100));
    }

    fn add(&mut self, row: &Row, json: impl Fn() -> serde_json::Value) -> Result<(), Failure> {
        if row.missing() > 0 {
            self.missing.push(row.complaint());
        }
        self.bar
            .suspend(|| self.out.line(&row.line(&self.table), &json()))
    }

    /// Returns what is incomplete.
    fn end(self) -> Vec<String> {
        self.bar.finish_and_clear();
        self.missing
    }
}

const EXPLAINED: &str = "
files    intact by their BLAKE3 hash, around a ring
lost     messages, whose chunks were retransmitted
asks     to the next node of a ring, answered correctly
join     through one bootstrap node; put, get: records of the network
tell     by id; publish: signed, to all others
relayed  asks over a third node, the only route";

/// The result of one stack.
#[derive(Debug)]
struct Ring {
    /// Files that arrived with the correct hash.
    row: Row,
    resent: u64,
    /// Each layer's counters over all nodes, top first.
    layers: Vec<(&'static str, CounterSnapshot)>,
}

impl Ring {
    fn top(&self) -> CounterSnapshot {
        self.layers.first().map(|(_, top)| *top).unwrap_or_default()
    }

    fn json(&self) -> serde_json::Value {
        let layers = self.layers.iter().map(|(layer, counters)| {
            json!({
                "layer": layer, "sent": counters.sent, "received": counters.received,
                "delivered": counters.delivered, "dropped": counters.dropped_total(),
            })
        });
        let mut object = self.row.json();
        object["sent"] = self.top().sent.into();
        object["delivered"] = self.top().delivered.into();
        object["resent"] = self.resent.into();
        object["layers"] = layers.collect::<Vec<_>>().into();
        object
    }
}

/// Prints the counters of every layer.
fn show_layers(rings: &[Ring]) -> Result<(), Failure> {
    for ring in rings {
        let mut table = Table::new(["layer", "sent", "received", "delivered", "dropped", "why"]);
        for (layer, counters) in &ring.layers {
            let why = DropReason::ALL
                .into_iter()
                .filter(|reason| counters.dropped(*reason) > 0);
            let why: Vec<_> = why
                .map(|reason| format!("{reason} {}", thousands(counters.dropped(reason))))
                .collect();
            table.row([
                (*layer).to_owned(),
                thousands(counters.sent),
                thousands(counters.received),
                thousands(counters.delivered),
                thousands(counters.dropped_total()),
                why.join(", "),
            ]);
        }
        print(&format!(
            "\n{}; {} chunks retransmitted\n\n{}",
            ring.row.stack(),
            thousands(ring.resent),
            table.render()
        ))?;
    }
    Ok(())
}

/// Sends the file around a ring of `nodes`.
async fn ring(text: StackText, file: &Arc<[u8]>, hash: [u8; 32], nodes: usize) -> Result<Ring, Failure> {
    let stacks = open_many(&text, nodes).await?;
    let bar = bar(&text, file.len() * nodes);
    let (done, all_done) = watch::channel(0);
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for (index, stack) in stacks.iter().enumerate() {
        let to = first_addr(stacks.get(index + 1).unwrap_or(&stacks[0]))?;
        let chunk = stack.mtu().saturating_sub(HEADER).clamp(32, 32 << 10);
        let sender = Sender::new(file.clone(), hash, chunk, (IN_FLIGHT / chunk).max(2), start);
        let sender = sender.ok_or_else(|| Failure::Failed("the file has too many chunks".to_owned()))?;
        let node = Node {
            stack: stack.clone(),
            to,
            sender,
            receiver: Receiver::default(),
            bar: bar.clone(),
        };
        tasks.spawn(node.run(nodes, done.clone(), all_done.clone(), start + LIMIT));
    }
    let mut ring = Ring {
        row: Row::new(&text.to_string(), "files", nodes, nodes),
        resent: 0,
        layers: Vec::new(),
    };
    let (mut intact, mut received, mut time) = (0, 0, Duration::ZERO);
    while let Some(ended) = tasks.join_next().await {
        let (node, finished) = ended.map_err(|error| Failure::Failed(error.to_string()))??;
        intact += usize::from(node.receiver.verdict() == Some(true));
        received += node.receiver.received() as u64;
        ring.resent += node.sender.resent();
        time = time.max(finished - start);
    }
    ring.row.all_done(intact, time);
    ring.row.bytes = Some(received);
    bar.finish_and_clear();
    for stack in &stacks {
        let mut index = 0;
        stack.visit_counters(&mut |counters| {
            if ring.layers.len() == index {
                ring.layers.push((counters.layer(), CounterSnapshot::default()));
            }
            if let Some((_, sum)) = ring.layers.get_mut(index) {
                *sum += counters.snapshot();
            }
            index += 1;
        });
        stack.close().await;
    }
    ring.row.lost = Some(ring.top().sent.saturating_sub(ring.top().delivered));
    Ok(ring)
}

/// Returns a progress bar on standard error, if that is a terminal.
fn bar(text: &StackText, len: usize) -> ProgressBar {
    let bar = ProgressBar::new(len as u64).with_message(short(&text.to_string()));
    let style = ProgressStyle::with_template("{msg}  {wide_bar} {decimal_bytes}/{decimal_total_bytes}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// One node of the ring: sends to the next, receives from the previous.
struct Node {
    stack: Stack,
    to: BoxAddr,
    sender: Sender<Arc<[u8]>>,
    receiver: Receiver,
    bar: ProgressBar,
}

impl Node {
    /// Runs until all nodes are done, or until `limit`. Returns when this one was.
    async fn run(
        mut self,
        nodes: usize,
        done: watch::Sender<usize>,
        mut all_done: watch::Receiver<usize>,
        limit: Instant,
    ) -> Result<(Self, Instant), Failure> {
        let mut finished = None;
        let mut messages = Vec::new();
        let mut batch = Vec::new();
        loop {
            let now = Instant::now();
            if finished.is_none() && self.sender.is_done() && self.receiver.verdict().is_some() {
                finished = Some(now);
                done.send_modify(|count| *count += 1);
            }
            if now >= limit {
                return Ok((self, finished.unwrap_or(limit)));
            }
            self.sender.handle_timeout(now);
            self.transmit(now, &mut batch).await?;
            let over = *all_done.borrow_and_update() == nodes;
            let until = match self.sender.poll_timeout() {
                _ if over => now + QUIET,
                Some(due) => due.min(limit),
                None => limit,
            };
            tokio::select! {
                received = timeout_at(until.into(), self.stack.receive_batch(&mut messages, BATCH)) => {
                    match received {
                        Ok(count) => drop(count?),
                        Err(_) if over => return Ok((self, finished.unwrap_or(now))),
                        Err(_) => continue,
                    }
                }
                _ = all_done.changed(), if !over => continue,
            }
            self.handle(&mut messages).await?;
        }
    }

    async fn transmit(&mut self, now: Instant, batch: &mut Vec<(BoxAddr, Packet)>) -> Result<(), Failure> {
        let room = self.stack.headroom();
        while let Some(packet) = self.sender.poll_transmit(now, room) {
            batch.push((self.to.clone(), packet));
        }
        if batch.is_empty() {
            return Ok(());
        }
        match self.stack.tell_batch(batch).await {
            Err(error) if matches!(error.first, Error::Closed) => Err(error.first.into()),
            // Refused messages are missing at the other end, and retransmitted like lost ones.
            _ => Ok(()),
        }
    }

    async fn handle(&mut self, messages: &mut Vec<Message<BoxAddr>>) -> Result<(), Failure> {
        let before = self.receiver.received();
        let mut acks = Vec::new();
        let mut from = None;
        for message in messages.drain(..) {
            match transfer::read(message.payload) {
                Some(Read::Data { sent, count, chunk }) => {
                    if self.receiver.handle_data(sent, count, chunk) {
                        acks.push(sent);
                    }
                    from = Some(message.src);
                }
                Some(Read::Ack(acks)) => self.sender.handle_ack(&acks, Instant::now()),
                None => {}
            }
        }
        self.bar.inc((self.receiver.received() - before) as u64);
        if let (Some(from), false) = (from, acks.is_empty()) {
            let ack = transfer::ack(&acks, self.stack.headroom());
            self.stack.tell(&from, ack).await?;
        }
        Ok(())
    }
}
