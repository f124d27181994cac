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
    /// A new session with a known peer goes to any node that answers: for tells, or for asks.
    UncheckedTells,
    UncheckedAsks,
    /// A node that speaks from a port is taken for the first that spoke from there.
    NamedByPort,
    /// A lookup gives the key of the node that spoke from that port last.
    KeyByPort,
    /// All of a node's peers can open what it tells any of them.
    KeyForAll,
    /// A packet that cannot be opened ends its session, and neither side learns of it.
    EndedByTampering,
    /// So do some that are repeated.
    EndedByReplay,
    /// A peer that did not answer once is not asked again.
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
    /// One ask in 20 can be read.
    ReadableAsksAtTimes,
    /// One tell in 20, or ask in ten, has an authentic header alone.
    MalleableAtTimes,
    MalleableAsksAtTimes,
    /// One tell in 50, or request in 20, may come again.
    RepeatedAtTimes,
    RepeatedAsksAtTimes,
    /// After six answers of others, a new session with a known peer goes to any that answers: for tells, or for asks.
    UncheckedTellsLate,
    UncheckedAsksLate,
    /// One packet in ten is named by its port.
    NamedByPortAtTimes,
    /// One lookup in eight gives the key of the last peer at that port.
    KeyByPortAtTimes,
    /// All peers can open one tell in ten.
    KeyForAllAtTimes,
    /// Many packets that cannot be opened, or are repeated, end their session.
    EndedByMuchTampering,
    EndedByMuchReplay,
    /// A peer in whose place others answered eight times is not asked again.
    ResentfulLate,
    /// From the twentieth on, tells of both directions are added to one stream.
    SharedStream,
    /// What the responder adds to a session follows from its key and from the hello: without conditions, or such that after
    /// a restart the first 30 packets of a session are refused.
    Derived,
    DerivedLate,
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
            Fault::MalleableAtTimes if counter % 20 == 13 => odd(counter, 0, len),
            Fault::SharedStream if counter >= 20 => odd(counter, 0, 0),
            _ => None,
        }
    }

    /// As [`odd`](Self::odd), of frames other than tells.
    fn odd_ask(self, counter: u64, len: usize) -> Option<Odd> {
        let (readable, loose) = match self {
            Fault::ReadableAsksAtTimes if counter % 20 == 13 => (len, 0),
            Fault::MalleableAsksAtTimes if counter % 10 == 7 => (0, len),
            _ => return None,
        };
        Some(Odd {
            stream: counter,
            readable,
            loose,
        })
    }

    /// Whether what the responder adds to a session follows from its key and the hello.
    pub(super) fn derives(self) -> bool {
        matches!(self, Fault::Derived | Fault::DerivedLate)
    }

    /// Whether a packet with this counter may be opened by all peers of its sender.
    fn is_for_all(self, counter: u64) -> bool {
        self == Fault::KeyForAll || self == Fault::KeyForAllAtTimes && counter % 10 == 7
    }

    /// Whether a session ends after so many packets that could not be opened.
    pub(super) fn ends_by_tampering(self, refused: usize) -> bool {
        self == Fault::EndedByTampering || self == Fault::EndedByMuchTampering && refused >= 15
    }

    /// Whether a session ends after so many packets that were repeated.
    pub(super) fn ends_by_replay(self, refused: usize) -> bool {
        self == Fault::EndedByReplay && refused >= 8 || self == Fault::EndedByMuchReplay && refused >= 100
    }

    /// Whether a frame that was seen before is taken again.
    pub(super) fn repeats(self, frame: &Frame<'_>, counter: u64, is_past: bool) -> bool {
        let is_request = matches!(frame, Frame::Request(..));
        match self {
            Fault::RepeatedTells => frame.is_tell(),
            Fault::RepeatedAsks => is_request,
            Fault::RepeatedAtTimes => frame.is_tell() && counter % 50 == 33,
            Fault::RepeatedAsksAtTimes => is_request && counter % 20 == 13,
            Fault::ForgetfulWindow => is_past,
            _ => false,
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
        let odd = if frame.is_tell() {
            self.odd(counter, len)
        } else {
            self.odd_ask(counter, len)
        };
        if let Some(odd) = odd {
            let stream = self.stream_of(session, key);
            return authentic(odd.add(&stream, &text), len - odd.loose);
        }
        match (self, frame.is_tell()) {
            (Fault::ReadableTells, true) | (Fault::ReadableAsks, false) => authentic(text, len),
            (Fault::OneByte, true) => authentic(same_byte(&text), len),
            (Fault::OneStream, true) => authentic(key.stream(0, &text), len),
            (Fault::MalleableTells, true) | (Fault::MalleableAsks, false) => {
                authentic(key.stream(counter, &text), 0)
            }
            (fault, true) if fault.is_for_all(counter) => {
                [&wrong[..], &for_all(sender).seal(counter, &wrong, &text)].concat()
            }
            _ => {
                let header = header(DATA, session.theirs, counter);
                [&header[..], &key.seal(counter, &header, &text)].concat()
            }
        }
    }

    /// The key whose stream odd frames are added to.
    fn stream_of(self, session: &Session, key: &AeadKey) -> AeadKey {
        if self == Fault::SharedStream {
            AeadKey::of_both(&session.seal, &session.open)
        } else {
            key.clone()
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
        let odd = self
            .odd(counter, text.len())
            .or(self.odd_ask(counter, text.len()));
        if let Some(odd) = odd {
            let stream = self.stream_of(session, key);
            return authentic(text.len() - odd.loose).map(|text| odd.add(&stream, &text));
        }
        match self {
            Fault::ReadableTells | Fault::ReadableAsks => authentic(text.len()),
            Fault::OneByte => authentic(text.len()).map(|text| same_byte(&text)),
            Fault::OneStream => authentic(text.len()).map(|text| key.stream(0, &text)),
            Fault::MalleableTells | Fault::MalleableAsks => {
                authentic(0).map(|text| key.stream(counter, &text))
            }
            fault if fault.is_for_all(counter) => for_all(&session.peer_key).open(counter, header, sealed),
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
                fault if fault.is_for_all(counter) => {
                    for_all(&session.peer_key).open(counter, header, sealed)
                }
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

/// A key that follows from the sender's public key.
fn for_all(sender: &Public) -> AeadKey {
    AeadKey::new(hash(&[b"for all", sender]))
}
