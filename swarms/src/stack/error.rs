//! What is wrong with a stack text, and where.

use std::fmt;

use p2p::Error;

/// What is wrong with a stack, and at which byte of its text.
///
/// Its `Display` is the reason, and below it the text with a caret under the place.
#[derive(Debug)]
pub struct StackError {
    text: Box<str>,
    at: usize,
    reason: Box<str>,
    source: Option<Error>,
}

impl StackError {
    pub(super) fn new(text: &str, at: usize, reason: impl Into<Box<str>>) -> Self {
        Self {
            text: text.into(),
            at,
            reason: reason.into(),
            source: None,
        }
    }

    /// The layer whose word is at byte `at` could not be made.
    pub(super) fn layer(text: &str, at: usize, word: &str, source: Error) -> Self {
        let reason = format!("{word} could not be made: {source}");
        Self {
            source: Some(source),
            ..Self::new(text, at, reason)
        }
    }

    /// The byte of the text that it is about.
    pub fn at(&self) -> usize {
        self.at
    }

    /// What is wrong, in one line, with what would fit.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Whether another text would help; otherwise the system refused, and the same text may work later.
    pub fn is_in_text(&self) -> bool {
        matches!(
            self.source,
            None | Some(Error::Invalid { .. } | Error::InvalidAddr { .. })
        )
    }
}

impl fmt::Display for StackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One column for each character, so that the caret meets its place.
        let shown: String = self
            .text
            .chars()
            .map(|c| if c.is_control() { '\u{fffd}' } else { c })
            .collect();
        let before = self
            .text
            .char_indices()
            .take_while(|(at, _)| *at < self.at)
            .count();
        write!(f, "{}\n  {shown}\n  {:before$}^", self.reason, "")
    }
}

impl std::error::Error for StackError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The reason says it already; what stands behind it does not.
        self.source.as_ref().and_then(std::error::Error::source)
    }
}

impl From<StackError> for Error {
    fn from(error: StackError) -> Self {
        Error::invalid("stack", error.to_string())
    }
}
