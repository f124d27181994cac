//! What became of each law.

use std::fmt;
use std::time::Duration;

use crate::Law;

/// Why a law did not pass; what a law's function returns as its error.
#[derive(Debug, thiserror::Error)]
pub enum Unmet {
    /// The swarm breaks the law: what was seen, and what should have been.
    #[error("{0}")]
    Broken(String),
    /// The law cannot be checked here, and why.
    #[error("waived: {0}")]
    Waived(String),
}

impl From<p2p::Error> for Unmet {
    /// A call failed that should have worked.
    fn from(error: p2p::Error) -> Self {
        Unmet::Broken(format!("an unexpected error: {error}"))
    }
}

/// What a law's function returns.
pub type Outcome<T = ()> = Result<T, Unmet>;

/// What became of a law.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The swarm keeps it, as far as can be seen.
    Passed,
    /// The swarm breaks it, and how.
    Failed(String),
    /// It was not checked, and why.
    Waived(String),
}

impl From<Outcome> for Verdict {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Ok(()) => Verdict::Passed,
            Err(Unmet::Broken(how)) => Verdict::Failed(how),
            Err(Unmet::Waived(why)) => Verdict::Waived(why),
        }
    }
}

/// A law and its verdict. Its `Display` is one line.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The law.
    pub law: Law,
    /// What became of it.
    pub verdict: Verdict,
    /// How long checking took, by the runtime's clock.
    pub took: Duration,
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.law.name;
        match &self.verdict {
            Verdict::Passed => write!(f, "passed  {name}"),
            Verdict::Failed(how) => write!(f, "FAILED  {name}: {how}"),
            Verdict::Waived(why) => write!(f, "waived  {name}: {why}"),
        }
    }
}

/// The verdicts of a run, in the order of [`Testbed::laws`](crate::Testbed::laws). Its `Display` is a line for each law and a
/// line of totals.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Report {
    checked: Vec<Checked>,
}

impl Report {
    pub(crate) fn new(checked: Vec<Checked>) -> Self {
        Self { checked }
    }

    /// Each law and its verdict.
    pub fn iter(&self) -> std::slice::Iter<'_, Checked> {
        self.checked.iter()
    }

    /// The laws that the swarm breaks.
    pub fn failures(&self) -> impl Iterator<Item = &Checked> {
        self.iter()
            .filter(|checked| matches!(checked.verdict, Verdict::Failed(_)))
    }

    /// The laws that were not checked.
    pub fn waived(&self) -> impl Iterator<Item = &Checked> {
        self.iter()
            .filter(|checked| matches!(checked.verdict, Verdict::Waived(_)))
    }

    /// Whether the swarm breaks none.
    pub fn is_ok(&self) -> bool {
        self.failures().next().is_none()
    }

    /// For tests: shows what failed.
    ///
    /// # Panics
    /// If the swarm breaks a law; the message names each with its reason.
    #[track_caller]
    pub fn assert_ok(&self) {
        let failures: Vec<String> = self.failures().map(ToString::to_string).collect();
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }
}

impl<'a> IntoIterator for &'a Report {
    type Item = &'a Checked;
    type IntoIter = std::slice::Iter<'a, Checked>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for checked in self {
            writeln!(f, "{checked}")?;
        }
        let (failed, waived) = (self.failures().count(), self.waived().count());
        let passed = self.checked.len() - failed - waived;
        write!(f, "{passed} passed, {failed} failed, {waived} waived")
    }
}
