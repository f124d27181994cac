//! All transport tests without containers: listener and dialler are plain processes of this machine.
//!
//! A cell of the matrix is a peer, a link and a direction. Each round of a cell starts a listener and a dialler with the
//! harness's environment variables, over one Redis stub, and passes if the dialler exits with 0 and prints its two times.
//! A cell that cannot exist has a reason instead of a count. The tool `p2putil` is checked against each listener too.

mod cell;
mod peer;
mod process;
mod table;

use std::path::{Path, PathBuf};

use clap::Args;
use futures_util::{StreamExt as _, stream};
use tokio::signal::unix::{SignalKind, signal};

use self::cell::{Cell, Direction};
use self::peer::{Installed, Peer};
use self::table::Table;
use crate::Failure;
use crate::link::Link;
use crate::stub::Stub;

/// Options of the matrix.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Peers are installed by swarms/libp2p/interop/peers/install. Exit code 0 if every round of every cell passed, else 1.

Examples:
  interop matrix --rounds 20
  interop matrix --peers js,go --verbose")]
pub struct Options {
    /// How often each cell runs
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// The peers, separated by commas; by default all that are installed
    #[arg(long, value_enum, value_delimiter = ',')]
    peers: Vec<Peer>,
    /// The folder of the installed peers; by default `interop` beside the folder of this program
    #[arg(long, value_name = "FOLDER")]
    installed: Option<PathBuf>,
    /// The tool that is checked against each listener; by default `p2putil` beside this program, if it is there
    #[arg(long, value_name = "PROGRAM")]
    p2putil: Option<PathBuf>,
    /// How many cells run at the same time
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: u8,
    /// Print each round on standard error
    #[arg(long)]
    verbose: bool,
}

/// What the runs of cells share.
struct Context {
    program: PathBuf,
    p2putil: Option<PathBuf>,
    stub: Stub,
    verbose: bool,
}

/// Returns the folder of the installed peers: the chosen one, or `interop` beside the folder of this program.
pub(crate) fn installed(chosen: Option<&Path>, program: &Path) -> PathBuf {
    let beside = program.parent().unwrap_or(Path::new("."));
    chosen.map_or_else(|| beside.join("../interop"), Path::to_path_buf)
}

/// Runs the matrix, and prints its table on standard output.
///
/// # Errors
/// A text, if a round failed, if a chosen peer is not installed, or if the stub cannot listen.
pub async fn run(options: &Options) -> Result<(), Failure> {
    let program = std::env::current_exe()?;
    let beside = program.parent().unwrap_or(Path::new("."));
    let folder = installed(options.installed.as_deref(), &program);
    let mut peers = Vec::new();
    for peer in Peer::ALL {
        if !options.peers.is_empty() && !options.peers.contains(&peer) {
            continue;
        }
        match peer.find(&folder) {
            Ok(installed) => peers.push(installed),
            Err(reason) if options.peers.is_empty() => eprintln!("left out: {peer}, {reason}"),
            Err(reason) => return Err(format!("{peer}: {reason}").into()),
        }
    }
    let p2putil = options
        .p2putil
        .clone()
        .or_else(|| Some(beside.join("p2putil")).filter(|path| path.is_file()));
    if p2putil.is_none() {
        eprintln!("left out: p2putil, which is not beside this program");
    }
    let context = Context {
        p2putil,
        stub: Stub::start().await?,
        verbose: options.verbose,
        program,
    };
    // The processes of cells are groups of their own, which no signal to this one reaches.
    let mut terminated = signal(SignalKind::terminate())?;
    let table = tokio::select! {
        table = fill(&context, &peers, options) => table,
        _ = tokio::signal::ctrl_c() => return Err("interrupted".into()),
        _ = terminated.recv() => return Err("terminated".into()),
    };
    print!("{table}");
    match table.failed() {
        0 => Ok(()),
        failed => Err(format!("{failed} rounds failed").into()),
    }
}

/// Runs all rounds of all cells: first each cell once, then again.
async fn fill(context: &Context, peers: &[Installed], options: &Options) -> Table {
    let mut table = Table::new(peers, context.p2putil.is_some());
    let mut runs = Vec::new();
    for round in 0..options.rounds {
        for peer in peers {
            for link in Link::ALL {
                for direction in Direction::ALL {
                    // The tool is the same in each round.
                    let is_once = direction == Direction::Tool;
                    let is_left_out = is_once && (round > 0 || context.p2putil.is_none());
                    if !is_left_out && peer.peer.obstacle(link, direction).is_none() {
                        runs.push(Cell {
                            peer,
                            link,
                            direction,
                        });
                    }
                }
            }
        }
    }
    let total = runs.len();
    let outcomes = stream::iter(
        runs.into_iter()
            .map(|cell| async move { (cell, cell.run(context).await) }),
    );
    let mut outcomes = outcomes.buffer_unordered(usize::from(options.jobs));
    let mut count = 0;
    while let Some((cell, outcome)) = outcomes.next().await {
        count += 1;
        match &outcome {
            Ok(latency) if context.verbose => eprintln!("{count}/{total} {cell}: {latency:?}"),
            Ok(_) => {}
            Err(reason) => eprintln!("{count}/{total} {cell}: FAILED: {reason}"),
        }
        table.add(&cell, outcome.ok());
    }
    table
}
