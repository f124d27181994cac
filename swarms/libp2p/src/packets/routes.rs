//! The routes of packets: for each peer a connection, and the stream on which the peer offers its number.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use p2p::PeerId;
use parking_lot::Mutex;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::sync::OnceCell;

use super::BUFFER;
use crate::stream::Stream;

/// What an empty buffer of a connection has room for, at least.
const EMPTY: usize = BUFFER - 64;

/// The route of packets to a peer.
pub(super) struct Route {
    /// The number that the peer gives the protocol.
    pub(super) number: u64,
    pub(super) connection: quinn::Connection,
    /// Open as long as the peer takes packets.
    stream: Mutex<Stream>,
}

impl Route {
    pub(super) fn new(number: u64, connection: quinn::Connection, stream: Stream) -> Self {
        Self {
            number,
            connection,
            stream: Mutex::new(stream),
        }
    }

    /// Returns whether the peer still takes packets.
    pub(super) fn is_open(&self) -> bool {
        let mut byte = [0; 1];
        let mut buf = ReadBuf::new(&mut byte);
        let mut cx = Context::from_waker(Waker::noop());
        // The peer writes nothing more: what is ready is the end, a failure, or a violation.
        let read = Pin::new(&mut *self.stream.lock()).poll_read(&mut cx, &mut buf);
        read.is_pending() && self.connection.close_reason().is_none()
    }
}

/// The route to a peer, once it is open. Callers at the same time open it once.
type Opening = Arc<OnceCell<Arc<Route>>>;

/// The routes to all peers. Routes that have ended are removed when a new one is opened, so that there are no more than
/// connections.
#[derive(Default)]
pub(super) struct Routes(Mutex<HashMap<PeerId, Opening>>);

impl Routes {
    /// Returns the open route to a peer.
    pub(super) fn find(&self, peer: &PeerId) -> Option<Arc<Route>> {
        let opening = self.0.lock().get(peer).cloned()?;
        opening.get().filter(|route| route.is_open()).cloned()
    }

    /// Returns the route to a peer: an open one, one that a caller is opening, or a new one.
    pub(super) fn opening(&self, peer: PeerId) -> Opening {
        // Without a route, it is of use while a caller opens it.
        let is_of_use = |opening: &Opening| match opening.get() {
            Some(route) => route.is_open(),
            None => Arc::strong_count(opening) > 1,
        };
        let mut routes = self.0.lock();
        if let Some(opening) = routes.get(&peer).filter(|opening| is_of_use(opening)) {
            return opening.clone();
        }
        routes.retain(|_, opening| is_of_use(opening));
        let opening = Opening::default();
        routes.insert(peer, opening.clone());
        opening
    }

    /// Returns whether all packets have left.
    pub(super) fn have_sent(&self) -> bool {
        let routes = self.0.lock();
        let open = routes.values().filter_map(|opening| opening.get());
        let mut open = open.filter(|route| route.connection.close_reason().is_none());
        open.all(|route| route.connection.datagram_send_buffer_space() >= EMPTY)
    }

    /// Ends all routes.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }
}
