//! Decides the fate of a message: random choices and arithmetic, without a clock or a queue.

use std::time::Duration;

use p2p::{Error, Result};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

/// Faults of a link. The default has none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkFaults {
    /// Probability that a message is lost.
    pub loss: f64,
    /// Probability that a message arrives twice, each copy with its own delay.
    pub duplicate: f64,
    /// Probability that a message is held back for [`reorder_by`](Self::reorder_by), so that later messages
    /// overtake it.
    pub reorder: f64,
    /// Probability that one bit of a message is flipped. An empty message has no bits.
    pub corrupt: f64,
    /// Delay of every message.
    pub delay: Duration,
    /// Additional delay, uniformly distributed between 0 and this value.
    pub jitter: Duration,
    /// How long a reordered message is held back. Default: 10 ms.
    pub reorder_by: Duration,
    /// Bytes per second, or 0 for no limit. Messages cross one after the other, each in `len / rate`.
    pub rate: u64,
    /// Bytes that may wait to cross a link with a rate. A message that exceeds it is dropped and counted as
    /// [`DropReason::QueueFull`](p2p::DropReason::QueueFull), unless the link is idle. Default: 256 KiB.
    pub rate_queue: usize,
}

impl Default for LinkFaults {
    fn default() -> Self {
        Self {
            loss: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            corrupt: 0.0,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            reorder_by: Duration::from_millis(10),
            rate: 0,
            rate_queue: 256 << 10,
        }
    }
}

/// Maximum delay, jitter or hold-back of a link.
const LONGEST: Duration = Duration::from_hours(1);

impl LinkFaults {
    /// Returns whether messages cross unchanged and at once.
    pub fn is_none(&self) -> bool {
        let chances = [self.loss, self.duplicate, self.reorder, self.corrupt];
        chances.iter().all(|chance| *chance <= 0.0)
            && self.delay.is_zero()
            && self.jitter.is_zero()
            && self.rate == 0
    }

    /// Checks the values.
    ///
    /// # Errors
    /// Returns [`Error::Invalid`] for a probability that is not between 0 and 1, and for times over an hour.
    pub fn check(&self) -> Result<()> {
        let chances = [
            ("loss", self.loss),
            ("duplication", self.duplicate),
            ("reordering", self.reorder),
            ("corruption", self.corrupt),
        ];
        for (what, chance) in chances {
            if !(0.0..=1.0).contains(&chance) {
                return Err(Error::invalid(what, format!("{chance} is not between 0 and 1")));
            }
        }
        let times = [
            ("delay", self.delay),
            ("jitter", self.jitter),
            ("reordering time", self.reorder_by),
        ];
        for (what, time) in times {
            if time > LONGEST {
                return Err(Error::invalid(
                    what,
                    format!(
                        "{} s is longer than {} s",
                        time.as_secs_f64(),
                        LONGEST.as_secs_f64()
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// The fate of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Lost,
    Sent {
        original: Flight,
        duplicate: Option<Flight>,
    },
}

/// How one copy of a message crosses the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flight {
    pub(super) delay: Duration,
    /// Index of the bit to flip.
    pub(super) corrupt: Option<usize>,
}

impl Flight {
    /// Flips the bit that the medium corrupts.
    pub(super) fn damage(self, payload: &mut [u8]) {
        if let Some(bit) = self.corrupt
            && let Some(byte) = payload.get_mut(bit / 8)
        {
            *byte ^= 1 << (bit % 8);
        }
    }
}

/// Draws the fates of one node's messages.
///
/// A fate depends on the seed, the settings, and the number of earlier messages. Each fate takes the same
/// number of draws, so changing one setting changes no other choice.
#[derive(Debug)]
pub(super) struct Planner {
    rng: ChaCha8Rng,
}

impl Planner {
    /// Creates the random stream of the `node`th node for `seed`.
    pub(super) fn new(seed: u64, node: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(node);
        Self { rng }
    }

    /// Returns the fate of the next message, of `len` bytes.
    pub(super) fn fate(&mut self, link: &LinkFaults, len: usize) -> Fate {
        let lost = self.happens(link.loss);
        let duplicated = self.happens(link.duplicate);
        let original = self.flight(link, len);
        let duplicate = self.flight(link, len);
        if lost {
            return Fate::Lost;
        }
        Fate::Sent {
            original,
            duplicate: duplicated.then_some(duplicate),
        }
    }

    fn flight(&mut self, link: &LinkFaults, len: usize) -> Flight {
        let jitter = link.jitter.mul_f64(self.rng.random::<f64>());
        let reordered = self.happens(link.reorder);
        let corrupted = self.happens(link.corrupt);
        let bit = self.rng.random::<u64>();
        let bits = len as u64 * 8;
        Flight {
            delay: link.delay
                + jitter
                + if reordered {
                    link.reorder_by
                } else {
                    Duration::ZERO
                },
            corrupt: (corrupted && bits > 0).then(|| (bit % bits) as usize),
        }
    }

    /// Returns true with the given probability: never for 0, always for 1.
    fn happens(&mut self, chance: f64) -> bool {
        self.rng.random::<f64>() < chance
    }
}

/// The rate limit of a link: messages cross it one after the other.
///
/// Time is counted from any fixed instant.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bottleneck {
    free_at: Duration,
}

impl Bottleneck {
    /// Returns the time after `now` at which a message of `len` bytes has crossed, or `None` if too many
    /// bytes wait already.
    pub(super) fn cross(&mut self, link: &LinkFaults, len: usize, now: Duration) -> Option<Duration> {
        if link.rate == 0 {
            return Some(Duration::ZERO);
        }
        let busy = self.free_at.saturating_sub(now);
        if !busy.is_zero() {
            let waiting = busy.as_nanos().saturating_mul(u128::from(link.rate)) / NANOS;
            if waiting + len as u128 > link.rate_queue as u128 {
                return None;
            }
        }
        let nanos = len as u128 * NANOS / u128::from(link.rate);
        let takes = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(LONGEST);
        self.free_at = now + busy + takes;
        Some(busy + takes)
    }

    /// Returns whether nothing is crossing, so that this can be removed.
    pub(super) fn is_idle(&self, now: Duration) -> bool {
        self.free_at <= now
    }
}

/// Nanoseconds in a second.
const NANOS: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 7;

    fn fates(seed: u64, node: u64, link: &LinkFaults, count: usize) -> Vec<Fate> {
        let mut planner = Planner::new(seed, node);
        (0..count).map(|_| planner.fate(link, 100)).collect()
    }

    fn rough() -> LinkFaults {
        LinkFaults {
            loss: 0.3,
            duplicate: 0.2,
            reorder: 0.1,
            corrupt: 0.05,
            delay: Duration::from_millis(20),
            jitter: Duration::from_millis(8),
            ..LinkFaults::default()
        }
    }

    #[test]
    fn equal_seeds_give_equal_fates_and_different_seeds_different_ones() {
        let link = rough();
        assert_eq!(fates(SEED, 0, &link, 100), fates(SEED, 0, &link, 100));
        assert_ne!(fates(SEED, 0, &link, 100), fates(SEED, 1, &link, 100));
        assert_ne!(fates(SEED, 0, &link, 100), fates(SEED + 1, 0, &link, 100));
    }

    #[test]
    fn a_seed_has_the_same_fates_on_every_machine_and_in_every_version() {
        let lost: String = fates(SEED, 0, &rough(), 40)
            .iter()
            .map(|fate| if *fate == Fate::Lost { 'x' } else { '.' })
            .collect();
        assert_eq!(lost, "xx....x.x....x....xx.x....x.x.xx.x.x....");
    }

    #[test]
    fn changing_one_setting_changes_no_other_choice() {
        let link = rough();
        let lossless = LinkFaults { loss: 0.0, ..link };
        let late = LinkFaults {
            delay: link.delay * 2,
            ..link
        };
        for ((fate, kept), later) in fates(SEED, 0, &link, 1000)
            .into_iter()
            .zip(fates(SEED, 0, &lossless, 1000))
            .zip(fates(SEED, 0, &late, 1000))
        {
            assert!(fate == Fate::Lost || fate == kept);
            assert_eq!(fate == Fate::Lost, later == Fate::Lost);
        }
    }

    #[test]
    fn faults_occur_with_their_probability() {
        const COUNT: u32 = 20_000;
        let link = rough();
        let (mut lost, mut duplicated, mut reordered, mut corrupted, mut copies) = (0, 0, 0, 0, 0);
        let mut jitter = Duration::ZERO;
        for fate in fates(SEED, 0, &link, COUNT as usize) {
            let Fate::Sent { original, duplicate } = fate else {
                lost += 1;
                continue;
            };
            duplicated += u32::from(duplicate.is_some());
            for flight in [Some(original), duplicate].into_iter().flatten() {
                copies += 1;
                corrupted += u32::from(flight.corrupt.is_some());
                let mut extra = flight
                    .delay
                    .checked_sub(link.delay)
                    .expect("the delay is the minimum");
                if extra > link.jitter {
                    reordered += 1;
                    extra = extra.saturating_sub(link.reorder_by);
                }
                assert!(extra <= link.jitter);
                jitter += extra;
            }
        }
        // Five standard deviations of a binomial distribution.
        let near = |what: &str, got: u32, of: u32, chance: f64| {
            let (mean, of) = (f64::from(of) * chance, f64::from(of));
            let bound = 5.0 * (of * chance * (1.0 - chance)).sqrt();
            assert!(
                (f64::from(got) - mean).abs() < bound,
                "seed {SEED}: {what}: {got}, expected {mean} ± {bound}"
            );
        };
        near("lost", lost, COUNT, link.loss);
        near("duplicated", duplicated, COUNT - lost, link.duplicate);
        near("corrupted", corrupted, copies, link.corrupt);
        near("reordered", reordered, copies, link.reorder);
        let mean = jitter / copies;
        let off = mean.abs_diff(link.jitter / 2);
        assert!(
            off < Duration::from_micros(100),
            "seed {SEED}: mean jitter {mean:?}"
        );
    }

    #[test]
    fn probability_0_is_never_and_probability_1_is_always() {
        for fate in fates(SEED, 0, &LinkFaults::default(), 1000) {
            let original = Flight {
                delay: Duration::ZERO,
                corrupt: None,
            };
            assert_eq!(
                fate,
                Fate::Sent {
                    original,
                    duplicate: None
                }
            );
        }
        let always = LinkFaults {
            duplicate: 1.0,
            corrupt: 1.0,
            ..LinkFaults::default()
        };
        for fate in fates(SEED, 0, &always, 1000) {
            assert!(matches!(
                fate,
                Fate::Sent {
                    original: Flight {
                        corrupt: Some(0..800),
                        ..
                    },
                    duplicate: Some(Flight {
                        corrupt: Some(0..800),
                        ..
                    })
                }
            ));
        }
        let lossy = LinkFaults {
            loss: 1.0,
            ..LinkFaults::default()
        };
        assert!(
            fates(SEED, 0, &lossy, 1000)
                .iter()
                .all(|fate| *fate == Fate::Lost)
        );
    }

    #[test]
    fn corruption_flips_one_bit() {
        let mut payload = [0u8; 100];
        Flight {
            delay: Duration::ZERO,
            corrupt: Some(799),
        }
        .damage(&mut payload);
        assert_eq!(payload[99], 0x80);
        assert_eq!(payload.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
        assert_eq!(
            Planner::new(SEED, 0).fate(
                &LinkFaults {
                    corrupt: 1.0,
                    ..LinkFaults::default()
                },
                0
            ),
            Planner::new(SEED, 0).fate(&LinkFaults::default(), 0),
            "an empty message has no bits"
        );
    }

    #[test]
    fn a_rate_limited_link_passes_its_rate_and_bounds_its_queue() {
        let link = LinkFaults {
            rate: 1000,
            rate_queue: 250,
            ..LinkFaults::default()
        };
        let ms = Duration::from_millis;
        let mut neck = Bottleneck::default();
        assert!(neck.is_idle(ms(0)));
        assert_eq!(neck.cross(&link, 100, ms(0)), Some(ms(100)));
        assert_eq!(neck.cross(&link, 100, ms(0)), Some(ms(200)));
        assert_eq!(
            neck.cross(&link, 100, ms(0)),
            None,
            "200 bytes wait, the limit is 250"
        );
        assert_eq!(neck.cross(&link, 50, ms(0)), Some(ms(250)));
        assert_eq!(
            neck.cross(&link, 100, ms(100)),
            Some(ms(250)),
            "100 bytes have crossed meanwhile"
        );
        assert!(!neck.is_idle(ms(349)) && neck.is_idle(ms(350)));
        assert_eq!(
            neck.cross(&link, 1000, ms(400)),
            Some(ms(1000)),
            "an idle link accepts a message of any length"
        );
    }
}
