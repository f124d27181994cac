//! What a node does with packets that come off the wire.

use std::sync::Arc;

use p2p::{DropReason, Message, Packet, Rejection, Request, Result};
use p2p_swarmtest::wire::Port;

use super::core::{Core, State, random};
use super::fault::Fault;
use super::frame::{ANSWER, DATA, FAULTY, Frame, HELLO, UNKNOWN, split_answer, split_hello};
use super::session::{PROOF, Pair, Session, TAG, Transcript, Window, hash, id_of, keys};
use super::{Back, Name};

impl Core {
    /// Takes a packet off the wire.
    pub(crate) fn handle(self: &Arc<Self>, message: &Message<Port>) {
        self.counters.add_received(1);
        let (src, bytes) = (message.src, &*message.payload);
        assert!(
            self.fault != Fault::PanicsOnShort || bytes.len() != 1,
            "a packet of one byte"
        );
        let known = bytes.first().is_some_and(|kind| *kind <= FAULTY);
        if self.fault == Fault::Shuns {
            let mut state = self.state();
            let count = state.senseless.entry(src).or_default();
            *count += usize::from(!known);
            if *count > 40 {
                return;
            }
        }
        let handled = match bytes.first() {
            Some(&HELLO) => self.handle_hello(src, bytes),
            Some(&ANSWER) => self.handle_answer(src, bytes),
            Some(&DATA | &FAULTY) => self.handle_data(src, bytes),
            Some(&UNKNOWN) => self.handle_unknown(src, bytes),
            _ => None,
        };
        let uncounted = match self.fault {
            Fault::Uncounted => !known,
            Fault::UncountedEmpty => bytes.is_empty(),
            _ => false,
        };
        if handled.is_none() && !uncounted {
            self.counters.add_dropped(DropReason::Unauthenticated);
        }
    }

    fn handle_hello(&self, src: Port, hello: &[u8]) -> Option<()> {
        let (number, short, long) = split_hello(hello)?;
        let (own, own_short) = if self.fault.derives() {
            let seed = hash(&[b"derived", &self.pair.public, hello]);
            let own = u64::from_be_bytes(*seed.first_chunk()?);
            (own, Pair::from_seed(&seed))
        } else {
            (random(), Pair::new())
        };
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
        if self.state().sessions.get(own).is_some() {
            return self.put(src, [answer, proof].concat()).ok();
        }
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
            let wrong = state.wrong_answers.entry(name).or_default();
            *wrong += 1;
            let is_late = *wrong > 6;
            match self.fault {
                Fault::UncheckedTells | Fault::UncheckedAsks if renewed => {
                    state.sessions.insert(number, session);
                    state.unchecked.insert(name, number);
                }
                Fault::UncheckedTellsLate | Fault::UncheckedAsksLate if renewed && is_late => {
                    state.sessions.insert(number, session);
                    state.unchecked.insert(name, number);
                }
                Fault::Resentful => {
                    state.resented.insert(name);
                }
                Fault::ResentfulLate if is_late => {
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

    /// The peer does not know a session any more, or a packet says so: a new one will show.
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
        // An attacker that put the initiator's hello at another address may have given it the right answer all the same:
        // then each side has the session at an address where the other does not.
        let known = state
            .sessions
            .get(number)
            .filter(|session| session.peer.at == src);
        let Some(session) = known else {
            let text = self.fault.open_any(&state.sessions, src, counter, header, sealed);
            drop(state);
            let Some((peer, text)) = text else {
                let unknown = [&[UNKNOWN][..], &number.to_be_bytes()].concat();
                return self.put(src, unknown).ok();
            };
            self.surface(peer, &Frame::parse(&text).filter(Frame::is_tell)?);
            return Some(());
        };
        if session.dead {
            return None;
        }
        let Some(text) = self.fault.open(session, counter, header, sealed) else {
            session.refused += 1;
            session.dead = self.fault.ends_by_tampering(session.refused);
            return None;
        };
        if self.again && self.fault == Fault::DerivedLate && counter < 30 {
            return None;
        }
        let frame = Frame::parse(&text)?;
        let is_past = session.window.is_past(counter);
        let is_new = session.window.is_new(counter) || self.fault.repeats(&frame, counter, is_past);
        if !is_new {
            session.refused += 1;
            session.dead = self.fault.ends_by_replay(session.refused);
            self.counters.add_dropped(DropReason::Duplicate);
            return Some(());
        }
        if counter % self.fault.forgets_after() == self.fault.forgets_after() - 1 {
            session.window = Window::default();
        }
        session.window.add(counter);
        let mut peer = session.peer;
        if !session.confirmed {
            state.sessions.confirm(number);
            self.is_open(&mut state, number);
        }
        let by_port = self.fault == Fault::NamedByPortAtTimes && counter % 10 == 7;
        if by_port || self.fault == Fault::NamedByPort {
            peer.id = *state.first_at.get(&src)?;
        }
        drop(state);
        self.surface(peer, &frame);
        Some(())
    }

    fn surface(self: &Arc<Self>, peer: Name, frame: &Frame<'_>) {
        match *frame {
            Frame::Tell(text) => {
                let message = Message {
                    src: peer,
                    dst: self.name(),
                    payload: Packet::from(text),
                };
                if self.messages.put.try_send(message).is_err() {
                    self.counters.add_dropped(DropReason::QueueFull);
                }
            }
            Frame::Request(number, text) => {
                let back = Back {
                    core: Arc::downgrade(self),
                    asker: peer,
                    number,
                };
                let message = Message {
                    src: peer,
                    dst: self.name(),
                    payload: Packet::from(text),
                };
                let request = Request::new(message, back);
                if let Err(full) = self.requests.put.try_send(request) {
                    full.into_inner().reject(Rejection::BUSY);
                }
            }
            Frame::Response(number, text) => self.answered(peer, number, Ok(Packet::from(text))),
            Frame::Rejection(number, why) => self.answered(peer, number, Err(why)),
        }
    }

    fn answered(&self, peer: Name, number: u64, outcome: Result<Packet, Rejection>) {
        let mut state = self.state();
        // With a fault, any peer that has the session may answer.
        let unchecked = matches!(self.fault, Fault::UncheckedAsks | Fault::UncheckedAsksLate);
        let may = |asked: &Name| *asked == peer || unchecked;
        if state.asks.get(&number).is_some_and(|(asked, _)| may(asked))
            && let Some((_, asker)) = state.asks.remove(&number)
        {
            let _ = asker.send(outcome);
        }
    }
}
