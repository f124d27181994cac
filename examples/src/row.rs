//! What became of something that was done many times over one stack: a row of the demonstration's table.

use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt as _};
use serde_json::{Value, json};

use crate::table::{Table, bytes, thousands};

/// Something that was done many times over one stack.
#[derive(Debug)]
pub struct Row {
    stack: String,
    what: &'static str,
    nodes: usize,
    /// How often it should have been done, and was done rightly.
    of: usize,
    done: usize,
    /// How long each took, where that says something; sorted at the end.
    took: Vec<Duration>,
    start: Instant,
    time: Duration,
    /// Messages that were lost on the way, where they are counted.
    pub lost: Option<u64>,
    /// Bytes that it was about, if they are what counts.
    pub bytes: Option<u64>,
}

impl Row {
    /// Begins something that is to be done `of` times among `nodes` nodes.
    pub fn new(stack: &str, what: &'static str, nodes: usize, of: usize) -> Self {
        Self {
            stack: stack.to_owned(),
            what,
            nodes,
            of,
            done: 0,
            took: Vec::new(),
            start: Instant::now(),
            time: Duration::ZERO,
            lost: None,
            bytes: None,
        }
    }

    /// The text of the stack.
    pub fn stack(&self) -> &str {
        &self.stack
    }

    /// Begins anew: what was before is not counted.
    pub fn begin(&mut self) {
        self.start = Instant::now();
    }

    /// It was done once more, in so long.
    pub fn done(&mut self, took: Duration) {
        self.done += 1;
        self.took.push(took);
    }

    /// It was done so many times, in so long altogether.
    pub fn all_done(&mut self, done: usize, time: Duration) {
        self.done = done;
        self.time = time;
    }

    /// Takes what becomes of each, if it was done rightly, until all are over.
    pub async fn collect(&mut self, each: impl Stream<Item = Option<Duration>>) {
        let mut each = std::pin::pin!(each);
        while let Some(took) = each.next().await {
            if let Some(took) = took {
                self.done(took);
            }
            self.end();
        }
    }

    /// It is over.
    pub fn end(&mut self) {
        self.time = self.start.elapsed();
    }

    /// How often it was not done rightly.
    pub fn missing(&self) -> usize {
        self.of.saturating_sub(self.done)
    }

    /// What is missing, in words.
    pub fn complaint(&self) -> String {
        format!(
            "{} of {} {} over {}",
            self.missing(),
            self.of,
            self.what,
            self.stack
        )
    }

    fn percentile(&self, share: usize) -> Option<Duration> {
        let mut took = self.took.clone();
        took.sort_unstable();
        took.get(took.len().saturating_sub(1) * share / 100).copied()
    }

    fn per_second(&self, count: u64) -> f64 {
        number(count) / self.time.as_secs_f64().max(1e-9)
    }

    /// The row as an object for programs: times in seconds and microseconds.
    pub fn json(&self) -> Value {
        let micros = |share| self.percentile(share).map(|took| took.as_secs_f64() * 1e6);
        let mut object = json!({
            "stack": self.stack, "what": self.what, "nodes": self.nodes, "of": self.of, "done": self.done,
            "secs": self.time.as_secs_f64(), "per_sec": self.per_second(self.done as u64),
        });
        if let (Some(median), Some(late)) = (micros(50), micros(99)) {
            object["p50_us"] = median.into();
            object["p99_us"] = late.into();
        }
        if let Some(bytes) = self.bytes {
            object["bytes"] = bytes.into();
            object["bytes_per_sec"] = self.per_second(bytes).into();
        }
        if let Some(lost) = self.lost {
            object["lost"] = lost.into();
        }
        object
    }

    fn cells(&self) -> [String; 7] {
        let mark = if self.missing() == 0 { '✓' } else { '✗' };
        let millis = |share| {
            let took = self.percentile(share);
            took.map(|took| format!("{:.2} ms", took.as_secs_f64() * 1e3))
        };
        let rate = match self.bytes {
            Some(count) => format!("{}/s", bytes(self.per_second(count))),
            None => format!("{:.0}/s", self.per_second(self.done as u64)),
        };
        [
            short(&self.stack),
            self.what.to_owned(),
            format!(
                "{}/{} {mark}",
                thousands(self.done as u64),
                thousands(self.of as u64)
            ),
            self.lost.map(thousands).unwrap_or_default(),
            millis(50).unwrap_or_default(),
            millis(99).unwrap_or_default(),
            rate,
        ]
    }
}

/// One table of all rows.
pub fn show(rows: &[&Row]) -> String {
    let mut table = Table::new(["stack", "what", "done", "lost", "median", "99 %", "rate"]);
    for row in rows {
        table.row(row.cells());
    }
    table.render()
}

/// The text of a stack without what it has by default, and without the seed.
fn short(stack: &str) -> String {
    let short = stack.replace("=127.0.0.1:0", "").replace("=65536", "");
    match short.split_once(",seed=") {
        Some((before, after)) => {
            let after = after.trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{before}{after}")
        }
        None => short,
    }
}

/// A count as what can be divided.
#[expect(clippy::cast_precision_loss, reason = "counts of one run are far below 2⁵²")]
pub fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_seen() {
        let mut row = Row::new("udp=127.0.0.1:0/faulty,loss=0.1,seed=77/frag=65536", "asks", 2, 3);
        row.done(Duration::from_millis(4));
        row.done(Duration::from_millis(2));
        row.end();
        assert_eq!(row.missing(), 1);
        let [stack, what, done, lost, median, late, _] = row.cells();
        assert_eq!(
            (&*stack, &*what, &*done),
            ("udp/faulty,loss=0.1/frag", "asks", "2/3 ✗")
        );
        assert_eq!((&*lost, &*median, &*late), ("", "2.00 ms", "2.00 ms"));
        row.done(Duration::from_millis(3));
        assert_eq!(row.cells()[2], "3/3 ✓");
        assert_eq!(row.json()["p50_us"], 3000.0);
    }
}
