//! The reference swarm keeps every law, whatever its medium does.

use std::time::Duration;

use p2p::{Packet, Result, Swarm, pass_through};
use p2p_swarmtest::reference::{Address, Config, Network};
use p2p_swarmtest::{Checked, Effort, Plain, Profile, SecureAsk, Testbed, Verdict, conformance};
use tokio::task::JoinSet;

fn profile(config: Config) -> Profile {
    Profile {
        duplicates: config.duplication > 0.0,
        holds: config.queue,
        asks: config.asks,
        patience: Duration::from_secs(2),
        ..Profile::lossy(config.loss)
    }
}

fn testbed(config: Config) -> Testbed<Address> {
    let network = Network::new(config);
    let (again, beside) = (network.clone(), network.clone());
    Testbed::new(SecureAsk, move |count| {
        std::future::ready(Ok(network.nodes(count)))
    })
    .profile(profile(config))
    .beside(move |count| {
        let (nodes, siblings) = (beside.nodes(count), beside.nodes(count));
        std::future::ready(Ok(nodes.into_iter().zip(siblings).collect()))
    })
    .rebind(move |addr| std::future::ready(again.node_at(addr)))
    .forge(|id_of, place_of| Address {
        id: id_of.id,
        place: place_of.place,
    })
}

conformance!(#[tokio::test(start_paused = true)] mod perfect: SecureAsk => testbed(Config::default()));
conformance!(#[tokio::test] mod in_real_time: SecureAsk => testbed(Config::default()));

/// Correct, though unlike most.
fn unusual() -> [Config; 13] {
    let usual = Config::default();
    [
        Config { asks: 1, ..usual },
        Config { mtu: 64, ..usual },
        Config { queue: 1, ..usual },
        Config {
            asks: 1,
            queue: 1,
            mtu: 16,
            ..usual
        },
        Config {
            reordering: 1.0,
            ..usual
        },
        Config {
            duplication: 1.0,
            ..usual
        },
        // Less than nothing must arrive for, and more.
        Config {
            delay: Duration::from_millis(10),
            ..usual
        },
        Config {
            delay: Duration::from_millis(50),
            ..usual
        },
        Config { mtu: 16, ..usual },
        Config {
            queue: 20,
            asks: 8,
            ..usual
        },
        Config { mtu: 70_000, ..usual },
        Config {
            reordering: 0.5,
            ..usual
        },
        Config {
            duplication: 0.5,
            reordering: 0.5,
            ..usual
        },
    ]
}

#[tokio::test(start_paused = true)]
async fn unusual_swarms_pass() {
    passes_unusual(&unusual(), Effort::Normal).await;
}

#[tokio::test]
async fn unusual_swarms_pass_in_real_time() {
    // What is late by chance as well as by the medium may look lost.
    let configs = unusual().into_iter().filter(|config| config.delay.is_zero());
    passes_unusual(&configs.collect::<Vec<_>>(), Effort::Quick).await;
}

/// Runs all of them side by side: in real time most of a run waits.
async fn passes_unusual(configs: &[Config], effort: Effort) {
    let mut running: JoinSet<_> = configs
        .iter()
        .copied()
        .map(|config| async move {
            let mut profile = profile(config).effort(effort);
            if !config.delay.is_zero() {
                let why = "70,000 messages with a delay take longer than a law may";
                profile = profile.waive("exchange::ids_of_messages_may_wrap", why);
            }
            let testbed = testbed(config).profile(profile);
            (config, testbed.run().await)
        })
        .collect();
    let mut faults = Vec::new();
    while let Some(done) = running.join_next().await {
        let (config, report) = done.expect("a run that ends");
        faults.extend(report.failures().map(|fault| format!("{config:?}: {fault}")));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn the_correct_lossy_swarm_passes_40_of_40() {
    for seed in 0..40_u64 {
        let config = Config {
            loss: 0.3,
            duplication: 0.2,
            reordering: 0.3,
            seed,
            deadline: Duration::from_millis(200),
            ..Config::default()
        };
        // One in twenty with all the traffic.
        let effort = if seed.is_multiple_of(20) {
            Effort::Normal
        } else {
            Effort::Quick
        };
        let profile = Profile {
            seed,
            effort,
            ..profile(config)
        };
        let report = testbed(config).profile(profile).run().await;
        assert!(report.is_ok(), "seed {seed}:\n{report}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_quick_run_on_a_healthy_swarm_waits_for_less_than_a_second() {
    let started = tokio::time::Instant::now();
    let config = Config::default();
    let slow = [
        "ask::a_slow_handler_runs_once",
        "ask::asks_may_wait_together",
        "ask::each_ask_has_its_own_deadline",
    ];
    let waive = |profile: Profile, law: &'static str| profile.waive(law, "it waits for seconds");
    let quick = slow.into_iter().fold(profile(config).quick(), waive);
    let report = testbed(config).profile(quick).run().await;
    let waited = started.elapsed();
    println!("{report}");
    report.assert_ok();
    let may_be_waived = |checked: &Checked| {
        ["wire", "garbage"].contains(&checked.law.group()) || slow.contains(&checked.law.name)
    };
    assert!(report.waived().all(may_be_waived));
    assert!(waited < Duration::from_secs(1), "{waited:?}");
}

/// Loses every message of more than [`PIECES`] bytes, as a layer does that splits them where pieces are lost.
struct LosesLong<S> {
    inner: S,
}

const PIECES: usize = 1000;

/// What `pass_through` calls the type of addresses.
type A = Address;

impl<S: Swarm<Address>> Swarm<Address> for LosesLong<S> {
    pass_through!(inner: receive, mtu, local_addrs, parse_addr, close, receive_batch, headroom, visit_counters);

    async fn tell(&self, dst: &Address, packet: Packet) -> Result<()> {
        if (PIECES..=self.mtu()).contains(&packet.len()) {
            return Ok(());
        }
        self.inner.tell(dst, packet).await
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_too_long_to_arrive_is_not_waited_for() {
    let network = Network::new(Config::default());
    let profile = Profile {
        loss_at_mtu: 0.01,
        longest: PIECES - 1,
        ..profile(Config::default())
    };
    let testbed = Testbed::new(Plain, move |count| {
        let nodes = network.nodes(count).into_iter();
        std::future::ready(Ok(nodes.map(|inner| LosesLong { inner }).collect::<Vec<_>>()))
    })
    .profile(profile.quick());
    let report = testbed.run().await;
    report.assert_ok();
    let waived = report
        .iter()
        .find(|checked| checked.law.name == "tell::exactly_the_mtu_works");
    assert!(matches!(
        waived.map(|checked| &checked.verdict),
        Some(Verdict::Waived(_))
    ));
}
