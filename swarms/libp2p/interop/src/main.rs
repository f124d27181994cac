//! `interop`: the test program of the libp2p project's harness, and the matrix of tests without containers.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use p2p_libp2p_interop::matrix::{self, Options};
use p2p_libp2p_interop::settings::Settings;
use p2p_libp2p_interop::{Failure, go, gossip, mesh, perf, transport};

/// Runs p2p-libp2p against other implementations of libp2p.
#[derive(Debug, Parser)]
#[command(after_help = "\
transport, perf and go take their parameters from the environment, as the libp2p project's harness sets them:
  IS_DIALER REDIS_ADDR TEST_KEY TRANSPORT [SECURE_CHANNEL MUXER] [LISTENER_IP] [TEST_TIMEOUT_SECS] [DEBUG]
  perf: [UPLOAD_BYTES] [DOWNLOAD_BYTES] [UPLOAD_ITERATIONS] [DOWNLOAD_ITERATIONS] [LATENCY_ITERATIONS]
or, in the older form, without TEST_KEY:
  is_dialer transport [security muxer] [ip] [redis_addr] [test_timeout_seconds]
The result is written to standard output, and everything else to standard error.")]
struct Cli {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Debug, Subcommand)]
enum Mode {
    /// One side of the transport test: dial and ping, or listen
    Transport,
    /// One side of the perf test: measure throughput and latency, or listen
    Perf,
    /// One side of the transport test with go-libp2p's daemon as the node
    Go {
        /// The daemon
        #[arg(long, env = "P2PD", value_name = "PROGRAM")]
        p2pd: String,
    },
    /// One node of a gossipsub mesh, steered through standard input
    Gossip,
    /// The same with go-libp2p's daemon as the node
    GossipGo {
        /// The daemon
        #[arg(long, env = "P2PD", value_name = "PROGRAM")]
        p2pd: String,
    },
    /// A gossipsub mesh of ours and the peers that are installed: every node receives what each publishes
    Mesh(mesh::Options),
    /// All transport tests with the peers that are installed, in both directions, as one table
    Matrix(Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Cli::parse().mode {
        Mode::Transport => with_settings(async |settings| transport::run(settings).await).await,
        Mode::Perf => with_settings(async |settings| perf::run(settings).await).await,
        Mode::Go { p2pd } => with_settings(async |settings| go::run(&p2pd, settings).await).await,
        Mode::Gossip => gossip::run().await,
        Mode::GossipGo { p2pd } => go::gossip(&p2pd).await,
        Mode::Mesh(options) => mesh::run(&options).await,
        Mode::Matrix(options) => matrix::run(&options).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn with_settings(run: impl AsyncFnOnce(&Settings) -> Result<(), Failure>) -> Result<(), Failure> {
    run(&Settings::from_env()?).await
}
