//! The state that all handles and tasks of a host share.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use multiaddr::Multiaddr;
use p2p::{Error, Result};
use p2p_formats::x509::PrivateKey;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, mpsc, watch};

use super::admission::Admission;
use super::dial::Dials;
use super::events::{Events, HostEvent};
use super::listen::Listening;
use super::port::Lease;
use super::quic::Endpoints;
use super::table::Table;
use crate::addr::HostAddr;
use crate::config::HostConfig;
use crate::connection::{Acceptor, Connection, ConnectionInfo, Opener, Transport};
use crate::key::{Keypair, PublicKey};
use crate::noise::NoiseKey;
use crate::stream::Stream;
use crate::tls::TlsIdentity;
use crate::upgrade::Upgrader;

/// Maximum length of a protocol id in bytes.
const MAX_PROTOCOL: usize = 512;
/// How long closing a host waits for peers to learn of it, and for its tasks.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) type Handler = Arc<dyn Fn(Stream) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

pub(crate) struct Shared {
    pub(crate) config: HostConfig,
    pub(crate) upgrader: Arc<Upgrader>,
    pub(super) handlers: RwLock<BTreeMap<Arc<str>, Handler>>,
    pub(super) table: Mutex<Table>,
    pub(super) admission: Arc<Admission>,
    pub(super) dials: Mutex<Dials>,
    pub(super) dialling: Arc<Semaphore>,
    pub(super) endpoints: Mutex<Endpoints>,
    pub(super) listening: Mutex<Vec<Listening>>,
    pub(super) events: Events,
    closing: watch::Sender<bool>,
    /// Held by each task; closing waits until all are dropped.
    tasks: Mutex<Option<mpsc::Sender<()>>>,
    tasks_end: tokio::sync::Mutex<mpsc::Receiver<()>>,
    next_connection: AtomicU64,
    runtime: tokio::runtime::Handle,
}

impl Shared {
    pub(super) fn new(private: &PrivateKey, config: HostConfig) -> Result<Arc<Self>> {
        let runtime = tokio::runtime::Handle::try_current();
        let runtime = runtime.map_err(|_| Error::invalid("call", "a host needs a tokio runtime"))?;
        let keypair = Arc::new(Keypair::new(private)?);
        let upgrader = Upgrader {
            tls: TlsIdentity::new(&keypair, &config.muxers)?,
            noise: NoiseKey::generate()?,
            security: config.security.clone(),
            muxers: config.muxers.clone(),
            keypair,
        };
        let (tasks, tasks_end) = mpsc::channel(1);
        Ok(Arc::new(Self {
            admission: Arc::new(Admission::new(
                config.max_handshakes,
                config.max_handshakes_per_prefix,
            )),
            dialling: Arc::new(Semaphore::new(config.max_dials)),
            upgrader: Arc::new(upgrader),
            handlers: RwLock::default(),
            table: Mutex::default(),
            dials: Mutex::new(HashMap::default()),
            endpoints: Mutex::default(),
            listening: Mutex::default(),
            events: Events::new(),
            closing: watch::Sender::new(false),
            tasks: Mutex::new(Some(tasks)),
            tasks_end: tokio::sync::Mutex::new(tasks_end),
            next_connection: AtomicU64::new(1),
            runtime,
            config,
        }))
    }

    pub(crate) fn is_closed(&self) -> bool {
        *self.closing.borrow()
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.is_closed() {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }

    /// Waits until the host is closed.
    pub(crate) async fn closed(&self) {
        // Fails only without a sender, and `self` has one.
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await;
    }

    /// Returns the result of `call`, unless the host is closed meanwhile.
    pub(crate) async fn unless_closed<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.closed() => Err(Error::Closed),
            result = call => result,
        }
    }

    /// Runs `task` until it ends or the host closes.
    pub(crate) fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let shared = self.clone();
        self.spawn_to_end(async move {
            tokio::select! {
                biased;
                () = shared.closed() => {}
                () = task => {}
            }
        });
    }

    /// Runs `task` to its end, which it must reach soon after the host closes.
    pub(super) fn spawn_to_end(&self, task: impl Future<Output = ()> + Send + 'static) {
        let Some(token) = self.tasks.lock().clone() else {
            return;
        };
        self.runtime.spawn(async move {
            task.await;
            drop(token);
        });
    }

    pub(crate) fn add_handler<F>(
        self: &Arc<Self>,
        protocol: &str,
        handler: impl Fn(Stream) -> F + Send + Sync + 'static,
    ) -> Result<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if !protocol.starts_with('/') || protocol.len() > MAX_PROTOCOL || protocol.contains('\n') {
            let reason = "a protocol id begins with '/', has at most 512 bytes, and no line feed";
            return Err(Error::invalid("protocol id", reason));
        }
        let mut handlers = self.handlers.write();
        if super::serve::is_built_in(protocol) || handlers.contains_key(protocol) {
            return Err(Error::invalid(
                "protocol id",
                format!("{protocol} has a handler already"),
            ));
        }
        handlers.insert(protocol.into(), Arc::new(move |stream| Box::pin(handler(stream))));
        drop(handlers);
        self.push_identify();
        Ok(())
    }

    pub(crate) fn remove_handler(self: &Arc<Self>, protocol: &str) -> bool {
        let removed = self.handlers.write().remove(protocol).is_some();
        if removed {
            self.push_identify();
        }
        removed
    }

    /// Takes an established connection in: the table has it, peers of events learn of it, and its streams are
    /// served.
    pub(super) fn adopt(
        self: &Arc<Self>,
        key: PublicKey,
        remote: Multiaddr,
        transport: Transport,
        is_dialled: bool,
        (opener, acceptor): (Opener, Acceptor),
        lease: Option<Lease>,
    ) -> Result<Arc<Connection>> {
        let info = ConnectionInfo {
            id: self.next_connection.fetch_add(1, Relaxed),
            peer: HostAddr::of_peer(key.peer_id()),
            remote,
            transport,
            is_dialled,
        };
        let connection = Arc::new(Connection::new(info, key, opener, lease, self.config.max_streams));
        let refused = if self.is_closed() {
            Some(Error::Closed)
        } else if connection.key == *self.upgrader.keypair.public() {
            Some(Error::unreachable(
                &connection.info.remote,
                "this host itself listens there",
            ))
        } else {
            let inserted = self.table.lock().insert(&connection, &self.config);
            inserted.err().map(|full| Error::Limit {
                what: full.what,
                limit: full.limit,
            })
        };
        if let Some(error) = refused {
            connection.close();
            // The muxer of a refused connection is dropped, which ends it.
            return Err(error);
        }
        self.events.send(HostEvent::Connected(connection.info.clone()));
        self.serve(&connection, acceptor);
        self.begin_identify(&connection);
        Ok(connection)
    }

    /// Removes a connection that has ended.
    pub(super) fn lose(&self, connection: &Arc<Connection>, reason: &str) {
        let is_last = self.table.lock().remove(connection);
        self.events.send(HostEvent::Disconnected {
            connection: connection.info.clone(),
            is_last,
            reason: reason.into(),
        });
    }

    /// Removes a connection that turned out to have ended, so that another one is dialled.
    pub(super) fn forget(&self, connection: &Arc<Connection>) {
        self.table.lock().remove(connection);
        connection.close();
    }

    /// Closes the host. Tasks end at their next poll.
    pub(super) fn close(&self) {
        if self.closing.send_replace(true) {
            return;
        }
        self.tasks.lock().take();
        let connections = self.table.lock().all();
        for connection in connections {
            connection.close();
        }
        self.endpoints.lock().close();
        self.handlers.write().clear();
        self.dials.lock().clear();
        self.events.close();
    }

    /// Waits until all tasks have ended and the sockets are freed.
    pub(super) async fn ended(&self) {
        let endpoints = self.endpoints.lock().take();
        let ended = async {
            self.tasks_end.lock().await.recv().await;
            for endpoint in &endpoints {
                endpoint.wait_idle().await;
            }
        };
        // The runtime of the host may no longer be driven; that must not block the caller.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, ended).await;
        for endpoint in &endpoints {
            endpoint.release().await;
        }
    }

    /// Closes a host without a handle, and frees its sockets in a task.
    pub(super) fn close_unattended(self: &Arc<Self>) {
        self.close();
        let shared = self.clone();
        self.runtime.spawn(async move { shared.ended().await });
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}
