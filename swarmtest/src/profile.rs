//! What the medium may do, how long to wait, and which laws a kind of swarm cannot have.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::Law;

/// Payloads of up to this many bytes are short: [`Profile::loss`] holds for them.
pub const SHORT: usize = 64;

/// How much traffic laws make: how many messages, lengths, orders and cancellations they try.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effort {
    /// A tenth of [`Normal`](Self::Normal).
    Quick,
    /// Some seconds of processor time for all laws on a swarm in memory. Finds faults that hit 1 message in 50.
    #[default]
    Normal,
    /// Ten times as much as [`Normal`](Self::Normal).
    Strict,
}

impl Effort {
    /// What a law does of something of which it does `normal` by default; never nothing.
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
            _ => Err(format!("{text:?} is no effort: quick, normal and strict are")),
        }
    }
}

/// The value of a variable of the environment, if it is set.
///
/// # Panics
/// If it is set to something else.
fn from_environment<T: FromStr<Err: fmt::Display>>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    match text.parse() {
        Ok(value) => Some(value),
        Err(error) => panic!("the variable {name} of the environment: {error}"),
    }
}

/// What the medium may do, how long to wait, and which laws are waived.
///
/// The default is a medium that loses and duplicates nothing. Reordering needs no permission: tells are
/// unordered everywhere.
///
/// On a lossy medium a law repeats what may be lost, so often that a correct swarm fails it with a chance
/// below 10⁻¹²; that holds as long as losses are independent and no likelier than stated.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Chance that a message of up to [`SHORT`] bytes is lost, at most; from 0 to below 1. Higher values
    /// mean more repetition.
    pub loss: f64,
    /// Chance that a longer message, of up to `mtu()` and up to [`longest`](Self::longest) bytes, is lost, at most. A layer
    /// that splits messages multiplies the loss below it.
    pub loss_at_mtu: f64,
    /// Bytes of the longest message that laws expect to arrive. Where all of a message's pieces must arrive and each of them may
    /// be lost, a message of the MTU may never do: with 30 % of 56 pieces lost, 1 of 470 million does. Laws tell no longer
    /// messages then, and [`tell::exactly_the_mtu_works`](crate::laws::tell::exactly_the_mtu_works) is waived. Default: no limit.
    pub longest: usize,
    /// The same for requests and responses, whose pieces a layer may send again. Default: no limit.
    pub longest_ask: usize,
    /// Whether the medium may duplicate. Laws that could not tell its copies from a fault are waived.
    pub duplicates: bool,
    /// Whether the medium changes bytes and nothing above it notices. Laws that compare contents are waived. The loss must
    /// count damaged messages as lost.
    pub damages: bool,
    /// For how long nothing must arrive before it counts as never arriving; also the pause before something
    /// is told again. Too short hides faults and repeats more, but never fails a correct swarm.
    pub settle: Duration,
    /// How long anything that must happen may take. Waited for in full only where it does not happen, and by the laws
    /// of impostors and diversion: sessions should be renewed within it, or those laws see first ones alone.
    pub patience: Duration,
    /// How long an ask without an answer, or a lookup of a node that is gone, may take to end.
    pub ask_patience: Duration,
    /// Most messages that may wait for a reader that stopped, in all layers and in the medium. Some laws
    /// tell more than twice as many, so a run on a medium that holds few is quicker with a lower figure.
    pub holds: usize,
    /// Most asks that a node may have under way. One law asks more than twice as often.
    pub asks: usize,
    /// How long one law may take, before it counts as hanging.
    pub limit: Duration,
    /// Seed of everything that laws draw at random: lengths, contents, orders, cancellations, and attacks. Each law draws
    /// from a generator of its own. Every failure names the seed; `SWARMTEST_SEED` in the environment replaces it.
    pub seed: u64,
    /// How much traffic laws make. `SWARMTEST_EFFORT` in the environment (`quick`, `normal` or `strict`) replaces it.
    pub effort: Effort,
    /// Laws that are not checked, and why; see [`waive`](Self::waive).
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
    /// A medium that loses a message of any length with a chance of up to `loss`.
    #[must_use]
    pub fn lossy(loss: f64) -> Self {
        Self {
            loss,
            loss_at_mtu: loss,
            ..Self::default()
        }
    }

    /// The same profile with a tenth of the traffic, for many runs that must be short: a matrix of generated stacks.
    /// Rare faults pass it.
    #[must_use]
    pub fn quick(self) -> Self {
        self.effort(Effort::Quick)
    }

    /// The same profile with ten times the traffic and the time for it, for a run now and then.
    #[must_use]
    pub fn strict(self) -> Self {
        self.effort(Effort::Strict)
    }

    /// The same profile with this much traffic.
    #[must_use]
    pub fn effort(self, effort: Effort) -> Self {
        Self { effort, ..self }
    }

    /// The same profile without the law of this name, and why. A name that ends in `::` waives the group.
    ///
    /// # Panics
    /// If there is no such law: a waiver that waives nothing is a mistake.
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

    /// Why this law is waived, if it is.
    pub fn waiver(&self, law: &Law) -> Option<&str> {
        let waiver = self.waived.iter().find(|(name, _)| covers(name, law));
        waiver.map(|(_, why)| &**why)
    }

    /// The same profile with what the environment replaces, and the time that its effort takes.
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

    /// The chance that a message of `len` bytes is lost.
    pub(crate) fn loss_of(&self, len: usize) -> f64 {
        if len <= SHORT { self.loss } else { self.loss_at_mtu }
    }

    /// More messages than may wait for a reader.
    pub(crate) fn flood(&self) -> u32 {
        u32::try_from(self.holds.saturating_mul(2).saturating_add(64)).unwrap_or(u32::MAX)
    }
}

/// Whether a waiver of `name` is one of `law`.
fn covers(name: &str, law: &Law) -> bool {
    law.name == name || (name.ends_with("::") && law.name.starts_with(name))
}
