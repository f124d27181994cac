//! Configuration of a UDP swarm.

use p2p::{Error, Result};

/// Limits and sizes of a [`UdpSwarm`](super::UdpSwarm).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UdpConfig {
    /// Maximum length of a message in bytes, 1 to 65,507. Default: 1232, which fits every IPv6 path.
    ///
    /// Datagrams are never fragmented: if a link has a smaller MTU, the tell fails or the message is lost.
    /// More than about 1450 bytes rarely works over the internet; over loopback every length does.
    pub mtu: usize,
    /// Requested size of the kernel's receive buffer in bytes; the kernel may silently grant less. Default: 2
    /// MiB. The kernel drops messages that do not fit, and they are not counted here.
    pub receive_buffer: usize,
    /// Requested size of the kernel's send buffer in bytes. Default: 1 MiB. A tell waits while it is full.
    pub send_buffer: usize,
    /// Maximum number of 64 KiB buffers that one read of the socket fills, 1 to 4. Default: 4.
    ///
    /// They are allocated when bursts need them: a quiet swarm has two. Messages of one read that were not
    /// taken yet wait in this memory, and the socket is not read again until they are taken.
    pub read_buffers: usize,
    /// Maximum number of tells that wait to be sent together. Default: 256. One more tell sends them at once.
    pub combine: usize,
    /// Whether the kernel splits batches into datagrams (GSO), where the system and the device support it.
    /// Default: yes. Without it, each datagram costs a system call: for devices that segment wrongly.
    pub segmentation: bool,
}

impl Default for UdpConfig {
    fn default() -> Self {
        Self {
            mtu: 1232,
            receive_buffer: 2 << 20,
            send_buffer: 1 << 20,
            read_buffers: super::inbound::WIDEST,
            combine: 256,
            segmentation: true,
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

/// Maximum payload of an IPv4 datagram: 65,535 minus the IPv4 and UDP headers.
pub(super) const MAX_MTU: usize = 65_507;
