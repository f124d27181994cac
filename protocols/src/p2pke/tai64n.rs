//! Time stamps of hellos: TAI64N, whose bytes sort as time does.

use std::time::Duration;

/// A time in International Atomic Time with a resolution of one nanosecond: 12 bytes, big-endian.
///
/// Source: D. J. Bernstein, "TAI64, TAI64N, and TAI64NA". Leap seconds are those announced up to 2017, and 10
/// before 1972.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tai64N([u8; 12]);

/// Seconds of Unix time at which TAI gains one more second; it is 10 seconds ahead before the first of them.
const LEAPS: [u64; 27] = [
    78_796_800,
    94_694_400,
    126_230_400,
    157_766_400,
    189_302_400,
    220_924_800,
    252_460_800,
    283_996_800,
    315_532_800,
    362_793_600,
    394_329_600,
    425_865_600,
    489_024_000,
    567_993_600,
    631_152_000,
    662_688_000,
    709_948_800,
    741_484_800,
    773_020_800,
    820_454_400,
    867_715_200,
    915_148_800,
    1_136_073_600,
    1_230_768_000,
    1_341_100_800,
    1_435_708_800,
    1_483_228_800,
];

impl Tai64N {
    /// Length of a time stamp in bytes.
    pub const LEN: usize = 12;

    /// Converts a Unix time.
    pub fn from_unix(unix: Duration) -> Self {
        let leaps = LEAPS.iter().take_while(|from| unix.as_secs() >= **from).count() as u64;
        let label = (1 << 62) + unix.as_secs().saturating_add(10 + leaps).min((1 << 62) - 1);
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&label.to_be_bytes());
        bytes[8..].copy_from_slice(&unix.subsec_nanos().to_be_bytes());
        Self(bytes)
    }

    /// Creates a time stamp from any 12 bytes: time stamps are only compared.
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes of the time stamp.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}
