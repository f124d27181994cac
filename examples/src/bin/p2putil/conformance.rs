//! `conformance`: the laws of a swarm, checked on a stack.
//!
//! Verdicts are printed by the main thread, which runs no part of a swarm, as they come. So the line of totals is the last
//! one whatever a swarm does: hangs, panics, or blocks its threads.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use p2p::{Addr as _, BoxAddr, PeerId, Swarm as _};
use p2p_swarms::stack::{Medium, Nodes, Stack, StackText, forged};
use p2p_swarmtest::{Ask, Checked, Effort, Law, Plain, Profile, Secure, SecureAsk, Testbed, Verdict};
use serde_json::json;

use crate::cli::Conformance;
use crate::interrupt::interrupt;
use crate::output::Out;
use crate::report::{Run, object};
use crate::{Failure, files, open};

/// What UDP sockets ask the kernel for, so that a flood need not be large to fill it.
const RECEIVE_BUFFER: usize = 256 << 10;

pub(crate) async fn run(args: Conformance, out: Out) -> Result<(), Failure> {
    let text = args
        .stack
        .parse::<StackText>()?
        .with_receive_buffer(RECEIVE_BUFFER);
    let files = [&args.junit, &args.report];
    files
        .into_iter()
        .flatten()
        .try_for_each(|file| files::check(file))?;
    let interrupt = interrupt()?;
    let probe = open(&text).await?;
    let mut profile = profile(&text.medium().await?);
    profile.seed = args.seed;
    let (effort, factor) = match (args.strict, args.quick) {
        (true, _) => (Effort::Strict, 10),
        (false, true) => (Effort::Quick, 1),
        (false, false) => (Effort::Normal, 1),
    };
    let profile = profile.effort(effort);
    // Each law has its own limit, which a strict run extends; once all of them are over, nothing comes any more.
    let patience = 2 * factor * profile.limit;
    let started = Instant::now();
    let (verdicts, arriving) = channel();
    let over = verdicts.clone();
    let bed = testbed(&text, &probe).profile(profile).watch(move |checked| {
        // It fails where the end is already printed.
        drop(verdicts.send(Event::Checked(checked.clone())));
    });
    probe.close().await;
    drop(probe);
    let laws: Vec<Law> = bed.laws().copied().collect();
    tokio::spawn(async move {
        let end = tokio::select! {
            _ = bed.run() => Event::Over,
            () = interrupt => Event::Interrupted,
        };
        drop(over.send(end));
    });
    let (tally, unchecked) = print_all(laws.len(), &arriving, patience, out)?;
    let run = Run {
        stack: &text.to_string(),
        seed: args.seed,
        effort: match effort {
            Effort::Quick => "quick",
            Effort::Normal => "normal",
            Effort::Strict => "strict",
        },
        laws: &laws,
        checked: &tally.checked,
        took: started.elapsed(),
        unchecked,
    };
    if let Some(file) = &args.junit {
        files::write(file, &run.junit()?)?;
    }
    if let Some(file) = &args.report {
        files::write(file, &format!("{:#}\n", run.json()))?;
    }
    match (unchecked, tally.failed) {
        (None, 0) => Ok(()),
        (None, failed) => Err(Failure::Failed(format!(
            "{text} breaks {failed} {}; --seed {} gives the same run again",
            if failed == 1 { "law" } else { "laws" },
            args.seed
        ))),
        (Some(why), _) => Err(Failure::Failed(format!("not every law was checked: {why}"))),
    }
}

/// What the run says.
enum Event {
    Checked(Checked),
    Over,
    Interrupted,
}

/// How many laws there were of each verdict.
#[derive(Debug, Default)]
struct Tally {
    passed: usize,
    failed: usize,
    waived: usize,
    checked: Vec<Checked>,
}

/// Prints the verdicts of `laws` laws as they come, then the totals. Also says why not all of them came.
fn print_all(
    laws: usize,
    events: &Receiver<Event>,
    patience: Duration,
    out: Out,
) -> Result<(Tally, Option<&'static str>), Failure> {
    let bar = bar(laws);
    let mut tally = Tally::default();
    let end = loop {
        match events.recv_timeout(patience) {
            Ok(Event::Checked(checked)) => {
                bar.set_message(checked.law.name);
                bar.inc(1);
                bar.suspend(|| tally.print(&checked, out))?;
            }
            Ok(Event::Interrupted) => break "interrupted",
            Ok(Event::Over) | Err(RecvTimeoutError::Disconnected) => break "the run ended without a verdict",
            Err(RecvTimeoutError::Timeout) => break "the swarm blocks the threads that it runs on",
        }
    };
    bar.finish_and_clear();
    let Tally {
        passed,
        failed,
        waived,
        ..
    } = tally;
    let unchecked = laws - (passed + failed + waived);
    let more = match unchecked {
        0 => String::new(),
        _ => format!(", {unchecked} not checked"),
    };
    out.line(
        &format!("{passed} passed, {failed} failed, {waived} waived{more}"),
        &json!({ "passed": passed, "failed": failed, "waived": waived, "unchecked": unchecked }),
    )?;
    Ok((tally, (unchecked > 0).then_some(end)))
}

impl Tally {
    fn print(&mut self, checked: &Checked, out: Out) -> Result<(), Failure> {
        *match &checked.verdict {
            Verdict::Passed => &mut self.passed,
            Verdict::Failed(_) => &mut self.failed,
            Verdict::Waived(_) => &mut self.waived,
        } += 1;
        self.checked.push(checked.clone());
        out.line(&checked.to_string(), &object(checked))
    }
}

/// A bar on standard error, where that is a terminal.
fn bar(laws: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} laws  {msg}");
    ProgressBar::new(laws as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// How to make nodes of this stack, with what it can do.
fn testbed(text: &StackText, probe: &Stack) -> Testbed<BoxAddr> {
    let nodes = Arc::new(Nodes::new(text.clone()));
    let again = nodes.clone();
    /// Makes nodes, each taken out of its enum.
    macro_rules! bed {
        ($kind:expr, $variant:ident) => {
            Testbed::new($kind, move |count| {
                let nodes = nodes.clone();
                async move {
                    let made = nodes.open(count).await?.into_iter().map(|node| match node {
                        Stack::$variant(swarm) => Ok(swarm),
                        _ => Err(p2p::Error::invalid("stack", "its nodes differ")),
                    });
                    made.collect::<p2p::Result<Vec<_>>>()
                }
            })
        };
    }
    let bed = match probe {
        Stack::Plain(_) => bed!(Plain, Plain),
        Stack::Ask(_) => bed!(Ask, Ask),
        Stack::Secure(_) => bed!(Secure, Secure),
        Stack::SecureAsk(_) => bed!(SecureAsk, SecureAsk),
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

/// What the suite may expect of nodes on this medium.
fn profile(medium: &Medium) -> Profile {
    let mut profile = Profile {
        loss: medium.loss,
        loss_at_mtu: medium.loss_at_mtu,
        duplicates: medium.duplicates,
        damages: medium.damages,
        holds: medium.holds,
        ..Profile::default()
    };
    profile.settle += 2 * medium.delay;
    profile.patience += 4 * medium.delay;
    if medium.handshakes {
        // A handshake comes before the first message, and many are under way at a time.
        profile.settle = profile.settle.max(Duration::from_millis(100));
        profile.patience = profile.patience.max(Duration::from_secs(20));
    }
    for (law, why) in &medium.waivers {
        profile = profile.waive(*law, *why);
    }
    profile
}
