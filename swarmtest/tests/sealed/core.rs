//! What a node does with packets, and how a faulty one does it wrong.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU8;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use p2p::{Counters, Error, Message, Packet, PeerId, Reason, Rejection, Request, Result, Swarm as _};
use p2p_swarmtest::wire::{Port, Tap};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::session::{
    AeadKey, PROOF, Pair, Public, Session, Sessions, TAG, Transcript, Window, hash, id_of, keys,
};
use super::{ASKS, Back, Name, QUEUE};

/// Bytes that a message is shorter than its packet: kind, number of the session, counter, kind of frame, number
/// of the ask, tag.
pub(crate) const OVERHEAD: usize = 1 + 8 + 8 + 1 + 8 + TAG;

/// How long to wait before a hello is sent again, and for how long in all.
const RETRY: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(1);

/// Repeated packets after which one of the faults shows.
const ENOUGH: usize = 8;

const HELLO: u8 = 0;
const ANSWER: u8 = 1;
const DATA: u8 = 2;
const UNKNOWN: u8 = 3;
/// Data that is not sealed as it should be, by a fault.
const FAULTY: u8 = 4;

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
}

/// What is sealed.
pub(crate) enum Frame<'a> {
    Tell(&'a [u8]),
    Request(u64, &'a [u8]),
    Response(u64, &'a [u8]),
    Rejection(u64, Rejection),
}

impl Frame<'_> {
    fn bytes(&self) -> Vec<u8> {
        let (kind, number, rest) = match self {
            Frame::Tell(text) => return [&[0], *text].concat(),
            Frame::Request(number, text) => (1, number, *text),
            Frame::Response(number, text) => (2, number, *text),
            Frame::Rejection(number, why) => {
                return [&[3][..], &number.to_be_bytes(), &[why.code().get()]].concat();
            }
        };
        [&[kind][..], &number.to_be_bytes(), rest].concat()
    }

    fn is_tell(&self) -> bool {
        matches!(self, Frame::Tell(_))
    }

    fn parse(bytes: &[u8]) -> Option<Frame<'_>> {
        let (kind, rest) = bytes.split_first()?;
        if *kind == 0 {
            return Some(Frame::Tell(rest));
        }
        let (number, rest) = rest.split_first_chunk()?;
        let number = u64::from_be_bytes(*number);
        match (kind, rest) {
            (1, text) => Some(Frame::Request(number, text)),
            (2, text) => Some(Frame::Response(number, text)),
            (3, [code]) => Some(Frame::Rejection(number, Rejection::new(NonZeroU8::new(*code)?))),
            _ => None,
        }
    }
}

/// What waits for a reader.
pub(crate) struct Inbox<T> {
    put: mpsc::Sender<T>,
    take: tokio::sync::Mutex<mpsc::Receiver<T>>,
}

impl<T> Inbox<T> {
    fn new() -> Self {
        let (put, take) = mpsc::channel(QUEUE);
        Self {
            put,
            take: tokio::sync::Mutex::new(take),
        }
    }

    pub(crate) async fn take(&self) -> Result<T> {
        self.take.lock().await.recv().await.ok_or(Error::Closed)
    }
}

/// A handshake under way.
struct Opening {
    number: u64,
    short: Pair,
    hello: Vec<u8>,
    sent: Instant,
}

#[derive(Default)]
struct State {
    openings: HashMap<Name, Opening>,
    sessions: Sessions,
    /// The newest session with each peer.
    current: HashMap<Name, u64>,
    asks: HashMap<u64, (Name, oneshot::Sender<Result<Packet, Rejection>>)>,
    last_ask: u64,
    /// What faults remember.
    unchecked: HashMap<Name, u64>,
    met: HashSet<PeerId>,
    first_at: HashMap<Port, PeerId>,
    last_key: HashMap<Port, Public>,
    resented: HashSet<Name>,
}

/// A node's state, and the tap that it is on.
pub(crate) struct Core {
    pub(crate) tap: Tap,
    pub(crate) pair: Pair,
    pub(crate) counters: Counters,
    pub(crate) messages: Inbox<Message<Name>>,
    pub(crate) requests: Inbox<Request<Name>>,
    pub(crate) closed: AtomicBool,
    pub(crate) closing: Notify,
    opened: Notify,
    state: Mutex<State>,
    fault: Fault,
}

impl Core {
    pub(crate) fn new(tap: Tap, fault: Fault) -> Self {
        Self {
            tap,
            pair: Pair::new(),
            counters: Counters::new("sealed"),
            messages: Inbox::new(),
            requests: Inbox::new(),
            closed: AtomicBool::new(false),
            closing: Notify::new(),
            opened: Notify::new(),
            state: Mutex::default(),
            fault,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn name(&self) -> Name {
        Name {
            id: id_of(&self.pair.public),
            at: self.tap.port(),
        }
    }

    pub(crate) fn close(&self) {
        if !self.closed.swap(true, SeqCst) {
            self.closing.notify_waiters();
            let _ = self.tap.close().now_or_never();
        }
    }

    fn put(&self, dst: Port, bytes: Vec<u8>) -> Result<()> {
        // A tap never waits.
        self.tap
            .tell(&dst, Packet::from(bytes))
            .now_or_never()
            .unwrap_or(Ok(()))
    }

    /// Sends a frame, and first opens a session if there is none.
    pub(crate) async fn send(&self, dst: &Name, frame: &Frame<'_>) -> Result<()> {
        self.unless_closed(async {
            self.session(dst).await?;
            self.answer(dst, frame);
            Ok(())
        })
        .await
    }

    /// Sends a frame, if there is a session.
    pub(crate) fn answer(&self, dst: &Name, frame: &Frame<'_>) {
        let packet = self.seal(dst, frame);
        // An error means that this node is closing.
        let _ = packet.map(|packet| self.put(dst.at, packet));
    }

    pub(crate) async fn lookup(&self, addr: &Name) -> Result<Vec<u8>> {
        if self.fault == Fault::KeyByPort
            && let Some(key) = self.state().last_key.get(&addr.at)
        {
            return Ok(key.to_vec());
        }
        self.unless_closed(async {
            let number = self.session(addr).await?;
            let mut state = self.state();
            let session = state.sessions.get(number);
            session
                .map(|session| session.peer_key.to_vec())
                .ok_or(Error::Closed)
        })
        .await
    }

    /// The session with a peer, as soon as there is one.
    async fn session(&self, dst: &Name) -> Result<u64> {
        let open = async {
            loop {
                let opened = self.opened.notified();
                {
                    let mut state = self.state();
                    let State {
                        current, sessions, ..
                    } = &mut *state;
                    if let Some(number) = current.get(dst).filter(|number| sessions.get(**number).is_some()) {
                        return *number;
                    }
                    self.hello(&mut state, *dst);
                }
                let _ = timeout(RETRY, opened).await;
            }
        };
        if self.state().resented.contains(dst) {
            return Err(Error::unreachable(dst, "it did not answer once"));
        }
        timeout(PATIENCE, open)
            .await
            .map_err(|_| Error::unreachable(dst, "it does not prove who it is"))
    }

    /// Begins a handshake, or begins again, unless that was done just now.
    fn hello(&self, state: &mut State, dst: Name) {
        let opening = state.openings.entry(dst).or_insert_with(|| {
            let (number, short) = (random(), Pair::new());
            let hello = [
                &[HELLO][..],
                &u64::to_be_bytes(number),
                &short.public,
                &self.pair.public,
            ];
            Opening {
                hello: hello.concat(),
                number,
                short,
                sent: Instant::now() - RETRY,
            }
        });
        if opening.sent.elapsed() >= RETRY {
            opening.sent = Instant::now();
            let _ = self.put(dst.at, opening.hello.clone());
        }
    }

    fn seal(&self, dst: &Name, frame: &Frame<'_>) -> Option<Vec<u8>> {
        let mut state = self.state();
        let unchecked = match (self.fault, frame) {
            (Fault::UncheckedTells, Frame::Tell(_)) | (Fault::UncheckedAsks, Frame::Request(..)) => {
                state.unchecked.get(dst).copied()
            }
            _ => None,
        };
        let number = unchecked.or_else(|| state.current.get(dst).copied())?;
        let session = state.sessions.get(number)?;
        let counter = session.next;
        session.next += 1;
        let (key, text, tell) = (&session.seal, frame.bytes(), frame.is_tell());
        let header = |kind| [&[kind][..], &session.theirs.to_be_bytes(), &counter.to_be_bytes()].concat();
        let authentic = |text: Vec<u8>, covered: usize| {
            let header = header(FAULTY);
            let tag = key.seal(counter, &[&header, &text[..covered]].concat(), b"");
            [header, text, tag].concat()
        };
        let len = text.len();
        Some(match (self.fault, tell) {
            (Fault::ReadableTells, true) | (Fault::ReadableAsks, false) => authentic(text, len),
            (Fault::OneByte, true) => authentic(text.iter().map(|byte| byte ^ 0x5a).collect(), len),
            (Fault::OneStream, true) => authentic(key.stream(0, &text), len),
            (Fault::MalleableTells, true) | (Fault::MalleableAsks, false) => {
                authentic(key.stream(counter, &text), 0)
            }
            (Fault::KeyForAll, true) => {
                let header = header(FAULTY);
                let sealed = for_all(&self.pair.public).seal(counter, &header, &text);
                [header, sealed].concat()
            }
            _ => {
                let header = header(DATA);
                let sealed = key.seal(counter, &header, &text);
                [header, sealed].concat()
            }
        })
    }

    /// Takes a packet off the wire.
    pub(crate) fn handle(self: &Arc<Self>, message: &Message<Port>) {
        self.counters.received(1);
        let (src, bytes) = (message.src, &*message.payload);
        let handled = match bytes.first() {
            Some(&HELLO) => self.handle_hello(src, bytes),
            Some(&ANSWER) => self.handle_answer(src, bytes),
            Some(&DATA | &FAULTY) => self.handle_data(src, bytes),
            Some(&UNKNOWN) => self.handle_unknown(src, bytes),
            _ => None,
        };
        if handled.is_none() {
            self.counters.dropped(Reason::Unauthenticated);
        }
    }

    fn handle_hello(&self, src: Port, hello: &[u8]) -> Option<()> {
        let (number, short, long) = split_hello(hello)?;
        let (own, own_short) = (random(), Pair::new());
        let answer = [
            &[ANSWER][..],
            &u64::to_be_bytes(number),
            &u64::to_be_bytes(own),
            &own_short.public,
            &self.pair.public,
        ]
        .concat();
        let said = Transcript {
            hello,
            answer: &answer,
        };
        let [seal, open] = keys((&self.pair, &own_short), (&long, &short), false, &said)?;
        let proof = seal.seal(PROOF, &answer, b"");
        let peer = Name {
            id: id_of(&long),
            at: src,
        };
        let session = Session {
            peer,
            peer_key: long,
            theirs: number,
            seal,
            open,
            next: 0,
            window: Window::default(),
            confirmed: false,
            refused: 0,
            dead: false,
        };
        self.state().sessions.insert(own, session);
        self.put(src, [answer, proof].concat()).ok()
    }

    fn handle_answer(&self, src: Port, packet: &[u8]) -> Option<()> {
        let (number, theirs, short, long) = split_answer(packet)?;
        let (answer, proof) = packet.split_last_chunk::<TAG>()?;
        let mut state = self.state();
        let mut openings = state.openings.iter();
        let (name, opening) = openings.find(|(_, opening)| opening.number == number)?;
        let name = *name;
        if name.at != src {
            return None;
        }
        let said = Transcript {
            hello: &opening.hello,
            answer,
        };
        let [seal, open] = keys((&self.pair, &opening.short), (&long, &short), true, &said)?;
        open.open(PROOF, answer, proof)?;
        let is_named = id_of(&long) == name.id;
        let peer = Name {
            id: id_of(&long),
            at: src,
        };
        let session = Session {
            peer,
            peer_key: long,
            theirs,
            seal,
            open,
            next: 0,
            window: Window::default(),
            confirmed: true,
            refused: 0,
            dead: false,
        };
        if !is_named {
            let renewed = state.current.contains_key(&name) && !state.met.contains(&peer.id);
            match self.fault {
                Fault::UncheckedTells | Fault::UncheckedAsks if renewed => {
                    state.sessions.insert(number, session);
                    state.unchecked.insert(name, number);
                }
                Fault::Resentful => {
                    state.resented.insert(name);
                }
                _ => {}
            }
            return None;
        }
        state.openings.remove(&name);
        state.sessions.insert(number, session);
        self.is_open(&mut state, number);
        Some(())
    }

    /// A session is confirmed from both sides.
    fn is_open(&self, state: &mut State, number: u64) {
        let Some(session) = state.sessions.get(number) else {
            return;
        };
        let (peer, key) = (session.peer, session.peer_key);
        state.current.insert(peer, number);
        state.met.insert(peer.id);
        state.first_at.entry(peer.at).or_insert(peer.id);
        state.last_key.insert(peer.at, key);
        self.opened.notify_waiters();
    }

    /// The peer does not know a session any more, or somebody says so: a new one will show.
    fn handle_unknown(&self, src: Port, packet: &[u8]) -> Option<()> {
        let number = u64::from_be_bytes(*packet.get(1..)?.as_array()?);
        let mut state = self.state();
        let mut sessions = state.sessions.iter();
        let known = sessions.find(|session| session.theirs == number && session.peer.at == src)?;
        let peer = known.peer;
        drop(sessions);
        self.hello(&mut state, peer);
        Some(())
    }

    fn handle_data(self: &Arc<Self>, src: Port, packet: &[u8]) -> Option<()> {
        let (header, sealed) = packet.split_first_chunk::<17>()?;
        let number = u64::from_be_bytes(*header[1..9].as_array()?);
        let counter = u64::from_be_bytes(*header[9..].as_array()?);
        let mut state = self.state();
        let Some(session) = state.sessions.get(number) else {
            let text = self.open_by_fault(&state, src, counter, header, sealed);
            drop(state);
            let Some((peer, text)) = text else {
                let unknown = [&[UNKNOWN][..], &number.to_be_bytes()].concat();
                return self.put(src, unknown).ok();
            };
            return self.surface(peer, Frame::parse(&text).filter(Frame::is_tell)?);
        };
        if session.dead || session.peer.at != src {
            return None;
        }
        let Some(text) = self.open(session, counter, header, sealed) else {
            session.dead = self.fault == Fault::EndedByTampering;
            return None;
        };
        let frame = Frame::parse(&text)?;
        let is_new = session.window.is_new(counter)
            || match self.fault {
                Fault::RepeatedTells => frame.is_tell(),
                Fault::RepeatedAsks => matches!(frame, Frame::Request(..)),
                Fault::ForgetfulWindow => session.window.is_past(counter),
                _ => false,
            };
        if !is_new {
            session.refused += 1;
            session.dead = self.fault == Fault::EndedByReplay && session.refused >= ENOUGH;
            self.counters.dropped(Reason::Duplicate);
            return Some(());
        }
        session.window.add(counter);
        let mut peer = session.peer;
        if !session.confirmed {
            state.sessions.confirm(number);
            self.is_open(&mut state, number);
        }
        if self.fault == Fault::NamedByPort {
            peer.id = *state.first_at.get(&src)?;
        }
        drop(state);
        self.surface(peer, frame)
    }

    fn open(&self, session: &Session, counter: u64, header: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let key = &session.open;
        if header[0] == DATA {
            return key.open(counter, header, sealed);
        }
        let (text, tag) = sealed.split_last_chunk::<TAG>()?;
        let authentic = |covered: usize| {
            let header = [header, &text[..covered]].concat();
            key.open(counter, &header, tag).map(|_| text.to_vec())
        };
        match self.fault {
            Fault::ReadableTells | Fault::ReadableAsks => authentic(text.len()),
            Fault::OneByte => Some(authentic(text.len())?.iter().map(|byte| byte ^ 0x5a).collect()),
            Fault::OneStream => Some(key.stream(0, &authentic(text.len())?)),
            Fault::MalleableTells | Fault::MalleableAsks => Some(key.stream(counter, &authentic(0)?)),
            Fault::KeyForAll => for_all(&session.peer_key).open(counter, header, sealed),
            _ => None,
        }
    }

    /// Opens a packet of no session, as only a faulty node can.
    fn open_by_fault(
        &self,
        state: &State,
        src: Port,
        counter: u64,
        header: &[u8],
        sealed: &[u8],
    ) -> Option<(Name, Vec<u8>)> {
        let mut with = state
            .sessions
            .iter()
            .filter(|session| session.confirmed && session.peer.at == src);
        with.find_map(|session| {
            let text = match self.fault {
                Fault::KeyForAll => for_all(&session.peer_key).open(counter, header, sealed),
                Fault::Reflected => session.seal.open(counter, header, sealed),
                _ => None,
            };
            Some((session.peer, text?))
        })
    }

    fn surface(self: &Arc<Self>, peer: Name, frame: Frame<'_>) -> Option<()> {
        match frame {
            Frame::Tell(text) => {
                let message = Message {
                    src: peer,
                    dst: self.name(),
                    payload: Packet::from(text),
                };
                if self.messages.put.try_send(message).is_err() {
                    self.counters.dropped(Reason::QueueFull);
                }
            }
            Frame::Request(number, text) => {
                let back = Back {
                    core: Arc::downgrade(self),
                    asker: peer,
                    number,
                };
                let request = Request::new(peer, self.name(), Packet::from(text), back);
                if let Err(full) = self.requests.put.try_send(request) {
                    full.into_inner().reject(Rejection::BUSY);
                }
            }
            Frame::Response(number, text) => self.answered(peer, number, Ok(Packet::from(text))),
            Frame::Rejection(number, why) => self.answered(peer, number, Err(why)),
        }
        Some(())
    }

    fn answered(&self, peer: Name, number: u64, outcome: Result<Packet, Rejection>) {
        let mut state = self.state();
        // With a fault, whoever has the session may answer.
        let may = |asked: &Name| *asked == peer || self.fault == Fault::UncheckedAsks;
        if state.asks.get(&number).is_some_and(|(asked, _)| may(asked))
            && let Some((_, asker)) = state.asks.remove(&number)
        {
            let _ = asker.send(outcome);
        }
    }

    pub(crate) fn begin_ask(
        &self,
        dst: &Name,
        asker: oneshot::Sender<Result<Packet, Rejection>>,
    ) -> Result<u64> {
        let mut state = self.state();
        if state.asks.len() >= ASKS {
            return Err(Error::Limit {
                what: "asks under way",
                limit: ASKS,
            });
        }
        state.last_ask += 1;
        let number = state.last_ask;
        state.asks.insert(number, (*dst, asker));
        Ok(number)
    }

    pub(crate) fn end_ask(&self, number: u64) {
        self.state().asks.remove(&number);
    }
}

/// A key that whoever knows the sender's public key can have.
fn for_all(sender: &Public) -> AeadKey {
    AeadKey::new(hash(&[b"for all", sender]))
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).expect("randomness");
    u64::from_be_bytes(bytes)
}

/// The number, the short-lived key and the long-lived key of a hello.
fn split_hello(packet: &[u8]) -> Option<(u64, Public, Public)> {
    let (_, rest) = packet.split_first()?;
    let (number, rest) = rest.split_first_chunk()?;
    let (short, long) = rest.split_first_chunk()?;
    Some((u64::from_be_bytes(*number), *short, *long.as_array()?))
}

/// The initiator's number, the responder's number, and its keys.
fn split_answer(packet: &[u8]) -> Option<(u64, u64, Public, Public)> {
    let (_, rest) = packet.split_first()?;
    let (number, rest) = rest.split_first_chunk()?;
    let (theirs, rest) = rest.split_first_chunk()?;
    let (short, rest) = rest.split_first_chunk()?;
    let (long, proof) = rest.split_first_chunk()?;
    let (number, theirs) = (u64::from_be_bytes(*number), u64::from_be_bytes(*theirs));
    (proof.len() == TAG).then_some((number, theirs, *short, *long))
}
