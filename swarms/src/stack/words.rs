//! The words of stack texts: those of this crate, and bases that a program adds.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use p2p::{BoxAddr, Error, Result};
use p2p_formats::x509::{Fingerprint, PrivateKey};

use super::grammar::{self, BASES, is_word};
use super::read::{Piece, Segment};
use super::{Stack, StackError, StackText};

/// The words that stack texts may contain.
///
/// The default has the words of this crate. A program adds bases of its own, and parses texts with
/// [`parse`](Self::parse) in place of `StackText::from_str`.
#[derive(Clone, Debug, Default)]
pub struct Grammar {
    bases: Vec<Arc<dyn BaseWord>>,
}

/// The word of a base that a program adds to a [`Grammar`].
pub trait BaseWord: fmt::Debug + Send + Sync + 'static {
    /// Returns the word: lower-case letters and digits.
    fn word(&self) -> &'static str;

    /// Parses the argument and the options behind the word.
    ///
    /// # Errors
    /// An error of a [`Value`], which has its position. An option that was not taken is an error as well, but not of
    /// this method.
    fn parse(&self, arguments: &mut Arguments<'_, '_>) -> Result<Arc<dyn Base>, StackError>;

    /// Returns the length in bytes of the address at the start of `text`, or zero if none begins there. `text` begins
    /// with `/`. The slashes of the address separate no layers, in arguments, in options and in lists of the whole
    /// stack.
    fn addr_len(&self, text: &str) -> usize {
        let _ = text;
        0
    }

    /// Returns the same for the value of an option of this base.
    fn option_len(&self, option: &str, text: &str) -> usize {
        let _ = (option, text);
        0
    }
}

/// A base of a stack text, as a program's [`BaseWord`] parsed it.
///
/// Its `Display` is what follows the word, and parses back to an equal base.
#[async_trait]
pub trait Base: fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// Returns the word.
    fn word(&self) -> &'static str;

    /// Returns what layers and the conformance suite have to know of its nodes.
    fn properties(&self) -> BaseProperties;

    /// Opens a node with the private key `key`; at the address `at` of a former node, if there is one.
    ///
    /// # Errors
    /// [`Error::Io`] if the system refuses, [`Error::InvalidAddr`] if `at` belongs to another base, and other errors.
    ///
    /// # Cancel safety
    /// Cancelling must close what was opened.
    async fn open(&self, at: Option<&BoxAddr>, key: &PrivateKey) -> Result<Stack>;
}

/// The properties of the nodes of a [`Base`].
#[derive(Clone, Copy, Debug, Default)]
pub struct BaseProperties {
    /// Whether the nodes support asks.
    pub asks: bool,
    /// The function that derives the ids of nodes from their keys, if addresses prove ids. The nodes then have keys.
    pub fingerprint: Option<Fingerprint>,
    /// Maximum number of messages of one node that wait for a stopped reader.
    pub holds: usize,
    /// Timeout of a connection to a node that is gone, if messages are sent on connections.
    pub dial_timeout: Option<Duration>,
}

/// A base that a program added, in a [`Layer`](super::Layer). Equal bases have the same text.
#[derive(Clone, Debug)]
pub struct CustomBase(Arc<dyn Base>);

impl Deref for CustomBase {
    type Target = dyn Base;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl PartialEq for CustomBase {
    fn eq(&self, other: &Self) -> bool {
        (self.word(), self.to_string()) == (other.word(), other.to_string())
    }
}

/// The argument and the options of a base.
#[derive(Debug)]
pub struct Arguments<'s, 't>(&'s mut Segment<'t>);

impl<'t> Arguments<'_, 't> {
    /// Takes the argument, if there is one; `what` describes it for errors.
    ///
    /// # Errors
    /// An error at the position of an empty argument.
    pub fn argument(&mut self, what: &str) -> Result<Option<Value<'t>>, StackError> {
        Ok(self.0.optional(what)?.map(Value))
    }

    /// Takes the value of an option, if there is one.
    pub fn option(&mut self, name: &'static str) -> Option<Value<'t>> {
        let taken = self.0.option(name, |value| Ok(Value(value)));
        taken.ok().flatten()
    }
}

/// A value in a stack text, with its position.
#[derive(Clone, Copy, Debug)]
pub struct Value<'t>(Piece<'t>);

impl<'t> Value<'t> {
    /// Returns the text.
    pub fn text(self) -> &'t str {
        self.0.text
    }

    /// Returns the items of a list that `;` separates.
    pub fn items(self) -> impl Iterator<Item = Value<'t>> {
        self.0.split(';').map(Value)
    }

    /// Creates an error at byte `at` of the value.
    pub fn error(self, at: usize, reason: impl Into<Box<str>>) -> StackError {
        let at = self.0.at + at.min(self.0.text.len());
        StackError::new(self.0.whole, at, reason)
    }
}

impl Grammar {
    /// Adds a base.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a word that is taken, or that has other characters than lower-case letters and digits.
    pub fn with_base(mut self, base: impl BaseWord) -> Result<Self> {
        let word = base.word();
        let fail = |reason: String| Err(Error::invalid("word of a base", reason));
        if word.is_empty() || !word.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9')) {
            return fail(format!(
                "{word:?} has other characters than lower-case letters and digits"
            ));
        }
        if is_word(word) || self.base(word).is_some() {
            return fail(format!("{word:?} is taken"));
        }
        self.bases.push(Arc::new(base));
        Ok(self)
    }

    /// Parses a stack text.
    ///
    /// # Errors
    /// An error with the position of what does not fit, and with the words that do.
    pub fn parse(&self, text: &str) -> Result<StackText, StackError> {
        let first = text.split(['/', '=', ',']).next().unwrap_or_default();
        let base = self.base(first);
        let addr_len = |layer: usize, option: Option<&str>, value: &str| match (base, option) {
            (None, _) => 0,
            (Some(base), Some(option)) if layer == 0 => base.option_len(option, value),
            (Some(base), _) => base.addr_len(value),
        };
        grammar::parse(text, Piece::new(text).split_layers(addr_len), self)
    }

    /// Returns the base with this word, of those that were added.
    fn base(&self, word: &str) -> Option<&dyn BaseWord> {
        let mut bases = self.bases.iter();
        bases.find(|base| base.word() == word).map(|base| &**base)
    }

    /// Parses a base that was added, if the word is one.
    pub(super) fn read_base(&self, segment: &mut Segment<'_>) -> Option<Result<CustomBase, StackError>> {
        let base = self.base(segment.word.text)?;
        Some(base.parse(&mut Arguments(segment)).map(CustomBase))
    }

    /// Returns the words of all bases, for errors.
    pub(super) fn base_words(&self) -> String {
        let added = self.bases.iter().map(|base| base.word());
        [BASES].into_iter().chain(added).collect::<Vec<_>>().join(", ")
    }

    /// Returns whether a base has this word.
    pub(super) fn is_base(&self, word: &str) -> bool {
        BASES.split(", ").any(|known| known == word) || self.base(word).is_some()
    }
}
