//! Splits a stack text into words, arguments and options with their positions.

use super::StackError;

/// Maximum number of options of one layer.
const MOST_OPTIONS: usize = 16;

/// A part of a text and its byte position.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'a> {
    pub(super) whole: &'a str,
    pub(super) at: usize,
    pub(super) text: &'a str,
}

impl<'a> Piece<'a> {
    pub(super) fn new(whole: &'a str) -> Self {
        Self {
            whole,
            at: 0,
            text: whole,
        }
    }

    /// Splits at each `separator`.
    pub(super) fn split(self, separator: char) -> impl Iterator<Item = Piece<'a>> {
        let mut at = self.at;
        self.text.split(separator).map(move |text| {
            let piece = Piece { at, text, ..self };
            at += text.len() + separator.len_utf8();
            piece
        })
    }

    /// Splits at each `/` that is in no address. `addr_len` returns the length of the address at the start of a text that
    /// begins with `/`, or zero; it is also given the number of the layer, and the name of the option if the text is the
    /// value of one.
    pub(super) fn split_layers(
        self,
        addr_len: impl Fn(usize, Option<&str>, &str) -> usize,
    ) -> impl Iterator<Item = Piece<'a>> {
        let (mut layer, mut rest) = (0, Some(self));
        std::iter::from_fn(move || {
            let piece = rest?;
            let len = piece.layer_len(|name, value| addr_len(layer, name, value));
            layer += 1;
            let (text, behind) = piece.text.split_at_checked(len)?;
            rest = behind.strip_prefix('/').map(|behind| Piece {
                at: piece.at + len + 1,
                text: behind,
                ..piece
            });
            Some(Piece { text, ..piece })
        })
    }

    /// Returns the length of the layer at the start of this piece.
    fn layer_len(self, addr_len: impl Fn(Option<&str>, &str) -> usize) -> usize {
        let (mut at, mut field, mut option) = (0, 0, None);
        let mut is_first = true;
        while let Some(sign) = self.text.as_bytes().get(at) {
            match sign {
                b'/' => return at,
                b',' => (field, option, is_first) = (at + 1, None, false),
                b'=' if !is_first && option.is_none() => option = self.text.get(field..at),
                _ => {}
            }
            at += 1;
            // An address begins a value, or an item of a list.
            if let (b'=' | b';', Some(value)) = (sign, self.text.get(at..))
                && value.starts_with('/')
            {
                at += addr_len(option, value).min(value.len());
            }
        }
        at
    }

    /// Splits at the first `=`.
    fn split_argument(self) -> (Piece<'a>, Option<Piece<'a>>) {
        let Some((name, argument)) = self.text.split_once('=') else {
            return (self, None);
        };
        let argument = Piece {
            at: self.at + name.len() + 1,
            text: argument,
            ..self
        };
        (Piece { text: name, ..self }, Some(argument))
    }

    pub(super) fn error(self, reason: impl Into<Box<str>>) -> StackError {
        StackError::new(self.whole, self.at, reason)
    }

    /// Creates an error at the end of this piece.
    fn error_behind(self, reason: impl Into<Box<str>>) -> StackError {
        StackError::new(self.whole, self.at + self.text.len(), reason)
    }
}

/// The text of one layer: its word, its argument, and its options that were not parsed yet.
#[derive(Debug)]
pub(super) struct Segment<'a> {
    pub(super) word: Piece<'a>,
    pub(super) argument: Option<Piece<'a>>,
    options: Vec<(Piece<'a>, Piece<'a>)>,
    known: Vec<&'static str>,
}

impl<'a> Segment<'a> {
    pub(super) fn read(text: Piece<'a>) -> Result<Self, StackError> {
        let mut pieces = text.split(',');
        let (word, argument) = pieces.next().unwrap_or(text).split_argument();
        let mut options: Vec<(Piece<'a>, Piece<'a>)> = Vec::new();
        for piece in pieces {
            let (name, value) = piece.split_argument();
            let value = value.ok_or_else(|| name.error_behind("an option has the form name=value"))?;
            if options.len() == MOST_OPTIONS {
                return Err(name.error(format!("a layer has at most {MOST_OPTIONS} options")));
            }
            if options.iter().any(|(other, _)| other.text == name.text) {
                return Err(name.error(format!("the option {:?} occurs twice", name.text)));
            }
            options.push((name, value));
        }
        Ok(Self {
            word,
            argument,
            options,
            known: Vec::new(),
        })
    }

    /// Returns the required argument; `what` describes it for errors.
    pub(super) fn required(&mut self, what: &str) -> Result<Piece<'a>, StackError> {
        let word = self.word.text;
        match self.argument.take() {
            Some(argument) if !argument.text.is_empty() => Ok(argument),
            Some(argument) => Err(argument.error(format!("expected {what}"))),
            None => {
                let reason = format!("{word} needs an argument: {word}= and {what}");
                Err(self.word.error_behind(reason))
            }
        }
    }

    /// Returns the argument, if there is one; `what` describes it for errors.
    pub(super) fn optional(&mut self, what: &str) -> Result<Option<Piece<'a>>, StackError> {
        if self.argument.is_none() {
            return Ok(None);
        }
        self.required(what).map(Some)
    }

    /// Returns the value of an option as parsed by `read`, if there is one.
    pub(super) fn option<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(Piece<'a>) -> Result<T, StackError>,
    ) -> Result<Option<T>, StackError> {
        self.known.push(name);
        let found = self.options.iter().position(|(option, _)| option.text == name);
        found.map(|index| read(self.options.remove(index).1)).transpose()
    }

    /// Checks that no argument and no option is left.
    pub(super) fn finish(self) -> Result<(), StackError> {
        let word = self.word.text;
        if let Some(argument) = self.argument {
            let options = match self.known.first() {
                Some(first) => format!("; options follow a comma: {word},{first}=…"),
                None => String::new(),
            };
            return Err(argument.error(format!("{word} takes no argument{options}")));
        }
        let Some((name, _)) = self.options.first() else {
            return Ok(());
        };
        let fits = if self.known.is_empty() {
            "it has none".to_owned()
        } else {
            format!("it has: {}", self.known.join(", "))
        };
        Err(name.error(format!("{word} has no option {:?}; {fits}", name.text)))
    }
}
