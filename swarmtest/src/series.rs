//! Series of payloads: told in bursts that small queues hold, each burst read before the next.

use std::collections::BTreeMap;

use p2p::{Addr, Message, Packet, Swarm as _};
use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::time::timeout;

use crate::chance::arrive_at_least;
use crate::harness::{MIN_PAYLOAD, ensure, in_time, number, numbered_payload};
use crate::kind::Node;
use crate::payloads::length;
use crate::report::{Outcome, Unmet};
use crate::testbed::Testbed;

/// Maximum number of payloads in flight to one node.
pub(crate) const WINDOW: usize = 16;

/// Maximum number of bytes in flight to one node, unless one payload is longer.
pub(crate) const WINDOW_BYTES: usize = 32 << 10;

/// Maximum length of payloads where the law is not about lengths.
const LONGEST: usize = 4096;

/// The result of a series.
#[derive(Debug, Default)]
pub(crate) struct Series {
    /// How often each payload arrived, by its number, and its length.
    came: BTreeMap<u32, (usize, usize)>,
    /// Lengths of arrived messages without the number of a told payload.
    pub(crate) unknown: Vec<usize>,
}

impl Series {
    /// Returns the payloads that did not arrive: number and length of each.
    pub(crate) fn missing(&self) -> impl Iterator<Item = (u32, usize)> {
        let missing = self.came.iter().filter(|(_, (_, times))| *times == 0);
        missing.map(|(number, (len, _))| (*number, *len))
    }

    /// Returns the number of told payloads.
    pub(crate) fn told(&self) -> usize {
        self.came.len()
    }

    /// Returns a payload that arrived more than once: its length, and how often.
    pub(crate) fn repeated(&self) -> Option<(usize, usize)> {
        self.came.values().copied().find(|(_, times)| *times > 1)
    }

    /// Expects that no more messages were lost than the medium may lose.
    pub(crate) fn arrived(&self, loss: f64) -> Outcome {
        let (told, missing) = (self.told(), self.missing().count());
        let least = arrive_at_least(told, loss);
        let first = self.missing().next().map_or(0, |(_, len)| len);
        ensure!(
            told - missing >= least,
            "of {told} messages {} arrived, expected {least}; the first missing one has {first} bytes",
            told - missing
        );
        Ok(())
    }
}

/// Returns random lengths.
pub(crate) fn lengths(rng: &mut StdRng, mtu: usize, count: usize) -> Vec<usize> {
    let most = mtu.min(LONGEST);
    (0..count).map(|_| length(rng, most).max(MIN_PAYLOAD)).collect()
}

impl<A: Addr> Testbed<A> {
    /// Ends a law that compares contents, if the medium damages them.
    pub(crate) fn undamaged(&self) -> Outcome {
        if self.the_profile().damages {
            return Err(Unmet::Waived(
                "the medium damages messages without detection by a layer above".into(),
            ));
        }
        Ok(())
    }

    /// Returns the maximum probability that the medium loses a message of any length.
    pub(crate) fn worst_loss(&self) -> f64 {
        self.the_profile().loss.max(self.the_profile().loss_at_mtu)
    }

    /// Returns whether the medium may lose a message of some length.
    pub(crate) fn may_lose(&self) -> bool {
        self.worst_loss() > 0.0
    }

    /// Returns how many messages may be in flight to a node, so that small queues hold them.
    pub(crate) fn window(&self) -> usize {
        WINDOW.min(self.the_profile().holds.max(1))
    }

    /// Tells payloads of these lengths, numbered from 0, and passes each arrival to `look` with the told
    /// payload. Ends early if one is lost that must not be.
    pub(crate) async fn series(
        &self,
        from: &Node<A>,
        to: &Node<A>,
        lengths: &[usize],
        mut look: impl FnMut(&Message<A>, &[u8]) -> Outcome,
    ) -> Outcome<Series> {
        let dst = to.addr()?;
        let mut series = Series::default();
        let mut next = 0;
        while next < lengths.len() {
            let (mut open, mut bytes) = (0, 0);
            while let Some(len) = lengths.get(next)
                && (open == 0 || (open < self.window() && bytes + len <= WINDOW_BYTES))
            {
                let told = numbered_payload(next as u32, *len);
                in_time(
                    "a tell",
                    self.patience(),
                    from.tell(&dst, Packet::from(&told[..])),
                )
                .await??;
                series.came.insert(next as u32, (*len, 0));
                (open, bytes, next) = (open + 1, bytes + len, next + 1);
            }
            while open > 0 {
                let limit = if self.may_lose() {
                    self.settle()
                } else {
                    self.patience()
                };
                let Ok(message) = timeout(limit, to.receive()).await else {
                    if self.may_lose() {
                        break;
                    }
                    return Ok(series);
                };
                let message = message?;
                let Some((number, (len, times))) =
                    number(&message.payload).and_then(|number| Some((number, series.came.get_mut(&number)?)))
                else {
                    series.unknown.push(message.payload.len());
                    continue;
                };
                *times += 1;
                open -= usize::from(*times == 1);
                look(&message, &numbered_payload(number, *len))?;
            }
        }
        Ok(series)
    }

    /// Tells as [`series`](Self::series) does, `count` payloads of random lengths.
    pub(crate) async fn series_of(
        &self,
        from: &Node<A>,
        to: &Node<A>,
        count: usize,
        look: impl FnMut(&Message<A>, &[u8]) -> Outcome,
    ) -> Outcome<Series> {
        let lengths = lengths(&mut self.rng(), self.longest(from)?, self.amount(count));
        self.series(from, to, &lengths, look).await
    }

    /// Records late and repeated arrivals.
    pub(crate) async fn rest(&self, to: &Node<A>, series: &mut Series) -> Outcome {
        for number in self.drain_numbers(to, usize::MAX).await? {
            if let Some((_, times)) = series.came.get_mut(&number) {
                *times += 1;
            }
        }
        Ok(())
    }
}

/// Returns a random element of a list.
pub(crate) fn any<T: Copy>(rng: &mut StdRng, of: &[T]) -> T {
    of[rng.random_range(0..of.len())]
}
