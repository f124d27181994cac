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
//! `SWARMTEST_LAW` is a part of the names of laws that are checked, without the others: `SWARMTEST_LAW=counters::`.
//!
//! The stacks follow from `SWARMTEST_STACKS_SEED` and their numbers. `SWARMTEST_STACKS_FROM` is the first number: a long run
//! can be made in pieces.

mod recovery;
mod text;
mod virtual_time;

use std::collections::BTreeMap;
use std::env;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread::{self, available_parallelism};
use std::time::{Duration, Instant};

use p2p::{Error, Packet, Swarm as _};
use p2p_examples::testbed::testbed;
use p2p_formats::x509::PrivateKey;
use p2p_swarms::stack::{StackNode, StackText};
use p2p_swarmtest::Report;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::time::timeout;

/// Number of stacks that `cargo test` checks.
const FEW: usize = 6;
/// What sockets ask the kernel for, so that a flood need not be large to fill it.
const RECEIVE_BUFFER: usize = 128 << 10;
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
    if let Ok(only) = env::var("SWARMTEST_LAW") {
        for law in p2p_swarmtest::LAWS.iter().filter(|law| !law.name.contains(&only)) {
            profile = profile.waive(law.name, "SWARMTEST_LAW names another one");
        }
    }
    // In virtual time, in which long exchanges over slow and lossy links take minutes.
    profile.limit = profile.limit.max(Duration::from_hours(1));
    End::Checked(Box::new(bed.profile(profile).parallel(8).run().await))
}

/// Opens a node for each bootstrap address of a text, and two nodes that join through them and reach each
/// other.
async fn join(text: &str) -> Result<(), String> {
    let pieces: Vec<&str> = text.split(text::JOIN).collect();
    let mut opened = Vec::new();
    for place in 0..pieces.len() - 1 {
        let below = filled(&pieces[..=place], &opened)?;
        let network = below.strip_suffix(",peers=").or(below.strip_suffix('='));
        opened.push(open(network.unwrap_or(&below)).await?);
    }
    for _ in 0..2 {
        opened.push(open(&filled(&pieces, &opened)?).await?);
    }
    let [.., a, b] = &opened[..] else {
        return Err("nothing joins".into());
    };
    let (a, b) = (&a.stack, &b.stack);
    let dst = b.local_addrs().into_iter().next();
    let dst = dst.ok_or("a node has no address")?;
    // More than the medium loses.
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

async fn open(text: &str) -> Result<StackNode, String> {
    let stack = text.parse::<StackText>().map_err(|error| error.to_string())?;
    let node = stack.build_node(&PrivateKey::ed25519(&rand::random())).await;
    node.map_err(|error| error.to_string())
}

/// Writes the addresses of nodes that are there between the pieces of a text: of one in an overlay that finds the others; of all
/// in a gossip network, which carries messages for one node to neighbours only.
fn filled(pieces: &[&str], nodes: &[StackNode]) -> Result<String, String> {
    let mut text = String::new();
    for (place, piece) in pieces.iter().enumerate() {
        text.push_str(piece);
        if place + 1 == pieces.len() {
            break;
        }
        let overlays = nodes.iter().filter_map(|node| node.overlays.get(place));
        let addrs = overlays.filter_map(|overlay| overlay.bootstraps().into_iter().next());
        let most = if piece.ends_with("peers=") { usize::MAX } else { 1 };
        let addrs: Vec<String> = addrs.take(most).map(|addr| addr.to_string()).collect();
        if addrs.is_empty() {
            return Err("a node has no address to join through".into());
        }
        text.push_str(&addrs.join(";"));
    }
    Ok(text)
}

/// The same in a runtime of its own, in virtual time.
fn check_alone(text: &str) -> End {
    let runtime = virtual_time::runtime();
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
    let started = Instant::now();
    let cores = available_parallelism().map_or(1, NonZero::get);
    for _ in 0..number("SWARMTEST_STACKS_AT_ONCE", cores).clamp(1, count.max(1)) {
        let (texts, next, running, ends) = (texts.clone(), next.clone(), running.clone(), ends.clone());
        thread::spawn(move || {
            while let Some((number, text)) = texts.get(next.fetch_add(1, Relaxed)) {
                running
                    .lock()
                    .expect("no panics")
                    .insert(*number, text::shown(text));
                let began = Instant::now();
                let end = check_alone(text);
                running.lock().expect("no panics").remove(number);
                if ends.send((*number, text.clone(), end, began.elapsed())).is_err() {
                    return;
                }
            }
        });
    }
    drop(ends);
    let (mut checked, mut refused, mut failures) = (0, 0, Vec::new());
    for _ in 0..count {
        let Ok((number, text, end, took)) = arriving.recv_timeout(PATIENCE) else {
            let running = running.lock().expect("no panics");
            panic!("seed {seed}: no result for {PATIENCE:?} of {running:#?}");
        };
        let name = format!("seed {seed}, number {number}, {took:.1?}: {}", text::shown(&text));
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
    println!(
        "{checked} checked, {refused} refused, {} failed, in {:.0?}",
        failures.len(),
        started.elapsed()
    );
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

/// Texts that random ones seldom meet, with the place and a part of the reason.
#[test]
fn odd_texts_are_refused_where_they_go_wrong() {
    let wrong = [
        ("mem=odd/gossip=t/kad", 17, "gossip does not support them"),
        ("udp/p2pke/frag/chord", 15, "frag does not support them"),
        ("mem=odd/udp", 8, "udp is a base"),
        ("kad/mem", 0, "kad needs a layer below"),
        (
            "udp,mtu=1199/quic",
            13,
            "QUIC needs an MTU of at least 1200 bytes",
        ),
        ("udp,mtu=1/frag", 10, "messages have at most 0 bytes here"),
        ("udp,mtu=15/frag=100", 11, "messages have at most 0 bytes here"),
        ("udp,mtu=20/mbapp=100", 11, "messages have at most 0 bytes here"),
        (
            "udp,mtu=17/mux32=7/frag",
            19,
            "messages have at most 0 bytes here",
        ),
        ("mem=odd/frag=15", 8, "messages have at most 15 bytes here"),
        (
            "mem=odd/faulty,corrupt=0.01/mux=a/kad",
            34,
            "bits of the nodes' requests",
        ),
        ("udp/p2pke/allow=127.0.0.1:9", 27, "neither an id nor an address"),
        (
            "udp/allow=127.0.0.1:9/faulty,delay=17",
            4,
            "allows none of the nodes",
        ),
        (
            "mem=odd/faulty,loss=0.1/mux=a/kad",
            30,
            "requests are lost and sent once",
        ),
        (
            "udp/faulty,loss=0.1/quic/mux=a/quic",
            31,
            "QUIC below retransmits",
        ),
    ];
    virtual_time::runtime().block_on(async {
        for (text, at, reason) in wrong {
            let bed = match text.parse::<StackText>() {
                Ok(stack) => testbed(&stack).await,
                Err(error) => Err(error),
            };
            let Err(error) = bed else {
                panic!("{text} is not refused");
            };
            assert!(error.reason().contains(reason), "{text}: {error}");
            assert_eq!(error.at(), at, "{text}: {error}");
        }
    });
}
