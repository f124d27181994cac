//! Shapes of networks as graphs: which nodes are neighbours, the same for the same seed.
//!
//! Deliberately absent: links, delays and addresses. A graph says which nodes to connect, and what makes the
//! nodes connects them.

use std::collections::{BTreeSet, VecDeque};

use p2p::{Error, Result};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

/// Attempts at a random regular graph; one succeeds with a chance of well over 1 in 10 for small degrees.
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

    /// Adds an edge, unless it is a loop or there already; says whether it did.
    fn connect(&mut self, a: usize, b: usize) -> bool {
        a != b && self.neighbours[a].insert(b) && self.neighbours[b].insert(a)
    }

    fn disconnect(&mut self, a: usize, b: usize) {
        self.neighbours[a].remove(&b);
        self.neighbours[b].remove(&a);
    }

    /// Each node with the next: `nodes - 1` edges, degree 1 at the ends and 2 between.
    pub fn chain(nodes: usize) -> Self {
        Self::of(nodes, (1..nodes).map(|node| (node - 1, node)))
    }

    /// A chain whose ends meet: degree 2.
    ///
    /// # Errors
    /// [`Error::Invalid`] for fewer than three nodes.
    pub fn ring(nodes: usize) -> Result<Self> {
        require(nodes >= 3, || format!("a ring has at least 3 nodes, not {nodes}"))?;
        Ok(Self::of(nodes, (0..nodes).map(|node| (node, (node + 1) % nodes))))
    }

    /// Each node with every other: degree `nodes - 1`.
    pub fn full(nodes: usize) -> Self {
        Self::of(nodes, (0..nodes).flat_map(|b| (0..b).map(move |a| (a, b))))
    }

    /// Node 0 with each other node, and no others with one another.
    pub fn hub_and_spoke(nodes: usize) -> Self {
        Self::of(nodes, (1..nodes).map(|spoke| (0, spoke)))
    }

    /// Random, every node with the same degree; connected with high probability from degree 3 on.
    ///
    /// The pairing model (Bollobás 1980), with Steger and Wormald's (1999) choice among suitable pairs only.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the degree is not below the number of nodes, or both are odd.
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

    /// Pairs the ends of edges at random; gives up where only loops and double edges are left.
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

    /// A ring in which each node knows its `degree` nearest, of whose edges each is moved to a random end
    /// with a chance of `rewire`: short paths and many triangles (Watts and Strogatz, Nature 393, 1998).
    ///
    /// The number of edges stays `nodes * degree / 2`. Rewiring may cut the graph apart, if seldom.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the degree is odd or not below the number of nodes, or `rewire` is not a chance.
    pub fn small_world(nodes: usize, degree: usize, rewire: f64, seed: u64) -> Result<Self> {
        require(degree.is_multiple_of(2) && degree < nodes, || {
            format!("a ring of {nodes} nodes needs an even number of neighbours below that, not {degree}")
        })?;
        require((0.0..=1.0).contains(&rewire), || {
            format!("{rewire} is not a chance from 0 to 1")
        })?;
        let mut rng = StdRng::seed_from_u64(seed);
        let rings = 1..=degree / 2;
        let edges = rings.flat_map(|reach| (0..nodes).map(move |node| (node, (node + reach) % nodes)));
        let mut graph = Self::of(nodes, edges.clone());
        for (node, old) in edges {
            // A node that knows all others has no new neighbour to find.
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

    /// Grown by nodes that each connect to `links` others, likelier to those with many neighbours: a few hubs
    /// and many leaves (Barabási and Albert, Science 286, 1999). Connected.
    ///
    /// It starts as a full graph of `links + 1` nodes.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `links` is 0 or not below the number of nodes.
    pub fn scale_free(nodes: usize, links: usize, seed: u64) -> Result<Self> {
        require(links > 0 && links < nodes, || {
            format!("of {nodes} nodes each new one can link to 1 up to all others, not to {links}")
        })?;
        let mut rng = StdRng::seed_from_u64(seed);
        let core = Self::full(links + 1);
        // Each node stands here once for each of its edges, so that a fair choice prefers hubs.
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

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.neighbours.len()
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.neighbours.is_empty()
    }

    /// The neighbours of a node in rising order; none of a node that does not exist.
    pub fn neighbours(&self, node: usize) -> impl Iterator<Item = usize> + '_ {
        self.neighbours.get(node).into_iter().flatten().copied()
    }

    /// Number of a node's neighbours.
    pub fn degree(&self, node: usize) -> usize {
        self.neighbours.get(node).map_or(0, BTreeSet::len)
    }

    /// Each edge once, the lower node first, in rising order.
    pub fn edges(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let of = |(a, others): (usize, _)| std::iter::repeat(a).zip(others);
        let all = self.neighbours.iter().map(|others| others.iter().copied());
        all.enumerate().flat_map(of).filter(|(a, b)| a < b)
    }

    /// Whether each node reaches every other.
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
