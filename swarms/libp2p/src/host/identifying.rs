//! The exchange of identify messages on connections.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use p2p::Addr as _;
use p2p_protocols::identify::Info;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use super::events::HostEvent;
use super::shared::Shared;
use crate::connection::{Connection, OpenError};
use crate::envelope::PeerRecord;
use crate::identify::{self, IDENTIFY, Identified, PUSH};
use crate::stream::Stream;

impl Shared {
    fn own_info(&self, connection: &Connection) -> Info {
        let keypair = &self.upgrader.keypair;
        let addrs = self.local_addrs();
        let seq = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let seq = u64::try_from(seq.as_micros()).unwrap_or(u64::MAX);
        Info {
            public_key: Some(Bytes::copy_from_slice(keypair.public().encode())),
            listen_addrs: addrs.iter().map(|addr| addr.to_vec().into()).collect(),
            protocols: self.protocols(),
            observed_addr: Some(connection.info.remote.to_vec().into()),
            protocol_version: Some(self.config.protocol_version.clone()),
            agent_version: Some(self.config.agent.clone()),
            signed_peer_record: Some(PeerRecord::sign(keypair, seq, &addrs).into()),
        }
    }

    pub(super) async fn send_identify(&self, connection: &Connection, stream: &mut Stream) -> io::Result<()> {
        identify::send(stream, &self.own_info(connection)).await
    }

    pub(super) async fn receive_push(
        &self,
        connection: &Arc<Connection>,
        stream: &mut Stream,
    ) -> io::Result<()> {
        let changed = identify::receive(stream, &connection.key).await?;
        self.identified(connection, changed);
        stream.shutdown().await
    }

    /// Identifies the peer of a new connection, in a task.
    pub(super) fn begin_identify(self: &Arc<Self>, connection: &Arc<Connection>) {
        let (shared, connection) = (self.clone(), connection.clone());
        self.spawn(async move {
            if let Err(reason) = shared.identify(&connection).await {
                tracing::debug!(layer = "libp2p", peer = %connection.info.peer, reason, "identify failed");
            }
        });
    }

    /// Asks the peer of a connection to identify itself, unless it has done so while this call waited. Returns the
    /// reason of a failure.
    pub(super) async fn identify(&self, connection: &Arc<Connection>) -> Result<Arc<Identified>, String> {
        let _turn = connection.identifying.lock().await;
        let known = connection.info_of_peer.lock().clone();
        if let Some(info) = known {
            return Ok(Arc::new(Identified::new(&info, &connection.key)));
        }
        let limit = self.config.stream_timeout;
        let mut stream = connection
            .open(&[IDENTIFY], limit)
            .await
            .map_err(|error| match error {
                OpenError::Lost(error) => error.to_string(),
                OpenError::Negotiation(error) => error.to_string(),
                OpenError::NoRoom | OpenError::NoAnswer => "the peer does not answer".to_owned(),
            })?;
        // Nothing is sent on this stream.
        let _ = stream.shutdown().await;
        let received = identify::receive(&mut stream, &connection.key);
        let received = timeout(limit, received)
            .await
            .map_err(|_| "the peer does not answer")?;
        let info = received.map_err(|error| error.to_string())?;
        Ok(self.identified(connection, info))
    }

    /// Applies what a peer sent to what it sent before.
    fn identified(&self, connection: &Arc<Connection>, changed: Info) -> Arc<Identified> {
        let peer = connection.info.peer.clone();
        let info = {
            let mut known = connection.info_of_peer.lock();
            let info = known.get_or_insert_default();
            info.update(changed);
            info.clone()
        };
        let identified = Arc::new(Identified::new(&info, &connection.key));
        if let Some(id) = peer.peer_id() {
            // Signed addresses are preferred.
            let signed = identified.record.iter().flat_map(|record| &record.addrs);
            let addrs = signed.chain(&identified.listen_addrs).map(crate::addr::place_of);
            let dialled = connection.info.is_dialled.then(|| connection.info.remote.clone());
            let addrs: Vec<_> = dialled.into_iter().chain(addrs).collect();
            self.table.lock().learn(id, addrs, self.config.max_known_peers);
        }
        self.events.send(HostEvent::Identified {
            peer,
            identified: identified.clone(),
        });
        identified
    }

    /// Tells the peers of all connections that addresses or protocols of this host have changed.
    pub(super) fn push_identify(self: &Arc<Self>) {
        let connections = self.table.lock().all();
        for connection in connections {
            let pushes = |info: &Info| info.protocols.iter().any(|id| id == PUSH);
            if !connection.info_of_peer.lock().as_ref().is_some_and(pushes) {
                continue;
            }
            let shared = self.clone();
            self.spawn(async move {
                let limit = shared.config.stream_timeout;
                if let Ok(mut stream) = connection.open(&[PUSH], limit).await {
                    let _ = timeout(limit, shared.send_identify(&connection, &mut stream)).await;
                }
            });
        }
    }
}
