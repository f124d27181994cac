//! Each topology has the degrees that its name promises.

use p2p_swarmtest::topology::Topology;
use proptest::prelude::*;

/// What holds of every graph: edges and neighbours agree, without loops or doubles.
fn sound(graph: &Topology, nodes: usize) {
    assert_eq!(graph.len(), nodes);
    let edges: Vec<(usize, usize)> = graph.edges().collect();
    assert!(edges.is_sorted_by(|one, two| one < two), "doubles in {edges:?}");
    for &(a, b) in &edges {
        assert!(a < b && b < nodes, "{a}-{b}");
        assert!(graph.neighbours(a).any(|other| other == b) && graph.neighbours(b).any(|other| other == a));
    }
    let degrees: usize = (0..nodes).map(|node| graph.degree(node)).sum();
    assert_eq!(degrees, 2 * edges.len());
}

fn edges(graph: &Topology) -> usize {
    graph.edges().count()
}

proptest! {
    #[test]
    fn a_chain_has_two_ends(nodes in 0..60_usize) {
        let graph = Topology::chain(nodes);
        sound(&graph, nodes);
        prop_assert!(graph.is_connected());
        prop_assert_eq!(edges(&graph), nodes.saturating_sub(1));
        prop_assert!((0..nodes).all(|node| graph.degree(node) <= 2));
    }

    #[test]
    fn a_ring_has_no_end(nodes in 0..60_usize) {
        let graph = Topology::ring(nodes);
        prop_assert_eq!(graph.is_ok(), nodes >= 3);
        if let Ok(graph) = graph {
            sound(&graph, nodes);
            prop_assert!(graph.is_connected());
            prop_assert!((0..nodes).all(|node| graph.degree(node) == 2));
        }
    }

    #[test]
    fn a_full_graph_has_every_edge(nodes in 0..40_usize) {
        let graph = Topology::full(nodes);
        sound(&graph, nodes);
        prop_assert!(graph.is_connected());
        prop_assert!((0..nodes).all(|node| graph.degree(node) == nodes - 1));
    }

    #[test]
    fn spokes_know_the_hub_alone(nodes in 1..60_usize) {
        let graph = Topology::hub_and_spoke(nodes);
        sound(&graph, nodes);
        prop_assert!(graph.is_connected());
        prop_assert_eq!(graph.degree(0), nodes - 1);
        prop_assert!((1..nodes).all(|node| graph.neighbours(node).eq([0])));
    }

    #[test]
    fn a_regular_graph_has_one_degree(nodes in 0..60_usize, degree in 0..10_usize, seed: u64) {
        let graph = Topology::random_regular(nodes, degree, seed);
        prop_assert_eq!(graph.is_ok(), degree < nodes && nodes * degree % 2 == 0);
        if let Ok(graph) = graph {
            sound(&graph, nodes);
            prop_assert!((0..nodes).all(|node| graph.degree(node) == degree));
            prop_assert_eq!(Topology::random_regular(nodes, degree, seed).ok(), Some(graph));
        }
    }

    #[test]
    fn a_small_world_keeps_its_number_of_edges(nodes in 0..60_usize, degree in 0..10_usize,
                                               rewire in -0.1..1.1, seed: u64) {
        let graph = Topology::small_world(nodes, degree, rewire, seed);
        let possible = degree % 2 == 0 && degree < nodes && (0.0..=1.0).contains(&rewire);
        prop_assert_eq!(graph.is_ok(), possible);
        if let Ok(graph) = graph {
            sound(&graph, nodes);
            prop_assert_eq!(edges(&graph), nodes * degree / 2);
            // Only its far ends are moved: each node keeps those that it started with.
            prop_assert!((0..nodes).all(|node| graph.degree(node) >= degree / 2));
            prop_assert_eq!(Topology::small_world(nodes, degree, rewire, seed).ok(), Some(graph));
        }
    }

    #[test]
    fn a_scale_free_graph_is_connected(nodes in 0..80_usize, links in 0..10_usize, seed: u64) {
        let graph = Topology::scale_free(nodes, links, seed);
        prop_assert_eq!(graph.is_ok(), links > 0 && links < nodes);
        if let Ok(graph) = graph {
            sound(&graph, nodes);
            prop_assert!(graph.is_connected());
            prop_assert!((0..nodes).all(|node| graph.degree(node) >= links));
            prop_assert_eq!(edges(&graph), links * (links + 1) / 2 + (nodes - links - 1) * links);
            prop_assert_eq!(Topology::scale_free(nodes, links, seed).ok(), Some(graph));
        }
    }
}

#[test]
fn a_small_world_without_rewiring_is_a_lattice_and_with_it_is_not() {
    let rewired = |chance| Topology::small_world(100, 4, chance, 7).expect("possible");
    assert!((0..100).all(|node| rewired(0.0).neighbours(node).count() == 4));
    assert!(rewired(0.0).neighbours(50).eq([48, 49, 51, 52]));
    let far = |graph: &Topology| graph.edges().filter(|(a, b)| (3..98).contains(&(b - a))).count();
    assert_eq!(far(&rewired(0.0)), 0);
    assert!((5..40).contains(&far(&rewired(0.1))), "{}", far(&rewired(0.1)));
}

#[test]
fn a_scale_free_graph_has_hubs() {
    let graph = Topology::scale_free(1000, 2, 7).expect("possible");
    let most = (0..1000).map(|node| graph.degree(node)).max();
    assert!(most > Some(30), "{most:?} with a mean of 4");
}

#[test]
fn regular_graphs_of_degree_3_are_connected_with_these_seeds() {
    for seed in 0..20 {
        assert!(
            Topology::random_regular(100, 3, seed)
                .expect("possible")
                .is_connected(),
            "seed {seed}"
        );
    }
}
