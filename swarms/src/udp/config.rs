//! What a UDP swarm can be told.

use p2p::{Error, Result};

/// Limits and sizes of a [`UdpSwarm`](super::UdpSwarm).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UdpConfig {
    /// Bytes that one message carries at most, 1 to 65,507. Default 1232, which crosses any IPv6 path.
    ///
    /// Datagrams are never fragmented on their way: where a link takes less, telling fails, or the message
    /// is lost. Over the internet more than about 1450 rarely works; over loopback all of it does.
    pub mtu: usize,
    /// Bytes that the kernel may hold for a reader that is late, as asked for; the kernel caps it without
    /// a word. Default 2 MiB. What does not fit there is dropped by the kernel and not counted here.
    pub receive_buffer: usize,
    /// Bytes that the kernel may hold on their way out, as asked for. Default 1 MiB. A tell waits while it
    /// is full.
    pub send_buffer: usize,
    /// Buffers of 64 KiB that one read of the socket fills at most, 1 to 4. Default 4.
    ///
    /// They are made as bursts need them: a quiet swarm has two. Messages of one read that nobody took yet
    /// wait in this memory, and the socket is not read again before they are taken.
    pub read_buffers: usize,
    /// Tells that wait at a time to leave together, at most. Default 256. One more makes them leave at once.
    pub combine: usize,
}

impl Default for UdpConfig {
    fn default() -> Self {
        Self {
            mtu: 1232,
            receive_buffer: 2 << 20,
            send_buffer: 1 << 20,
            read_buffers: super::inbound::WIDEST,
            combine: 256,
        }
    }
}

impl UdpConfig {
    pub(super) fn check(&self) -> Result<()> {
        let within = |what, value: usize, max: usize| {
            if (1..=max).contains(&value) {
                return Ok(());
            }
            Err(Error::invalid(
                what,
                format!("{value} is not between 1 and {max}"),
            ))
        };
        within("UDP MTU", self.mtu, MAX_MTU)?;
        within(
            "number of read buffers",
            self.read_buffers,
            super::inbound::WIDEST,
        )?;
        within("number of tells that leave together", self.combine, 1 << 16)
    }
}

/// What an IPv4 datagram carries at most: 65,535 less the headers of IPv4 and UDP.
pub(super) const MAX_MTU: usize = 65_507;
