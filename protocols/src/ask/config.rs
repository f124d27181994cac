//! Bounds and times.

use std::time::Duration;

/// What an [`Engine`](super::Engine) keeps at most.
///
/// Bytes are memory: buffers with their spare capacity, and the bookkeeping about them. Byte limits are raised to what
/// one message of the MTU takes, if they are smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Asks of this node that wait for an answer; a further one is an error at once. Their requests are kept until
    /// then.
    pub asks: usize,
    /// Bytes of messages that are not whole, of all sources. The oldest message goes.
    pub part_bytes: usize,
    /// Bytes of messages of one source that are not whole. Its oldest goes.
    pub source_part_bytes: usize,
    /// Messages of one source that are not whole. Its oldest goes.
    pub source_messages: usize,
    /// How long a tell may take to be whole. An ask may take as long as its asker waits.
    pub timeout: Duration,
    /// Bytes of replies, of all sources, kept in case they were lost. The oldest goes: its asker, if it still
    /// waits, gets [`Rejection::FORGOTTEN`](p2p::Rejection::FORGOTTEN), and so do asks from it that were made no later and arrive afterwards.
    pub reply_bytes: usize,
    /// The same for one source.
    pub source_reply_bytes: usize,
    /// Asks of one source that are remembered. The oldest goes, as above.
    pub source_replies: usize,
    /// Peers of which it is known that they answer inquiries, and sources of which it is known that asks were
    /// forgotten. At the limit those that are not used go; asks of theirs that arrive late enough could run again.
    pub peers: usize,
}

impl Default for Limits {
    /// 4096 asks; parts: 32 MiB, of a source 4 MiB in 256 messages, 10 s; replies: 32 MiB, of a source 16 MiB and
    /// 16,384; 4096 peers.
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

/// How an [`Engine`](super::Engine) behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Bytes of a tell, a request or a response at most; longer ones that arrive are dropped.
    pub mtu: usize,
    /// How long an ask waits before it inquires for the first time. Shorter repairs losses sooner; much shorter
    /// than the round trip makes datagrams for nothing. Each further wait is twice as long.
    pub retry: Duration,
    /// The longest wait between inquiries. The number of tries within a deadline follows from it.
    pub retry_max: Duration,
    /// What is kept at most.
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
