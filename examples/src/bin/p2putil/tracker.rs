//! `tracker serve`: a server of cells, of which it prints one as a tracker's URL.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use p2p_discovery::{Secret, ServerConfig, Token, TrackerServer};
use serde_json::json;

use crate::Failure;
use crate::interrupt::interrupt;
use crate::output::Out;

/// Trackers.
#[derive(Debug, Args)]
pub(crate) struct Tracker {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a tracker, print its URL, and go on until interrupted.
    Serve(Serve),
}

/// Serving.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints 'tracker URL'. Whoever has the URL is a member: the secret behind its '#' is never sent to the server, which sees
no name, no address and no key of those who announce.

Examples:
  p2putil tracker serve
  p2putil tracker serve 0.0.0.0:4080 --url http://tracker.example:4080 --folder /var/lib/p2p
  p2putil listen udp/p2pke --announce 'http://127.0.0.1:4080/CELL#SECRET'
  p2putil find 'http://127.0.0.1:4080/CELL#SECRET'")]
struct Serve {
    /// Where to serve; port 0 lets the system choose one.
    #[arg(default_value = "127.0.0.1:4080")]
    addr: SocketAddr,
    /// How others reach it, if that is not the address itself.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// A folder in which the secret and what was announced outlast this process; without one both end with it.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Serve trackers of other secrets, too, whoever makes them up.
    #[arg(long)]
    open: bool,
}

pub(crate) async fn run(args: Tracker, out: Out) -> Result<(), Failure> {
    let Command::Serve(args) = args.command;
    let interrupt = interrupt()?;
    let secret = match &args.folder {
        None => Secret::random(),
        Some(folder) => kept(folder)
            .map_err(|error| Failure::Failed(format!("{} keeps no secret: {error}", folder.display())))?,
    };
    let config = ServerConfig {
        only: (!args.open).then(|| BTreeSet::from([secret.cell_id()])),
        folder: args.folder,
        ..ServerConfig::default()
    };
    let server = TrackerServer::bind(args.addr, config)?;
    let url = args
        .url
        .unwrap_or_else(|| format!("http://{}", server.local_addr()));
    let token = Token::new(&url, secret)?.to_text();
    out.line(&format!("tracker {}", *token), &json!({ "tracker": *token }))?;
    interrupt.await;
    server.close().await;
    Ok(())
}

/// The secret of this folder, which its owner alone can read; a new one if there is none.
fn kept(folder: &Path) -> io::Result<Secret> {
    fs::create_dir_all(folder)?;
    let path = folder.join("secret");
    let secret = Secret::random();
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(&path) {
        Ok(mut file) => {
            file.write_all(secret.to_text().as_bytes())?;
            file.sync_all()?;
            Ok(secret)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let text = fs::read_to_string(&path)?;
            text.trim().parse().map_err(io::Error::other)
        }
        Err(error) => Err(error),
    }
}
