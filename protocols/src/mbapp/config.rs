//! Limits and intervals.

use std::time::Duration;

/// Limits of an [`Engine`](super::Engine).
///
/// Bytes are memory: buffers with their spare capacity, and bookkeeping. Byte limits below the size of one
/// message of the MTU are raised to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Pending asks of this node; a further one is an error. Their requests are kept until they end.
    pub asks: usize,
    /// Bytes of incomplete messages from all sources. Beyond this, the oldest message is dropped.
    pub part_bytes: usize,
    /// Bytes of incomplete messages from one source. Beyond this, its oldest message is dropped.
    pub source_part_bytes: usize,
    /// Incomplete messages from one source. Beyond this, its oldest message is dropped.
    pub source_messages: usize,
    /// Time in which a tell must be complete. An ask has as much time as its sender waits.
    pub timeout: Duration,
    /// Bytes of replies to all sources that are kept for retransmission. Beyond this, the oldest is
    /// forgotten: the asking node, if it still waits, gets
    /// [`Rejection::FORGOTTEN`](p2p::Rejection::FORGOTTEN), as do asks from it that were made no later and
    /// arrive afterwards.
    pub reply_bytes: usize,
    /// Bytes of replies to one source.
    pub source_reply_bytes: usize,
    /// Remembered asks of one source. Beyond this, the oldest is forgotten, with the same effect.
    pub source_replies: usize,
    /// Peers that are known to answer inquiries, and sources with forgotten asks. Beyond this, unused entries
    /// are forgotten; a very late ask of such a source could run twice.
    pub peers: usize,
}

impl Default for Limits {
    /// 4096 asks; incomplete messages: 32 MiB, 4 MiB in 256 messages for one source, 10 s; replies: 32 MiB,
    /// 16 MiB and 16,384 asks for one source; 4096 peers.
    fn default() -> Self {
        Self {
            asks: 4096,
            part_bytes: 32 << 20,
            source_part_bytes: 4 << 20,
            source_messages: 256,
            timeout: Duration::from_secs(10),
            reply_bytes: 32 << 20,
            source_reply_bytes: 16 << 20,
            source_replies: 16 << 10,
            peers: 4096,
        }
    }
}

/// The configuration of an [`Engine`](super::Engine).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Maximum bytes of a tell, a request or a response; longer messages are dropped on arrival.
    pub mtu: usize,
    /// Interval before the first inquiry of an ask; it doubles for each further one. A shorter interval
    /// repairs losses sooner; far below the round-trip time, it sends unnecessary datagrams.
    pub retry: Duration,
    /// Maximum interval between inquiries. The number of attempts within a deadline follows from it.
    pub retry_max: Duration,
    /// Limits.
    pub limits: Limits,
}

impl Default for Config {
    /// 64 KiB; 100 ms, up to 1 s.
    fn default() -> Self {
        Self {
            mtu: 64 << 10,
            retry: Duration::from_millis(100),
            retry_max: Duration::from_secs(1),
            limits: Limits::default(),
        }
    }
}
