//! The cells of a server: in memory, or each in a file of one folder. What was accepted stays for as long as it is said.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, TryLockError};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::cell::{Cell, FileCell, MemoryCell};
use crate::tracker::CellId;
use crate::{Error, Result, UnixTime};

/// A cell that was never written has its place for so long.
const UNWRITTEN: Duration = Duration::from_mins(1);

/// Bounds of a server. Its values take at most `cells` times `value`, in memory or in a folder, and what comes in takes at
/// most twice `value` for each of `connections`.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Cells at most; at the limit another one is refused with 507. Default: 1024.
    pub cells: usize,
    /// Bytes of a value at most; a longer one is refused with 413. Default: 64 KiB.
    pub value: usize,
    /// How long a value that nobody writes again is kept at least. After that another cell may take its place.
    /// Default: 30 days.
    pub keep: Duration,
    /// Which cells there may be; others are refused with 403. Default: any.
    pub only: Option<BTreeSet<CellId>>,
    /// A folder of this server alone, in which values outlast it. Default: none, so that they end with it.
    pub folder: Option<PathBuf>,
    /// Connections at a time; further ones wait to be accepted. Default: 256.
    pub connections: usize,
    /// Connections of one client at a time (an IPv4 address, an IPv6 /64); further ones are closed. Default: 32.
    pub connections_each: u32,
    /// Requests of one client in a second, in the long run; further ones are refused with 429. Default: 20.
    pub requests_each: u32,
    /// Requests of one client at once. Default: 200.
    pub burst_each: u32,
    /// How long a connection may last, which is one request. Default: 10 s.
    pub limit: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            cells: 1024,
            value: 64 << 10,
            keep: Duration::from_hours(30 * 24),
            only: None,
            folder: None,
            connections: 256,
            connections_each: 32,
            requests_each: 20,
            burst_each: 200,
            limit: Duration::from_secs(10),
        }
    }
}

/// Why there is no cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoCell {
    /// It is none of those that there may be.
    NotHere,
    /// There are as many as there may be.
    Full,
}

struct Slot {
    cell: Arc<dyn Cell>,
    /// Whoever writes has it, so that what is said of the cell is said in the order of its values.
    turn: Arc<Turn>,
    /// When somebody last tried to write it.
    tried: UnixTime,
    /// Whether it has a value that was accepted.
    kept: bool,
}

/// Whose turn it is to write a cell.
pub(super) type Turn = tokio::sync::Mutex<()>;

pub(super) struct Store {
    slots: Mutex<HashMap<CellId, Slot>>,
    config: ServerConfig,
    /// Held for as long as the folder is this server's.
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
                    return Err(Error::invalid("folder", "another tracker serves it"));
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

    /// How many cells there are.
    pub(super) fn len(&self) -> usize {
        self.slots().len()
    }

    /// A cell that is there.
    pub(super) fn get(&self, id: &CellId) -> Option<Arc<dyn Cell>> {
        Some(self.slots().get(id)?.cell.clone())
    }

    /// A cell to be written in turn, which from now on is not forgotten. Call [`keep`](Self::keep) once it was.
    pub(super) fn to_write(&self, id: CellId) -> Result<(Arc<dyn Cell>, Arc<Turn>), NoCell> {
        let now = UnixTime::now();
        let mut slots = self.slots();
        if let Some(slot) = slots.get_mut(&id) {
            slot.tried = now;
            return Ok((slot.cell.clone(), slot.turn.clone()));
        }
        if self.config.only.as_ref().is_some_and(|only| !only.contains(&id)) {
            return Err(NoCell::NotHere);
        }
        if slots.len() >= self.config.cells {
            self.forget_one(&mut slots, now);
        }
        if slots.len() >= self.config.cells {
            return Err(NoCell::Full);
        }
        let slot = Slot {
            cell: make(&self.config, id),
            turn: Arc::default(),
            tried: now,
            kept: false,
        };
        let to_write = (slot.cell.clone(), slot.turn.clone());
        slots.insert(id, slot);
        Ok(to_write)
    }

    /// The cell has a value that was accepted, or none any more.
    pub(super) fn keep(&self, id: &CellId, kept: bool) {
        if let Some(slot) = self.slots().get_mut(id) {
            slot.kept = kept;
        }
    }

    /// Forgets the cell that was not written for the longest time, if its time is over.
    fn forget_one(&self, slots: &mut HashMap<CellId, Slot>, now: UnixTime) {
        let over = |slot: &Slot| {
            let time = if slot.kept { self.config.keep } else { UNWRITTEN };
            now.since(slot.tried) > time
        };
        let old = slots.iter().filter(|(_, slot)| over(slot));
        let Some(id) = old.min_by_key(|(_, slot)| slot.tried).map(|(id, _)| *id) else {
            return;
        };
        slots.remove(&id);
        if let Some(folder) = &self.config.folder {
            for ending in ["", ".new", ".lock"] {
                // What is left of it is found again at the next start.
                drop(fs::remove_file(folder.join(format!("{id}{ending}"))));
            }
        }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<CellId, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
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
