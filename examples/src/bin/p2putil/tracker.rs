//! `tracker serve`: runs a server of cells, and prints the URL of one as a tracker.

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

/// Subcommands for trackers.
#[derive(Debug, Args)]
pub(crate) struct Tracker {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a tracker, print its URL, and continue until interrupted
    Serve(Serve),
}

/// Options of the server.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints 'tracker URL'. The holder of the URL is a member: the secret behind its '#' is never sent to the server, which sees
no topic, no address and no key of announcing nodes.

Examples:
  p2putil tracker serve
  p2putil tracker serve 0.0.0.0:4080 --url http://tracker.example:4080 --folder /var/lib/p2p
  p2putil listen udp/p2pke --announce 'http://127.0.0.1:4080/CELL#SECRET'
  p2putil find 'http://127.0.0.1:4080/CELL#SECRET'")]
struct Serve {
    /// The address to serve; with port 0 the system chooses a port
    #[arg(default_value = "127.0.0.1:4080")]
    addr: SocketAddr,
    /// The URL for other nodes, if it differs from the address
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// A folder in which the secret and the announcements survive this process; default: none
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Also serve trackers with other secrets
    #[arg(long)]
    open: bool,
}

pub(crate) async fn run(args: Tracker, out: Out) -> Result<(), Failure> {
    let Command::Serve(args) = args.command;
    let interrupt = interrupt()?;
    let secret = match &args.folder {
        None => Secret::random(),
        Some(folder) => kept(folder).map_err(|error| {
            Failure::Failed(format!("{} has no usable secret: {error}", folder.display()))
        })?,
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

/// Returns the secret of this folder, which only its owner can read; creates one if there is none.
///
/// The file is written under another name, synced, and linked, so that a crash leaves a complete secret or
/// none, and two processes that start at the same time use the same secret.
fn kept(folder: &Path) -> io::Result<Secret> {
    fs::create_dir_all(folder)?;
    let path = folder.join("secret");
    if let Some(secret) = read_secret(&path)? {
        return Ok(secret);
    }
    let (secret, beside) = (
        Secret::random(),
        folder.join(format!("secret.{}.new", std::process::id())),
    );
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&beside)?;
    file.write_all(secret.to_text().as_bytes())?;
    file.sync_all()?;
    drop(file);
    // Unlike a rename, a link replaces nothing.
    let linked = fs::hard_link(&beside, &path);
    let linked = match linked {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => fs::rename(&beside, &path),
        linked => linked,
    };
    drop(fs::remove_file(&beside));
    match linked {
        Ok(()) => {
            #[cfg(unix)]
            fs::File::open(folder)?.sync_all()?;
            Ok(secret)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            read_secret(&path)?.ok_or_else(|| io::Error::other("another process removed the secret"))
        }
        Err(error) => Err(error),
    }
}

/// Reads the secret in a file, if the file exists.
fn read_secret(path: &Path) -> io::Result<Option<Secret>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if text.trim().is_empty() {
        let path = path.display();
        return Err(io::Error::other(format!(
            "{path} is empty, since it was not written to its end: remove it to get a new secret, under which members announce \
             anew"
        )));
    }
    text.trim().parse().map(Some).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("p2putil-tracker-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&folder));
        folder
    }

    #[test]
    fn a_secret_is_complete_and_stays() {
        let folder = folder("stays");
        let secret = kept(&folder).expect("a new one");
        assert!(kept(&folder).expect("the same") == secret);
        let names = fs::read_dir(&folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name());
        assert_eq!(names.collect::<Vec<_>>(), ["secret"]);
        fs::remove_dir_all(&folder).expect("removed");
    }

    /// The state after a crash between creating and writing.
    #[test]
    fn an_empty_secret_is_refused_with_a_remedy() {
        let folder = folder("empty");
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("secret"), "").expect("written");
        let error = kept(&folder).expect_err("there is none").to_string();
        assert!(
            error.contains("is empty") && error.contains("remove it"),
            "{error}"
        );
        fs::remove_dir_all(&folder).expect("removed");
    }
}
