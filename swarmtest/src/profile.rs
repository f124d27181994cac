//! Profiles: what the medium may do, timeouts, and the laws that a kind of swarm cannot keep.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::Law;

/// Payloads of up to this many bytes are short: [`Profile::loss`] applies to them.
pub const SHORT: usize = 64;

/// The amount of traffic of laws: how many messages, lengths, orders and cancellations they try.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effort {
    /// A tenth of [`Normal`](Self::Normal).
    Quick,
    /// Some seconds of processor time for all laws on a swarm in memory. Finds faults that affect 1 message
    /// in 50.
    #[default]
    Normal,
    /// Ten times as much as [`Normal`](Self::Normal).
    Strict,
}

impl Effort {
    /// Scales an amount of which a law does `normal` by default; never to zero.
    #[must_use]
    pub fn amount(self, normal: usize) -> usize {
        match self {
            Effort::Quick => normal.div_ceil(10).max(1),
            Effort::Normal => normal,
            Effort::Strict => normal.saturating_mul(10),
        }
    }
}

impl FromStr for Effort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "quick" => Ok(Effort::Quick),
            "normal" => Ok(Effort::Normal),
            "strict" => Ok(Effort::Strict),
            _ => Err(format!(
                "{text:?} is not an effort: expected quick, normal or strict"
            )),
        }
    }
}

/// Returns the value of an environment variable, if it is set.
///
/// # Panics
/// Panics if its value is invalid.
fn from_environment<T: FromStr<Err: fmt::Display>>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    match text.parse() {
        Ok(value) => Some(value),
        Err(error) => panic!("the environment variable {name}: {error}"),
    }
}

/// What the medium may do, timeouts, and waived laws.
///
/// The default is a medium that loses and duplicates nothing. Reordering is always permitted: tells are
/// unordered.
///
/// On a lossy medium a law repeats operations that may be lost, so often that a correct swarm fails it with a
/// probability below 10⁻¹², provided that losses are independent and no more frequent than stated.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Maximum probability that a message of up to [`SHORT`] bytes is lost; from 0 to below 1. A higher value
    /// means more repetition.
    pub loss: f64,
    /// Maximum probability that a longer message, of up to `mtu()` and up to [`longest`](Self::longest)
    /// bytes, is lost. A fragmenting layer multiplies the loss below it.
    pub loss_at_mtu: f64,
    /// Length of the longest message that laws expect to arrive. If all of a message's fragments must arrive
    /// and each of them may be lost, a message of the MTU may never arrive: with 30 % of 56 fragments lost, 1
    /// of 470 million does. Laws then tell no longer messages, and
    /// [`tell::exactly_the_mtu_works`](crate::laws::tell::exactly_the_mtu_works) is waived. Default: no
    /// limit.
    pub longest: usize,
    /// The same for requests and responses, whose fragments a layer may retransmit. Default: no limit.
    pub longest_ask: usize,
    /// Whether the medium may duplicate. Laws that could not distinguish its duplicates from a fault are
    /// waived.
    pub duplicates: bool,
    /// Whether the medium changes bytes without detection by a layer above. Laws that compare contents are
    /// waived. The loss must include damaged messages.
    pub damages: bool,
    /// Time without an arrival after which a message counts as lost; also the pause before a repetition. Too
    /// short a time hides faults and repeats more, but never fails a correct swarm.
    pub settle: Duration,
    /// Timeout of everything that must happen. Fully awaited only on failure, and by the laws of impostors and
    /// diversion: sessions should be rekeyed within it, or those laws see only the first ones.
    pub patience: Duration,
    /// Timeout of an ask without a response, and of a lookup of a closed node.
    pub ask_patience: Duration,
    /// Maximum number of messages that may wait for a stopped reader, in all layers and in the medium. Some laws
    /// tell more than twice as many, so a lower figure makes a run faster on a medium that holds few.
    pub holds: usize,
    /// Maximum number of asks of a node in flight, and of requests that a node hands out before one is answered. One
    /// law sends more than twice as many.
    pub asks: usize,
    /// Timeout of one law.
    pub limit: Duration,
    /// Seed of all random choices of laws: lengths, contents, orders, cancellations, and attacks. Each law
    /// has its own generator. Every failure reports the seed; the environment variable `SWARMTEST_SEED`
    /// replaces it.
    pub seed: u64,
    /// The amount of traffic. The environment variable `SWARMTEST_EFFORT` (`quick`, `normal` or `strict`)
    /// replaces it.
    pub effort: Effort,
    /// Laws that are not checked, with the reasons; see [`waive`](Self::waive).
    pub waived: Vec<(Cow<'static, str>, Cow<'static, str>)>,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            loss: 0.0,
            loss_at_mtu: 0.0,
            longest: usize::MAX,
            longest_ask: usize::MAX,
            duplicates: false,
            damages: false,
            settle: Duration::from_millis(20),
            patience: Duration::from_secs(5),
            ask_patience: Duration::from_secs(40),
            holds: 8192,
            asks: 1024,
            limit: Duration::from_mins(2),
            seed: 0,
            effort: Effort::Normal,
            waived: Vec::new(),
        }
    }
}

impl Profile {
    /// Returns the profile of a medium that loses a message of any length with a probability of up to `loss`.
    #[must_use]
    pub fn lossy(loss: f64) -> Self {
        Self {
            loss,
            loss_at_mtu: loss,
            ..Self::default()
        }
    }

    /// Returns the same profile with a tenth of the traffic, for many short runs such as a matrix of
    /// generated stacks. Rare faults are not found.
    #[must_use]
    pub fn quick(self) -> Self {
        self.effort(Effort::Quick)
    }

    /// Returns the same profile with ten times the traffic and time, for occasional runs.
    #[must_use]
    pub fn strict(self) -> Self {
        self.effort(Effort::Strict)
    }

    /// Returns the same profile with this amount of traffic.
    #[must_use]
    pub fn effort(self, effort: Effort) -> Self {
        Self { effort, ..self }
    }

    /// Returns the same profile without the law of this name, with the reason. A name that ends in `::`
    /// waives the group.
    ///
    /// # Panics
    /// Panics if there is no such law: a waiver without effect is a mistake.
    #[must_use]
    pub fn waive(mut self, law: impl Into<Cow<'static, str>>, why: impl Into<Cow<'static, str>>) -> Self {
        let law = law.into();
        assert!(
            crate::LAWS.iter().any(|known| covers(&law, known)),
            "there is no law {law:?} to waive"
        );
        self.waived.push((law, why.into()));
        self
    }

    /// Returns the reason for waiving this law, if it is waived.
    pub fn waiver(&self, law: &Law) -> Option<&str> {
        let waiver = self.waived.iter().find(|(name, _)| covers(name, law));
        waiver.map(|(_, why)| &**why)
    }

    /// Returns the same profile with the environment's replacements, and the time for its effort.
    pub(crate) fn as_run(&self) -> Self {
        let effort = from_environment("SWARMTEST_EFFORT").unwrap_or(self.effort);
        Self {
            seed: from_environment("SWARMTEST_SEED").unwrap_or(self.seed),
            effort,
            limit: if effort == Effort::Strict {
                self.limit * 10
            } else {
                self.limit
            },
            ..self.clone()
        }
    }

    /// Returns the probability that a message of `len` bytes is lost.
    pub(crate) fn loss_of(&self, len: usize) -> f64 {
        if len <= SHORT { self.loss } else { self.loss_at_mtu }
    }

    /// Returns a number of messages greater than may wait for a reader.
    pub(crate) fn flood(&self) -> u32 {
        u32::try_from(self.holds.saturating_mul(2).saturating_add(64)).unwrap_or(u32::MAX)
    }
}

/// Returns whether a waiver of `name` applies to `law`.
fn covers(name: &str, law: &Law) -> bool {
    law.name == name || (name.ends_with("::") && law.name.starts_with(name))
}
