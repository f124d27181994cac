//! The reference swarm keeps every law, whatever its medium does.

use std::time::Duration;

use p2p_swarmtest::reference::{Address, Config, Network};
use p2p_swarmtest::{Profile, SecureAsk, Testbed, conformance};

fn profile(config: Config) -> Profile {
    Profile {
        duplicates: config.duplication > 0.0,
        holds: config.queue,
        asks: config.asks,
        patience: Duration::from_secs(2),
        ..Profile::lossy(config.loss)
    }
}

fn bed(config: Config) -> Testbed<Address> {
    let network = Network::new(config);
    let again = network.clone();
    Testbed::new(SecureAsk, move |count| {
        std::future::ready(Ok(network.nodes(count)))
    })
    .profile(profile(config))
    .rebind(move |addr| std::future::ready(again.node_at(addr)))
    .forge(|id_of, place_of| Address {
        id: id_of.id,
        place: place_of.place,
    })
}

conformance!(#[tokio::test(start_paused = true)] mod perfect: SecureAsk => bed(Config::default()));
conformance!(#[tokio::test] mod in_real_time: SecureAsk => bed(Config::default()));

#[tokio::test(start_paused = true)]
async fn the_correct_lossy_swarm_passes_100_of_100() {
    for seed in 0..100 {
        let config = Config {
            loss: 0.3,
            duplication: 0.2,
            reordering: 0.3,
            seed,
            deadline: Duration::from_millis(200),
            ..Config::default()
        };
        let report = bed(config).run().await;
        assert!(report.is_ok(), "seed {seed}:\n{report}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_on_a_healthy_swarm_waits_for_less_than_half_a_second() {
    let started = tokio::time::Instant::now();
    let report = bed(Config::default()).run().await;
    let waited = started.elapsed();
    println!("{report}");
    report.assert_ok();
    assert!(report.waived().all(|checked| checked.law.group() == "wire"));
    assert!(waited < Duration::from_millis(500), "{waited:?}");
}
