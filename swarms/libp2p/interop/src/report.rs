//! Results, as the harness reads them from standard output.

use std::fmt::Write as _;
use std::time::Duration;

use crate::settings::Form;

/// The result of a transport test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    /// Time from the beginning of the dial until the first ping was answered.
    pub handshake_plus_one_rtt: Duration,
    /// Round-trip time of that ping.
    pub ping: Duration,
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

impl Latency {
    /// Returns the text of the result, in milliseconds.
    pub fn text(self, form: Form) -> String {
        let (handshake, ping) = (millis(self.handshake_plus_one_rtt), millis(self.ping));
        match form {
            Form::Current => {
                format!(
                    "latency:\n  handshake_plus_one_rtt: {handshake:.3}\n  ping_rtt: {ping:.3}\n  unit: ms\n"
                )
            }
            // The harness reads the name with three l.
            Form::Older => {
                format!("{{\"handshakePlusOneRTTMillis\":{handshake:.3},\"pingRTTMilllis\":{ping:.3}}}\n")
            }
        }
    }

    /// Parses a result of the current form among other lines, by the pattern with which the harness selects lines.
    ///
    /// # Errors
    /// A text that says what is missing.
    pub fn parse(output: &str) -> Result<Self, String> {
        if !output.lines().any(|line| line.starts_with("latency:")) {
            return Err("the dialler printed no latency".to_owned());
        }
        let value = |name: &str| {
            let prefix = format!("  {name}:");
            let value = output
                .lines()
                .find_map(|line| line.strip_prefix(&prefix))
                .map(str::trim);
            value.ok_or(format!("the dialler printed no {name}"))
        };
        let time = |name: &str| {
            let text = value(name)?;
            let millis = text
                .parse::<f64>()
                .ok()
                .filter(|millis| (0.0..1e9).contains(millis));
            let millis = millis.ok_or(format!("{name} is {text:?}, not a time"))?;
            Ok::<_, String>(Duration::from_secs_f64(millis / 1e3))
        };
        match value("unit")? {
            "ms" => Ok(Self {
                handshake_plus_one_rtt: time("handshake_plus_one_rtt")?,
                ping: time("ping_rtt")?,
            }),
            other => Err(format!("the unit is {other:?}, not ms")),
        }
    }
}

/// Samples of one quantity, with their quartiles.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples {
    /// Number of measurements that were asked for.
    iterations: u32,
    /// Ascending.
    sorted: Vec<f64>,
}

impl Samples {
    /// Takes samples in any order.
    pub fn new(iterations: u32, mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        Self {
            iterations,
            sorted: samples,
        }
    }

    /// Returns the value below which a share of the samples lies, between neighbours by proportion; 0 without samples.
    fn quantile(&self, share: f64) -> f64 {
        let last = self.sorted.len().saturating_sub(1);
        #[expect(clippy::cast_precision_loss, reason = "there are few samples")]
        let at = share * last as f64;
        #[expect(clippy::cast_sign_loss, reason = "neither is negative")]
        let (below, above) = (at.floor() as usize, at.ceil() as usize);
        let value = |index: usize| self.sorted.get(index).copied().unwrap_or_default();
        value(below) + (value(above) - value(below)) * at.fract()
    }

    /// Returns the section of this name. Outliers lie more than 1.5 times the distance of the quartiles beyond them, and
    /// neither `min` nor `max` is one.
    pub fn section(&self, name: &str, unit: &str, decimals: usize) -> String {
        let (q1, median, q3) = (self.quantile(0.25), self.quantile(0.5), self.quantile(0.75));
        let fence = 1.5 * (q3 - q1);
        let is_inlier = |value: &&f64| (q1 - fence..=q3 + fence).contains(*value);
        let inliers: Vec<f64> = self.sorted.iter().filter(is_inlier).copied().collect();
        let outliers: Vec<f64> = self
            .sorted
            .iter()
            .filter(|value| !is_inlier(value))
            .copied()
            .collect();
        let list = |values: &[f64]| {
            let texts: Vec<_> = values.iter().map(|value| format!("{value:.decimals$}")).collect();
            texts.join(", ")
        };
        let mut text = format!("{name}:\n  iterations: {}\n", self.iterations);
        let ends = [inliers.first(), inliers.last()].map(|end| end.copied().unwrap_or_default());
        for (name, value) in [
            ("min", ends[0]),
            ("q1", q1),
            ("median", median),
            ("q3", q3),
            ("max", ends[1]),
        ] {
            let _ = writeln!(text, "  {name}: {value:.decimals$}");
        }
        let _ = writeln!(
            text,
            "  outliers: [{}]\n  samples: [{}]\n  unit: {unit}",
            list(&outliers),
            list(&self.sorted)
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATENCY: Latency = Latency {
        handshake_plus_one_rtt: Duration::from_micros(5011),
        ping: Duration::from_micros(599),
    };

    #[test]
    fn latencies_are_printed_as_the_harness_reads_them() {
        let text = "latency:\n  handshake_plus_one_rtt: 5.011\n  ping_rtt: 0.599\n  unit: ms\n";
        assert_eq!(LATENCY.text(Form::Current), text);
        let text = "{\"handshakePlusOneRTTMillis\":5.011,\"pingRTTMilllis\":0.599}\n";
        assert_eq!(LATENCY.text(Form::Older), text);
    }

    #[test]
    fn a_printed_latency_is_parsed_among_other_lines() {
        let output = format!(
            "# Measurements from dialer\n{}\nnoise\n",
            LATENCY.text(Form::Current)
        );
        assert_eq!(Latency::parse(&output), Ok(LATENCY));
        assert!(Latency::parse("").is_err());
        let error = |from, to| Latency::parse(&output.replace(from, to)).unwrap_err();
        assert!(error("ping_rtt", "rtt").contains("no ping_rtt"));
        assert!(error("0.599", "NaN").contains("\"NaN\""));
        assert!(error("unit: ms", "unit: s").contains("\"s\""));
    }

    #[test]
    fn a_section_has_quartiles_and_outliers() {
        let samples = Samples::new(6, vec![4.0, 1.0, 3.0, 2.0, 5.0, 100.0]);
        let text = "upload:\n  iterations: 6\n  min: 1.00\n  q1: 2.25\n  median: 3.50\n  q3: 4.75\n  max: 5.00\n  \
                    outliers: [100.00]\n  samples: [1.00, 2.00, 3.00, 4.00, 5.00, 100.00]\n  unit: Gbps\n";
        assert_eq!(samples.section("upload", "Gbps", 2), text);
        let none = Samples::new(0, Vec::new()).section("latency", "ms", 3);
        assert!(
            none.contains("median: 0.000\n") && none.contains("samples: []\n"),
            "{none}"
        );
    }
}
