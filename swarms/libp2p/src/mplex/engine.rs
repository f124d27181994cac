//! The streams of one connection, without I/O: bytes of the peer go in, and bytes for the peer come out.

use std::collections::{HashMap, VecDeque};
use std::task::Waker;

use bytes::{Buf as _, BytesMut};

use super::wire::{Decoder, Kind, MplexError, Piece, StreamId, write_head};

/// Received bytes of all streams together that wait for readers; beyond them nothing is read from the connection.
pub(super) const MAX_RECEIVED: usize = 1 << 20;

/// Bytes that wait to be sent; beyond them writers wait.
pub(super) const MAX_SENT: usize = 64 << 10;

/// Bytes that wait to be sent when the peer takes none, but makes this host answer.
const MAX_ANSWERS: usize = MAX_SENT + (128 << 10);

/// Streams that the peer opened; further ones are reset.
pub(super) const MAX_INBOUND: usize = 256;

/// Data of one frame in bytes.
const FRAME: usize = 8 << 10;

/// One end of a stream.
#[derive(Debug, Default)]
struct Entry {
    received: BytesMut,
    /// The peer sends no more.
    is_read_closed: bool,
    /// This host sends no more.
    is_write_closed: bool,
    is_reset: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// What a stream has for its reader.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// As many bytes were copied.
    Bytes(usize),
    /// The peer has ended its half.
    End,
    /// The stream was reset, or the connection has ended.
    Reset,
    /// Nothing yet.
    Nothing,
}

/// What became of written bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Write {
    /// As many bytes were taken.
    Taken(usize),
    /// The stream was reset, or the connection has ended.
    Reset,
    /// The writing half was ended before.
    Closed,
    /// There is no room yet.
    Full,
}

/// Wakes a task that waits, if there is one.
pub(super) fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// The streams of one connection.
#[derive(Debug, Default)]
pub(super) struct Engine {
    streams: HashMap<StreamId, Entry>,
    decoder: Decoder,
    /// The stream that the data of the current frame is for.
    current: Option<StreamId>,
    /// Number of the next stream of this host.
    next: u64,
    inbound: usize,
    opened: VecDeque<StreamId>,
    out: BytesMut,
    received: usize,
    is_ended: bool,
}

impl Engine {
    /// Processes bytes of the peer.
    ///
    /// # Errors
    /// The reason for which the connection must end.
    pub(super) fn handle_bytes(&mut self, mut bytes: &[u8]) -> Result<(), MplexError> {
        while let Some(piece) = self.decoder.next(&mut bytes)? {
            match piece {
                Piece::Head(id, kind) => self.handle_head(id, kind)?,
                Piece::Data(data) => {
                    let entry = self.current.and_then(|id| self.streams.get_mut(&id));
                    // Data for a stream that is gone is dropped.
                    if let Some(entry) = entry.filter(|entry| !entry.is_read_closed && !entry.is_reset) {
                        entry.received.extend_from_slice(data);
                        self.received += data.len();
                        wake(&mut entry.reader);
                    }
                }
            }
        }
        Ok(())
    }

    fn handle_head(&mut self, id: StreamId, kind: Kind) -> Result<(), MplexError> {
        self.current = (kind == Kind::Data).then_some(id);
        match kind {
            Kind::Data => {}
            Kind::Open if self.streams.contains_key(&id) => return Err(MplexError::Twice(id.number)),
            Kind::Open if self.inbound >= MAX_INBOUND => {
                if self.out.len() > MAX_ANSWERS {
                    return Err(MplexError::Flood);
                }
                self.send(id, Kind::Reset, &[]);
            }
            Kind::Open => {
                self.streams.insert(id, Entry::default());
                self.opened.push_back(id);
                self.inbound += 1;
            }
            Kind::Close => {
                // After a reset, what was sent before the end is not complete: the peer may have ended its half before it
                // learnt of the reset.
                if let Some(entry) = self.streams.get_mut(&id).filter(|entry| !entry.is_reset) {
                    entry.is_read_closed = true;
                    wake(&mut entry.reader);
                }
            }
            Kind::Reset => self.mark_reset(id),
        }
        Ok(())
    }

    fn mark_reset(&mut self, id: StreamId) {
        if let Some(entry) = self.streams.get_mut(&id) {
            entry.is_reset = true;
            // What ended before the reset is complete.
            if !entry.is_read_closed {
                self.received -= entry.received.len();
                entry.received = BytesMut::new();
            }
            wake(&mut entry.reader);
            wake(&mut entry.writer);
        }
    }

    fn send(&mut self, id: StreamId, kind: Kind, data: &[u8]) {
        write_head(&mut self.out, id, kind, data.len());
        self.out.extend_from_slice(data);
    }

    /// Returns whether bytes of the peer have room.
    pub(super) fn has_room(&self) -> bool {
        self.received < MAX_RECEIVED
    }

    /// Resets the stream whose reader is furthest behind.
    pub(super) fn reset_slowest(&mut self) {
        let slowest = self.streams.iter().max_by_key(|(_, entry)| entry.received.len());
        if let Some(id) = slowest.map(|(id, _)| *id) {
            self.send(id, Kind::Reset, &[]);
            if let Some(entry) = self.streams.get_mut(&id) {
                entry.is_read_closed = false;
            }
            self.mark_reset(id);
        }
    }

    /// Takes the bytes for the peer.
    pub(super) fn take_out(&mut self) -> BytesMut {
        if self.out.len() >= MAX_SENT {
            for entry in self.streams.values_mut() {
                wake(&mut entry.writer);
            }
        }
        std::mem::take(&mut self.out)
    }

    /// Takes the next stream that the peer opened.
    pub(super) fn accept(&mut self) -> Option<StreamId> {
        self.opened.pop_front()
    }

    /// Opens a stream, unless the connection has ended.
    pub(super) fn open(&mut self) -> Option<StreamId> {
        if self.is_ended {
            return None;
        }
        let id = StreamId {
            number: self.next,
            is_ours: true,
        };
        self.next += 1;
        self.send(id, Kind::Open, id.number.to_string().as_bytes());
        self.streams.insert(id, Entry::default());
        Some(id)
    }

    /// Copies received bytes of a stream, and keeps the waker if there is nothing.
    pub(super) fn read(&mut self, id: StreamId, buf: &mut [u8], waker: &Waker) -> Read {
        let Some(entry) = self.streams.get_mut(&id) else {
            return Read::Reset;
        };
        if !entry.received.is_empty() {
            let count = entry.received.len().min(buf.len());
            entry.received.copy_to_slice(&mut buf[..count]);
            if entry.received.is_empty() {
                entry.received = BytesMut::new();
            }
            self.received -= count;
            return Read::Bytes(count);
        }
        if entry.is_read_closed {
            return Read::End;
        }
        if entry.is_reset || self.is_ended {
            return Read::Reset;
        }
        entry.reader = Some(waker.clone());
        Read::Nothing
    }

    /// Takes bytes for a stream, and keeps the waker if there is no room.
    pub(super) fn write(&mut self, id: StreamId, data: &[u8], waker: &Waker) -> Write {
        let Some(entry) = self.streams.get_mut(&id) else {
            return Write::Reset;
        };
        if entry.is_write_closed {
            return Write::Closed;
        }
        if entry.is_reset || self.is_ended {
            return Write::Reset;
        }
        if self.out.len() >= MAX_SENT {
            entry.writer = Some(waker.clone());
            return Write::Full;
        }
        let data = data.get(..FRAME).unwrap_or(data);
        if !data.is_empty() {
            self.send(id, Kind::Data, data);
        }
        Write::Taken(data.len())
    }

    /// Ends the writing half of a stream.
    pub(super) fn close_write(&mut self, id: StreamId) {
        if let Some(entry) = self.streams.get_mut(&id)
            && !entry.is_write_closed
        {
            entry.is_write_closed = true;
            if !entry.is_reset {
                self.send(id, Kind::Close, &[]);
            }
        }
    }

    /// Forgets a stream; resets it unless this host has ended its half. A reset after that would be one of both halves, and
    /// some peers would lose what they have not read. What the peer still sends is dropped.
    pub(super) fn remove(&mut self, id: StreamId) {
        if let Some(entry) = self.streams.remove(&id) {
            self.received -= entry.received.len();
            self.inbound -= usize::from(!id.is_ours);
            if !entry.is_write_closed && !entry.is_reset && !self.is_ended {
                self.send(id, Kind::Reset, &[]);
            }
        }
    }

    /// Ends all streams: what was received can still be read.
    pub(super) fn end(&mut self) {
        self.is_ended = true;
        for entry in self.streams.values_mut() {
            wake(&mut entry.reader);
            wake(&mut entry.writer);
        }
    }

    /// Returns whether the connection has ended.
    pub(super) fn is_ended(&self) -> bool {
        self.is_ended
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn theirs(number: u64) -> StreamId {
        StreamId {
            number,
            is_ours: false,
        }
    }

    /// Returns a frame of the peer.
    fn frame(id: StreamId, kind: Kind, data: &[u8]) -> Vec<u8> {
        let (mut bytes, is_ours) = (Vec::new(), !id.is_ours);
        write_head(&mut bytes, StreamId { is_ours, ..id }, kind, data.len());
        bytes.extend_from_slice(data);
        bytes
    }

    fn open(engine: &mut Engine, number: u64) -> Result<(), MplexError> {
        engine.handle_bytes(&frame(theirs(number), Kind::Open, b"name"))
    }

    #[test]
    fn a_stream_ends_by_halves_and_a_reset_ends_both() {
        let (mut engine, waker, mut buf) = (Engine::default(), Waker::noop(), [0; 8]);
        open(&mut engine, 3).unwrap();
        let id = engine.accept().unwrap();
        assert_eq!(engine.read(id, &mut buf, waker), Read::Nothing);
        engine.handle_bytes(&frame(id, Kind::Data, b"hello")).unwrap();
        engine.handle_bytes(&frame(id, Kind::Close, b"")).unwrap();
        assert_eq!(engine.read(id, &mut buf[..3], waker), Read::Bytes(3));
        assert_eq!(engine.read(id, &mut buf, waker), Read::Bytes(2));
        assert_eq!(engine.read(id, &mut buf, waker), Read::End);
        assert_eq!(engine.write(id, b"hi", waker), Write::Taken(2));
        engine.close_write(id);
        assert_eq!(engine.write(id, b"hi", waker), Write::Closed);
        assert_eq!(&engine.take_out()[..], b"\x19\x02hi\x1b\x00");
        // This half has ended, so nothing more is said of it.
        engine.remove(id);
        assert!(engine.take_out().is_empty());

        // A reset takes what is not complete.
        for (is_closed, last) in [(true, Read::Bytes(2)), (false, Read::Reset)] {
            open(&mut engine, 4).unwrap();
            let id = engine.accept().unwrap();
            engine.handle_bytes(&frame(id, Kind::Data, b"hi")).unwrap();
            if is_closed {
                engine.handle_bytes(&frame(id, Kind::Close, b"")).unwrap();
            }
            engine.handle_bytes(&frame(id, Kind::Reset, b"")).unwrap();
            assert_eq!(engine.read(id, &mut buf, waker), last);
            engine.remove(id);
            assert!(engine.take_out().is_empty() && engine.received == 0);
        }

        let id = engine.open().unwrap();
        engine.handle_bytes(&frame(id, Kind::Reset, b"")).unwrap();
        assert_eq!(engine.read(id, &mut buf, waker), Read::Reset);
        assert_eq!(engine.write(id, b"hi", waker), Write::Reset);
        let id = engine.open().unwrap();
        engine.take_out();
        engine.remove(id);
        assert_eq!(&engine.take_out()[..], [1 << 3 | 6, 0]);
    }

    #[test]
    fn received_bytes_are_bounded_and_the_slowest_stream_makes_room() {
        let mut engine = Engine::default();
        let (slow, other) = (theirs(0), theirs(1));
        open(&mut engine, 0).unwrap();
        open(&mut engine, 1).unwrap();
        engine.handle_bytes(&frame(other, Kind::Data, b"x")).unwrap();
        while engine.has_room() {
            engine
                .handle_bytes(&frame(slow, Kind::Data, &[0; 10_000]))
                .unwrap();
        }
        assert!(engine.received < MAX_RECEIVED + 10_000);
        engine.reset_slowest();
        assert!(engine.has_room());
        let (waker, mut buf) = (Waker::noop(), [0; 8]);
        assert_eq!(engine.read(slow, &mut buf, waker), Read::Reset);
        assert_eq!(engine.read(other, &mut buf, waker), Read::Bytes(1));
        // What the peer sends on it before it knows is dropped, and its end is no end of what was read.
        engine
            .handle_bytes(&frame(slow, Kind::Data, &[0; 10_000]))
            .unwrap();
        engine.handle_bytes(&frame(slow, Kind::Close, b"")).unwrap();
        assert_eq!(engine.read(slow, &mut buf, waker), Read::Reset);
        assert_eq!(engine.received, 0);
    }

    #[test]
    fn streams_and_answers_are_bounded() {
        let mut engine = Engine::default();
        for number in 0..MAX_INBOUND as u64 {
            open(&mut engine, number).unwrap();
        }
        open(&mut engine, 1000).unwrap();
        assert_eq!(engine.streams.len(), MAX_INBOUND);
        assert!(!engine.take_out().is_empty());
        // A stream that is gone makes room for another one.
        engine.remove(theirs(0));
        open(&mut engine, 1001).unwrap();
        assert_eq!(engine.streams.len(), MAX_INBOUND);
        let flood = (2000..)
            .map(|number| open(&mut engine, number))
            .find_map(Result::err);
        assert_eq!(flood, Some(MplexError::Flood));
        assert!(engine.out.len() < MAX_ANSWERS + 32);
    }

    #[test]
    fn a_number_in_use_is_refused() {
        let mut engine = Engine::default();
        open(&mut engine, 0).unwrap();
        assert_eq!(open(&mut engine, 0), Err(MplexError::Twice(0)));
    }

    #[test]
    fn a_writer_waits_until_bytes_were_taken() {
        let (mut engine, waker) = (Engine::default(), Waker::noop());
        let id = engine.open().unwrap();
        while engine.write(id, &[0; FRAME + 1], waker) == Write::Taken(FRAME) {}
        assert_eq!(engine.write(id, b"x", waker), Write::Full);
        assert!(engine.take_out().len() < MAX_SENT + FRAME + 16);
        assert_eq!(engine.write(id, b"x", waker), Write::Taken(1));
        engine.end();
        assert_eq!(engine.write(id, b"x", waker), Write::Reset);
        assert_eq!(engine.open(), None);
    }

    proptest! {
        #[test]
        fn what_a_peer_sends_never_panics_and_is_counted(
            frames in prop::collection::vec((0..4_u64, any::<bool>(), 0..5_u8, 0..40_usize), 0..60),
        ) {
            let (mut engine, waker, mut buf) = (Engine::default(), Waker::noop(), [0; 16]);
            engine.open();
            for (number, is_ours, kind, len) in frames {
                let id = StreamId { number, is_ours };
                let Some(kind) = [Kind::Open, Kind::Data, Kind::Close, Kind::Reset].get(usize::from(kind)).copied() else {
                    // This host takes a turn.
                    engine.read(id, &mut buf, waker);
                    engine.write(id, &buf, waker);
                    match len % 4 {
                        0 => engine.remove(id),
                        1 => engine.close_write(id),
                        2 => engine.reset_slowest(),
                        _ => drop(engine.take_out()),
                    }
                    continue;
                };
                if engine.handle_bytes(&frame(id, kind, &vec![0; len])).is_err() {
                    break;
                }
                let waiting: usize = engine.streams.values().map(|entry| entry.received.len()).sum();
                let theirs = engine.streams.keys().filter(|id| !id.is_ours).count();
                prop_assert_eq!((engine.received, engine.inbound), (waiting, theirs));
            }
        }
    }
}
