//! What a node can do wrong, and data that is sealed wrongly.

use p2p_swarmtest::wire::Port;

use super::Name;
use super::frame::{DATA, FAULTY, Frame, Header, header};
use super::session::{AeadKey, Public, Session, Sessions, TAG, hash};

/// What a node does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Tells, or asks, are authentic and can be read.
    ReadableTells,
    ReadableAsks,
    /// Tells are added to the same byte again and again.
    OneByte,
    /// Tells are added to the same stream again and again.
    OneStream,
    /// Tells, or asks, cannot be read, and only the header is authentic.
    MalleableTells,
    MalleableAsks,
    /// Tells, or asks, may come again.
    RepeatedTells,
    RepeatedAsks,
    /// What is too old to be told apart is taken for new.
    ForgetfulWindow,
    /// A tell that comes back is taken for one of the peer's.
    Reflected,
    /// A new session with somebody known goes to whoever answers, if nobody knows better: for tells, or for asks.
    UncheckedTells,
    UncheckedAsks,
    /// Whoever speaks from a port is who spoke from there first.
    NamedByPort,
    /// Whoever spoke from a port last has the key of who is looked up there.
    KeyByPort,
    /// All of a node's peers can open what it tells any of them.
    KeyForAll,
    /// A packet that cannot be opened ends its session, and nobody hears of it.
    EndedByTampering,
    /// So do some that are repeated.
    EndedByReplay,
    /// Who did not answer once is not asked again.
    Resentful,
    /// The last bytes of some tells can be read.
    ReadableTail,
    /// One tell in fifty can be read.
    ReadableAtTimes,
    /// From the eighth tell on, or the sixtieth, two at a time are added to the same stream.
    PairedStream,
    LatePairs,
    /// The last bytes of some tells are not authentic, or nothing of those of one length.
    MalleableTail,
    MalleableOnce,
    /// All that was seen is forgotten after three thousand, or twenty thousand, packets.
    WindowRestarts,
    WindowRestartsLate,
    /// After packets that make no sense, nothing more is taken from that port.
    Shuns,
    /// A packet of one byte panics.
    PanicsOnShort,
    /// Packets of no known kind, or empty ones, are not counted.
    Uncounted,
    UncountedEmpty,
}

/// How a tell is sealed wrongly.
struct Odd {
    /// The stream that it is added to.
    stream: u64,
    /// Bytes at the end that can be read.
    readable: usize,
    /// Bytes at the end that are not authentic.
    loose: usize,
}

impl Fault {
    fn odd(self, counter: u64, len: usize) -> Option<Odd> {
        let odd = |stream, readable, loose| {
            Some(Odd {
                stream,
                readable,
                loose,
            })
        };
        match self {
            Fault::ReadableTail if len % 16 == 3 => odd(counter, 3, 0),
            Fault::ReadableAtTimes if counter % 50 == 33 => odd(counter, len, 0),
            Fault::PairedStream if counter >= 7 => odd(counter / 2, 0, 0),
            Fault::LatePairs if counter >= 60 => odd(counter / 2, 0, 0),
            Fault::MalleableTail if len % 16 == 3 => odd(counter, 0, 3),
            Fault::MalleableOnce if len == 201 => odd(counter, 0, len),
            _ => None,
        }
    }

    /// After how many packets what was seen is forgotten.
    pub(super) fn forgets_after(self) -> u64 {
        match self {
            Fault::WindowRestarts => 3000,
            Fault::WindowRestartsLate => 20_000,
            _ => u64::MAX,
        }
    }

    /// The packet of a frame: sealed, but for the fault.
    pub(super) fn seal(self, session: &Session, sender: &Public, counter: u64, frame: &Frame<'_>) -> Vec<u8> {
        let (key, text) = (&session.seal, frame.bytes());
        let wrong = header(FAULTY, session.theirs, counter);
        let authentic = |text: Vec<u8>, covered: usize| {
            let tag = key.seal(counter, &[&wrong, &text[..covered]].concat(), b"");
            [&wrong[..], &text, &tag].concat()
        };
        let len = text.len();
        if let Some(odd) = self.odd(counter, len).filter(|_| frame.is_tell()) {
            return authentic(odd.add(key, &text), len - odd.loose);
        }
        match (self, frame.is_tell()) {
            (Fault::ReadableTells, true) | (Fault::ReadableAsks, false) => authentic(text, len),
            (Fault::OneByte, true) => authentic(same_byte(&text), len),
            (Fault::OneStream, true) => authentic(key.stream(0, &text), len),
            (Fault::MalleableTells, true) | (Fault::MalleableAsks, false) => {
                authentic(key.stream(counter, &text), 0)
            }
            (Fault::KeyForAll, true) => [&wrong[..], &for_all(sender).seal(counter, &wrong, &text)].concat(),
            _ => {
                let header = header(DATA, session.theirs, counter);
                [&header[..], &key.seal(counter, &header, &text)].concat()
            }
        }
    }

    /// The text of a packet of this session.
    pub(super) fn open(
        self,
        session: &Session,
        counter: u64,
        header: &Header,
        sealed: &[u8],
    ) -> Option<Vec<u8>> {
        let key = &session.open;
        if header[0] == DATA {
            return key.open(counter, header, sealed);
        }
        let (text, tag) = sealed.split_last_chunk::<TAG>()?;
        let authentic = |covered: usize| {
            let header = [header, &text[..covered]].concat();
            key.open(counter, &header, tag).map(|_| text.to_vec())
        };
        if let Some(odd) = self.odd(counter, text.len()) {
            return authentic(text.len() - odd.loose).map(|text| odd.add(key, &text));
        }
        match self {
            Fault::ReadableTells | Fault::ReadableAsks => authentic(text.len()),
            Fault::OneByte => authentic(text.len()).map(|text| same_byte(&text)),
            Fault::OneStream => authentic(text.len()).map(|text| key.stream(0, &text)),
            Fault::MalleableTells | Fault::MalleableAsks => {
                authentic(0).map(|text| key.stream(counter, &text))
            }
            Fault::KeyForAll => for_all(&session.peer_key).open(counter, header, sealed),
            _ => None,
        }
    }

    /// The text of a packet of no session, as only a faulty node can open it.
    pub(super) fn open_any(
        self,
        sessions: &Sessions,
        src: Port,
        counter: u64,
        header: &Header,
        sealed: &[u8],
    ) -> Option<(Name, Vec<u8>)> {
        let mut there = sessions
            .iter()
            .filter(|session| session.confirmed && session.peer.at == src);
        there.find_map(|session| {
            let text = match self {
                Fault::KeyForAll => for_all(&session.peer_key).open(counter, header, sealed),
                Fault::Reflected => session.seal.open(counter, header, sealed),
                _ => None,
            };
            Some((session.peer, text?))
        })
    }
}

impl Odd {
    /// The text added to its stream; what was added, the text.
    fn add(&self, key: &AeadKey, text: &[u8]) -> Vec<u8> {
        let mut added = key.stream(self.stream, text);
        let start = text.len() - self.readable;
        added[start..].copy_from_slice(&text[start..]);
        added
    }
}

fn same_byte(text: &[u8]) -> Vec<u8> {
    text.iter().map(|byte| byte ^ 0x5a).collect()
}

/// A key that whoever knows the sender's public key can have.
fn for_all(sender: &Public) -> AeadKey {
    AeadKey::new(hash(&[b"for all", sender]))
}
