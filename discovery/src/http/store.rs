//! The cells of a server, in memory or in the files of one folder. Accepted values are kept as long as the
//! configuration states.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, TryLockError};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::{Mutex, MutexGuard};

use crate::cell::{Cell, FileCell, MemoryCell};
use crate::tracker::CellId;
use crate::{Error, Result, UnixTime};

/// Lifetime of a cell without a value.
const UNWRITTEN: Duration = Duration::from_mins(1);

/// Bounds of a server. Its values take at most `cells` times `value`, in memory or in a folder, and requests
/// at most twice `value` for each of `connections`.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Maximum number of cells. At the bound an expired cell is removed, or else one that was written only
    /// once, of the client that created the most, if that created more than the requesting one. Otherwise the
    /// request is refused with 507. Default: 1024.
    pub cells: usize,
    /// Maximum number of cells that one client creates (an IPv4 address, an IPv6 /64). At the bound the
    /// request is refused with 507, unless one of the client's cells has expired. Does not apply to cells of
    /// `only`. Default: 64.
    pub cells_each: usize,
    /// Maximum length of a value in bytes; a longer one is refused with 413. Default: 64 KiB.
    pub value: usize,
    /// Minimum time that a value is kept after its last write. After that another cell may replace it.
    /// Default: 30 days.
    pub keep: Duration,
    /// The same for a value that was written only once, and after a restart of the server: members of a
    /// tracker write its value repeatedly. Default: 1 day.
    pub keep_once: Duration,
    /// Permitted cells; others are refused with 403. Default: any.
    pub only: Option<BTreeSet<CellId>>,
    /// A folder for this server only, in which values survive restarts. Default: none; values end with the
    /// server.
    pub folder: Option<PathBuf>,
    /// Maximum number of connections. At the bound the oldest connection without a request is closed, from
    /// the prefix with the most of these; if all have sent a request, further connections wait to be
    /// accepted. Default: 256.
    pub connections: usize,
    /// Maximum number of connections of one prefix (IPv4 /24, IPv6 /48). At the bound one is closed as above,
    /// or the new one is. Default: 128.
    pub connections_prefix: usize,
    /// Maximum number of connections of one client (an IPv4 address, an IPv6 /64); further ones are closed.
    /// Default: 32.
    pub connections_each: u32,
    /// Sustained requests per second of one client; further ones are refused with 429. Default: 20.
    pub requests_each: u32,
    /// Burst of requests of one client. Default: 200.
    pub burst_each: u32,
    /// Maximum duration of a connection, which is one request. Default: 10 s.
    pub limit: Duration,
    /// Timeout for the head of the request, within the same time. Default: 2 s.
    pub head: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            cells: 1024,
            cells_each: 64,
            value: 64 << 10,
            keep: Duration::from_hours(30 * 24),
            keep_once: Duration::from_hours(24),
            only: None,
            folder: None,
            connections: 256,
            connections_prefix: 128,
            connections_each: 32,
            requests_each: 20,
            burst_each: 200,
            limit: Duration::from_secs(10),
            head: Duration::from_secs(2),
        }
    }
}

/// Why there is no cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoCell {
    /// The cell is not one of the permitted cells.
    NotHere,
    /// The client has created the maximum number of cells.
    Share,
    /// The maximum number of cells exists.
    Full,
}

struct Slot {
    cell: Arc<dyn Cell>,
    /// Held by the writer, so that changes of the entry are in the order of the values.
    turn: Arc<Turn>,
    /// Time of the last attempt to write it.
    tried: UnixTime,
    /// Whether it has an accepted value.
    kept: bool,
    /// Number of accepted values.
    writes: u32,
    /// The client that created it; unknown after a restart.
    by: Option<u128>,
}

impl Slot {
    /// Returns whether it can be removed: it is not being written.
    fn is_free(&self) -> bool {
        Arc::strong_count(&self.turn) == 1
    }
}

/// The lock of a cell's writer.
pub(super) type Turn = tokio::sync::Mutex<()>;

pub(super) struct Store {
    slots: Mutex<HashMap<CellId, Slot>>,
    config: ServerConfig,
    /// Held while the folder belongs to this server.
    _lock: Option<File>,
}

impl Store {
    pub(super) fn open(config: ServerConfig) -> Result<Self> {
        let mut slots = HashMap::new();
        let mut lock = None;
        if let Some(folder) = &config.folder {
            let doing = "opening the tracker's folder";
            fs::create_dir_all(folder).map_err(Error::io(doing))?;
            let file = File::create(folder.join("lock")).map_err(Error::io(doing))?;
            match file.try_lock() {
                Ok(()) => lock = Some(file),
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::invalid("folder", "another tracker uses it"));
                }
                Err(TryLockError::Error(error)) => return Err(Error::io(doing)(error)),
            }
            for entry in fs::read_dir(folder).map_err(Error::io(doing))? {
                let entry = entry.map_err(Error::io(doing))?;
                let id = entry.file_name().to_str().and_then(|name| name.parse().ok());
                let Some(id) = id else { continue };
                let written = entry.metadata().and_then(|metadata| metadata.modified());
                let tried = unix_time(written.map_err(Error::io(doing))?);
                let slot = Slot {
                    cell: make(&config, id),
                    turn: Arc::default(),
                    tried,
                    kept: true,
                    writes: 1,
                    by: None,
                };
                slots.insert(id, slot);
            }
        }
        Ok(Self {
            slots: Mutex::new(slots),
            config,
            _lock: lock,
        })
    }

    pub(super) fn config(&self) -> &ServerConfig {
        &self.config
    }

    /// Returns the number of cells.
    pub(super) fn len(&self) -> usize {
        self.slots().len()
    }

    /// Returns an existing cell.
    pub(super) fn get(&self, id: &CellId) -> Option<Arc<dyn Cell>> {
        Some(self.slots().get(id)?.cell.clone())
    }

    /// Returns a cell for writing by this client, creating it if necessary; it is not removed meanwhile. Call
    /// [`keep`](Self::keep) after the write.
    pub(super) fn to_write(&self, id: CellId, client: u128) -> Result<(Arc<dyn Cell>, Arc<Turn>), NoCell> {
        let now = UnixTime::now();
        let mut slots = self.slots();
        if let Some(slot) = slots.get_mut(&id) {
            slot.tried = now;
            return Ok((slot.cell.clone(), slot.turn.clone()));
        }
        if self.config.only.as_ref().is_some_and(|only| !only.contains(&id)) {
            return Err(NoCell::NotHere);
        }
        let made = |slots: &HashMap<CellId, Slot>| {
            let own = slots.values().filter(|slot| slot.by == Some(client));
            self.config.only.is_none() && own.count() >= self.config.cells_each
        };
        if made(&slots) {
            self.forget_one(&mut slots, now, Some(client));
        }
        if made(&slots) {
            return Err(NoCell::Share);
        }
        if slots.len() >= self.config.cells {
            self.forget_one(&mut slots, now, None);
        }
        if slots.len() >= self.config.cells {
            self.forget_of_crowd(&mut slots, client);
        }
        if slots.len() >= self.config.cells {
            return Err(NoCell::Full);
        }
        let slot = Slot {
            cell: make(&self.config, id),
            turn: Arc::default(),
            tried: now,
            kept: false,
            writes: 0,
            by: Some(client),
        };
        let to_write = (slot.cell.clone(), slot.turn.clone());
        slots.insert(id, slot);
        Ok(to_write)
    }

    /// Records whether the cell has an accepted value.
    pub(super) fn keep(&self, id: &CellId, kept: bool) {
        if let Some(slot) = self.slots().get_mut(id) {
            slot.kept = kept;
            slot.writes = slot.writes.saturating_add(1);
        }
    }

    /// Returns whether a cell has an accepted value.
    #[cfg(test)]
    pub(super) fn is_kept(&self, id: &CellId) -> bool {
        self.slots().get(id).is_some_and(|slot| slot.kept)
    }

    /// Removes the least recently written cell that has expired, of this client or of any.
    fn forget_one(&self, slots: &mut HashMap<CellId, Slot>, now: UnixTime, of: Option<u128>) {
        let over = |slot: &Slot| {
            let time = match (slot.kept, slot.writes) {
                (false, _) => UNWRITTEN,
                (true, ..=1) => self.config.keep_once.min(self.config.keep),
                (true, _) => self.config.keep,
            };
            now.since(slot.tried) > time
        };
        let old = slots.iter().filter(|(_, slot)| over(slot) && slot.is_free());
        let old = old.filter(|(_, slot)| of.is_none() || slot.by == of);
        if let Some(id) = old.min_by_key(|(_, slot)| slot.tried).map(|(id, _)| *id) {
            self.forget(slots, id);
        }
    }

    /// Removes the oldest cell that was written at most once, of the client that created the most, if that
    /// created more than this client would have.
    fn forget_of_crowd(&self, slots: &mut HashMap<CellId, Slot>, client: u128) {
        let mut made: HashMap<Option<u128>, usize> = HashMap::new();
        for slot in slots.values() {
            *made.entry(slot.by).or_default() += 1;
        }
        let own = made.get(&Some(client)).copied().unwrap_or(0);
        let most = made
            .into_iter()
            .filter(|(by, _)| by.is_some())
            .max_by_key(|(_, count)| *count);
        let Some((crowd, _)) = most.filter(|(_, count)| *count > own + 1) else {
            return;
        };
        let old = slots
            .iter()
            .filter(|(_, slot)| slot.by == crowd && slot.writes <= 1 && slot.is_free());
        if let Some(id) = old.min_by_key(|(_, slot)| slot.tried).map(|(id, _)| *id) {
            self.forget(slots, id);
        }
    }

    fn forget(&self, slots: &mut HashMap<CellId, Slot>, id: CellId) {
        slots.remove(&id);
        if let Some(folder) = &self.config.folder {
            for ending in ["", ".new", ".lock"] {
                // Remaining files are found at the next start.
                drop(fs::remove_file(folder.join(format!("{id}{ending}"))));
            }
        }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<CellId, Slot>> {
        self.slots.lock()
    }
}

fn make(config: &ServerConfig, id: CellId) -> Arc<dyn Cell> {
    match &config.folder {
        Some(folder) => Arc::new(FileCell::new(folder.join(id.to_string())).max(config.value)),
        None => Arc::new(MemoryCell::new(config.value)),
    }
}

fn unix_time(time: SystemTime) -> UnixTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixTime::default().after(since)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(change: impl FnOnce(&mut ServerConfig)) -> Store {
        let mut config = ServerConfig::default();
        change(&mut config);
        Store::open(config).expect("in memory")
    }

    fn id(number: u32) -> CellId {
        let mut secret = [9; 32];
        secret[..4].copy_from_slice(&number.to_be_bytes());
        crate::Secret::new(secret).cell_id()
    }

    /// Writes a cell, creating it if necessary.
    fn write(store: &Store, number: u32, client: u128) -> Result<(), NoCell> {
        store
            .to_write(id(number), client)
            .map(|_| store.keep(&id(number), true))
    }

    #[tokio::test(start_paused = true)]
    async fn one_client_creates_at_most_its_share_of_cells() {
        let store = store(|_| ());
        let made = (0..2000).filter(|number| write(&store, *number, 1).is_ok());
        assert_eq!(made.count(), store.config().cells_each);
        assert_eq!(write(&store, 5000, 1), Err(NoCell::Share));
        write(&store, 5000, 2).expect("another client has its own share");
        // Existing cells can still be written.
        write(&store, 0, 1).expect("it exists");
    }

    #[tokio::test(start_paused = true)]
    async fn many_clients_that_fill_all_cells_exclude_no_other() {
        let store = store(|_| ());
        write(&store, 1_000_000, 7).expect("room");
        write(&store, 1_000_000, 7).expect("again");
        for number in 0..2000 {
            // Beyond the limits a write is refused, or displaces another cell; both are valid here.
            let _ = write(&store, number, 100 + u128::from(number / 60));
        }
        assert_eq!(store.len(), store.config().cells);
        write(&store, 2_000_000, 8).expect("a new client finds room");
        assert!(store.get(&id(1_000_000)).is_some(), "a cell in use was removed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_cell_that_was_written_once_is_removed_sooner() {
        let store = store(|config| config.cells = 2);
        write(&store, 1, 1).expect("room");
        for _ in 0..2 {
            write(&store, 2, 2).expect("room");
        }
        assert_eq!(write(&store, 3, 3), Err(NoCell::Full));
        tokio::time::advance(Duration::from_hours(25)).await;
        write(&store, 3, 3).expect("room");
        assert!(store.get(&id(1)).is_none() && store.get(&id(2)).is_some());
        assert_eq!(write(&store, 4, 4), Err(NoCell::Full));
    }
}
