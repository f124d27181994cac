//! Errors in a stack text, with their position.

use std::fmt;

use p2p::Error;

/// An error in a stack, with its byte position in the text.
///
/// Its `Display` is the reason, followed by the text with a caret under the position.
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

    /// Creates the error of a layer, whose word is at byte `at`, that could not be created.
    pub(super) fn layer(text: &str, at: usize, word: &str, source: Error) -> Self {
        let reason = format!("{word} could not be created: {source}");
        Self {
            source: Some(source),
            ..Self::new(text, at, reason)
        }
    }

    /// Returns the byte position in the text.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Returns the reason in one line, with what is expected.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Returns whether the text is at fault; otherwise the system refused, and the same text may work later.
    pub fn is_in_text(&self) -> bool {
        matches!(
            self.source,
            None | Some(Error::Invalid { .. } | Error::InvalidAddr { .. })
        )
    }
}

impl fmt::Display for StackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One column per character, so that the caret is aligned.
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
        // The reason contains the error itself, but not its source.
        self.source.as_ref().and_then(std::error::Error::source)
    }
}

impl From<StackError> for Error {
    fn from(error: StackError) -> Self {
        Error::invalid("stack", error.to_string())
    }
}
