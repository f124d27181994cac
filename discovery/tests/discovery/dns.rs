//! A separate responder: a plain socket and hand-written packets (RFC 1035, RFC 6762).

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

pub(crate) const A: u16 = 1;
pub(crate) const PTR: u16 = 12;
pub(crate) const TXT: u16 = 16;
pub(crate) const SRV: u16 = 33;

const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const PATIENCE: Duration = Duration::from_secs(30);

/// The parts of a record that these tests check.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) kind: u16,
    pub(crate) ttl: u32,
    /// Of PTR and SRV.
    pub(crate) target: String,
    /// Of SRV.
    pub(crate) port: u16,
    /// Of TXT.
    pub(crate) strings: Vec<String>,
}

/// A socket that receives from the multicast group on the loopback interface.
pub(crate) struct Peer {
    socket: UdpSocket,
    to: SocketAddrV4,
}

impl Peer {
    /// Without multicast on the loopback interface these tests cannot run, and fail.
    pub(crate) fn join(port: u16) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).expect("a socket");
        socket.set_reuse_address(true).expect("set");
        #[cfg(unix)]
        socket.set_reuse_port(true).expect("set");
        let bound = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        socket.bind(&bound.into()).expect("bound");
        let joined = socket.join_multicast_v4(&GROUP, &Ipv4Addr::LOCALHOST);
        joined.expect("the loopback interface takes multicast, or these tests cannot be");
        socket.set_multicast_if_v4(&Ipv4Addr::LOCALHOST).expect("set");
        socket
            .set_read_timeout(Some(Duration::from_millis(300)))
            .expect("set");
        Self {
            socket: socket.into(),
            to: SocketAddrV4::new(GROUP, port),
        }
    }

    fn send(&self, packet: &[u8]) {
        self.socket.send_to(packet, self.to).expect("sent");
    }

    /// Returns the next packet, if one arrives soon.
    fn receive(&self) -> Option<Vec<u8>> {
        let mut packet = vec![0; 9000];
        let len = self.socket.recv(&mut packet).ok()?;
        packet.truncate(len);
        Some(packet)
    }

    /// Waits for a question for this name.
    pub(crate) fn hear_question(&mut self, name: &str) {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(packet) = self.receive()
                && read(&packet).0.iter().any(|asked| asked == name)
            {
                return;
            }
        }
        panic!("no question for {name} arrived");
    }

    /// Sends a question for a service repeatedly, until the answers so far are enough.
    pub(crate) fn ask_until(&mut self, service: &str, enough: impl Fn(&[Record]) -> bool) -> Vec<Record> {
        self.gather(Some(service), enough)
    }

    /// Listens until the received records are enough.
    pub(crate) fn listen_until(&mut self, enough: impl Fn(&[Record]) -> bool) -> Vec<Record> {
        self.gather(None, enough)
    }

    fn gather(&mut self, ask: Option<&str>, enough: impl Fn(&[Record]) -> bool) -> Vec<Record> {
        let (mut records, end) = (Vec::new(), Instant::now() + PATIENCE);
        while Instant::now() < end {
            if let Some(service) = ask {
                let mut question = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
                write_name(&mut question, service);
                question.extend([PTR.to_be_bytes(), 1_u16.to_be_bytes()].concat());
                self.send(&question);
            }
            while let Some(packet) = self.receive() {
                records.extend(read(&packet).1);
            }
            if enough(&records) {
                return records;
            }
        }
        panic!("only these records were received: {records:?}");
    }

    /// Announces an instance of a service, or its goodbye.
    pub(crate) fn announce(&mut self, service: &str, instance: &str, txt: &[&[u8]], port: u16, ttl: u32) {
        let name = format!("{instance}.{service}");
        let host = format!("{instance}.local.");
        let mut packet = vec![0, 0, 0x84, 0, 0, 0, 0, 4, 0, 0, 0, 0];
        let mut target = Vec::new();
        write_name(&mut target, &name);
        write_record(&mut packet, service, PTR, 1, ttl, &target);
        let mut srv = [[0, 0], [0, 0], port.to_be_bytes()].concat();
        write_name(&mut srv, &host);
        write_record(&mut packet, &name, SRV, 0x8001, ttl, &srv);
        let mut strings: Vec<u8> = Vec::new();
        for string in txt {
            strings.push(string.len().try_into().expect("short"));
            strings.extend_from_slice(string);
        }
        if strings.is_empty() {
            strings.push(0);
        }
        write_record(&mut packet, &name, TXT, 0x8001, ttl, &strings);
        write_record(&mut packet, &host, A, 0x8001, ttl, &[127, 0, 0, 1]);
        self.send(&packet);
    }
}

fn write_name(out: &mut Vec<u8>, name: &str) {
    for label in name.trim_end_matches('.').split('.') {
        out.push(label.len().try_into().expect("a label"));
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
}

fn write_record(out: &mut Vec<u8>, name: &str, kind: u16, class: u16, ttl: u32, data: &[u8]) {
    write_name(out, name);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&class.to_be_bytes());
    out.extend_from_slice(&ttl.to_be_bytes());
    out.extend_from_slice(&u16::try_from(data.len()).expect("short").to_be_bytes());
    out.extend_from_slice(data);
}

fn number(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

/// Returns the name at a position, and the position behind it.
fn read_name(packet: &[u8], mut at: usize) -> (String, usize) {
    let (mut name, mut end) = (String::new(), None);
    loop {
        let len = usize::from(packet[at]);
        if len >= 0xc0 {
            end.get_or_insert(at + 2);
            at = usize::from(number(packet, at) & 0x3fff);
        } else if len == 0 {
            return (name, end.unwrap_or(at + 1));
        } else {
            name += std::str::from_utf8(&packet[at + 1..=at + len]).expect("UTF-8");
            name.push('.');
            at += 1 + len;
        }
    }
}

/// Returns the names in questions, and the records.
fn read(packet: &[u8]) -> (Vec<String>, Vec<Record>) {
    let (mut at, mut asked, mut records) = (12, Vec::new(), Vec::new());
    for _ in 0..number(packet, 4) {
        let (name, end) = read_name(packet, at);
        asked.push(name);
        at = end + 4;
    }
    // A query's authority records are probes.
    let is_answer = packet[2] & 0x80 != 0;
    for _ in 0..number(packet, 6) + number(packet, 8) + number(packet, 10) {
        let (name, end) = read_name(packet, at);
        let kind = number(packet, end);
        let ttl = u32::from(number(packet, end + 4)) << 16 | u32::from(number(packet, end + 6));
        let (start, len) = (end + 10, usize::from(number(packet, end + 8)));
        let mut record = Record {
            name,
            kind,
            ttl,
            ..Record::default()
        };
        match kind {
            PTR => record.target = read_name(packet, start).0,
            SRV => {
                record.port = number(packet, start + 4);
                record.target = read_name(packet, start + 6).0;
            }
            TXT => {
                let mut at = start;
                while at < start + len {
                    let end = at + 1 + usize::from(packet[at]);
                    record
                        .strings
                        .push(String::from_utf8_lossy(&packet[at + 1..end]).into_owned());
                    at = end;
                }
            }
            _ => {}
        }
        at = start + len;
        if is_answer {
            records.push(record);
        }
    }
    (asked, records)
}
