//! The header of a fragment: `uvarint(id) uvarint(part) uvarint(total)`, then the payload.

use p2p_formats::varint::{self, VarintError};

/// Parts that a message has at most. A total of 256 would not fit the 8 bits that peers keep it in.
pub const MAX_PARTS: usize = 255;

/// Bytes of the inner MTU that are set aside for a header: three varints of up to five bytes.
pub const OVERHEAD: usize = 15;

/// Bytes that [`Header::write`] makes at most: an id of 32 bits, a part and a total of 8.
pub const MAX_HEADER: usize = 9;

/// Which fragment of which message this is. `part < total` always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub(super) id: u32,
    pub(super) part: u8,
    pub(super) total: u8,
}

/// Why bytes are not a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A field is not a varint.
    #[error("a field of the fragment's header is malformed")]
    Varint(#[from] VarintError),
    /// The id does not fit 32 bits.
    #[error("the message id {0} exceeds 32 bits")]
    Id(u64),
    /// More parts than [`MAX_PARTS`].
    #[error("{0} parts exceed the limit of 255")]
    Total(u64),
    /// The part is not one of the total.
    #[error("part {part} is not one of {total}")]
    Part {
        /// The part's index, from 0.
        part: u64,
        /// The number of parts.
        total: u64,
    },
}

impl Header {
    /// The header of part `part` (from 0) of the `total` parts of message `id`.
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

    /// The message's id, unique among the sender's recent ones to this receiver.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The part's index, from 0.
    pub fn part(&self) -> u8 {
        self.part
    }

    /// How many parts the message has, at least one.
    pub fn total(&self) -> u8 {
        self.total
    }

    /// Reads the header at the start of `input`; returns it and its length in bytes.
    ///
    /// # Errors
    /// What is wrong with it. Values out of range are errors: go-p2p narrows them to the field's bits and takes
    /// the message for another one.
    pub fn read(input: &[u8]) -> Result<(Self, usize), WireError> {
        // One byte each for part and total, and one or two for the id: the common case at a glance.
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

    /// Writes the header into `buf`; returns the part written.
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

    /// Bytes that [`write`](Self::write) makes.
    pub fn len(&self) -> usize {
        varint::len(self.id.into()) + varint::len(self.part.into()) + varint::len(self.total.into())
    }

    /// Never: a header has three bytes at least.
    pub fn is_empty(&self) -> bool {
        false
    }
}
