//! The lengths of datagrams: found by MTU discovery on UDP, known at once on a swarm.

use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::{MtuDiscoveryConfig, TransportConfig};

/// Maximum length of a datagram on UDP in bytes. Ten of them, which quinn sends at once, are one batch of the system
/// (GSO), which has at most 65,507 bytes; and a longer datagram would save little more. Loopback and networks of jumbo
/// frames carry them; on other paths, MTU discovery ends below.
pub const MAX_UDP_DATAGRAM: u16 = 6_550;

/// Datagrams that quinn sends at once, and the bytes that a batch of the system has at most. quinn would take a longer
/// batch that the system refuses for lost packets.
const _: () = assert!(10 * MAX_UDP_DATAGRAM as usize <= 65_507);

/// How long a connection on a swarm uses the shortest datagrams after it lost the first long ones.
const RESTORE: Duration = Duration::from_secs(1);

/// Returns the MTU discovery of connections on UDP, up to [`MAX_UDP_DATAGRAM`].
pub fn mtu_discovery() -> MtuDiscoveryConfig {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(MAX_UDP_DATAGRAM);
    discovery
}

/// Configures connections on a swarm, whose MTU never changes: datagrams have up to `mtu` bytes from the
/// beginning. The initial window follows RFC 9002, section 7.2.
///
/// The minimum MTU stays 1,200 bytes, to which quinn pads initial datagrams, acknowledgements too, and counts them
/// as in flight. With 16 KiB each, two would fill the initial window, and a client that lost a datagram of the
/// handshake would send nothing for two seconds. MTU discovery only restores the length after a series of losses at
/// the beginning of a connection, which quinn takes for a smaller MTU.
pub fn set_mtu(transport: &mut TransportConfig, mtu: u16) {
    let window = u64::from(mtu);
    let mut cubic = CubicConfig::default();
    cubic.initial_window((10 * window).min((2 * window).max(14_720)));
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(mtu).black_hole_cooldown(RESTORE);
    transport
        .initial_mtu(mtu)
        .mtu_discovery_config(Some(discovery))
        .congestion_controller_factory(Arc::new(cubic));
}
