//! Reads a stream of messages, and merges them.

use bytes::Bytes;
use p2p_formats::varint::{self, VarintError};

use super::error::WireError;
use super::field;
use super::info::Info;
use crate::protobuf::Fields;

/// Limits of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Messages of a stream. A further one is an error. Default: 10.
    pub messages: usize,
    /// Bytes of a message. A longer one is an error, before any of it is kept. Default: 8 KiB.
    pub message: usize,
    /// Listen addresses. Further ones are ignored. Default: 100.
    pub addrs: usize,
    /// Protocols. Further ones are ignored. Default: 1024.
    pub protocols: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            messages: 10,
            message: 8 << 10,
            addrs: 100,
            protocols: 1024,
        }
    }
}

/// The content of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// The merged messages, within the limits.
    pub info: Info,
    /// Number of addresses that were ignored because of [`Limits::addrs`].
    pub ignored_addrs: usize,
    /// Number of protocols that were ignored because of [`Limits::protocols`].
    pub ignored_protocols: usize,
}

/// Reads one stream. After an error, every later call returns the same error.
#[derive(Clone, Debug)]
pub struct Reader {
    limits: Limits,
    /// The bytes of the incomplete message, with its length in front.
    buffer: Vec<u8>,
    messages: usize,
    received: Received,
    error: Option<WireError>,
}

impl Reader {
    /// Creates a reader of one stream.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            buffer: Vec::new(),
            messages: 0,
            received: Received::default(),
            error: None,
        }
    }

    /// Reads the next bytes of the stream, which may be of any length.
    ///
    /// # Errors
    /// [`WireError`]; the stream should then be reset.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        self.read(bytes).inspect_err(|error| self.error = Some(*error))
    }

    /// Returns the merged messages at the end of the stream.
    ///
    /// # Errors
    /// [`WireError::Truncated`] if the stream ended within a message, [`WireError::Empty`] if it had none, or
    /// an earlier error.
    pub fn finish(self) -> Result<Received, WireError> {
        let message = self.messages;
        match self.error {
            Some(error) => Err(error),
            None if !self.buffer.is_empty() => Err(WireError::Truncated { message }),
            None if message == 0 => Err(WireError::Empty),
            None => Ok(self.received),
        }
    }

    fn read(&mut self, mut bytes: &[u8]) -> Result<(), WireError> {
        while !bytes.is_empty() {
            if self.buffer.is_empty() {
                // Messages that arrive whole are not copied.
                let Some(size) = self.size(bytes)? else {
                    self.buffer.extend_from_slice(bytes);
                    return Ok(());
                };
                let Some((message, rest)) = bytes.split_at_checked(size.header + size.body) else {
                    self.buffer.extend_from_slice(bytes);
                    return Ok(());
                };
                self.message(message.get(size.header..).unwrap_or_default())?;
                bytes = rest;
                continue;
            }
            // One more byte of the header, or as many of the body as there are.
            let wanted = match self.size(&self.buffer)? {
                None => 1,
                Some(size) => (size.header + size.body).saturating_sub(self.buffer.len()),
            };
            let (more, rest) = bytes.split_at(wanted.min(bytes.len()));
            self.buffer.extend_from_slice(more);
            bytes = rest;
            if let Some(size) = self.size(&self.buffer)?
                && self.buffer.len() == size.header + size.body
            {
                let buffer = std::mem::take(&mut self.buffer);
                self.message(buffer.get(size.header..).unwrap_or_default())?;
            }
        }
        Ok(())
    }

    /// Returns the size of the message at the start of `bytes`, if they have all of its length.
    fn size(&self, bytes: &[u8]) -> Result<Option<Size>, WireError> {
        let message = self.messages;
        if message >= self.limits.messages {
            return Err(WireError::TooMany {
                max: self.limits.messages,
            });
        }
        let max = self.limits.message;
        match varint::read(bytes) {
            Ok((len, header)) => match usize::try_from(len) {
                Ok(body) if body <= max => Ok(Some(Size { header, body })),
                _ => Err(WireError::TooLong { message, len, max }),
            },
            Err(VarintError::Truncated) if bytes.len() < varint::MAX_LEN => Ok(None),
            Err(VarintError::Truncated | VarintError::Overflow) => Err(WireError::Length { message }),
        }
    }

    fn message(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        let message = self.messages;
        let malformed = |at| WireError::Malformed { message, at };
        self.messages += 1;
        for field in Fields::new(bytes) {
            let field = field.map_err(|error| malformed(error.at))?;
            let Ok(number) = u8::try_from(field.number) else {
                continue;
            };
            if !matches!(number, 1..=6 | 8) {
                continue;
            }
            let value = field.bytes().map_err(|error| malformed(error.at))?;
            let text = |what| {
                let at = field.at;
                let text = std::str::from_utf8(value).map_err(|_| WireError::Text { what, message, at });
                text.map(str::to_owned)
            };
            let Received {
                info,
                ignored_addrs,
                ignored_protocols,
            } = &mut self.received;
            let copy = || Some(Bytes::copy_from_slice(value));
            match number {
                field::PUBLIC_KEY => info.public_key = copy(),
                field::LISTEN_ADDR if info.listen_addrs.len() < self.limits.addrs => {
                    info.listen_addrs.extend(copy());
                }
                field::LISTEN_ADDR => *ignored_addrs += 1,
                field::PROTOCOL if info.protocols.len() < self.limits.protocols => {
                    info.protocols.push(text("a protocol")?);
                }
                field::PROTOCOL => *ignored_protocols += 1,
                field::OBSERVED_ADDR => info.observed_addr = copy(),
                field::PROTOCOL_VERSION => info.protocol_version = Some(text("the protocol version")?),
                field::AGENT_VERSION => info.agent_version = Some(text("the agent version")?),
                field::SIGNED_PEER_RECORD => info.signed_peer_record = copy(),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The length of a message's header and of its body, in bytes.
struct Size {
    header: usize,
    body: usize,
}
