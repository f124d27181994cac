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
    /// Cells at most. At the limit one whose time is over makes room, or else one that was written once, of the client
    /// that made the most, if that made more than the one that wants another. Otherwise it is refused with 507. Default:
    /// 1024.
    pub cells: usize,
    /// Cells that one client makes (an IPv4 address, an IPv6 /64); at the limit another one is refused with 507, unless the
    /// time of one of its own is over. Without effect on cells of `only`. Default: 64.
    pub cells_each: usize,
    /// Bytes of a value at most; a longer one is refused with 413. Default: 64 KiB.
    pub value: usize,
    /// How long a value that nobody writes again is kept at least. After that another cell may take its place.
    /// Default: 30 days.
    pub keep: Duration,
    /// The same for a value that was written once only, and after a restart of the server: members of a tracker write its
    /// value again and again. Default: 1 day.
    pub keep_once: Duration,
    /// Which cells there may be; others are refused with 403. Default: any.
    pub only: Option<BTreeSet<CellId>>,
    /// A folder of this server alone, in which values outlast it. Default: none, so that they end with it.
    pub folder: Option<PathBuf>,
    /// Connections at a time. At the limit that is closed which has asked nothing for the longest time, of the prefix with
    /// most of these; where all have asked, further ones wait to be accepted. Default: 256.
    pub connections: usize,
    /// Connections of one prefix (IPv4 /24, IPv6 /48) at a time; at the limit as above, or the new one is closed. Default:
    /// 128.
    pub connections_prefix: usize,
    /// Connections of one client at a time (an IPv4 address, an IPv6 /64); further ones are closed. Default: 32.
    pub connections_each: u32,
    /// Requests of one client in a second, in the long run; further ones are refused with 429. Default: 20.
    pub requests_each: u32,
    /// Requests of one client at once. Default: 200.
    pub burst_each: u32,
    /// How long a connection may last, which is one request. Default: 10 s.
    pub limit: Duration,
    /// How long the head of the request may take of that. Default: 2 s.
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
    /// It is none of those that there may be.
    NotHere,
    /// The client made as many as one may.
    Share,
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
    /// How often one was.
    writes: u32,
    /// Who made it; nobody knows of one from before a restart.
    by: Option<u128>,
}

impl Slot {
    /// Whether it may make room for others: nobody writes it just now.
    fn is_free(&self) -> bool {
        Arc::strong_count(&self.turn) == 1
    }
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

    /// How many cells there are.
    pub(super) fn len(&self) -> usize {
        self.slots().len()
    }

    /// A cell that is there.
    pub(super) fn get(&self, id: &CellId) -> Option<Arc<dyn Cell>> {
        Some(self.slots().get(id)?.cell.clone())
    }

    /// A cell to be written in turn by this client, which from now on is not forgotten. Call [`keep`](Self::keep) once it was.
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

    /// The cell has a value that was accepted, or none any more.
    pub(super) fn keep(&self, id: &CellId, kept: bool) {
        if let Some(slot) = self.slots().get_mut(id) {
            slot.kept = kept;
            slot.writes = slot.writes.saturating_add(1);
        }
    }

    /// Whether a cell has a value that was accepted.
    #[cfg(test)]
    pub(super) fn is_kept(&self, id: &CellId) -> bool {
        self.slots().get(id).is_some_and(|slot| slot.kept)
    }

    /// Forgets the cell that was not written for the longest time, if its time is over: of this client, or of any.
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

    /// Forgets the oldest cell that was written once at most, of the client that made the most, if that made more than
    /// this one will have then.
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

    /// Writes a cell that need not be there.
    fn write(store: &Store, number: u32, client: u128) -> Result<(), NoCell> {
        store
            .to_write(id(number), client)
            .map(|_| store.keep(&id(number), true))
    }

    #[tokio::test(start_paused = true)]
    async fn one_client_makes_no_more_than_its_share_of_cells() {
        let store = store(|_| ());
        let made = (0..2000).filter(|number| write(&store, *number, 1).is_ok());
        assert_eq!(made.count(), store.config().cells_each);
        assert_eq!(write(&store, 5000, 1), Err(NoCell::Share));
        write(&store, 5000, 2).expect("another client has its own share");
        // Those that were made can be written again.
        write(&store, 0, 1).expect("it is there");
    }

    #[tokio::test(start_paused = true)]
    async fn many_clients_that_fill_all_cells_keep_no_other_out() {
        let store = store(|_| ());
        write(&store, 1_000_000, 7).expect("room");
        write(&store, 1_000_000, 7).expect("again");
        for number in 0..2000 {
            // Beyond the limits a write is refused, or displaces another; both are fine here.
            let _ = write(&store, number, 100 + u128::from(number / 60));
        }
        assert_eq!(store.len(), store.config().cells);
        write(&store, 2_000_000, 8).expect("a newcomer finds room");
        assert!(store.get(&id(1_000_000)).is_some(), "a cell in use was forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_cell_that_was_written_once_makes_room_sooner() {
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
