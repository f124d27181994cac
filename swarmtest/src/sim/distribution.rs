//! Random durations: latencies of links, and session and absence times of nodes.

use std::f64::consts::TAU;
use std::time::Duration;

/// The distribution of a random duration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// Always the same.
    Constant(Duration),
    /// Uniform between these two.
    Uniform(Duration, Duration),
    /// Memoryless, as in a Poisson process: the Chord paper's model of joins and failures (section 6.2).
    Exponential {
        /// The mean.
        mean: Duration,
    },
    /// The logarithm is normal: the usual fit for latencies on the internet.
    LogNormal {
        /// The median.
        median: Duration,
        /// Standard deviation of the natural logarithm; with 0.5 one in forty exceeds 2.7 times the median.
        sigma: f64,
    },
    /// A heavy tail, as session times in deployed networks have.
    Pareto {
        /// The minimum.
        min: Duration,
        /// The shape: lower values mean a heavier tail; at 1 and below the mean is infinite.
        alpha: f64,
    },
}

impl Distribution {
    /// Draws one duration; `uniform` returns numbers in `0.0..1.0`.
    ///
    /// A value that does not fit into a [`Duration`], or is not a number, becomes [`Duration::MAX`].
    pub fn sample(&self, mut uniform: impl FnMut() -> f64) -> Duration {
        // 1 - u lies in (0, 1], where the logarithm is finite.
        match *self {
            Distribution::Constant(duration) => duration,
            Distribution::Uniform(min, max) => min.saturating_add(scaled(max.saturating_sub(min), uniform())),
            Distribution::Exponential { mean } => scaled(mean, -(1.0 - uniform()).ln()),
            Distribution::LogNormal { median, sigma } => {
                let radius = (-2.0 * (1.0 - uniform()).ln()).sqrt();
                let normal = radius * (TAU * uniform()).cos();
                scaled(median, (sigma * normal).exp())
            }
            Distribution::Pareto { min, alpha } => scaled(min, (1.0 - uniform()).powf(-1.0 / alpha)),
        }
    }
}

fn scaled(duration: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(duration.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::mix::Mix;
    use super::*;

    fn mean(distribution: Distribution) -> f64 {
        let mut mix = Mix(7);
        let samples = 100_000;
        let sum: f64 = (0..samples)
            .map(|_| distribution.sample(|| mix.uniform()).as_secs_f64())
            .sum();
        sum / f64::from(samples)
    }

    #[test]
    fn means_are_those_of_the_textbook() {
        let second = Duration::from_secs(1);
        let (sigma, alpha) = (0.5_f64, 3.0);
        for (distribution, expected) in [
            (Distribution::Constant(second), 1.0),
            (Distribution::Uniform(second, 3 * second), 2.0),
            (Distribution::Exponential { mean: second }, 1.0),
            (
                Distribution::LogNormal {
                    median: second,
                    sigma,
                },
                (sigma * sigma / 2.0).exp(),
            ),
            (Distribution::Pareto { min: second, alpha }, alpha / (alpha - 1.0)),
        ] {
            let mean = mean(distribution);
            assert!(
                (mean - expected).abs() < 0.02 * expected,
                "{distribution:?}: {mean}"
            );
        }
    }

    #[test]
    fn a_value_out_of_range_is_the_maximum_duration() {
        let heavy = Distribution::Pareto {
            min: Duration::from_secs(1),
            alpha: 0.0,
        };
        assert_eq!(heavy.sample(|| 0.5), Duration::MAX);
    }
}
