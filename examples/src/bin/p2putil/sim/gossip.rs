//! Gossipsub engines in the simulator: delivery, latency, copies, meshes and scores, with and without
//! attackers.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use p2p_swarmtest::sim::SimAddr;
use serde_json::{Value, json};

use super::gossip_plot;
use super::gossipsub::{self, Attack, Measured, Network, RATE};
use super::network::number;
use crate::output::{Out, print};
use crate::{Failure, files};
use p2p_examples::table::{Table, bytes, thousands};

/// Options of a simulated network.
#[derive(Debug, Args)]
#[command(after_help = "\
Nodes have random connections, and all of them subscribe to one topic. After five seconds they publish in turn, ten
messages per second. The shortest paths are those of the network: no message can be faster. All times are virtual.

Under attack there are ten Sybils for each node, as many connections to them as to ten nodes, and five messages per second.
Nodes have the meshes of the paper's evaluation (Vyzovitis et al. 2020) and scores that expect five messages a second.

Examples:
  p2putil sim gossip --nodes 1000 --svg gossip.svg
  p2putil sim gossip --nodes 1000 --loss 0.1
  p2putil sim gossip --nodes 100 --attack flash --svg flash.svg")]
pub(crate) struct Plan {
    /// Number of honest nodes; 1000, or 100 under attack
    #[arg(long, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    nodes: Option<u32>,
    /// Number of connections of each node; 8, or 20 under attack
    #[arg(long, value_parser = clap::value_parser!(u32).range(3..=200))]
    degree: Option<u32>,
    /// Latency of a packet in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    latency: u32,
    /// The fraction of packets that are lost: from 0 to below 1
    #[arg(long, default_value_t = 0.0, value_parser = super::share)]
    loss: f64,
    /// Number of messages; 100, or 600 under attack
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    messages: Option<u32>,
    /// Length of a message in bytes
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(8..=1_000_000))]
    size: u32,
    /// The behaviour of Sybils
    #[arg(long)]
    attack: Option<Kind>,
    /// Seed of all random choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Draw delivery over time, copies, meshes and scores
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// They are in the meshes from the beginning and forward nothing
    Sybil,
    /// They forward everything for a minute, and then nothing
    Flash,
    /// All of them connect to one node, which joins after half a minute, and forward nothing
    Eclipse,
    /// From half a minute on they flood with gossip, GRAFTs and invalid messages, and forward nothing
    Spam,
    /// They drop the messages of one node
    Censor,
}

impl Plan {
    fn network(&self) -> Network {
        let nodes = self
            .nodes
            .unwrap_or(if self.attack.is_some() { 100 } else { 1000 }) as usize;
        let second = Duration::from_secs;
        let mut plan = match self.attack {
            None => gossipsub::Plan::new(nodes, self.seed),
            Some(kind) => {
                let (attack, at) = match kind {
                    Kind::Sybil => (Attack::Drop, second(0)),
                    Kind::Flash => (Attack::Drop, second(60)),
                    Kind::Eclipse => (Attack::Drop, second(30)),
                    Kind::Spam => (Attack::Spam, second(30)),
                    Kind::Censor => (Attack::Censor(SimAddr(0)), second(0)),
                };
                gossipsub::Plan::attacked(nodes, self.seed, attack, at)
            }
        };
        plan.eclipse = matches!(self.attack, Some(Kind::Eclipse));
        // A regular graph has an even number of edge ends.
        let degree = self
            .degree
            .map_or(plan.degree, |degree| degree as usize)
            .min(nodes - 1);
        plan.degree = degree - nodes % 2 * (degree % 2);
        plan.latency = Duration::from_millis(self.latency.into());
        plan.loss = self.loss;
        let count = self
            .messages
            .unwrap_or(if self.attack.is_some() { 600 } else { 100 });
        if self.attack.is_some() {
            let lasts = Duration::from_secs_f64(f64::from(count) / RATE);
            let until = plan.attack_at + lasts;
            return Network::under_attack(plan, RATE, until, self.size as usize);
        }
        let mut network = Network::new(plan);
        network.run(second(5));
        network.publish_all(
            count as usize,
            nodes,
            Duration::from_millis(100),
            self.size as usize,
        );
        network.run(second(5));
        network
    }
}

/// A result: its label, its text, and its JSON form.
struct Found {
    what: &'static str,
    text: String,
    name: &'static str,
    json: Value,
}

fn found(what: &'static str, text: String, name: &'static str, json: Value) -> Found {
    Found {
        what,
        text,
        name,
        json,
    }
}

pub(super) fn run(plan: &Plan, out: Out) -> Result<(), Failure> {
    plan.svg.as_deref().map_or(Ok(()), files::check)?;
    let begun = Instant::now();
    let network = plan.network();
    let measured = network.measure();
    show(plan, &network, &measured, begun, out)?;
    let Some(file) = &plan.svg else {
        return Ok(());
    };
    files::write(
        file,
        &gossip_plot::draw(&title(&network, plan), &network, &measured)?,
    )
}

fn show(
    plan: &Plan,
    network: &Network,
    measured: &Measured,
    begun: Instant,
    out: Out,
) -> Result<(), Failure> {
    let mut rows = delivery(measured);
    rows.extend(meshes(network, measured));
    if plan.attack.is_some() {
        rows.extend(attackers(network));
    }
    let took = begun.elapsed().as_secs_f64();
    if out.is_json() {
        let mut object = json!({
            "overlay": "gossipsub", "nodes": network.plan.nodes, "sybils": network.plan.sybils, "seed": plan.seed,
            "virtual_secs": network.sim.now().as_secs_f64(), "secs": took,
            "trace": format!("{:016x}", network.sim.trace()),
        });
        for row in rows {
            object[row.name] = row.json;
        }
        return print(&object.to_string());
    }
    let mut table = Table::new(["what", "figure"]);
    for row in rows {
        table.row([row.what.to_owned(), row.text]);
    }
    print(&table.render())?;
    print(&format!(
        "\n{}, seed {}: {:.1} min of virtual time, {took:.1} s of real time. Trace {:016x}.",
        title(network, plan),
        plan.seed,
        network.sim.now().as_secs_f64() / 60.0,
        network.sim.trace()
    ))
}

fn title(network: &Network, plan: &Plan) -> String {
    let nodes = thousands(network.plan.nodes as u64);
    let what = match plan.attack {
        None => return format!("Gossipsub, {nodes} nodes of {} connections", network.plan.degree),
        Some(Kind::Sybil) => "that drop",
        Some(Kind::Flash) => "that stop forwarding after a minute",
        Some(Kind::Eclipse) => "around a new node",
        Some(Kind::Spam) => "that flood",
        Some(Kind::Censor) => "that drop one node's messages",
    };
    let sybils = thousands(network.plan.sybils as u64);
    format!("Gossipsub, {nodes} nodes and {sybils} Sybils {what}")
}

fn delivery(measured: &Measured) -> Vec<Found> {
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let at = |percent| ms(measured.latency(percent));
    let bound = |percent| ms(measured.bound(percent));
    let (heartbeat, copies) = (1000.0, measured.mean_copies());
    vec![
        found(
            "delivered",
            format!(
                "{:.4} % of {}",
                measured.delivered(),
                thousands(measured.due as u64)
            ),
            "delivered_percent",
            json!(measured.delivered()),
        ),
        found(
            "latency: median, 99 %, maximum",
            format!("{:.0}, {:.0}, {:.0} ms", at(50.0), at(99.0), at(100.0)),
            "latency_ms",
            json!([at(50.0), at(99.0), at(100.0)]),
        ),
        found(
            "shortest paths",
            format!("{:.0}, {:.0}, {:.0} ms", bound(50.0), bound(99.0), bound(100.0)),
            "shortest_ms",
            json!([bound(50.0), bound(99.0), bound(100.0)]),
        ),
        found(
            "shortest paths plus a heartbeat",
            format!(
                "{:.0}, {:.0}, {:.0} ms",
                bound(50.0) + heartbeat,
                bound(99.0) + heartbeat,
                bound(100.0) + heartbeat
            ),
            "shortest_and_heartbeat_ms",
            json!([
                bound(50.0) + heartbeat,
                bound(99.0) + heartbeat,
                bound(100.0) + heartbeat
            ]),
        ),
        found(
            "copies received of each message",
            format!("{copies:.2}"),
            "copies",
            json!(copies),
        ),
    ]
}

fn meshes(network: &Network, measured: &Measured) -> Vec<Found> {
    let each = number(network.plan.nodes) * network.sim.now().as_secs_f64().max(1.0);
    let per = |bytes: u64| number(usize::try_from(bytes).unwrap_or(usize::MAX)) / each;
    let (messages, control) = (per(measured.message_bytes), per(measured.control_bytes));
    let degrees = network.degrees();
    let (least, most) = (degrees.first().copied(), degrees.last().copied());
    let (least, most) = (least.unwrap_or(0), most.unwrap_or(0));
    let mean = number(degrees.iter().sum()) / number(degrees.len().max(1));
    let mut rows = vec![
        found(
            "sent by each node: messages, control",
            format!("{}/s, {}/s", bytes(messages), bytes(control)),
            "sent_bytes_per_second",
            json!([messages, control]),
        ),
        found(
            "neighbours in the mesh: minimum, mean, maximum",
            format!("{least}, {mean:.2}, {most}"),
            "mesh",
            json!([least, mean, most]),
        ),
    ];
    if let Some(last) = network.samples.last() {
        let negative = 100.0 * last.honest_negative;
        rows.push(found(
            "scores of honest nodes: mean, negative ones",
            format!("{:.2}, {negative:.2} %", last.honest_score),
            "honest_score",
            json!([last.honest_score, negative]),
        ));
    }
    rows
}

fn attackers(network: &Network) -> Vec<Found> {
    let beats = |beats: Option<u64>| beats.map_or_else(|| "not".to_owned(), |beats| beats.to_string());
    let share = |sybils: usize, honest: usize| 100.0 * number(sybils) / number((sybils + honest).max(1));
    let shares = network
        .samples
        .iter()
        .map(|sample| share(sample.sybils, sample.honest));
    let last = shares.clone().next_back().unwrap_or(0.0);
    let most = shares.fold(0.0, f64::max);
    let score = network.samples.last().map_or(0.0, |sample| sample.sybil_score);
    let (majority, out) = (network.honest_majority(), network.sybils_out());
    vec![
        found(
            "scores of Sybils: mean",
            format!("{score:.2}"),
            "sybil_score",
            json!(score),
        ),
        found(
            "share of Sybils in meshes: maximum, final",
            format!("{most:.1}, {last:.1} %"),
            "sybil_percent",
            json!([most, last]),
        ),
        found(
            "heartbeats until each mesh is mostly honest",
            beats(majority),
            "heartbeats_to_majority",
            json!(majority),
        ),
        found(
            "heartbeats until no Sybil is in a mesh",
            beats(out),
            "heartbeats_to_none",
            json!(out),
        ),
        found(
            "maximum heartbeats of a Sybil in a mesh",
            network.longest_stay.to_string(),
            "longest_stay",
            json!(network.longest_stay),
        ),
    ]
}
