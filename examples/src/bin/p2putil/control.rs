//! The control socket of a running host: it answers each program that connects with the connections of the host, one JSON
//! object a line.
//!
//! # Security
//! Only the owner of the running program, and the superuser, can connect to the socket: it is made in a folder that no other
//! user can enter, and has the mode 0600 before it is moved to its path.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use p2p_examples::table::Table;
use p2p_libp2p::{ConnectionInfo, Host, HostAddr};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use crate::Failure;
use crate::output::{Out, print};

/// Timeout of an answer, in both directions.
const PATIENCE: Duration = Duration::from_secs(5);
/// Maximum length of an answer that is read, in bytes.
const MAX_ANSWER: u64 = 16 << 20;

/// A control socket. Dropping it removes the socket.
pub(crate) struct Control {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for Control {
    fn drop(&mut self) {
        // It may have been removed already.
        drop(std::fs::remove_file(&self.path));
    }
}

impl Control {
    /// Makes a control socket. A socket that no program serves any more is replaced.
    pub(crate) async fn bind(path: &Path) -> Result<Self, Failure> {
        match UnixStream::connect(path).await {
            Ok(_) => return Err(failed(path, "is served by another program")),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {}
            Err(error) => return Err(failed(path, &error.to_string())),
        }
        if std::fs::symlink_metadata(path).is_ok_and(|there| !is_socket(&there)) {
            return Err(failed(path, "exists, and is no socket"));
        }
        let listener = bind(path).map_err(|error| failed(path, &error.to_string()))?;
        let path = path.to_owned();
        Ok(Self { listener, path })
    }

    /// Answers programs that connect, one after another.
    pub(crate) async fn serve(&self, host: &Host) -> Failure {
        loop {
            let mut socket = match self.listener.accept().await {
                Ok((socket, _)) => socket,
                Err(error) => return error.into(),
            };
            let mut answer = String::new();
            for info in host.connections() {
                answer += &object(&info).to_string();
                answer.push('\n');
            }
            let write = async {
                socket.write_all(answer.as_bytes()).await?;
                socket.shutdown().await
            };
            // A program that is gone, or does not read, delays the next one no longer than this.
            drop(timeout(PATIENCE, write).await);
        }
    }
}

fn is_socket(file: &std::fs::Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_socket(&file.file_type())
}

/// Binds a socket in a private folder, and moves it to its path.
fn bind(path: &Path) -> io::Result<UnixListener> {
    use std::fs;
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};

    let folder = p2p_swarms::whole_file::beside(path, &format!(".{}", std::process::id()));
    fs::DirBuilder::new().mode(0o700).create(&folder)?;
    let at = folder.join("s");
    let bound = UnixListener::bind(&at).and_then(|listener| {
        fs::set_permissions(&at, fs::Permissions::from_mode(0o600))?;
        fs::rename(&at, path)?;
        Ok(listener)
    });
    if bound.is_err() {
        // The first error is the one to report.
        drop(fs::remove_file(&at));
    }
    drop(fs::remove_dir(&folder));
    bound
}

/// Returns the connections of a running host.
async fn ask(path: &Path) -> Result<Vec<Value>, Failure> {
    let answer = async {
        let socket = UnixStream::connect(path).await?;
        let mut answer = String::new();
        socket.take(MAX_ANSWER).read_to_string(&mut answer).await?;
        Ok(answer)
    };
    let answer: io::Result<String> = match timeout(PATIENCE, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(ErrorKind::TimedOut.into()),
    };
    let answer = answer.map_err(|error| failed(path, &error.to_string()))?;
    let objects = answer.lines().map(serde_json::from_str);
    let objects: Result<_, _> = objects.collect();
    objects.map_err(|error| failed(path, &format!("its answer is not valid: {error}")))
}

fn object(info: &ConnectionInfo) -> Value {
    let reasons: Vec<_> = info.reasons.iter().map(ToString::to_string).collect();
    json!({
        "id": info.id.to_string(), "peer": info.peer.to_string(), "remote": info.remote.to_string(),
        "direction": if info.is_dialled { "out" } else { "in" }, "transport": info.transport.to_string(),
        "seconds": info.age.as_secs_f64(), "streams": info.streams, "why": reasons,
    })
}

fn failed(path: &Path, reason: &str) -> Failure {
    Failure::Failed(format!("the control socket {}: {reason}", path.display()))
}

/// Prints the connections of a running host: as a table of at most 80 columns, or one object a line.
pub(crate) async fn show(path: &Path, out: Out) -> Result<(), Failure> {
    let connections = ask(path).await?;
    if out.is_json() {
        return connections
            .iter()
            .try_for_each(|object| print(&object.to_string()));
    }
    let mut table = Table::new(["peer", "dir", "via", "address", "age", "why"]);
    for object in &connections {
        let text = |field: &str| object[field].as_str().unwrap_or_default();
        let remote: Option<HostAddr> = text("remote").parse().ok();
        let address = match remote.as_ref().and_then(p2p::Addr::socket_addr) {
            Some(addr) => addr.to_string(),
            None => text("remote").to_owned(),
        };
        // `quic-v1`, or such as `tcp, noise, yamux`.
        let via = text("transport").split(", ").nth(1).unwrap_or("quic");
        let why = object["why"].as_array().map_or(&[][..], Vec::as_slice);
        let why: Vec<_> = why.iter().filter_map(|reason| reason.as_str()).collect();
        table.row([
            end(text("peer"), 8),
            text("direction").to_owned(),
            via.to_owned(),
            end(&address, 22),
            age(object["seconds"].as_f64().unwrap_or_default()),
            begin(&why.join(", "), 22),
        ]);
    }
    print(&table.render())
}

/// Returns at most this many characters from the beginning.
fn begin(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let head = text.chars().take(most.saturating_sub(1));
    head.chain(['…']).collect()
}

/// Returns at most this many characters from the end.
fn end(text: &str, most: usize) -> String {
    let count = text.chars().count();
    if count <= most {
        return text.to_owned();
    }
    let tail = text.chars().skip(count - most.saturating_sub(1));
    ['…'].into_iter().chain(tail).collect()
}

/// Formats an age in at most five characters up to 11 years.
fn age(seconds: f64) -> String {
    match seconds {
        ..99.5 => format!("{seconds:.0} s"),
        ..5_970.0 => format!("{:.0} min", seconds / 60.0),
        ..356_400.0 => format!("{:.0} h", seconds / 3600.0),
        _ => format!("{:.0} d", seconds / 86_400.0),
    }
}
