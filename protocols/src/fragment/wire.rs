//! The header of a fragment: `uvarint(id) uvarint(part) uvarint(total)`, then the payload.

use p2p_formats::varint::{self, VarintError};

/// Maximum number of parts of a message. A total of 256 would not fit into the 8 bits that peers store.
pub const MAX_PARTS: usize = 255;

/// Bytes of the inner MTU reserved for a header: three varints of up to five bytes.
pub const OVERHEAD: usize = 15;

/// Maximum length in bytes of an encoded [`Header`]: an id of 32 bits, a part and a total of 8 bits.
pub const MAX_HEADER: usize = 9;

/// The header of a fragment. `part < total` always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub(super) id: u32,
    pub(super) part: u8,
    pub(super) total: u8,
}

/// The reason for which bytes are not a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A field is not a varint.
    #[error("a field of the fragment's header is malformed")]
    Varint(#[from] VarintError),
    /// The id exceeds 32 bits.
    #[error("the message id {0} exceeds 32 bits")]
    Id(u64),
    /// There are more parts than [`MAX_PARTS`].
    #[error("{0} parts exceed the limit of 255")]
    Total(u64),
    /// The index of the part is not below the total.
    #[error("part {part} is not one of {total}")]
    Part {
        /// The index of the part, from 0.
        part: u64,
        /// The number of parts.
        total: u64,
    },
}

impl Header {
    /// Creates the header of part `part` (from 0) of the `total` parts of message `id`.
    ///
    /// # Errors
    /// [`WireError::Part`] unless `part < total`.
    pub fn new(id: u32, part: u8, total: u8) -> Result<Self, WireError> {
        if part < total {
            Ok(Self { id, part, total })
        } else {
            Err(WireError::Part {
                part: part.into(),
                total: total.into(),
            })
        }
    }

    /// Returns the id of the message, unique among the sender's recent messages to this receiver.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Returns the index of the part, from 0.
    pub fn part(&self) -> u8 {
        self.part
    }

    /// Returns the number of parts, at least one.
    pub fn total(&self) -> u8 {
        self.total
    }

    /// Parses the header at the start of `input`. Returns it and its length in bytes.
    ///
    /// # Errors
    /// [`WireError`]. Values out of range are errors: go-p2p truncates them to the width of the field and
    /// confuses messages.
    pub fn read(input: &[u8]) -> Result<(Self, usize), WireError> {
        // Fast path: one byte each for part and total, and one or two for the id.
        if let [id @ 0..0x80, part @ 0..0x80, total @ 0..0x80, ..] = *input
            && part < total
        {
            let id = id.into();
            return Ok((Self { id, part, total }, 3));
        }
        if let [
            low @ 0x80..=0xff,
            high @ 1..0x80,
            part @ 0..0x80,
            total @ 0..0x80,
            ..,
        ] = *input
            && part < total
        {
            let id = u32::from(high) << 7 | u32::from(low & 0x7f);
            return Ok((Self { id, part, total }, 4));
        }
        let mut len = 0;
        let mut field = || {
            let (value, size) = varint::read(input.get(len..).unwrap_or_default())?;
            len += size;
            Ok::<_, VarintError>(value)
        };
        let (id, part, total) = (field()?, field()?, field()?);
        let id = u32::try_from(id).map_err(|_| WireError::Id(id))?;
        let total8 = u8::try_from(total).map_err(|_| WireError::Total(total))?;
        match u8::try_from(part) {
            Ok(part) if part < total8 => Ok((Self::new(id, part, total8)?, len)),
            _ => Err(WireError::Part { part, total }),
        }
    }

    /// Writes the header into `buf`. Returns the written bytes.
    pub fn write<'a>(&self, buf: &'a mut [u8; MAX_HEADER]) -> &'a [u8] {
        let Self { id, part, total } = *self;
        if let (0..0x4000, 0..0x80, 0..0x80) = (id, part, total) {
            let low = id as u8 & 0x7f;
            if id < 0x80 {
                buf[..3].copy_from_slice(&[low, part, total]);
                return &buf[..3];
            }
            buf[..4].copy_from_slice(&[low | 0x80, (id >> 7) as u8, part, total]);
            return &buf[..4];
        }
        let mut len = 0;
        for field in [id, part.into(), total.into()] {
            let mut scratch = [0; varint::MAX_LEN];
            let bytes = varint::write(field.into(), &mut scratch);
            buf[len..len + bytes.len()].copy_from_slice(bytes);
            len += bytes.len();
        }
        &buf[..len]
    }

    /// Returns the length that [`write`](Self::write) produces.
    pub fn len(&self) -> usize {
        varint::len(self.id.into()) + varint::len(self.part.into()) + varint::len(self.total.into())
    }

    /// Returns `false`: a header has at least three bytes.
    pub fn is_empty(&self) -> bool {
        false
    }
}
