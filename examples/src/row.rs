//! A row of the demonstration's table: the results of an operation that was repeated over one stack.

use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt as _};
use serde_json::{Value, json};

use crate::table::{Column, Columns, bytes, thousands, time};

/// The results of an operation that was repeated over one stack.
#[derive(Debug)]
pub struct Row {
    stack: String,
    what: &'static str,
    /// A short name for tables.
    shown: &'static str,
    nodes: usize,
    /// The number of operations, and of successful ones.
    of: usize,
    done: usize,
    /// The duration of each, if it is meaningful; sorted at the end.
    took: Vec<Duration>,
    start: Instant,
    time: Duration,
    /// Messages that were lost, if they are counted.
    pub lost: Option<u64>,
    /// Bytes that were transferred, if they are the measure.
    pub bytes: Option<u64>,
}

impl Row {
    /// Starts an operation that is repeated `of` times among `nodes` nodes.
    pub fn new(stack: &str, what: &'static str, nodes: usize, of: usize) -> Self {
        Self {
            stack: stack.to_owned(),
            what,
            shown: what,
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

    /// Sets the name in tables.
    #[must_use]
    pub fn shown_as(mut self, what: &'static str) -> Self {
        self.shown = what;
        self
    }

    /// Returns the text of the stack.
    pub fn stack(&self) -> &str {
        &self.stack
    }

    /// Restarts the clock: earlier time is not counted.
    pub fn begin(&mut self) {
        self.start = Instant::now();
    }

    /// Records one success with its duration.
    pub fn done(&mut self, took: Duration) {
        self.done += 1;
        self.took.push(took);
    }

    /// Records a number of successes with their total duration.
    pub fn all_done(&mut self, done: usize, time: Duration) {
        self.done = done;
        self.time = time;
    }

    /// Collects results until the stream ends; `None` is a failure.
    pub async fn collect(&mut self, each: impl Stream<Item = Option<Duration>>) {
        let mut each = std::pin::pin!(each);
        while let Some(took) = each.next().await {
            if let Some(took) = took {
                self.done(took);
            }
            self.end();
        }
    }

    /// Stops the clock.
    pub fn end(&mut self) {
        self.time = self.start.elapsed();
    }

    /// Returns the number of missing or failed operations.
    pub fn missing(&self) -> usize {
        self.of.saturating_sub(self.done)
    }

    /// Describes what is missing.
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

    /// Returns the row as a JSON object: times in seconds and microseconds.
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

    fn cell(&self, heading: &str) -> String {
        let mark = if self.missing() == 0 { '✓' } else { '✗' };
        let took = |share| self.percentile(share).map(time).unwrap_or_default();
        match heading {
            "stack" => short(&self.stack),
            "what" => self.shown.to_owned(),
            "done" => {
                let (done, of) = (thousands(self.done as u64), thousands(self.of as u64));
                format!("{done}/{of} {mark}")
            }
            "lost" => self.lost.map(thousands).unwrap_or_default(),
            "median" => took(50),
            "99 %" => took(99),
            _ => match self.bytes {
                Some(count) => format!("{}/s", bytes(self.per_second(count))),
                None => format!("{:.0}/s", self.per_second(self.done as u64)),
            },
        }
    }

    /// Returns the row as a line of a [`table`].
    pub fn line(&self, table: &Columns) -> String {
        table.line(|column| self.cell(column.heading))
    }
}

/// Returns the table of rows for lines of `width` characters, 80 or more; no row has more than `most`
/// operations.
pub fn table(width: usize, most: usize) -> Columns {
    let digits = thousands(most as u64).len();
    let columns = [
        ("stack", 26, 0),
        ("what", 7, 0),
        ("done", 2 * digits + 3, 0),
        ("lost", 6, 3),
        ("median", 7, 2),
        ("99 %", 7, 4),
        ("rate", 9, 1),
    ];
    let columns = columns.map(|(heading, width, rank)| Column { heading, width, rank });
    Columns::fit(&columns, width)
}

/// Returns the relevant layers of a stack: without addresses, sizes, topics and seeds.
pub fn short(stack: &str) -> String {
    let layers = stack.split('/').map(|layer| {
        let mut parts = layer.split(',');
        let name = parts.next().and_then(|layer| layer.split('=').next());
        let options = parts.filter(|option| !option.starts_with("seed="));
        name.into_iter().chain(options).collect::<Vec<_>>().join(",")
    });
    layers.collect::<Vec<_>>().join("/")
}

/// Converts a count for division.
#[expect(clippy::cast_precision_loss, reason = "counts of one run are far below 2⁵²")]
pub fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_operations_are_reported() {
        let mut row = Row::new("udp=127.0.0.1:0/faulty,loss=0.1,seed=77/frag=65536", "asks", 2, 3);
        row.done(Duration::from_millis(4));
        row.done(Duration::from_millis(2));
        row.end();
        assert_eq!(row.missing(), 1);
        let cells = ["stack", "what", "done", "lost", "median", "99 %"].map(|heading| row.cell(heading));
        assert_eq!(
            cells,
            [
                "udp/faulty,loss=0.1/frag",
                "asks",
                "2/3 ✗",
                "",
                "2.00 ms",
                "2.00 ms"
            ]
        );
        row.done(Duration::from_millis(3));
        assert_eq!(row.cell("done"), "3/3 ✓");
        assert_eq!(row.json()["p50_us"], 3000.0);
    }

    #[test]
    fn rows_fit_into_80_columns() {
        let mut row = Row::new(
            "udp=127.0.0.1:0/p2pke/mbapp/kad/gossip=demo",
            "publish",
            64,
            16_128,
        );
        (0..16_128).for_each(|_| row.done(Duration::from_micros(123_456)));
        row.all_done(16_128, Duration::from_secs(3));
        for width in [80, 100] {
            let table = table(width, 16_128);
            let (heading, line) = (table.heading(), row.line(&table));
            assert!(
                heading.lines().all(|line| line.chars().count() <= width),
                "{heading}"
            );
            assert!(
                line.chars().count() <= width && line.contains("16,128/16,128 ✓  "),
                "{line}"
            );
            assert_eq!(heading.contains("99 %"), width == 100);
        }
    }
}
