//! `conformance`: checks the laws of a swarm on a stack.
//!
//! Verdicts are printed by the main thread, which runs no part of a swarm, as they arrive. So the totals are
//! always the last line, even if the swarm hangs, panics, or blocks its threads.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use p2p_examples::testbed::testbed;
use p2p_swarmtest::{Checked, Effort, Law, Verdict};
use serde_json::json;

use crate::cli::Conformance;
use crate::interrupt::interrupt;
use crate::output::Out;
use crate::report::{Run, object};
use crate::{Failure, files, parse};

/// Receive buffer of UDP sockets: small, so that a small flood fills it.
const RECEIVE_BUFFER: usize = 256 << 10;

pub(crate) async fn run(args: Conformance, out: Out) -> Result<(), Failure> {
    let text = parse(&args.stack)?.with_receive_buffer(RECEIVE_BUFFER);
    let files = [&args.junit, &args.report];
    files
        .into_iter()
        .flatten()
        .try_for_each(|file| files::check(file))?;
    let interrupt = interrupt()?;
    let bed = testbed(&text).await?;
    let mut profile = bed.the_profile().clone();
    profile.seed = args.seed;
    let (effort, factor) = match (args.strict, args.quick) {
        (true, _) => (Effort::Strict, 10),
        (false, true) => (Effort::Quick, 1),
        (false, false) => (Effort::Normal, 1),
    };
    let profile = profile.effort(effort);
    // Each law has its own timeout, which a strict run extends; once all of them have passed, no further
    // verdict arrives.
    let patience = 2 * factor * profile.limit;
    let started = Instant::now();
    let (verdicts, arriving) = channel();
    let over = verdicts.clone();
    let bed = bed.profile(profile).watch(move |checked| {
        // Sending fails if the totals were already printed.
        drop(verdicts.send(Event::Checked(checked.clone())));
    });
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

/// An event of the run.
enum Event {
    Checked(Checked),
    Over,
    Interrupted,
}

/// The number of laws with each verdict.
#[derive(Debug, Default)]
struct Tally {
    passed: usize,
    failed: usize,
    waived: usize,
    checked: Vec<Checked>,
}

/// Prints the verdicts of `laws` laws as they arrive, then the totals. Also returns why some are missing.
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

/// Returns a progress bar on standard error, if that is a terminal.
fn bar(laws: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} laws  {msg}");
    ProgressBar::new(laws as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
