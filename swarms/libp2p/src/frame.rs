//! Messages on a stream, each behind its length as a varint.

use std::io;

use bytes::BytesMut;
use p2p_formats::varint;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Maximum number of bytes that are reserved before they have arrived.
const STEP: usize = 16 << 10;
/// Bytes that are reserved beyond those of a longer message that have arrived, as a multiple of them.
const GROWTH: usize = 3;

/// The first two bytes of a rejection, behind which is its code: a length of zero that is not in its shortest form.
pub(crate) const REJECTED: [u8; 2] = [0x80, 0x00];

/// What comes first on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// The length of a message in bytes.
    Length(usize),
    /// A rejection with this code.
    Rejected(u8),
    /// The end of the stream.
    End,
}

/// Reads the length of a message.
///
/// # Errors
/// Errors of the stream, [`io::ErrorKind::FileTooLarge`] for a length above `max`, and
/// [`io::ErrorKind::InvalidData`] for one that is not in its shortest form.
pub(crate) async fn read_head(stream: &mut (impl AsyncRead + Unpin), max: usize) -> io::Result<Head> {
    let mut bytes = [0; varint::MAX_LEN];
    let mut read = 0;
    for place in &mut bytes {
        *place = match stream.read_u8().await {
            Err(error) if read == 0 && error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Head::End),
            byte => byte?,
        };
        read += 1;
        if *place < 0x80 {
            break;
        }
    }
    if bytes.starts_with(&REJECTED) && read == REJECTED.len() {
        return stream.read_u8().await.map(Head::Rejected);
    }
    let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
    let (length, _) = varint::read(&bytes).map_err(|error| invalid(error.to_string()))?;
    if read != varint::len(length) {
        return Err(invalid(
            "the length of a message is not in its shortest form".to_owned(),
        ));
    }
    match usize::try_from(length) {
        Ok(length) if length <= max => Ok(Head::Length(length)),
        _ => {
            let reason = format!("a message of {length} bytes exceeds the limit of {max} bytes");
            Err(io::Error::new(io::ErrorKind::FileTooLarge, reason))
        }
    }
}

/// Reads `length` bytes. Memory grows with the bytes that arrive; `charge` is asked for each step of it.
///
/// # Errors
/// Errors of the stream, [`io::ErrorKind::UnexpectedEof`] if it ends before, and [`io::ErrorKind::OutOfMemory`] if
/// `charge` refuses a step.
pub(crate) async fn read_body(
    stream: &mut (impl AsyncRead + Unpin),
    length: usize,
    mut charge: impl FnMut(usize) -> bool,
) -> io::Result<BytesMut> {
    let mut body = BytesMut::new();
    let mut stream = stream.take(length as u64);
    while body.len() < length {
        if body.len() == body.capacity() {
            // Each growth copies what has arrived.
            let step = (length - body.len()).min(STEP.max(GROWTH * body.len()));
            if !charge(step) {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            body.reserve(step);
        }
        if stream.read_buf(&mut body).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(body)
}
