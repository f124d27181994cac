//! Random stacks of up to five words keep the laws, or are refused with the reason before anything is told.
//!
//! `cargo test` checks a few, with little effort. Many of them, each as thoroughly as `SWARMTEST_EFFORT` says:
//!
//! ```sh
//! SWARMTEST_STACKS=1000 cargo test --workspace --test random_stacks -- --nocapture
//! SWARMTEST_STACK='udp/faulty,loss=0.1/p2pke' cargo test --workspace --test random_stacks      # this one
//! ```
//!
//! The stacks follow from `SWARMTEST_STACKS_SEED` and their numbers. `SWARMTEST_STACKS_FROM` is the first number: a long run
//! can be made in pieces.

mod text;

use std::collections::BTreeMap;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use p2p::{Addr as _, BoxAddr, Error, PeerId, Swarm as _};
use p2p_swarms::stack::{Medium, Nodes, Stack, StackText, forged};
use p2p_swarmtest::{Ask, LAWS, Plain, Profile, Report, Secure, SecureAsk, Testbed};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::runtime;

/// Stacks that `cargo test` checks.
const FEW: usize = 10;
/// Stacks that are checked side by side.
const AT_ONCE: usize = 4;
/// What sockets ask the kernel for, so that a flood need not be large to fill it.
const RECEIVE_BUFFER: usize = 64 << 10;
/// For how long nothing may be heard of any stack.
const PATIENCE: Duration = Duration::from_mins(20);

/// A number from the environment.
fn number(name: &str, default: usize) -> usize {
    match env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text:?}")),
        Err(_) => default,
    }
}

/// What became of one text.
enum End {
    /// It is refused, and says why.
    Refused(String),
    Checked(Box<Report>),
    /// It neither keeps its promises nor refuses.
    Failed(String),
}

/// What the suite may expect of nodes on this medium.
fn profile(medium: &Medium) -> Profile {
    let mut profile = Profile {
        loss: medium.loss,
        loss_at_mtu: medium.loss_at_mtu,
        duplicates: medium.duplicates,
        damages: medium.damages,
        holds: medium.holds,
        limit: Duration::from_mins(4),
        ..Profile::default()
    };
    profile.settle += 2 * medium.delay;
    profile.patience += 4 * medium.delay;
    if medium.handshakes {
        profile.settle = profile.settle.max(Duration::from_millis(100));
        profile.patience = profile.patience.max(Duration::from_secs(20));
    }
    if medium.loss > 0.0 || medium.loss_at_mtu > 0.0 || medium.damages {
        profile.patience = profile.patience.max(Duration::from_mins(1));
        profile.ask_patience = Duration::from_mins(2);
    }
    let known = medium
        .waivers
        .iter()
        .filter(|(law, _)| LAWS.iter().any(|known| known.name.starts_with(law)));
    for (law, why) in known {
        profile = profile.waive(*law, *why);
    }
    profile
        .waive(
            "wire::",
            "the laws of the wire are checked on the layers that promise them",
        )
        .quick()
}

fn testbed(text: StackText, probe: &Stack) -> Testbed<BoxAddr> {
    let nodes = Arc::new(Nodes::new(text));
    let again = nodes.clone();
    macro_rules! bed {
        ($kind:ident) => {
            Testbed::new($kind, move |count| {
                let nodes = nodes.clone();
                async move {
                    let made = nodes.open(count).await?.into_iter().map(|node| match node {
                        Stack::$kind(swarm) => Ok(swarm),
                        _ => Err(Error::invalid("stack", "its nodes differ")),
                    });
                    made.collect::<p2p::Result<Vec<_>>>()
                }
            })
        };
    }
    let bed = match probe {
        Stack::Plain(_) => bed!(Plain),
        Stack::Ask(_) => bed!(Ask),
        Stack::Secure(_) => bed!(Secure),
        Stack::SecureAsk(_) => bed!(SecureAsk),
    };
    let bed = bed.rebind(move |addr: BoxAddr| {
        let again = again.clone();
        async move { again.open_again(&addr).await }
    });
    let names_ids = |addr: &BoxAddr| forged(addr, PeerId::ZERO).is_some();
    if !probe.local_addrs().first().is_some_and(names_ids) {
        return bed;
    }
    bed.forge(|id_of, place_of| {
        let forged = id_of.peer_id().and_then(|id| forged(place_of, id));
        forged.unwrap_or_else(|| place_of.clone())
    })
}

/// Builds a stack, and checks the laws on it.
async fn check(text: &str) -> End {
    let refused = |error: p2p_swarms::stack::StackError| {
        if error.reason().is_empty() || error.at() > text.len() {
            return End::Failed(format!("it is refused without a place or a reason: {error:?}"));
        }
        End::Refused(error.reason().to_owned())
    };
    let stack = match text.parse::<StackText>() {
        Ok(stack) => stack.with_receive_buffer(RECEIVE_BUFFER),
        Err(error) => return refused(error),
    };
    let medium = match stack.medium().await {
        Ok(medium) => medium,
        Err(error) => return refused(error),
    };
    let probe = match stack.apart().build().await {
        Ok(probe) => probe,
        Err(error) => return refused(error),
    };
    let bed = testbed(stack, &probe).profile(profile(&medium)).parallel(8);
    probe.close().await;
    drop(probe);
    End::Checked(Box::new(bed.run().await))
}

/// The same in a runtime of its own; in memory, in virtual time.
fn check_alone(text: &str) -> End {
    let mut builder = runtime::Builder::new_current_thread();
    builder.enable_all();
    if text.starts_with("mem") {
        builder.start_paused(true);
    }
    let runtime = builder.build().expect("a runtime");
    let run = AssertUnwindSafe(|| runtime.block_on(check(text)));
    catch_unwind(run).unwrap_or_else(|_| End::Failed("it panics".into()))
}

#[test]
fn random_stacks_keep_the_laws_or_are_refused_with_the_reason() {
    let seed = number("SWARMTEST_STACKS_SEED", 13);
    let from = number("SWARMTEST_STACKS_FROM", 0);
    let mut texts: Vec<(usize, String)> = (from..from + number("SWARMTEST_STACKS", FEW))
        .map(|number| {
            let mut rng = StdRng::seed_from_u64((seed as u64) << 32 | number as u64);
            (number, text::random(&mut rng, number))
        })
        .collect();
    if let Ok(one) = env::var("SWARMTEST_STACK") {
        texts = vec![(0, one)];
    }
    let count = texts.len();
    let (texts, next) = (Arc::new(texts), Arc::new(AtomicUsize::new(0)));
    let running = Arc::new(Mutex::new(BTreeMap::new()));
    let (ends, arriving) = mpsc::channel();
    for _ in 0..AT_ONCE.min(count) {
        let (texts, next, running, ends) = (texts.clone(), next.clone(), running.clone(), ends.clone());
        std::thread::spawn(move || {
            while let Some((number, text)) = texts.get(next.fetch_add(1, Relaxed)) {
                running
                    .lock()
                    .expect("no panics")
                    .insert(*number, text::shown(text));
                let end = check_alone(text);
                running.lock().expect("no panics").remove(number);
                if ends.send((*number, text.clone(), end)).is_err() {
                    return;
                }
            }
        });
    }
    drop(ends);
    let (mut checked, mut refused, mut failures) = (0, 0, Vec::new());
    for _ in 0..count {
        let Ok((number, text, end)) = arriving.recv_timeout(PATIENCE) else {
            let running = running.lock().expect("no panics");
            panic!("seed {seed}: nothing was heard for {PATIENCE:?} of {running:#?}");
        };
        let name = format!("seed {seed}, number {number}: {}", text::shown(&text));
        let failure = match end {
            End::Refused(reason) => {
                refused += 1;
                println!("refused  {name}\n         {reason}");
                continue;
            }
            End::Checked(report) => {
                checked += 1;
                assert!(report.iter().count() > 0, "no law was checked on {name}");
                if report.is_ok() {
                    println!("passed   {name}");
                    continue;
                }
                let broken: Vec<String> = report.failures().map(ToString::to_string).collect();
                format!("{name}\n  {}", broken.join("\n  "))
            }
            End::Failed(how) => format!("{name}\n  {how}"),
        };
        println!("FAILED   {failure}");
        failures.push(failure);
    }
    println!("{checked} checked, {refused} refused, {} failed", failures.len());
    assert!(
        failures.is_empty(),
        "{} of {count} stacks fail:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

/// What is wrong is said when the text is read or the node is built, and where; nothing panics.
#[test]
fn broken_texts_are_refused_with_the_place_and_the_reason() {
    const TEXTS: u64 = 3000;
    let seed = number("SWARMTEST_STACKS_SEED", 13) as u64;
    let mut refused = 0;
    for number in 0..TEXTS {
        let mut rng = StdRng::seed_from_u64(seed << 32 | number);
        let whole = loop {
            let text = text::random(&mut rng, 0);
            if text.len() < 200 {
                break text;
            }
        };
        let text = text::broken(&mut rng, &whole);
        match text.parse::<StackText>() {
            Ok(stack) => {
                let again: StackText = stack.to_string().parse().expect("what it says can be read");
                assert_eq!(again, stack, "seed {seed}, number {number}: {text:?}");
            }
            Err(error) => {
                refused += 1;
                assert!(
                    error.at() <= text.len() && text.is_char_boundary(error.at()),
                    "{text:?}: {error}"
                );
                assert!(
                    !error.reason().is_empty() && error.is_in_text(),
                    "{text:?}: {error}"
                );
            }
        }
    }
    assert!(refused > TEXTS / 4, "only {refused} of {TEXTS} are refused");
}
