//! Loopback addresses that no other testbed uses.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Number of addresses for each process.
const OF_A_PROCESS: u32 = 4096;

/// Number of processes with addresses of their own.
const PROCESSES: u32 = 4000;

/// Returns a loopback IP address for the sockets of one testbed.
///
/// Tests run side by side, and the system soon gives the port of a closed socket to another one. A datagram
/// that is told to the closed node then arrives at a node of another test, where it looks like a duplicate.
/// With an IP address for each testbed it arrives at no other.
///
/// On Linux and Windows, whose loopback network is 127.0.0.0/8, each of 4,096 calls in a process returns
/// another address, and processes share none unless their ids are equal modulo 4,000. Elsewhere the address is
/// 127.0.0.1.
///
/// ```
/// use std::net::UdpSocket;
///
/// let socket = UdpSocket::bind((p2p_swarmtest::loopback(), 0)).expect("a free port");
/// assert!(socket.local_addr().expect("it is bound").ip().is_loopback());
/// ```
#[must_use]
pub fn loopback() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    if !cfg!(any(target_os = "linux", target_os = "android", windows)) {
        return Ipv4Addr::LOCALHOST.into();
    }
    address(std::process::id(), NEXT.fetch_add(1, Relaxed)).into()
}

/// Returns the address with this number of a process: none that is in common use, and none that ends in 0 or
/// 255, which systems may take for a network or a broadcast.
fn address(process: u32, number: u32) -> Ipv4Addr {
    let host = (process % PROCESSES) * OF_A_PROCESS + number % OF_A_PROCESS;
    // The first network holds 127.0.0.1 and 127.0.0.53.
    let (network, last) = (1 + host / 254, 1 + host % 254);
    Ipv4Addr::from_bits((127 << 24) | (network << 8) | last)
}

#[test]
fn addresses_of_processes_are_distinct_and_on_loopback() {
    let mut seen = std::collections::HashSet::new();
    for process in [0, 1, 2, PROCESSES - 1] {
        for number in 0..OF_A_PROCESS {
            let addr = address(process, number);
            assert!(
                addr.is_loopback() && !matches!(addr.octets()[3], 0 | 255),
                "{addr}"
            );
            assert!(addr != Ipv4Addr::LOCALHOST && seen.insert(addr), "{addr}");
        }
    }
    assert_eq!(address(PROCESSES, 0), address(0, OF_A_PROCESS));
    assert_ne!(loopback(), Ipv4Addr::LOCALHOST);
}
