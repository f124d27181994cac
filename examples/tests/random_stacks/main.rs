//! Random stacks of up to five words keep the laws, or are refused with a reason before any message is told.
//!
//! `cargo test` checks a few in memory, with little effort. To check many of them, as thoroughly as
//! `SWARMTEST_EFFORT` says:
//!
//! ```sh
//! SWARMTEST_STACKS=1000 cargo test --workspace --test random_stacks -- --nocapture
//! SWARMTEST_STACK='udp/faulty,loss=0.1/p2pke' cargo test --workspace --test random_stacks      # only this one
//! ```
//!
//! The stacks are derived from `SWARMTEST_STACKS_SEED` and their numbers. `SWARMTEST_STACKS_FROM` is the
//! first number, so that a long run can be split.

mod text;

use std::collections::BTreeMap;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use p2p::{Error, Packet, Swarm as _};
use p2p_examples::testbed::testbed;
use p2p_formats::x509::PrivateKey;
use p2p_swarms::stack::{Overlay, StackText};
use p2p_swarmtest::Report;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::runtime;
use tokio::time::timeout;

/// Number of stacks that `cargo test` checks.
const FEW: usize = 6;
/// Number of stacks that are checked concurrently.
const AT_ONCE: usize = 4;
/// Receive buffer of sockets: small, so that a small flood fills it.
const RECEIVE_BUFFER: usize = 64 << 10;
/// Timeout without the result of any stack.
const PATIENCE: Duration = Duration::from_mins(20);

/// Reads a number from the environment.
fn number(name: &str, default: usize) -> usize {
    match env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} is not a number: {text:?}")),
        Err(_) => default,
    }
}

/// The result for one text.
enum End {
    /// It is refused, with a reason.
    Refused(String),
    Checked(Box<Report>),
    /// It neither keeps the laws nor is refused.
    Failed(String),
}

/// Builds a stack, and checks the laws on it. If its text has bootstrap addresses, it also checks that nodes
/// that join through them reach each other; the laws, which open and drop hundreds of nodes, use separate
/// networks.
async fn check(text: &str) -> End {
    let bare = text.replace(",peers=JOIN", "").replace("=JOIN", "");
    let bed = match bare.parse::<StackText>() {
        Ok(stack) => testbed(&stack.with_receive_buffer(RECEIVE_BUFFER)).await,
        Err(error) => Err(error),
    };
    let bed = match bed {
        Ok(bed) => bed,
        Err(error) if error.reason().is_empty() || error.at() > bare.len() => {
            return End::Failed(format!("it is refused without a position or a reason: {error:?}"));
        }
        Err(error) => return End::Refused(error.reason().to_owned()),
    };
    if text != bare
        && let Err(why) = join(text).await
    {
        return End::Failed(why);
    }
    let mut profile = bed.the_profile().clone().quick();
    // Several stacks are checked concurrently.
    profile.limit = profile.limit.max(Duration::from_mins(4));
    End::Checked(Box::new(bed.profile(profile).parallel(8).run().await))
}

/// Opens a node for each bootstrap address of a text, and two nodes that join through them and reach each
/// other.
async fn join(text: &str) -> Result<(), String> {
    let open = async |text: &str| {
        let stack = text.parse::<StackText>().map_err(|error| error.to_string())?;
        let node = stack.build_node(&PrivateKey::ed25519(&rand::random())).await;
        node.map_err(|error| error.to_string())
    };
    let (mut text, mut there) = (text.to_owned(), Vec::new());
    while let Some((below, _)) = text.split_once(text::JOIN) {
        let network = below.strip_suffix(",peers=").or(below.strip_suffix('='));
        let node = open(network.unwrap_or(below)).await?;
        let addrs = node.overlays.last().map(Overlay::bootstraps).unwrap_or_default();
        let addr = addrs.first().ok_or("a node has no address to join through")?;
        text = text.replacen(text::JOIN, &addr.to_string(), 1);
        there.push(node);
    }
    let (a, b) = (open(&text).await?.stack, open(&text).await?.stack);
    let dst = b
        .local_addrs()
        .into_iter()
        .next()
        .ok_or("a node has no address")?;
    // More often than the medium loses.
    for _ in 0..300 {
        let told = a.tell(&dst, Packet::from(&b"joined"[..])).await;
        let came = timeout(Duration::from_millis(500), b.receive()).await;
        match (told, came) {
            (_, Ok(Ok(message))) if message.payload.len() == 6 => return Ok(()),
            (_, Ok(Err(error))) | (Err(error @ Error::Closed), _) => return Err(error.to_string()),
            _ => {}
        }
    }
    Err(format!("two nodes of {text} do not reach each other"))
}

/// The same in a separate runtime; in memory, in virtual time.
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
    // The few stacks of each run are in memory and so in virtual time, which is fast enough on every machine;
    // signatures take seconds.
    let few = env::var("SWARMTEST_STACKS").is_err();
    let mut texts: Vec<(usize, String)> = (from..from + number("SWARMTEST_STACKS", FEW))
        .map(|number| {
            let mut rng = StdRng::seed_from_u64((seed as u64) << 32 | number as u64);
            let mut text = text::random(&mut rng, number);
            while few && (!text.starts_with("mem") || text.contains("gossip")) {
                text = text::random(&mut rng, number);
            }
            (number, text)
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
            panic!("seed {seed}: no result for {PATIENCE:?} of {running:#?}");
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

/// Errors are reported when the text is parsed or the node is built, with a position; nothing panics.
#[test]
fn broken_texts_are_refused_with_a_position_and_a_reason() {
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
                let again: StackText = stack.to_string().parse().expect("its text parses");
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
