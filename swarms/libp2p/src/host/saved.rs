//! The peer store in a file.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use multiaddr::Multiaddr;
use p2p::{Error, Result};
use p2p_protocols::peers::{Revision, Snapshot};
use p2p_swarms::whole_file;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::engines::KnownPeer;
use super::shared::Shared;

/// The time after which the store is written again, if that is worth it.
const PERIOD: Duration = Duration::from_mins(1);
/// Maximum length of the file in bytes.
const MAX: usize = 64 << 20;

impl Shared {
    /// Reads the peer store from a file, and writes it in a task.
    pub(super) async fn keep_peers(self: &Arc<Self>, path: PathBuf) -> Result<()> {
        let from = path.clone();
        let read = spawn_blocking(move || whole_file::read(&from, MAX)).await;
        let read = read.map_err(|error| Error::io("reading the peer store")(error.into()))?;
        // The revision that is in the file.
        let mut saved = None;
        match read {
            Ok(bytes) => {
                let snapshot = Snapshot::<KnownPeer, Multiaddr>::decode(&bytes);
                let snapshot = snapshot.map_err(|error| invalid(&path, &error.to_string()))?;
                saved = self.drive(|engines, now| {
                    engines.peers.import(now, unix_time(), snapshot);
                    Some(engines.peers.revision(now))
                });
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.kind() == ErrorKind::FileTooLarge => {
                return Err(invalid(&path, &error.to_string()));
            }
            Err(error) => return Err(Error::io("reading the peer store")(error)),
        }
        let shared = self.clone();
        let task = tokio::spawn(async move {
            let mut is_open = true;
            while is_open {
                is_open = tokio::select! {
                    biased;
                    () = shared.closed() => false,
                    () = sleep(PERIOD) => true,
                };
                if let Err(error) = shared.save_peers(&path, &mut saved).await {
                    tracing::warn!(layer = "libp2p", path = %path.display(), %error, "the peer store was not saved");
                }
            }
        });
        *self.saver.lock() = Some(task);
        Ok(())
    }

    /// Writes the peer store, unless the revision that is in the file is as good.
    async fn save_peers(&self, path: &Path, saved: &mut Option<Revision>) -> std::io::Result<()> {
        let (snapshot, revision) = {
            let engines = self.engines.lock();
            let (peers, now) = (&engines.peers, self.now());
            if saved.is_some_and(|saved| !peers.is_outdated(now, saved)) {
                return Ok(());
            }
            (peers.export(now, unix_time()), peers.revision(now))
        };
        let path = path.to_owned();
        let written = spawn_blocking(move || {
            let bytes = snapshot.encode().map_err(std::io::Error::other)?;
            whole_file::replace(&path, &bytes)
        });
        written.await??;
        *saved = Some(revision);
        Ok(())
    }
}

fn invalid(path: &Path, reason: &str) -> Error {
    Error::invalid("peer store", format!("{}: {reason}", path.display()))
}

fn unix_time() -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default()
}
