//! A UDP socket that can be closed while connections still refer to it.
//!
//! Handles of quinn (a connection, a stream) keep the endpoint's socket alive, and a pending `tell` or `ask`
//! that is neither polled nor dropped keeps such a handle. So the socket is taken out of its shared slot when
//! the node has ended, which frees the port in any case.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker, ready};

use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard};
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::mtu::MAX_UDP_DATAGRAM;

/// Maximum length of the datagrams that the system receives as one (GRO) in bytes.
const MAX_BATCH: usize = 1 << 16;

/// A UDP socket of a QUIC endpoint that can be closed at any time.
///
/// # Limits
/// It holds one waker for each connection that waits until the socket is writable.
pub struct Port {
    /// Taken by [`close`](Self::close). Locked only for the duration of a socket call.
    socket: RwLock<Option<Socket>>,
    local: SocketAddr,
    may_fragment: bool,
    send_segments: usize,
    receive_segments: usize,
    writers: Arc<Writers>,
}

struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
}

impl Port {
    /// Wraps a socket. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Returns the error of the operating system.
    pub fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        let local = socket.local_addr()?;
        let state = UdpSocketState::new((&socket).into())?;
        let io = UdpSocket::from_std(socket)?;
        Ok(Self {
            local,
            may_fragment: state.may_fragment(),
            send_segments: state.max_gso_segments(),
            receive_segments: state.gro_segments(),
            socket: RwLock::new(Some(Socket { io, state })),
            writers: Arc::default(),
        })
    }

    /// Frees the port. Later sends are discarded, and nothing is received.
    pub fn close(&self) {
        let socket = self.socket.write().take();
        drop(socket);
        self.writers.wake_all();
    }

    /// Returns the address that the socket is bound to.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    fn socket(&self) -> RwLockReadGuard<'_, Option<Socket>> {
        self.socket.read()
    }
}

impl AsyncUdpSocket for Port {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writer(self))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let socket = self.socket();
        let Some(Socket { io, state }) = &*socket else {
            return Ok(());
        };
        io.try_io(Interest::WRITABLE, || state.send(io.into(), transmit))
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let socket = self.socket();
        let Some(Socket { io, state }) = &*socket else {
            return Poll::Pending;
        };
        loop {
            ready!(io.poll_recv_ready(cx))?;
            if let Ok(read) = io.try_io(Interest::READABLE, || state.recv(io.into(), bufs, metas)) {
                return Poll::Ready(Ok(read));
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn max_transmit_segments(&self) -> usize {
        self.send_segments
    }

    /// quinn allocates room for as many datagrams of the maximum length, where those of one batch are shorter.
    fn max_receive_segments(&self) -> usize {
        self.receive_segments
            .min(MAX_BATCH.div_ceil(usize::from(MAX_UDP_DATAGRAM)))
    }

    fn may_fragment(&self) -> bool {
        self.may_fragment
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port")
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}

/// Connections that wait until the socket is writable. A tokio socket stores one waker; this is that waker,
/// and it wakes all of them.
#[derive(Default)]
struct Writers(Mutex<Vec<Waker>>);

impl Writers {
    fn lock(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.0.lock()
    }

    fn add(&self, waker: &Waker) {
        let mut waiting = self.lock();
        if !waiting.iter().any(|known| known.will_wake(waker)) {
            waiting.push(waker.clone());
        }
    }

    fn wake_all(&self) {
        let waiting = std::mem::take(&mut *self.lock());
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl Wake for Writers {
    fn wake(self: Arc<Self>) {
        self.wake_all();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_all();
    }
}

struct Writer(Arc<Port>);

impl UdpPoller for Writer {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let port = &self.0;
        let socket = port.socket();
        let Some(Socket { io, .. }) = &*socket else {
            return Poll::Ready(Ok(()));
        };
        let waker = Waker::from(port.writers.clone());
        let mut all = Context::from_waker(&waker);
        if let Poll::Ready(writable) = io.poll_send_ready(&mut all) {
            return Poll::Ready(writable);
        }
        port.writers.add(cx.waker());
        // It may have become writable before this connection was registered.
        io.poll_send_ready(&mut all)
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writer")
    }
}
