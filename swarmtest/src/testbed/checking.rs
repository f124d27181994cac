//! Runs: laws are checked in tasks of their own, several at the same time.

use std::any::Any;
use std::fmt::Write as _;
use std::future::Future;

use p2p::{Addr, BoxAddr, Result};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout};

use super::Testbed;
use crate::kind::Kind;
use crate::laws::Law;
use crate::profile::Profile;
use crate::report::{Checked, Report, Verdict};

impl<A: Addr> Testbed<A> {
    /// Checks every law that applies to this kind of swarm. Needs a tokio runtime with time.
    ///
    /// A swarm that panics or hangs fails the law in question; one that blocks the thread blocks the runtime.
    pub async fn run(&self) -> Report {
        self.erase().check_all().await
    }

    /// Checks one law. Needs a tokio runtime with time.
    pub async fn check(&self, law: &Law) -> Checked {
        self.erase().check_one(*law).await
    }
}

impl Testbed<BoxAddr> {
    async fn check_all(&self) -> Report {
        let laws: Vec<Law> = self.laws().copied().collect();
        let mut checked: Vec<Option<Checked>> = vec![None; laws.len()];
        let mut waiting = laws.into_iter().enumerate();
        let mut running = JoinSet::new();
        loop {
            while running.len() < self.parallel
                && let Some((index, law)) = waiting.next()
            {
                let testbed = self.clone();
                running.spawn(async move { (index, testbed.check_one(law).await) });
            }
            match running.join_next().await {
                Some(Ok((index, done))) => checked[index] = Some(done),
                // `check_one` catches the panics of laws; the remaining case is a runtime that shuts down.
                Some(Err(_)) => {}
                None => break,
            }
        }
        Report::new(checked.into_iter().flatten().collect())
    }

    pub(crate) async fn check_one(&self, law: Law) -> Checked {
        let started = Instant::now();
        let mut verdict = match self.profile.waiver(&law) {
            Some(why) => Verdict::Waived(why.to_owned()),
            None => self.guarded(law.name).await,
        };
        if let Verdict::Failed(how) = &mut verdict {
            let seed = self.profile.seed;
            // Writing to a string does not fail.
            let _ = write!(how, " (seed {seed}; SWARMTEST_SEED={seed} replays it)");
        }
        let checked = Checked {
            law,
            verdict,
            took: started.elapsed(),
        };
        if let Some(watch) = &self.watch {
            watch(&checked);
        }
        checked
    }

    /// Returns the caller's own laws.
    pub(crate) fn own_laws(&self) -> Vec<Law> {
        self.own.iter().map(|own| own.law).collect()
    }

    /// Runs a law in a separate task, so that a panic or a hang ends there.
    async fn guarded(&self, law: &'static str) -> Verdict {
        let mut task = JoinSet::new();
        let testbed = Self { law, ..self.clone() };
        task.spawn(match self.own.iter().find(|own| own.law.name == law) {
            Some(own) => (own.check)(testbed),
            None => crate::laws::start(law, testbed),
        });
        let limit = self.profile.limit;
        match timeout(limit, task.join_next()).await {
            Ok(Some(Ok(outcome))) => outcome.into(),
            Ok(Some(Err(error))) => Verdict::Failed(panic_text(error)),
            Ok(None) => Verdict::Failed("its task has ended".into()),
            Err(_) => Verdict::Failed(format!("it did not end within {} s", limit.as_secs_f64())),
        }
    }
}

/// Checks every law of this kind on the swarms that `make` creates; see [`Testbed`] for further settings.
pub async fn run<A, K, S, F, R>(kind: K, profile: Profile, make: F) -> Report
where
    A: Addr,
    K: Kind<A, S> + Send + Sync + 'static,
    F: Fn(usize) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Vec<S>>> + Send + 'static,
{
    Testbed::new(kind, make).profile(profile).run().await
}

/// Returns the message of a task that ended without a result.
fn panic_text(error: JoinError) -> String {
    let text = |payload: Box<dyn Any + Send>| match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => payload
            .downcast::<&str>()
            .map_or_else(|_| "(no text)".into(), |text| (*text).to_owned()),
    };
    match error.try_into_panic() {
        Ok(payload) => format!("panicked: {}", text(payload)),
        Err(error) => error.to_string(),
    }
}
