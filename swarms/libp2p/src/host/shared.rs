//! The state that all handles and tasks of a host share.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use multiaddr::PeerId;
use p2p::{Error, Result};
use p2p_formats::x509::PrivateKey;
use p2p_protocols::connections::CloseReason;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::engines::{Engines, KnownPeer};
use super::events::Events;
use super::listen::Listening;
use super::observe::Observers;
use super::quic::Endpoints;
use crate::addr::HostAddr;
use crate::config::HostConfig;
use crate::connection::Connection;
use crate::key::{Keypair, PublicKey};
use crate::noise::NoiseKey;
use crate::packets::Registry;
use crate::stream::Stream;
use crate::tls::TlsIdentity;
use crate::upgrade::Upgrader;

/// Maximum length of a protocol id in bytes.
const MAX_PROTOCOL: usize = 512;
/// How long closing a host waits for peers to learn of it, and for its tasks.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long closing a host waits until its peer store is in the file.
const SAVE_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) type Handler = Arc<dyn Fn(Stream) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

pub(crate) struct Shared {
    pub(crate) config: HostConfig,
    pub(crate) upgrader: Arc<Upgrader>,
    pub(super) handlers: RwLock<BTreeMap<Arc<str>, Handler>>,
    /// The swarm or the protocol that keeps connections open, by the protocols of its streams.
    pub(super) keepers: RwLock<HashMap<Arc<str>, Arc<str>>>,
    pub(super) engines: Mutex<Engines>,
    /// The zero of the engines' clock.
    pub(super) started: Instant,
    /// Tells the timer that it is due earlier.
    pub(super) rearm: Notify,
    pub(super) endpoints: Mutex<Endpoints>,
    pub(super) listening: Mutex<Vec<Listening>>,
    pub(super) events: Events,
    pub(super) observers: Observers,
    pub(crate) packets: Registry,
    closing: watch::Sender<bool>,
    /// Whether the sockets of the closed host are free.
    freed: watch::Sender<bool>,
    /// Held by each task; closing waits until all are dropped.
    tasks: Mutex<Option<mpsc::Sender<()>>>,
    tasks_end: tokio::sync::Mutex<mpsc::Receiver<()>>,
    /// The task that keeps the peer store in a file; it ends with the last write.
    pub(super) saver: Mutex<Option<JoinHandle<()>>>,
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
            upgrader: Arc::new(upgrader),
            handlers: RwLock::default(),
            keepers: RwLock::default(),
            engines: Mutex::new(Engines::new(&config)),
            started: Instant::now(),
            rearm: Notify::new(),
            endpoints: Mutex::default(),
            listening: Mutex::default(),
            events: Events::new(),
            observers: Observers::default(),
            packets: Registry::default(),
            closing: watch::Sender::new(false),
            freed: watch::Sender::new(false),
            tasks: Mutex::new(Some(tasks)),
            tasks_end: tokio::sync::Mutex::new(tasks_end),
            saver: Mutex::default(),
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

    /// Returns the zero of the clock that [`now`](Self::now) reads.
    pub(crate) fn started_at(&self) -> Instant {
        self.started
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

    /// Calls `end` once `closing` is set, its sender is gone, or the host closes.
    pub(crate) fn at_end(
        self: &Arc<Self>,
        mut closing: watch::Receiver<bool>,
        end: impl FnOnce() + Send + 'static,
    ) {
        let end = CallOnDrop(Some(end));
        self.spawn(async move {
            let _end = end;
            // An error says that the sender is gone.
            let _ = closing.wait_for(|closing| *closing).await;
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
        check_protocol(protocol)?;
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

    /// Returns the key of this host or of a peer, which is connected for it.
    pub(crate) async fn key_of(self: &Arc<Self>, addr: &HostAddr) -> Result<PublicKey> {
        if p2p::Addr::peer_id(addr) == Some(self.upgrader.keypair.id()) {
            return Ok(self.upgrader.keypair.public().clone());
        }
        Ok(self.connect(addr).await?.key.clone())
    }

    /// Returns a connection with a peer over QUIC.
    pub(crate) fn quic_connection(&self, peer: &PeerId) -> Option<Arc<Connection>> {
        let engines = self.engines.lock();
        let ids = engines.connections.of_peer(peer).iter();
        let mut open = ids.filter_map(|id| engines.open.get(id));
        open.find(|connection| connection.quic().is_some() && !connection.is_ended())
            .cloned()
    }

    /// Returns the connection with a peer that new streams use, if there is one.
    pub(crate) fn open_connection(&self, peer: &PeerId) -> Option<Arc<Connection>> {
        self.engines.lock().best(peer)
    }

    /// Returns the signed record of a peer, if it sent one.
    pub(crate) fn record_of(&self, peer: &PeerId) -> Option<Bytes> {
        let engines = self.engines.lock();
        let known = engines.peers.get(&KnownPeer(*peer))?;
        known.record.map(|record| record.envelope.clone())
    }

    /// Removes a connection that turned out to have ended, so that another one is dialled.
    pub(super) fn forget(self: &Arc<Self>, connection: &Arc<Connection>) {
        let id = connection.info.id;
        self.drive(|engines, _| engines.connections.handle_closed(id, CloseReason::Failed));
        connection.close();
    }

    /// Closes the host. Tasks end at their next poll, and then a task frees the sockets.
    pub(super) fn close(self: &Arc<Self>) {
        if self.closing.send_replace(true) {
            return;
        }
        self.tasks.lock().take();
        // Without their senders, handshakes, attempts and callers end.
        let connections = self.engines.lock().close(self.now());
        for connection in connections {
            connection.close();
        }
        self.endpoints.lock().close();
        self.handlers.write().clear();
        self.events.close();
        let shared = self.clone();
        self.spawn_detached(async move {
            let endpoints = shared.endpoints.lock().all();
            let ended = async {
                shared.tasks_end.lock().await.recv().await;
                for endpoint in &endpoints {
                    endpoint.wait_idle().await;
                }
            };
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, ended).await;
            // Not before: a caller that does not wait for this task releases them itself.
            shared.release().await;
            shared.endpoints.lock().take();
            shared.freed.send_replace(true);
        });
    }

    async fn release(&self) {
        let endpoints = self.endpoints.lock().all();
        for endpoint in &endpoints {
            endpoint.release().await;
        }
    }

    /// Waits until the sockets of the closed host are free and its peer store is in the file.
    pub(super) async fn freed(&self) {
        let mut freed = self.freed.subscribe();
        let freed = freed.wait_for(|freed| *freed);
        if tokio::time::timeout(2 * CLOSE_TIMEOUT, freed).await.is_err() {
            // The runtime of the host may no longer be driven; that must not block the caller.
            self.release().await;
        }
        let saver = self.saver.lock().take();
        if let Some(saver) = saver {
            let _ = tokio::time::timeout(SAVE_TIMEOUT, saver).await;
        }
    }

    /// Runs `task` to its end, also after the host has closed.
    pub(crate) fn spawn_detached(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }
}

/// Checks that a text can be a protocol id.
pub(crate) fn check_protocol(id: &str) -> Result<()> {
    if !id.starts_with('/') || id.len() > MAX_PROTOCOL || id.contains('\n') {
        let reason = "a protocol id begins with '/', has at most 512 bytes, and no line feed";
        return Err(Error::invalid("protocol id", reason));
    }
    Ok(())
}

/// Calls a function when it is dropped, which a task does at its end however it ends.
struct CallOnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for CallOnDrop<F> {
    fn drop(&mut self) {
        if let Some(call) = self.0.take() {
            call();
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}
