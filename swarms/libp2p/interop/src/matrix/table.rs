//! The table of all cells, in Markdown.

use std::fmt;
use std::time::Duration;

use super::cell::{Cell, Direction};
use super::peer::{Installed, Peer};
use crate::link::Link;
use crate::report::Latency;

/// The rounds of one cell.
#[derive(Debug)]
struct Entry {
    peer: Peer,
    link: Link,
    direction: Direction,
    obstacle: Option<&'static str>,
    failed: usize,
    pings: Vec<Duration>,
}

/// The outcomes of all cells.
#[derive(Debug)]
pub(super) struct Table {
    names: Vec<(Peer, String)>,
    entries: Vec<Entry>,
}

impl Table {
    /// Makes a table of cells that have not run.
    pub(super) fn new(peers: &[Installed], has_tool: bool) -> Self {
        let mut entries = Vec::new();
        for peer in peers {
            for link in Link::ALL {
                for direction in Direction::ALL {
                    let obstacle = match peer.peer.obstacle(link, direction) {
                        None if direction == Direction::Tool && !has_tool => Some("not built"),
                        obstacle => obstacle,
                    };
                    entries.push(Entry {
                        peer: peer.peer,
                        link,
                        direction,
                        obstacle,
                        failed: 0,
                        pings: Vec::new(),
                    });
                }
            }
        }
        let names = peers.iter().map(|peer| (peer.peer, peer.name.clone())).collect();
        Self { names, entries }
    }

    /// Adds the outcome of a round: the times, unless it failed.
    pub(super) fn add(&mut self, cell: &Cell<'_>, latency: Option<Latency>) {
        let is_of = |entry: &&mut Entry| {
            (entry.peer, entry.link, entry.direction) == (cell.peer.peer, cell.link, cell.direction)
        };
        if let Some(entry) = self.entries.iter_mut().find(is_of) {
            match latency {
                Some(latency) => entry.pings.push(latency.ping),
                None => entry.failed += 1,
            }
        }
    }

    /// Returns the number of rounds that failed.
    pub(super) fn failed(&self) -> usize {
        self.entries.iter().map(|entry| entry.failed).sum()
    }

    fn entry(&self, peer: Peer, link: Link, direction: Direction) -> Option<&Entry> {
        let mut entries = self.entries.iter();
        entries.find(|entry| (entry.peer, entry.link, entry.direction) == (peer, link, direction))
    }
}

impl Entry {
    fn count(&self) -> String {
        match self.obstacle {
            Some(reason) => reason.to_owned(),
            None => format!("{}/{}", self.pings.len(), self.pings.len() + self.failed),
        }
    }

    fn median(&self) -> String {
        let mut pings = self.pings.clone();
        pings.sort_unstable();
        match pings.get(pings.len() / 2) {
            Some(ping) => format!("{:.2} ms", ping.as_secs_f64() * 1e3),
            None => String::new(),
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| peer | link | ours dials | ping | peer dials | ping | p2putil dials |"
        )?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- | --- |")?;
        for (peer, name) in &self.names {
            for link in Link::ALL {
                let [ours, theirs, tool] = Direction::ALL.map(|direction| self.entry(*peer, link, direction));
                write!(f, "| {name} | {link} |")?;
                for entry in [ours, theirs].into_iter().flatten() {
                    write!(f, " {} | {} |", entry.count(), entry.median())?;
                }
                writeln!(f, " {} |", tool.map(Entry::count).unwrap_or_default())?;
            }
        }
        let passed: usize = self.entries.iter().map(|entry| entry.pings.len()).sum();
        writeln!(f, "\n{passed} rounds passed, {} failed", self.failed())
    }
}

#[cfg(test)]
mod tests {
    use p2p_libp2p::{Muxer, Security};

    use super::*;

    #[test]
    fn a_table_counts_rounds_and_says_why_a_cell_does_not_exist() {
        let peer = Installed {
            peer: Peer::Go,
            program: None,
            name: "go".to_owned(),
        };
        let peers = [peer];
        let mut table = Table::new(&peers, true);
        let cell = |link, direction| Cell {
            peer: &peers[0],
            link,
            direction,
        };
        let times = |ping| {
            let ping = Duration::from_millis(ping);
            Latency {
                handshake_plus_one_rtt: ping,
                ping,
            }
        };
        for ping in [3, 1, 2] {
            table.add(&cell(Link::Quic, Direction::WeDial), Some(times(ping)));
        }
        table.add(&cell(Link::Quic, Direction::PeerDials), None);
        table.add(&cell(Link::Quic, Direction::PeerDials), Some(times(4)));
        assert_eq!(table.failed(), 1);
        let text = table.to_string();
        assert!(
            text.contains("| go | quic-v1 | 3/3 | 2.00 ms | 1/2 | 4.00 ms | 0/0 |\n"),
            "{text}"
        );
        let mplex = Link::Tcp(Security::Tls, Muxer::Mplex);
        let obstacle = Peer::Go.obstacle(mplex, Direction::WeDial).unwrap();
        assert!(
            text.contains(&format!("| go | {mplex} | {obstacle} |  | {obstacle} |")),
            "{text}"
        );
        assert!(text.ends_with("4 rounds passed, 1 failed\n"), "{text}");
    }
}
