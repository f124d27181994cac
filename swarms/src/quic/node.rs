//! State shared by the handles and tasks of one node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use p2p::{Addr, Counters, Error, Message, PeerId, Request, Result};
use parking_lot::{Mutex, MutexGuard};
use quinn::{ConnectionError, Endpoint};
use rustls::crypto::CryptoProvider;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::QuicConfig;
use super::addr_mapping::{AddrMapping, Pinned};
use super::budget::{Budget, Total};
use super::dials::Dials;
use super::sent::Unacknowledged;
use super::serve::accept_streams;
use super::session::{Asking, Heard, Replies, Session, Usage};
use super::sessions::Sessions;
use super::stream::{LENGTH, WAITING};
use super::task_set::TaskSet;
use super::tls::{self, Identity};
use super::transport::Transport;
use crate::KeyAddr;
use crate::allowed_peers::Permits as _;
use crate::driver::Mailbox;

pub(super) struct Node<A: Addr> {
    pub(super) identity: Identity,
    pub(super) config: Arc<QuicConfig>,
    pub(super) crypto: Arc<CryptoProvider>,
    pub(super) transport_config: Arc<quinn::TransportConfig>,
    pub(super) mapping: Arc<dyn AddrMapping<A>>,
    /// `None` once the node is closed and its peers were notified: its port is free then.
    endpoint: Mutex<Option<Endpoint>>,
    pub(super) runtime: Handle,
    sessions: Mutex<Sessions<A>>,
    turn: Arc<AtomicU64>,
    pub(super) tasks: TaskSet,
    pub(super) messages: Mailbox<Message<KeyAddr<A>>>,
    pub(super) requests: Mailbox<Request<KeyAddr<A>>>,
    pub(super) budget: Arc<Total>,
    pub(super) tells: Arc<Counters>,
    pub(super) asks: Counters,
    pub(super) handshakes: Arc<Counters>,
    pub(super) dials: Arc<Dials>,
    /// Tasks that send what waited for a dial.
    pub(super) sending: Arc<watch::Sender<usize>>,
    /// Sessions that are closing in the background.
    pub(super) lingering: Arc<AtomicUsize>,
    pub(super) closed: AtomicBool,
    /// Has no permits: acquiring one waits until the node is closed.
    pub(super) closing: Semaphore,
    /// The same for the end of the remaining work of a closed node.
    pub(super) ended: Arc<Semaphore>,
    /// Whether the swarm below closes with this node: `close` was called, not only the node dropped.
    pub(super) closes_below: AtomicBool,
}

impl<A: Addr> Node<A> {
    /// Starts a node and its tasks.
    pub(super) fn start(
        transport: &Transport<A>,
        identity: Identity,
        config: QuicConfig,
        crypto: CryptoProvider,
    ) -> Result<Arc<Self>> {
        config.check()?;
        let runtime = super::transport::runtime()?;
        let (config, crypto) = (Arc::new(config), Arc::new(crypto));
        let transport_config = Arc::new(transport.transport_config(&config)?);
        let check = tls::Check::any(config.clone());
        let tls = tls::server(&identity, check, crypto.clone())?;
        let handshakes = Arc::new(Counters::new("quic-handshake"));
        let endpoint = transport.endpoint(&identity, tls, &config, transport_config.clone(), &handshakes)?;
        let node = Arc::new(Self {
            identity,
            crypto,
            transport_config,
            mapping: transport.mapping.clone(),
            endpoint: Mutex::new(Some(endpoint.clone())),
            sessions: Mutex::default(),
            turn: Arc::default(),
            tasks: TaskSet::start()?,
            messages: Mailbox::new(config.messages),
            requests: Mailbox::new(config.asks),
            budget: Arc::new(Total::new(config.reassembly, config.mtu + LENGTH + WAITING)),
            tells: Arc::new(Counters::new("quic")),
            asks: Counters::new("quic-ask"),
            handshakes,
            dials: Arc::default(),
            sending: Arc::new(watch::Sender::new(0)),
            lingering: Arc::default(),
            closed: AtomicBool::new(false),
            closing: Semaphore::new(0),
            ended: Arc::new(Semaphore::new(0)),
            closes_below: AtomicBool::new(false),
            runtime,
            config,
        });
        tokio::spawn(node.clone().listen(endpoint));
        Ok(node)
    }

    pub(super) fn sessions(&self) -> MutexGuard<'_, Sessions<A>> {
        self.sessions.lock()
    }

    pub(super) fn check_open(&self) -> Result<()> {
        if self.closed.load(Relaxed) {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }

    fn place_of_endpoint(&self) -> MutexGuard<'_, Option<Endpoint>> {
        self.endpoint.lock()
    }

    pub(super) fn endpoint(&self) -> Option<Endpoint> {
        self.place_of_endpoint().clone()
    }

    pub(super) fn take_endpoint(&self) -> Option<Endpoint> {
        self.place_of_endpoint().take()
    }

    /// Translates the end of a connection to an error for the caller.
    pub(super) fn lost(&self, peer: &KeyAddr<A>, error: &ConnectionError) -> Error {
        if self.check_open().is_err() {
            return Error::Closed;
        }
        match error {
            ConnectionError::TimedOut => Error::TimedOut {
                doing: "waiting for the peer",
                limit: self.config.idle_timeout,
            },
            error => Error::unreachable(peer, error.to_string()),
        }
    }

    /// Creates the session of a connection, and passes it to callers that wait for a dial to the same peer.
    pub(super) fn begin_session(
        self: &Arc<Self>,
        connection: quinn::Connection,
        dialled: bool,
        addr: A,
        local: A,
        pinned: Pinned<A>,
    ) -> Result<()> {
        let (key, id) = tls::peer(&connection, &self.config)
            .ok_or_else(|| Error::unreachable(&addr, "the peer sent no certificate"))?;
        let mut sessions = self.sessions();
        // One budget for all sessions of the peer.
        let known = sessions.all().find(|session| session.peer.id == id);
        let budget = known.map(|session| session.budget.clone());
        let new = || Arc::new(Budget::new(self.config.session_reassembly, self.budget.clone()));
        let session = Arc::new(Session {
            peer: KeyAddr::new(id, addr),
            local: KeyAddr::new(self.identity.id, local),
            key,
            connection,
            budget: budget.unwrap_or_else(new),
            outbound: dialled,
            since: Instant::now(),
            usage: Usage::new(self.turn.clone()),
            asking: Asking::default(),
            replies: Replies::default(),
            sent: Unacknowledged::default(),
            heard: Heard::default(),
            _pinned: pinned,
        });
        // Both checks under the lock: after `close` only sessions for messages that were told before are
        // added, and `disconnect_forbidden` misses no session.
        if sessions.waiting(&session.peer).is_none() {
            self.check_open()?;
        }
        if !self.config.allow.permits(&id) {
            return Err(Error::denied(&session.peer));
        }
        let Some(replaced) = sessions.add(&session, &self.config) else {
            drop(sessions);
            session.turn_away();
            let limit = self.config.max_sessions;
            return Err(Error::Limit {
                what: "sessions in use",
                limit,
            });
        };
        let waiting = sessions.end_dial(&session.peer, None);
        let live = sessions.find(&session.peer);
        drop(sessions);
        for replaced in replaced {
            self.end_session(replaced);
        }
        self.tasks.spawn(accept_streams(self.clone(), session));
        if let (Some(waiting), Some(live)) = (waiting, live) {
            // The callers may all have been cancelled.
            let _ = waiting.send(Some(Ok(live)));
        }
        Ok(())
    }

    /// Closes the sessions that `pick` selects.
    pub(super) fn end_sessions(&self, pick: impl Fn(&Session<A>) -> bool) -> usize {
        let mut sessions = self.sessions();
        let ended = sessions.list(pick);
        for session in &ended {
            sessions.remove(session);
        }
        drop(sessions);
        for session in &ended {
            session.close(&self.tells);
        }
        ended.len()
    }
}

/// Returns a filter for [`Node::end_sessions`] that selects every session with this peer.
pub(super) fn with_peer<A: Addr>(id: &PeerId) -> impl Fn(&Session<A>) -> bool + '_ {
    move |session| session.peer.id == *id
}
