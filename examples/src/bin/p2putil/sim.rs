//! Overlays of thousands of nodes in virtual time: equal seeds give equal networks and equal figures.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use p2p_protocols::{chord as chord_engine, kademlia as kademlia_engine};
use p2p_swarmtest::sim::SimAddr;
use serde_json::json;

use self::network::{Network, Tally, number};
use self::overlay::Overlay;
use self::plot::Series;
use crate::output::{Out, print};
use crate::{Failure, files};
use p2p_examples::table::{Table, thousands};

mod chord;
mod gossip;
mod gossip_plot;
mod kademlia;
mod network;
mod overlay;
mod plot;

/// The network that the tests and the bench of gossipsub simulate as well.
#[path = "../../../../protocols/tests/gossipsub/simulated/mod.rs"]
mod gossipsub;

/// Time for a network to repair itself after nodes failed.
const MENDS: Duration = Duration::from_mins(10);

/// Number of lookups, and of reads, in each minute of churn.
const EACH_MINUTE: usize = 50;

/// The overlays.
#[derive(Debug, Subcommand)]
pub(crate) enum Sim {
    /// Kademlia: a lookup is correct if it finds all of the nearest 20 nodes
    Kademlia(Plan),
    /// Chord: a lookup is correct if it finds the key's successor
    Chord(Plan),
    /// Gossipsub: delivery, latency, copies, and the effect of attackers
    Gossip(gossip::Plan),
}

/// Options of a simulated network.
#[derive(Debug, Args)]
#[command(after_help = "\
Nodes join one after the other, each through a member. Links have a latency of 50 ms. Then, in this order: records are put,
keys are looked up and records read; with --fail nodes fail at the same time, and lookups are made at once and ten minutes
later; with --churn nodes leave and return for --minutes. All times are virtual.

Examples:
  p2putil sim kademlia --nodes 1000 --svg hops.svg
  p2putil sim chord --nodes 1000 --fail 30
  p2putil sim kademlia --nodes 500 --churn 10 --minutes 60 --svg churn.svg")]
pub(crate) struct Plan {
    /// Number of nodes
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    nodes: u32,
    /// Number of lookups of random keys
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    lookups: u32,
    /// Number of records that are put and read
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    records: u32,
    /// The fraction of packets that are lost: from 0 to below 1
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    loss: f64,
    /// Percentage of the nodes that fail at the same time
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=95))]
    fail: Option<u32>,
    /// Median session time of nodes in minutes; they return as new nodes after a mean of one minute
    #[arg(long, value_name = "MINUTES", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    churn: Option<u32>,
    /// Duration of the churn in minutes
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    minutes: u32,
    /// Seed of all random choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Draw the success rate over the minutes of churn, or without churn the hops of lookups
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..1.0).contains(share));
    share.ok_or_else(|| "expected a fraction of packets from 0 to below 1".to_owned())
}

pub(crate) fn run(sim: &Sim, out: Out) -> Result<(), Failure> {
    match sim {
        Sim::Kademlia(plan) => simulate::<kademlia_engine::Engine<SimAddr>>("Kademlia", plan, out),
        Sim::Chord(plan) => simulate::<chord_engine::Engine<SimAddr>>("Chord", plan, out),
        Sim::Gossip(plan) => gossip::run(plan, out),
    }
}

/// The output: rows of a table, or objects.
struct Report {
    out: Out,
    table: Table,
}

impl Report {
    fn new(out: Out) -> Self {
        Self {
            out,
            table: Table::new(["what", "right", "%", "hops", "median", "99 %"]),
        }
    }

    fn add(&mut self, what: &str, tally: &Tally) -> Result<(), Failure> {
        let mean = tally.mean_hops();
        if self.out.is_json() {
            let (median, late) = (tally.percentile(50), tally.percentile(99));
            let object = json!({
                "what": what, "of": tally.of, "right": tally.right, "percent": tally.percent(),
                "mean_hops": mean, "p50_hops": median, "p99_hops": late,
            });
            return print(&object.to_string());
        }
        let hops = |share| {
            tally
                .percentile(share)
                .map(|hops| hops.to_string())
                .unwrap_or_default()
        };
        self.table.row([
            what.to_owned(),
            format!("{}/{}", thousands(tally.right as u64), thousands(tally.of as u64)),
            match tally.percent() {
                Some(percent) => format!("{percent:.2}"),
                None => "none".to_owned(),
            },
            mean.map(|mean| format!("{mean:.2}")).unwrap_or_default(),
            hops(50),
            hops(99),
        ]);
        Ok(())
    }
}

fn simulate<O: Overlay>(name: &str, plan: &Plan, out: Out) -> Result<(), Failure> {
    plan.svg.as_deref().map_or(Ok(()), files::check)?;
    let begun = Instant::now();
    let mut report = Report::new(out);
    let mut network = Network::<O>::new(plan.seed, plan.loss);
    join(&mut network, plan.nodes);
    report.add("records put", &network.put(plan.records as usize))?;
    let lookups = network.look_up(plan.lookups as usize, true);
    report.add("lookups", &lookups)?;
    report.add("records read", &network.get(plan.records as usize))?;
    if let Some(percent) = plan.fail {
        network.fail(percent as usize);
        let failed = format!("{percent} % failed");
        report.add(
            &format!("{failed}: lookups"),
            &network.look_up(plan.lookups as usize, false),
        )?;
        network.run_for(MENDS);
        let later = format!("{failed}, {} minutes later", MENDS.as_secs() / 60);
        report.add(
            &format!("{later}: lookups"),
            &network.look_up(plan.lookups as usize, true),
        )?;
        report.add(
            &format!("{later}: records read"),
            &network.get(plan.records as usize),
        )?;
    }
    let mut over_time = None;
    if let Some(median) = plan.churn {
        let series = churn(&mut network, median, plan.minutes, &mut report)?;
        over_time = Some(series);
    }
    finish::<O>(name, plan, &network, &report, begun)?;
    let Some(file) = &plan.svg else {
        return Ok(());
    };
    let nodes = thousands(plan.nodes.into());
    let svg = if let Some(series) = &over_time {
        let median = plan.churn.unwrap_or_default();
        let title = format!("{name}, {nodes} nodes that stay for {median} minutes in the median");
        plot::over_time(&title, series)?
    } else {
        let expected = f64::from(plan.nodes).log2() / 2.0;
        plot::hops(
            &format!("{name}, {nodes} nodes: hops of lookups"),
            &lookups.hops,
            expected,
        )?
    };
    files::write(file, &svg)
}

fn finish<O: Overlay>(
    name: &str,
    plan: &Plan,
    network: &Network<O>,
    report: &Report,
    begun: Instant,
) -> Result<(), Failure> {
    let asks = network.sim.asks();
    let virtual_secs = network.sim.now().as_secs_f64();
    let took = begun.elapsed().as_secs_f64();
    if report.out.is_json() {
        let object = json!({
            "overlay": name, "nodes": plan.nodes, "seed": plan.seed, "virtual_secs": virtual_secs, "secs": took,
            "requests": asks.asked, "unanswered": asks.failed, "trace": format!("{:016x}", network.sim.trace()),
        });
        return print(&object.to_string());
    }
    print(&report.table.render())?;
    print(&format!(
        "\n{name}, {} nodes, seed {}: right is {}; ½ log2 of the nodes is {:.2}.\n\
         {} requests in {:.1} min of virtual time, {} without an answer; {took:.1} s of real time. Trace {:016x}.",
        thousands(plan.nodes.into()),
        plan.seed,
        O::FINDS,
        f64::from(plan.nodes).log2() / 2.0,
        thousands(asks.asked),
        virtual_secs / 60.0,
        thousands(asks.failed),
        network.sim.trace()
    ))
}

fn join<O: Overlay>(network: &mut Network<O>, nodes: u32) {
    let bar = bar(nodes.into(), "nodes join");
    for _ in 0..nodes {
        network.join();
        bar.inc(1);
    }
    network.run_for(O::SETTLES);
    bar.finish_and_clear();
}

/// Runs minutes of churn with lookups and reads in each.
fn churn<O: Overlay>(
    network: &mut Network<O>,
    median: u32,
    minutes: u32,
    report: &mut Report,
) -> Result<[Series; 2], Failure> {
    let bar = bar(minutes.into(), "minutes of churn");
    network.churn(Duration::from_mins(median.into()));
    let (mut found, mut read) = (Tally::default(), Tally::default());
    let mut series = ["lookups that found the nearest node", "records read"].map(|name| Series {
        name,
        points: Vec::new(),
    });
    let start = network.sim.now();
    for minute in 1..=minutes {
        let next = start + Duration::from_mins(minute.into());
        network.run_for(next.saturating_sub(network.sim.now()));
        let tallies = [network.look_up(EACH_MINUTE, false), network.get(EACH_MINUTE)];
        for ((series, tally), sum) in series.iter_mut().zip(&tallies).zip([&mut found, &mut read]) {
            let point = tally.percent().map(|percent| (number(minute as usize), percent));
            series.points.extend(point);
            sum.of += tally.of;
            sum.right += tally.right;
            sum.hops.extend_from_slice(&tally.hops);
        }
        bar.inc(1);
    }
    found.hops.sort_unstable();
    bar.finish_and_clear();
    report.add(
        &format!("{minutes} minutes of churn: lookups, nearest node"),
        &found,
    )?;
    report.add(&format!("{minutes} minutes of churn: records read"), &read)?;
    Ok(series)
}

/// Returns a progress bar on standard error, if that is a terminal.
fn bar(len: u64, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}");
    let bar = ProgressBar::new(len).with_message(what);
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
