//! Any sequence of steps of a peer store, with its invariants after each step, and a model without limits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use p2p_protocols::peers::{Config, PeerStore, Revision, Snapshot, Source};

/// A step: its kind, a peer, an address, and a number with a meaning that depends on the kind.
pub(crate) type Op = (u8, u8, u8, u16);

const SOURCES: [Source; 5] = [
    Source::Temporary,
    Source::Learnt,
    Source::Recent,
    Source::Connected,
    Source::Configured,
];

/// An address in the model: its source and its expiry.
type Known = (Source, Duration);

pub(crate) struct World {
    store: PeerStore<u8, u16>,
    config: Config,
    now: Duration,
    connected: BTreeSet<u8>,
    protected: BTreeSet<u8>,
    /// The addresses in a store without limits; not followed if the limits are small.
    model: Option<BTreeMap<(u8, u16), Known>>,
    records: BTreeMap<u8, u64>,
    /// The last snapshot.
    saved: Option<(Duration, Revision, Snapshot<u8, u16>)>,
}

fn small() -> Config {
    Config {
        peers: 6,
        bytes: 8 << 10,
        peer_bytes: 3 << 10,
        addrs: 4,
        protocols: 5,
        ..Config::default()
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let is_small = seed & 1 == 0;
        let config = if is_small { small() } else { Config::default() };
        Self {
            store: PeerStore::new(config, |addr| usize::from(*addr)),
            config,
            now: Duration::ZERO,
            connected: BTreeSet::new(),
            protected: BTreeSet::new(),
            model: (!is_small).then(BTreeMap::new),
            records: BTreeMap::new(),
            saved: None,
        }
    }

    fn ttl(&self, source: Source) -> Duration {
        match source {
            Source::Temporary => Duration::from_mins(2),
            Source::Learnt => Duration::from_hours(1),
            Source::Recent => Duration::from_mins(15),
            Source::Connected | Source::Configured => return Duration::MAX,
        }
        .saturating_add(self.now)
    }

    fn add(&mut self, peer: u8, addr: u16, source: Source) {
        let outcome = self.store.add_addrs(self.now, &peer, [addr], source);
        assert_eq!(outcome.added + outcome.refused, 1);
        let source = match source {
            Source::Connected if !self.connected.contains(&peer) => Source::Recent,
            source => source,
        };
        let expiry = self.ttl(source);
        if let Some(model) = &mut self.model {
            assert_eq!(outcome.refused, 0, "there is no limit");
            let now = self.now;
            model.retain(|(of, _), known| *of != peer || known.1 > now);
            let known = model.entry((peer, addr)).or_insert((source, expiry));
            *known = (known.0.max(source), known.1.max(expiry));
        }
    }

    pub(crate) fn step(&mut self, op: Op) {
        let (kind, peer, addr, number) = op;
        let (peer, now) = (peer % 12, self.now);
        let text = "x".repeat(usize::from(number) % 800);
        match kind % 14 {
            0..=2 => {
                let source = SOURCES[usize::from(number) % SOURCES.len()];
                self.add(peer, u16::from(addr % 8) * 40, source);
            }
            3 => {
                if self.store.handle_connected(now, &peer, None).is_ok() {
                    self.connected.insert(peer);
                    self.add(peer, u16::from(addr % 8) * 40, Source::Connected);
                }
            }
            4 => {
                self.store.handle_disconnected(now, &peer);
                if self.connected.remove(&peer) {
                    let recent = (Source::Recent, self.ttl(Source::Recent));
                    let known = self.model.iter_mut().flatten();
                    let of_peer =
                        known.filter(|((of, _), known)| *of == peer && known.0 == Source::Connected);
                    of_peer.for_each(|(_, known)| *known = recent);
                }
            }
            5 => {
                let protect = number & 1 == 0;
                if self.store.protect(now, &peer, protect).is_ok() && protect {
                    self.protected.insert(peer);
                } else if !protect {
                    self.protected.remove(&peer);
                }
            }
            6 => {
                let _ = self.store.set_key(now, &peer, text.as_bytes());
            }
            7 => {
                let protocols = vec![text; usize::from(addr) % 7];
                let _ = self.store.set_protocols(now, &peer, protocols);
            }
            8 => {
                let _ = self.store.set_agent(now, &peer, text);
            }
            9 => self.put_record(peer, addr, number),
            10 => {
                let addr = u16::from(addr % 8) * 40;
                self.store.remove_addr(now, &peer, &addr);
                if let Some(model) = &mut self.model {
                    model.remove(&(peer, addr));
                }
            }
            11 => self.save_and_load(),
            _ => self.pass(number),
        }
        self.check();
    }

    fn put_record(&mut self, peer: u8, addr: u8, number: u16) {
        let (seq, envelope) = (u64::from(number % 16), vec![0; usize::from(addr)]);
        let stored = self
            .store
            .put_record(self.now, &peer, seq, &envelope, [], Source::Learnt);
        if stored == Ok(true) {
            let known = self.store.get(&peer).and_then(|peer| peer.record);
            assert_eq!(known.map(|record| record.seq), Some(seq));
            self.records.insert(peer, seq);
        }
    }

    /// Returns what a snapshot has of each peer, and when its addresses expire, without those that have expired.
    fn contents(&self, at: Duration, snapshot: &Snapshot<u8, u16>) -> String {
        let mut peers = snapshot.peers.clone();
        for saved in &mut peers {
            saved.addrs.retain(|known| at + known.ttl > self.now);
            saved.addrs.iter_mut().for_each(|known| known.ttl += at);
        }
        format!("{peers:?}")
    }

    /// Saves the store, and loads it into one that must not know more. The last snapshot has the same unless it is
    /// outdated.
    fn save_and_load(&mut self) {
        let snapshot = self.store.export(self.now, self.now);
        if let Some((at, revision, last)) = &self.saved
            && !self.store.is_outdated(self.now, *revision)
            && self.connected.is_empty()
        {
            assert_eq!(self.contents(*at, last), self.contents(self.now, &snapshot));
        }
        let bytes = snapshot.encode().expect("plain data");
        self.saved = Some((self.now, self.store.revision(self.now), snapshot));
        let snapshot = Snapshot::<u8, u16>::decode(&bytes).expect("a snapshot");
        let mut other = PeerStore::new(self.config, |addr| usize::from(*addr));
        let added = other.import(self.now, self.now, snapshot);
        assert!(added <= self.store.len() && other.len() <= added && other.bytes() <= self.config.bytes);
        for peer in other.peers() {
            for (addr, ttl) in other.addrs(self.now, peer) {
                let known = self.store.addrs(self.now, peer);
                let known = known
                    .into_iter()
                    .find(|(known, _)| *known == addr)
                    .expect("an address");
                let limit = known.1.unwrap_or(self.config.recent_ttl);
                assert!(ttl.expect("it expires") <= limit);
            }
        }
    }

    /// Lets time pass: to the next expiry, or for a while.
    fn pass(&mut self, number: u16) {
        let due = self.store.poll_timeout();
        self.now = match due {
            Some(due) if number & 1 == 0 => due.max(self.now),
            _ => self.now + Duration::from_secs(u64::from(number) % 1000),
        };
        if number & 2 == 0 {
            self.store.handle_timeout(self.now);
            assert!(self.store.poll_timeout().is_none_or(|due| due > self.now));
        }
    }

    fn check(&self) {
        assert!(self.store.len() <= self.config.peers && self.store.bytes() <= self.config.bytes);
        for peer in self.connected.iter().chain(&self.protected) {
            assert!(self.store.get(peer).is_some(), "peer {peer} was removed");
        }
        for peer in 0..12 {
            let addrs = self.store.addrs(self.now, &peer);
            assert!(addrs.len() <= self.config.addrs);
            assert!(addrs.iter().all(|(_, ttl)| ttl.is_none_or(|ttl| !ttl.is_zero())));
            let Some(model) = &self.model else { continue };
            let of_peer = model
                .iter()
                .filter(|((of, _), known)| *of == peer && known.1 > self.now);
            let expected = of_peer.map(|((_, addr), known)| (*addr, known.1.checked_sub(self.now)));
            let expected: BTreeMap<u16, Option<Duration>> = expected.collect();
            let known: BTreeMap<u16, Option<Duration>> = addrs.into_iter().collect();
            assert_eq!(
                known.keys().collect::<Vec<_>>(),
                expected.keys().collect::<Vec<_>>()
            );
            for (addr, ttl) in known {
                let expected = expected[&addr].expect("it has not expired");
                assert_eq!(ttl.unwrap_or(Duration::MAX.saturating_sub(self.now)), expected);
            }
        }
    }
}
