//! Random payloads of every kind of content and length.

use rand::RngExt as _;
use rand::rngs::StdRng;

/// Prefixes that a layer might take for its own packets.
const MAGIC: [&[u8]; 24] = [
    b"law:",
    b"\0\0\0\0\0\0\0\0",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x00\x00\x00\x01",
    b"\x00\x00\x00\x03",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b"\x01\x00",
    b"\x02\x00",
    b"\x7f",
    b"\x80",
    b"\x04chat",
    b"\x00\x04chat",
    b"chat\0",
    b"GET / HTTP/1.1\r\n",
    b"SSH-2.0-",
    b"\x16\x03\x01",
    b"\xc0\x00\x00\x00\x01",
    b"\x13/multistream/1.0.0\n",
    b"/p2p/",
    b"{\"a\":1}",
    b"\x1f\x8b\x08\x00",
    b"\x30\x82",
    b"\xde\xad\xbe\xef",
    b"\xef\xbb\xbf\xf0\x9f\x99\x82\n\r\0 ",
];

/// Number of kinds of contents that [`contents`] creates.
pub(crate) const KINDS: usize = 8;

/// Returns a payload of this length, of one of [`KINDS`].
pub(crate) fn contents(rng: &mut StdRng, kind: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    match kind % KINDS {
        0 => {}
        1 => bytes.fill(0xff),
        2 => bytes.fill(rng.random()),
        3 => {
            let first: u8 = rng.random();
            for (at, byte) in bytes.iter_mut().enumerate() {
                *byte = first.wrapping_add(at as u8);
            }
        }
        4 => {
            rng.fill(&mut bytes[..]);
            let magic = MAGIC[rng.random_range(0..MAGIC.len())];
            let most = magic.len().min(len);
            bytes[..most].copy_from_slice(&magic[..most]);
        }
        5 => {
            rng.fill(&mut bytes[..]);
            for byte in &mut bytes {
                *byte = b' ' + *byte % 95;
            }
        }
        // Incompressible contents are the most frequent.
        _ => rng.fill(&mut bytes[..]),
    }
    bytes
}

/// Returns a payload of one of the prefixes and `len` bytes.
pub(crate) fn magic(rng: &mut StdRng, which: usize, len: usize) -> Vec<u8> {
    let magic = MAGIC[which % MAGIC.len()];
    let mut bytes = vec![0; len];
    rng.fill(&mut bytes[..]);
    let most = magic.len().min(len);
    bytes[..most].copy_from_slice(&magic[..most]);
    bytes
}

/// Number of prefixes.
pub(crate) const MAGICS: usize = MAGIC.len();

/// Returns a length of up to `most` bytes; short lengths and those near a boundary are more probable.
pub(crate) fn length(rng: &mut StdRng, most: usize) -> usize {
    let len = match rng.random_range(0..20) {
        0..5 => rng.random_range(0..=64),
        5..14 => rng.random_range(0..=2048),
        14..16 => near(rng, most),
        16..18 => {
            let power = 1 << rng.random_range(0..=usize::BITS - most.leading_zeros());
            near(rng, power)
        }
        _ => rng.random_range(0..=most),
    };
    if len <= most {
        len
    } else {
        rng.random_range(0..=most)
    }
}

/// Returns a length within a few bytes of `at`.
fn near(rng: &mut StdRng, at: usize) -> usize {
    (at + 4).saturating_sub(rng.random_range(0..=24))
}
