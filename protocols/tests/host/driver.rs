//! A driver without I/O: hosts that dial one another over a simulated network, with all engines together.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use p2p_protocols::connections::{self, CloseReason, ConnId, Connections, Direction};
use p2p_protocols::dial::{self, AttemptId, DialAddr, DialId, Dialer, Failure, Transport};
use p2p_protocols::peers::{self, PeerStore, Source};

const LATENCY: Duration = Duration::from_millis(20);
const SECOND: Duration = Duration::from_secs(1);

/// A host. Its number is its peer key, and its address.
struct Host {
    connections: Connections<usize>,
    dialer: Dialer<usize, usize>,
    peers: PeerStore<usize, usize>,
    /// Connections that have a remote end, which is a connection of another host.
    ends: BTreeMap<ConnId, (usize, ConnId)>,
    attempts: BTreeMap<AttemptId, ConnId>,
    results: BTreeMap<DialId, bool>,
}

/// A message on its way.
#[derive(Clone, Copy)]
enum Packet {
    Hello {
        attempt: AttemptId,
        from_conn: ConnId,
    },
    Answer {
        attempt: AttemptId,
        from_conn: ConnId,
        to_conn: ConnId,
    },
    Refused {
        attempt: AttemptId,
    },
    Closed {
        conn: ConnId,
    },
}

struct Network {
    hosts: Vec<Option<Host>>,
    now: Duration,
    /// By arrival: the source, the destination, and the message.
    packets: BTreeMap<(Duration, u64), (usize, usize, Packet)>,
    sent: u64,
}

/// Returns the address of a host: each is in a network of its own.
fn ip(host: usize) -> IpAddr {
    let [high, low] = u16::try_from(host).expect("few hosts").to_be_bytes();
    [20, high, low, 1].into()
}

impl Host {
    fn new(seed: u64) -> Self {
        Self {
            connections: Connections::new(connections::Config::default()),
            dialer: Dialer::new(dial::Config::default(), seed),
            peers: PeerStore::new(peers::Config::default(), |_| 0),
            ends: BTreeMap::new(),
            attempts: BTreeMap::new(),
            results: BTreeMap::new(),
        }
    }

    fn dial(&mut self, now: Duration, peer: usize) -> DialId {
        let known = self
            .peers
            .addrs(now, &peer)
            .into_iter()
            .map(|(addr, _)| DialAddr {
                addr,
                transport: Transport::Quic,
                ip: Some(ip(addr)),
                port: 4001,
                is_relayed: false,
            });
        let known: Vec<_> = known.collect();
        self.dialer.dial(now, &peer, known).expect("room")
    }

    /// Reports a connection whose handshake is complete. Returns whether it stays.
    fn establish(&mut self, now: Duration, conn: ConnId, peer: usize, end: ConnId) -> bool {
        if self.connections.handle_established(now, conn, &peer).is_err() {
            return false;
        }
        self.ends.insert(conn, (peer, end));
        true
    }

    fn next_timeout(&self) -> Option<Duration> {
        let timers = [
            self.connections.poll_timeout(),
            self.dialer.poll_timeout(),
            self.peers.poll_timeout(),
        ];
        timers.into_iter().flatten().min()
    }
}

impl Network {
    fn new(hosts: usize) -> Self {
        Self {
            hosts: (0..hosts).map(|seed| Some(Host::new(seed as u64))).collect(),
            now: Duration::ZERO,
            packets: BTreeMap::new(),
            sent: 0,
        }
    }

    fn host(&mut self, host: usize) -> &mut Host {
        self.hosts[host].as_mut().expect("it is up")
    }

    fn send(&mut self, from: usize, to: usize, packet: Packet) {
        self.sent += 1;
        self.packets
            .insert((self.now + LATENCY, self.sent), (from, to, packet));
    }

    /// Runs until this time.
    fn run(&mut self, until: Duration) {
        loop {
            for host in 0..self.hosts.len() {
                self.drain(host);
            }
            let timers = self.hosts.iter().flatten().filter_map(Host::next_timeout);
            let packet = self.packets.first_key_value().map(|((at, _), _)| *at);
            let next = timers.chain(packet).min().unwrap_or(until).max(self.now);
            if next > until {
                self.now = until;
                return;
            }
            if next == until && self.now == until {
                return;
            }
            self.now = next;
            let now = self.now;
            for host in self.hosts.iter_mut().flatten() {
                host.connections.handle_timeout(now);
                host.dialer.handle_timeout(now);
                host.peers.handle_timeout(now);
            }
            while let Some(first) = self.packets.first_entry()
                && first.key().0 <= now
            {
                let (from, to, packet) = first.remove();
                self.arrive(from, to, packet);
            }
        }
    }

    fn arrive(&mut self, from: usize, to: usize, packet: Packet) {
        let now = self.now;
        let Some(host) = &mut self.hosts[to] else {
            if let Packet::Hello { attempt, .. } = packet {
                self.send(to, from, Packet::Refused { attempt });
            }
            return;
        };
        match packet {
            Packet::Hello { attempt, from_conn } => {
                let answer = match host.connections.admit_inbound(now, Some(ip(from))) {
                    Ok(to_conn) if host.establish(now, to_conn, from, from_conn) => Packet::Answer {
                        attempt,
                        from_conn,
                        to_conn,
                    },
                    _ => Packet::Refused { attempt },
                };
                self.send(to, from, answer);
            }
            Packet::Answer {
                attempt,
                from_conn,
                to_conn,
            } => {
                let is_wanted = host.attempts.remove(&attempt).is_some();
                if is_wanted && host.establish(now, from_conn, from, to_conn) {
                    host.dialer.handle_connected(now, attempt);
                } else {
                    host.connections.handle_failed(from_conn);
                    self.send(to, from, Packet::Closed { conn: to_conn });
                }
            }
            Packet::Refused { attempt } => {
                if let Some(conn) = host.attempts.remove(&attempt) {
                    host.connections.handle_failed(conn);
                    let failure = Failure::Io(io::ErrorKind::ConnectionRefused);
                    host.dialer.handle_failed(now, attempt, failure);
                }
            }
            Packet::Closed { conn } => {
                host.ends.remove(&conn);
                host.connections.handle_closed(conn, CloseReason::Remote);
            }
        }
    }

    /// Carries out the actions of a host, and passes its events on.
    fn drain(&mut self, number: usize) {
        let now = self.now;
        let Some(host) = &mut self.hosts[number] else {
            return;
        };
        let mut packets = Vec::new();
        loop {
            if let Some(action) = host.dialer.poll_action() {
                match action {
                    dial::Action::Start { attempt, addr, .. } => {
                        match host.connections.admit_outbound(now, Some(ip(addr))) {
                            Ok(from_conn) => {
                                host.attempts.insert(attempt, from_conn);
                                packets.push((addr, Packet::Hello { attempt, from_conn }));
                            }
                            Err(_) => host.dialer.handle_failed(now, attempt, Failure::Denied),
                        }
                    }
                    // An attempt whose hello was sent may still succeed at the other side, which is then
                    // told that it is closed.
                    dial::Action::Abort { attempt } => {
                        if let Some(conn) = host.attempts.remove(&attempt) {
                            host.connections.handle_failed(conn);
                        }
                    }
                    dial::Action::Reconnect { peer } => {
                        host.dial(now, peer);
                    }
                }
            } else if let Some(connections::Action::Close { id, .. }) = host.connections.poll_action() {
                if let Some((peer, conn)) = host.ends.remove(&id) {
                    packets.push((peer, Packet::Closed { conn }));
                }
            } else if let Some(event) = host.dialer.poll_event() {
                let (id, is_connected) = match event {
                    dial::Event::Connected { id, .. } => (id, true),
                    dial::Event::Failed { id, .. } => (id, false),
                };
                host.results.insert(id, is_connected);
            } else if let Some(event) = host.connections.poll_event() {
                match event {
                    connections::Event::Connected { peer, direction, .. } => {
                        let addr = (direction == Direction::Outbound).then_some(peer);
                        host.peers.handle_connected(now, &peer, addr).expect("room");
                    }
                    connections::Event::Disconnected {
                        peer, is_last: true, ..
                    } => {
                        host.peers.handle_disconnected(now, &peer);
                        host.dialer.handle_peer_disconnected(now, &peer);
                    }
                    connections::Event::Disconnected { .. } => {}
                }
            } else {
                break;
            }
        }
        for (to, packet) in packets {
            self.send(number, to, packet);
        }
    }
}

#[test]
fn simultaneous_dials_leave_two_connections_and_each_host_uses_the_older_one() {
    let mut network = Network::new(2);
    for (host, peer) in [(0, 1), (1, 0)] {
        network
            .host(host)
            .peers
            .add_addrs(Duration::ZERO, &peer, [peer], Source::Learnt);
        network.host(host).dial(Duration::ZERO, peer);
    }
    // Both hellos arrive before an answer does: each host has an inbound connection, which ends its dial.
    network.run(SECOND);
    for (host, peer) in [(0, 1), (1, 0)] {
        let host = network.host(host);
        assert!(host.results.values().all(|is_connected| *is_connected) && host.results.len() == 1);
        let of_peer = host.connections.of_peer(&peer);
        assert_eq!(
            (of_peer.len(), host.connections.best(&peer)),
            (2, of_peer.first().copied())
        );
    }
}

#[test]
fn half_open_connections_from_one_network_delay_no_dial_of_an_honest_host() {
    let mut network = Network::new(51);
    let mut now = Duration::ZERO;
    for host in 1..51 {
        network.host(host).peers.add_addrs(now, &0, [0], Source::Learnt);
        for _ in 0..200 {
            // These never complete their handshake.
            let _ = network
                .host(0)
                .connections
                .admit_inbound(now, Some([66, 6, 6, 6].into()));
        }
        let id = network.host(host).dial(now, 0);
        now += Duration::from_millis(100);
        network.run(now);
        assert_eq!(network.host(host).results.get(&id), Some(&true), "host {host}");
    }
    assert_eq!(network.host(0).connections.len(), 50);
}

#[test]
fn hosts_that_lose_a_restarted_host_return_to_it_at_different_times() {
    let mut network = Network::new(101);
    for host in 1..101 {
        let client = network.host(host);
        client
            .peers
            .add_addrs(Duration::ZERO, &0, [0], Source::Configured);
        client
            .connections
            .protect(Duration::ZERO, &0, "home")
            .expect("room");
        client.dialer.maintain(Duration::ZERO, &0, false).expect("room");
    }
    // What the server does not need it would close after 10 s.
    for host in 1..101 {
        network
            .host(0)
            .connections
            .protect(Duration::ZERO, &host, "home")
            .expect("room");
    }
    network.run(60 * SECOND);
    assert_eq!(network.host(0).connections.len(), 100);

    network.hosts[0] = None;
    let now = network.now;
    for host in 1..101 {
        let client = network.host(host);
        let conn = client.connections.best(&0).expect("it is connected");
        client.ends.remove(&conn);
        client.connections.handle_closed(conn, CloseReason::TimedOut);
    }
    network.run(now + SECOND);
    network.hosts[0] = Some(Host::new(1000));
    for host in 1..101 {
        network
            .host(0)
            .connections
            .protect(now, &host, "home")
            .expect("room");
    }
    network.run(now + 30 * SECOND);
    assert_eq!(network.host(0).connections.len(), 100);
    let mut times: Vec<Duration> = network
        .host(0)
        .connections
        .iter()
        .map(|info| info.since)
        .collect();
    times.sort_unstable();
    times.dedup();
    assert!(times.len() > 90, "they return at {} times", times.len());
    let spread = times[times.len() - 1].saturating_sub(times[0]);
    assert!(spread > SECOND, "they return within {spread:?}");
}

#[test]
fn a_connection_that_nothing_needs_ends_at_both_hosts_and_its_address_expires() {
    let mut network = Network::new(2);
    network
        .host(0)
        .peers
        .add_addrs(Duration::ZERO, &1, [1], Source::Learnt);
    network.host(0).dial(Duration::ZERO, 1);
    network.run(SECOND);
    assert_eq!(
        (
            network.host(0).connections.len(),
            network.host(1).connections.len()
        ),
        (1, 1)
    );
    network.run(12 * SECOND);
    assert!(network.host(0).connections.is_empty() && network.host(1).connections.is_empty());
    // At the dialling host for an hour or 15 minutes after the end, whichever is later.
    assert_eq!(network.host(0).peers.addrs(12 * SECOND, &1).len(), 1);
    network.run(3700 * SECOND);
    assert!(network.host(0).peers.is_empty() && network.host(1).peers.is_empty());
}
