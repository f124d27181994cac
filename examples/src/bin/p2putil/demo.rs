//! `demo`: a ring of nodes, each sending a file to the next, over several stacks; and asking the next.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use p2p::{BoxAddr, Error, Message, Packet, Reason, Snapshot, Swarm};
use p2p_swarms::stack::{Stack, StackText};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use crate::cli::Demo;
use crate::output::{Out, print};
use crate::table::{Table, bytes, thousands};
use crate::transfer::{self, HEADER, Read, Receiver, Sender};
use crate::{Failure, asking, first_addr, open};

/// How long one stack may take; what is not there by then is shown as missing.
const LIMIT: Duration = Duration::from_secs(15);
/// Bytes of this program that are sent where no file is named.
const OF_THIS: u64 = 16 << 20;
/// Bytes that a node has under way: about what the system's buffer for a socket takes.
const UNDER_WAY: usize = 96 << 10;
/// After the last chunk is acknowledged, messages still under way are awaited until it is quiet for so long.
const QUIET: Duration = Duration::from_millis(20);
/// Messages that are received at a time.
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
    let hash = blake3::hash(&file);
    if !out.is_json() {
        let name = path.file_name().unwrap_or(path.as_os_str());
        print(&format!(
            "{} nodes in a ring over UDP on loopback; each sends a file to the next:\n{}{}, {}, blake3 {}\n",
            args.nodes,
            if file.len() as u64 == most {
                "the beginning of "
            } else {
                ""
            },
            Path::new(name).display(),
            bytes(number(file.len() as u64)),
            &hash.to_hex()[..16],
        ))?;
    }
    let stacks = [
        "udp=127.0.0.1:0/frag=65536".to_owned(),
        format!("udp=127.0.0.1:0/faulty,loss=0.1,seed={}/frag=4800", args.seed),
        "udp=127.0.0.1:0/p2pke/frag=65536".to_owned(),
        "udp=127.0.0.1:0/quic".to_owned(),
    ];
    let nodes = usize::from(args.nodes);
    let mut rings = Vec::new();
    for text in stacks {
        let text: StackText = text.parse()?;
        rings.push(ring(text, &file, *hash.as_bytes(), nodes).await?);
    }
    let asked = asking::ring("udp=127.0.0.1:0/p2pke/mbapp".parse()?, nodes).await?;
    if out.is_json() {
        for ring in &rings {
            print(&ring.json().to_string())?;
        }
        print(&asked.json().to_string())?;
    } else {
        show(&rings, args.verbose)?;
        print(&format!("\n{}", asked.show()))?;
    }
    let missing: usize = rings.iter().map(|ring| ring.nodes - ring.intact).sum();
    if missing > 0 {
        return Err(Failure::Failed(format!(
            "{missing} files did not arrive intact within {LIMIT:?}"
        )));
    }
    match asked.missing() {
        0 => Ok(()),
        missing => Err(Failure::Failed(format!("{missing} asks got no right answer"))),
    }
}

/// What became of one stack.
#[derive(Debug)]
struct Ring {
    text: String,
    nodes: usize,
    /// Files that arrived whole and have the right hash.
    intact: usize,
    received: u64,
    resent: u64,
    time: Duration,
    /// Each layer's counters over all nodes, top first.
    layers: Vec<(&'static str, Snapshot)>,
}

impl Ring {
    fn top(&self) -> Snapshot {
        self.layers.first().map(|(_, top)| *top).unwrap_or_default()
    }

    fn lost(&self) -> u64 {
        self.top().sent.saturating_sub(self.top().delivered)
    }

    fn speed(&self) -> f64 {
        number(self.received) / self.time.as_secs_f64().max(1e-9)
    }

    fn json(&self) -> serde_json::Value {
        let layers = self.layers.iter().map(|(layer, counters)| {
            json!({
                "layer": layer, "sent": counters.sent, "received": counters.received,
                "delivered": counters.delivered, "dropped": counters.dropped_total(),
            })
        });
        json!({
            "stack": self.text, "nodes": self.nodes, "intact": self.intact, "bytes": self.received,
            "sent": self.top().sent, "delivered": self.top().delivered, "lost": self.lost(),
            "resent": self.resent, "secs": self.time.as_secs_f64(), "bytes_per_sec": self.speed(),
            "layers": layers.collect::<Vec<_>>(),
        })
    }
}

/// The text of a stack without what it has by default.
pub(crate) fn short(stack: &str) -> String {
    stack.replace("=127.0.0.1:0", "").replace("=65536", "")
}

fn show(rings: &[Ring], verbose: bool) -> Result<(), Failure> {
    let mut table = Table::new(["stack", "intact", "sent", "lost", "resent", "time", "speed"]);
    for ring in rings {
        let mark = if ring.intact == ring.nodes { '✓' } else { '✗' };
        table.row([
            short(&ring.text),
            format!("{}/{} {mark}", ring.intact, ring.nodes),
            thousands(ring.top().sent),
            thousands(ring.lost()),
            thousands(ring.resent),
            format!("{:.2} s", ring.time.as_secs_f64()),
            format!("{}/s", bytes(ring.speed())),
        ]);
    }
    print(&table.render())?;
    print(
        "\nintact: files that came whole, by their hash; sent, lost: messages of the top layer;\n\
         resent: chunks sent again, as no acknowledgement came in time; speed: all nodes together.",
    )?;
    if !verbose {
        return Ok(());
    }
    for ring in rings {
        let mut table = Table::new(["layer", "sent", "received", "delivered", "dropped", "why"]);
        for (layer, counters) in &ring.layers {
            let why = Reason::ALL
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
        print(&format!("\n{}\n\n{}", ring.text, table.render()))?;
    }
    Ok(())
}

/// Sends the file around a ring of `nodes`.
async fn ring(text: StackText, file: &Arc<[u8]>, hash: [u8; 32], nodes: usize) -> Result<Ring, Failure> {
    let stacks: Vec<Stack> = (0..nodes).map(|_| open(&text)).collect::<Result<_, _>>()?;
    let bar = bar(&text, file.len() * nodes);
    let (done, all_done) = watch::channel(0);
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for (index, stack) in stacks.iter().enumerate() {
        let to = first_addr(stacks.get(index + 1).unwrap_or(&stacks[0]))?;
        let chunk = stack.mtu().saturating_sub(HEADER).clamp(32, 32 << 10);
        let sender = Sender::new(file.clone(), hash, chunk, (UNDER_WAY / chunk).max(2), start);
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
        text: text.to_string(),
        nodes,
        intact: 0,
        received: 0,
        resent: 0,
        time: Duration::ZERO,
        layers: Vec::new(),
    };
    while let Some(ended) = tasks.join_next().await {
        let (node, finished) = ended.map_err(|error| Failure::Failed(error.to_string()))??;
        ring.intact += usize::from(node.receiver.verdict() == Some(true));
        ring.received += node.receiver.received() as u64;
        ring.resent += node.sender.resent();
        ring.time = ring.time.max(finished - start);
    }
    bar.finish_and_clear();
    for stack in &stacks {
        let mut index = 0;
        stack.visit_counters(&mut |counters| {
            if ring.layers.len() == index {
                ring.layers.push((counters.layer(), Snapshot::default()));
            }
            if let Some((_, sum)) = ring.layers.get_mut(index) {
                *sum += counters.snapshot();
            }
            index += 1;
        });
        stack.close().await;
    }
    Ok(ring)
}

/// A bar on standard error, where that is a terminal.
fn bar(text: &StackText, len: usize) -> ProgressBar {
    let bar = ProgressBar::new(len as u64).with_message(text.to_string());
    let style = ProgressStyle::with_template("{msg}  {bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// One node of the ring: sends to the next, receives from the one before.
struct Node {
    stack: Stack,
    to: BoxAddr,
    sender: Sender<Arc<[u8]>>,
    receiver: Receiver,
    bar: ProgressBar,
}

impl Node {
    /// Runs until all nodes have what they need, or until `limit`. Returns when this one had.
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
            // What was refused is missing at the other end, and sent again like anything that is lost.
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

#[expect(clippy::cast_precision_loss, reason = "counts of one run are far below 2⁵²")]
pub(crate) fn number(count: u64) -> f64 {
    count as f64
}
