//! Network topologies as graphs, reproducible by seed.
//!
//! Deliberately absent: links, delays and addresses. A graph determines which nodes to connect; the code that
//! creates the nodes connects them.

use std::collections::{BTreeSet, VecDeque};

use p2p::{Error, Result};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

/// Maximum number of attempts at a random regular graph; one succeeds with a probability of well over 1 in 10
/// for small degrees.
const PAIRINGS: usize = 1000;

/// An undirected graph of the nodes `0..len()`, without loops and double edges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    neighbours: Vec<BTreeSet<usize>>,
}

impl Topology {
    fn empty(nodes: usize) -> Self {
        Self {
            neighbours: vec![BTreeSet::new(); nodes],
        }
    }

    fn of(nodes: usize, edges: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let mut graph = Self::empty(nodes);
        for (a, b) in edges {
            graph.connect(a, b);
        }
        graph
    }

    /// Adds an edge, unless it is a loop or exists already; returns whether it did.
    fn connect(&mut self, a: usize, b: usize) -> bool {
        a != b && self.neighbours[a].insert(b) && self.neighbours[b].insert(a)
    }

    fn disconnect(&mut self, a: usize, b: usize) {
        self.neighbours[a].remove(&b);
        self.neighbours[b].remove(&a);
    }

    /// Creates a chain: `nodes - 1` edges, degree 1 at the ends and 2 between.
    pub fn chain(nodes: usize) -> Self {
        Self::of(nodes, (1..nodes).map(|node| (node - 1, node)))
    }

    /// Creates a ring: degree 2.
    ///
    /// # Errors
    /// Returns [`Error::Invalid`] for fewer than three nodes.
    pub fn ring(nodes: usize) -> Result<Self> {
        require(nodes >= 3, || {
            format!("a ring needs at least 3 nodes, not {nodes}")
        })?;
        Ok(Self::of(nodes, (0..nodes).map(|node| (node, (node + 1) % nodes))))
    }

    /// Creates a complete graph: degree `nodes - 1`.
    pub fn full(nodes: usize) -> Self {
        Self::of(nodes, (0..nodes).flat_map(|b| (0..b).map(move |a| (a, b))))
    }

    /// Creates a star: node 0 with each other node.
    pub fn hub_and_spoke(nodes: usize) -> Self {
        Self::of(nodes, (1..nodes).map(|spoke| (0, spoke)))
    }

    /// Creates a random graph in which every node has the same degree; connected with high probability from
    /// degree 3 on.
    ///
    /// The pairing model (Bollobás 1980), with Steger and Wormald's (1999) choice among suitable pairs only.
    ///
    /// # Errors
    /// Returns [`Error::Invalid`] if the degree is not below the number of nodes, or both are odd.
    pub fn random_regular(nodes: usize, degree: usize, seed: u64) -> Result<Self> {
        require(degree < nodes, || {
            format!("of {nodes} nodes none can have {degree} neighbours")
        })?;
        require(nodes.is_multiple_of(2) || degree.is_multiple_of(2), || {
            format!("{nodes} nodes of degree {degree} would have half an edge")
        })?;
        let mut rng = StdRng::seed_from_u64(seed);
        for _ in 0..PAIRINGS {
            if let Some(graph) = Self::pairing(nodes, degree, &mut rng) {
                return Ok(graph);
            }
        }
        Err(Error::invalid(
            "topology",
            format!("no {degree}-regular graph of {nodes} nodes was found in {PAIRINGS} attempts"),
        ))
    }

    /// Pairs the ends of edges at random; fails if only loops and double edges are left.
    fn pairing(nodes: usize, degree: usize, rng: &mut StdRng) -> Option<Self> {
        let mut graph = Self::empty(nodes);
        let mut ends: Vec<usize> = (0..nodes)
            .flat_map(|node| std::iter::repeat_n(node, degree))
            .collect();
        while !ends.is_empty() {
            ends.shuffle(rng);
            let before = ends.len();
            let mut left = Vec::new();
            for pair in ends.chunks(2) {
                match *pair {
                    [a, b] if !graph.connect(a, b) => left.extend([a, b]),
                    _ => {}
                }
            }
            ends = left;
            let stuck = ends.len() == before
                && !ends
                    .iter()
                    .any(|a| ends.iter().any(|b| a != b && !graph.neighbours[*a].contains(b)));
            if stuck {
                return None;
            }
        }
        Some(graph)
    }

    /// Creates a ring in which each node knows its `degree` nearest, with each edge moved to a random end
    /// with a probability of `rewire`: short paths and many triangles (Watts and Strogatz, Nature 393, 1998).
    ///
    /// The number of edges stays `nodes * degree / 2`. Rewiring may rarely disconnect the graph.
    ///
    /// # Errors
    /// Returns [`Error::Invalid`] if the degree is odd or not below the number of nodes, or `rewire` is not a
    /// probability.
    pub fn small_world(nodes: usize, degree: usize, rewire: f64, seed: u64) -> Result<Self> {
        require(degree.is_multiple_of(2) && degree < nodes, || {
            format!("a ring of {nodes} nodes needs an even number of neighbours below that, not {degree}")
        })?;
        require((0.0..=1.0).contains(&rewire), || {
            format!("{rewire} is not a probability from 0 to 1")
        })?;
        let mut rng = StdRng::seed_from_u64(seed);
        let rings = 1..=degree / 2;
        let edges = rings.flat_map(|reach| (0..nodes).map(move |node| (node, (node + reach) % nodes)));
        let mut graph = Self::of(nodes, edges.clone());
        for (node, old) in edges {
            // A node that knows all others has no possible new neighbour.
            if rng.random_bool(rewire) && graph.neighbours[node].len() < nodes - 1 {
                let new = loop {
                    let new = rng.random_range(0..nodes);
                    if graph.connect(node, new) {
                        break new;
                    }
                };
                debug_assert_ne!(new, old);
                graph.disconnect(node, old);
            }
        }
        Ok(graph)
    }

    /// Creates a graph that grows by nodes that each connect to `links` others, with a preference for those
    /// with many neighbours: a few hubs and many leaves (Barabási and Albert, Science 286, 1999). Connected.
    ///
    /// It starts as a complete graph of `links + 1` nodes.
    ///
    /// # Errors
    /// Returns [`Error::Invalid`] if `links` is 0 or not below the number of nodes.
    pub fn scale_free(nodes: usize, links: usize, seed: u64) -> Result<Self> {
        require(links > 0 && links < nodes, || {
            format!("of {nodes} nodes each new one can link to 1 up to all others, not to {links}")
        })?;
        let mut rng = StdRng::seed_from_u64(seed);
        let core = Self::full(links + 1);
        // Each node occurs once for each of its edges, so that a uniform choice prefers hubs.
        let mut ends: Vec<usize> = core.edges().flat_map(|(a, b)| [a, b]).collect();
        let mut graph = Self::of(nodes, core.edges());
        for node in links + 1..nodes {
            let mut found = BTreeSet::new();
            while found.len() < links {
                found.insert(ends[rng.random_range(0..ends.len())]);
            }
            for other in found {
                graph.connect(node, other);
                ends.extend([node, other]);
            }
        }
        Ok(graph)
    }

    /// Returns the number of nodes.
    pub fn len(&self) -> usize {
        self.neighbours.len()
    }

    /// Returns whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.neighbours.is_empty()
    }

    /// Returns the neighbours of a node in ascending order; none for a node that does not exist.
    pub fn neighbours(&self, node: usize) -> impl Iterator<Item = usize> + '_ {
        self.neighbours.get(node).into_iter().flatten().copied()
    }

    /// Returns the number of a node's neighbours.
    pub fn degree(&self, node: usize) -> usize {
        self.neighbours.get(node).map_or(0, BTreeSet::len)
    }

    /// Returns each edge once, the lower node first, in ascending order.
    pub fn edges(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let of = |(a, others): (usize, _)| std::iter::repeat(a).zip(others);
        let all = self.neighbours.iter().map(|others| others.iter().copied());
        all.enumerate().flat_map(of).filter(|(a, b)| a < b)
    }

    /// Returns whether each node reaches every other.
    pub fn is_connected(&self) -> bool {
        let mut reached = vec![false; self.len()];
        let mut waiting: VecDeque<usize> = (0..self.len().min(1)).collect();
        let mut count = 0;
        while let Some(node) = waiting.pop_front() {
            if !std::mem::replace(&mut reached[node], true) {
                count += 1;
                waiting.extend(self.neighbours(node));
            }
        }
        count == self.len()
    }
}

fn require(possible: bool, why: impl FnOnce() -> String) -> Result<()> {
    if possible {
        Ok(())
    } else {
        Err(Error::invalid("topology", why()))
    }
}
