//! The network between two nodes: latency, loss, and bandwidth.

use std::time::Duration;

use p2p::{Error, Result};

use super::addr::SimAddr;
use super::distribution::Distribution;
use super::mix::Mix;

/// The network between the nodes.
#[derive(Clone, Debug)]
pub struct Links {
    /// One-way latency of a packet.
    pub latency: Latency,
    /// Additional delay of each packet. With it packets overtake each other.
    pub jitter: Option<Distribution>,
    /// The fraction of packets that are lost independently, from 0 to 1. An ask is two packets.
    pub loss: f64,
    /// The bandwidth of a node's uplink. Default: unlimited.
    pub uplink: Option<Uplink>,
}

impl Default for Links {
    /// Returns 50 ms each way, no loss, unlimited bandwidth: the network of the Chord paper's simulations.
    fn default() -> Self {
        Self {
            latency: Latency::PerPacket(Distribution::Constant(Duration::from_millis(50))),
            jitter: None,
            loss: 0.0,
            uplink: None,
        }
    }
}

/// The latency of packets.
#[derive(Clone, Debug)]
pub enum Latency {
    /// Sampled for each packet.
    PerPacket(Distribution),
    /// Sampled once for each pair of nodes, the same in both directions, without storing it.
    PerLink(Distribution),
    /// From a table of sites; node `n` is at site `n mod sites`.
    Matrix(Matrix),
}

/// One-way latencies between sites.
#[derive(Clone, Debug)]
pub struct Matrix {
    sites: usize,
    latencies: Vec<Duration>,
}

impl Matrix {
    /// Creates the table with these rows: `rows[a][b]` is the time from site `a` to site `b`.
    ///
    /// # Errors
    /// Returns [`Error::Invalid`] if there is no row, or the table is not square.
    pub fn new(rows: &[Vec<Duration>]) -> Result<Self> {
        let sites = rows.len();
        if sites == 0 {
            return Err(Error::invalid("latency matrix", "it has no sites"));
        }
        if let Some(row) = rows.iter().position(|row| row.len() != sites) {
            return Err(Error::invalid(
                "latency matrix",
                format!("row {row} has {} entries for {sites} sites", rows[row].len()),
            ));
        }
        Ok(Self {
            sites,
            latencies: rows.concat(),
        })
    }

    fn between(&self, from: SimAddr, to: SimAddr) -> Duration {
        let (from, to) = (from.index() % self.sites, to.index() % self.sites);
        self.latencies[from * self.sites + to]
    }
}

/// A node's uplink: packets leave one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Uplink {
    /// Bytes per second.
    pub bytes_per_second: u64,
    /// Bytes that the layers below add to each packet.
    pub overhead: usize,
    /// Maximum queueing delay of a packet; a packet that would wait longer is dropped.
    pub queue: Duration,
}

impl Uplink {
    /// Returns the nanoseconds that a packet of this length occupies the uplink.
    pub(super) fn occupied(&self, len: usize) -> u64 {
        let bits = (len as u128 + self.overhead as u128) * 1_000_000_000;
        u64::try_from(bits / u128::from(self.bytes_per_second.max(1))).unwrap_or(u64::MAX)
    }
}

impl Links {
    /// Returns the latency of a packet on this link. `random` supplies per-packet randomness.
    pub(super) fn latency(&self, seed: u64, from: SimAddr, to: SimAddr, random: &mut Mix) -> Duration {
        let latency = match &self.latency {
            Latency::PerPacket(distribution) => distribution.sample(|| random.uniform()),
            Latency::PerLink(distribution) => {
                let mut link = Mix(seed);
                link.absorb(u64::from(from.0.min(to.0)) << 32 | u64::from(from.0.max(to.0)));
                distribution.sample(|| link.uniform())
            }
            Latency::Matrix(matrix) => matrix.between(from, to),
        };
        match &self.jitter {
            None => latency,
            Some(jitter) => latency.saturating_add(jitter.sample(|| random.uniform())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_link_has_one_latency_in_both_directions_and_links_differ() {
        let links = Links {
            latency: Latency::PerLink(Distribution::Uniform(MS, 100 * MS)),
            ..Links::default()
        };
        let mut random = Mix(1);
        let mut between = |a, b| links.latency(5, SimAddr(a), SimAddr(b), &mut random);
        assert_eq!(between(3, 9), between(9, 3));
        let all: std::collections::BTreeSet<Duration> = (1..100).map(|to| between(0, to)).collect();
        assert!(all.len() > 95, "{} latencies of 99 links", all.len());
    }

    #[test]
    fn a_matrix_is_square_and_assigns_nodes_in_turn() {
        assert!(Matrix::new(&[]).is_err());
        let error = Matrix::new(&[vec![MS, MS], vec![MS]]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid latency matrix: row 1 has 1 entries for 2 sites"
        );
        let matrix = Matrix::new(&[vec![MS, 2 * MS], vec![3 * MS, 4 * MS]]).unwrap();
        assert_eq!(matrix.between(SimAddr(2), SimAddr(5)), 2 * MS);
        assert_eq!(matrix.between(SimAddr(7), SimAddr(4)), 3 * MS);
    }

    #[test]
    fn an_uplink_is_occupied_according_to_its_rate() {
        let uplink = Uplink {
            bytes_per_second: 1000,
            overhead: 50,
            queue: MS,
        };
        assert_eq!(uplink.occupied(50), 100_000_000);
    }
}
