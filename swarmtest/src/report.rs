//! Verdicts of laws, and reports.

use std::fmt;
use std::time::Duration;

use crate::Law;

/// Why a law did not pass; the error of a law's function.
#[derive(Debug, thiserror::Error)]
pub enum Unmet {
    /// The swarm breaks the law: what was observed, and what was expected.
    #[error("{0}")]
    Broken(String),
    /// The law cannot be checked, with the reason.
    #[error("waived: {0}")]
    Waived(String),
}

impl From<p2p::Error> for Unmet {
    /// Converts the error of a call that should have succeeded.
    fn from(error: p2p::Error) -> Self {
        Unmet::Broken(format!("an unexpected error: {error}"))
    }
}

/// The result of a law's function.
pub type Outcome<T = ()> = Result<T, Unmet>;

/// The verdict on a law.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The swarm keeps it, as far as can be observed.
    Passed,
    /// The swarm breaks it, with a description.
    Failed(String),
    /// It was not checked, with the reason.
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

/// A law with its verdict. Its `Display` is one line.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The law.
    pub law: Law,
    /// The verdict.
    pub verdict: Verdict,
    /// Duration of the check, by the runtime's clock.
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

/// The verdicts of a run, in the order of [`Testbed::laws`](crate::Testbed::laws). Its `Display` is a line
/// for each law and a line of totals.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Report {
    checked: Vec<Checked>,
}

impl Report {
    pub(crate) fn new(checked: Vec<Checked>) -> Self {
        Self { checked }
    }

    /// Returns each law with its verdict.
    pub fn iter(&self) -> std::slice::Iter<'_, Checked> {
        self.checked.iter()
    }

    /// Returns the laws that the swarm breaks.
    pub fn failures(&self) -> impl Iterator<Item = &Checked> {
        self.iter()
            .filter(|checked| matches!(checked.verdict, Verdict::Failed(_)))
    }

    /// Returns the laws that were not checked.
    pub fn waived(&self) -> impl Iterator<Item = &Checked> {
        self.iter()
            .filter(|checked| matches!(checked.verdict, Verdict::Waived(_)))
    }

    /// Returns whether the swarm breaks no law.
    pub fn is_ok(&self) -> bool {
        self.failures().next().is_none()
    }

    /// Asserts that no law is broken, for tests.
    ///
    /// # Panics
    /// Panics if the swarm breaks a law; the message names each with its reason.
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
