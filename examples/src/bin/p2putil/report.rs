//! Writes the verdicts of a conformance run to a file: `JUnit` XML for CI systems, or one JSON object.

use std::time::Duration;

use p2p_swarmtest::{Checked, Law, Verdict};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use serde_json::{Value, json};

use crate::Failure;

/// A run, with its verdicts in the order of arrival.
pub(crate) struct Run<'a> {
    pub(crate) stack: &'a str,
    pub(crate) seed: u64,
    pub(crate) effort: &'static str,
    pub(crate) laws: &'a [Law],
    pub(crate) checked: &'a [Checked],
    pub(crate) took: Duration,
    /// Why some laws have no verdict.
    pub(crate) unchecked: Option<&'static str>,
}

impl Run<'_> {
    /// Returns each law with its verdict.
    fn laws(&self) -> impl Iterator<Item = (&Law, Option<&Checked>)> {
        let verdict = |law: &Law| self.checked.iter().find(|checked| checked.law == *law);
        self.laws.iter().map(move |law| (law, verdict(law)))
    }

    pub(crate) fn json(&self) -> Value {
        let laws = self.laws().map(|(law, checked)| match checked {
            Some(checked) => object(checked),
            None => json!({ "law": law.name, "sentence": law.sentence, "verdict": "unchecked",
                "why": self.unchecked.unwrap_or_default(), "secs": 0.0 }),
        });
        let laws: Vec<Value> = laws.collect();
        let count = |verdict: &str| laws.iter().filter(|law| law["verdict"] == verdict).count();
        let [passed, failed, waived, unchecked] = ["passed", "failed", "waived", "unchecked"].map(count);
        json!({
            "stack": self.stack, "seed": self.seed, "effort": self.effort, "secs": self.took.as_secs_f64(),
            "passed": passed, "failed": failed, "waived": waived, "unchecked": unchecked, "laws": laws,
        })
    }

    /// Returns `JUnit` XML: a suite for each group of laws, a case for each law. Waived laws are skipped;
    /// laws without a verdict are errors.
    pub(crate) fn junit(&self) -> Result<String, Failure> {
        let mut report = Report::new(self.stack);
        report.set_time(self.took);
        let mut suites: Vec<TestSuite> = Vec::new();
        for (law, checked) in self.laws() {
            let case = self.case(law, checked);
            if let Some(suite) = suites.iter_mut().find(|suite| suite.name.as_str() == law.group()) {
                suite.add_test_case(case);
                continue;
            }
            let mut suite = TestSuite::new(law.group());
            suite.add_property(("stack", self.stack));
            suite.add_property(("seed", self.seed.to_string().as_str()));
            suite.add_property(("effort", self.effort));
            suite.add_test_case(case);
            suites.push(suite);
        }
        report.add_test_suites(suites);
        let text = report.to_string();
        text.map_err(|error| Failure::Failed(format!("the report cannot be written as XML: {error}")))
    }

    fn case(&self, law: &Law, checked: Option<&Checked>) -> TestCase {
        let status = match checked.map(|checked| &checked.verdict) {
            Some(Verdict::Passed) => TestCaseStatus::success(),
            Some(Verdict::Failed(how)) => non_success(NonSuccessKind::Failure, how, law),
            Some(Verdict::Waived(why)) => {
                let mut status = TestCaseStatus::skipped();
                status.set_message(why.as_str());
                status
            }
            None => non_success(
                NonSuccessKind::Error,
                self.unchecked.unwrap_or("not checked"),
                law,
            ),
        };
        let name = law.name.split_once("::").map_or(law.name, |(_, name)| name);
        let mut case = TestCase::new(name, status);
        case.set_classname(law.group());
        case.set_time(checked.map_or(Duration::ZERO, |checked| checked.took));
        case
    }
}

fn non_success(kind: NonSuccessKind, how: &str, law: &Law) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(kind);
    status.set_message(how).set_description(law.sentence);
    status
}

/// Returns one verdict as an object.
pub(crate) fn object(checked: &Checked) -> Value {
    let (verdict, why) = match &checked.verdict {
        Verdict::Passed => ("passed", ""),
        Verdict::Failed(how) => ("failed", how.as_str()),
        Verdict::Waived(why) => ("waived", why.as_str()),
    };
    json!({
        "law": checked.law.name, "sentence": checked.law.sentence, "verdict": verdict, "why": why,
        "secs": checked.took.as_secs_f64(),
    })
}
