//! The connections of a server: those without a request yet are closed when there are too many.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::task::AbortHandle;

/// Returns the address range that one client probably has: an IPv4 /24, an IPv6 /48.
pub(super) fn prefix(ip: IpAddr) -> u128 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => u128::from(ip.to_bits() >> 8),
        IpAddr::V6(ip) => ip.to_bits() >> 80 << 80,
    }
}

/// The open connections; see the [module](self).
#[derive(Debug, Default)]
pub(super) struct Connections {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    /// By number, which increases.
    all: HashMap<u64, Connection>,
    last: u64,
}

#[derive(Debug)]
struct Connection {
    prefix: u128,
    /// Whether the head of a request has arrived.
    has_asked: bool,
    task: Option<AbortHandle>,
}

/// The entry of a connection, removed when it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionGuard {
    connections: Arc<Connections>,
    number: u64,
}

impl Connections {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock()
    }

    /// Registers a connection from this address.
    pub(super) fn enter(self: &Arc<Self>, ip: IpAddr) -> ConnectionGuard {
        let mut open = self.open();
        open.last += 1;
        let number = open.last;
        let connection = Connection {
            prefix: prefix(ip),
            has_asked: false,
            task: None,
        };
        open.all.insert(number, connection);
        drop(open);
        ConnectionGuard {
            connections: self.clone(),
            number,
        }
    }

    /// Sets the task that serves a connection, unless that has already ended.
    pub(super) fn serve(&self, number: u64, task: AbortHandle) {
        if let Some(connection) = self.open().all.get_mut(&number) {
            connection.task = Some(task);
        }
    }

    /// Returns the number of connections from the prefix of this address.
    pub(super) fn of_prefix(&self, ip: IpAddr) -> usize {
        let prefix = prefix(ip);
        let open = self.open();
        open.all
            .values()
            .filter(|connection| connection.prefix == prefix)
            .count()
    }

    /// Closes the oldest connection without a request, from the prefix with the most of them or from that of
    /// `of`. Returns whether there was one.
    pub(super) fn close_idle(&self, of: Option<IpAddr>) -> bool {
        let mut open = self.open();
        let mut idle: BTreeMap<u128, (usize, u64)> = BTreeMap::new();
        for (number, connection) in &open.all {
            let fits = of.is_none_or(|ip| prefix(ip) == connection.prefix);
            if fits && !connection.has_asked && connection.task.is_some() {
                let (count, oldest) = idle.entry(connection.prefix).or_insert((0, *number));
                (*count, *oldest) = (*count + 1, (*oldest).min(*number));
            }
        }
        let most = idle.into_values().max_by_key(|(count, _)| *count);
        // Its entry is removed at once, since its task may take a moment to end.
        let ended = most.and_then(|(_, number)| open.all.remove(&number)?.task);
        drop(open);
        ended.map(|task| task.abort()).is_some()
    }
}

impl ConnectionGuard {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Records that the head of a request has arrived.
    pub(super) fn has_asked(&self) {
        if let Some(connection) = self.connections.open().all.get_mut(&self.number) {
            connection.has_asked = true;
        }
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.connections.open().all.remove(&self.number);
    }
}
