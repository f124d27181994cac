//! The exchange of identify messages on connections.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use multiaddr::{Multiaddr, PeerId};
use p2p_protocols::identify::Info;
use p2p_protocols::overlay::Scope;
use p2p_protocols::peers::Source;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use super::engines::KnownPeer;
use super::events::HostEvent;
use super::known::place_for;
use super::shared::Shared;
use crate::addr::HostAddr;
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
        self: &Arc<Self>,
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
    pub(super) async fn identify(
        self: &Arc<Self>,
        connection: &Arc<Connection>,
    ) -> Result<Arc<Identified>, String> {
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
        let received = identify::receive(&mut stream, &connection.key);
        let received = timeout(limit, received)
            .await
            .map_err(|_| "the peer does not answer")?;
        let info = received.map_err(|error| error.to_string())?;
        // Nothing is sent on this stream. Ended before, a reset over yamux would look like the end of the message.
        let _ = stream.shutdown().await;
        Ok(self.identified(connection, info))
    }

    /// Applies what a peer sent to what it sent before.
    fn identified(self: &Arc<Self>, connection: &Arc<Connection>, changed: Info) -> Arc<Identified> {
        let peer = connection.info.peer.clone();
        let info = {
            let mut known = connection.info_of_peer.lock();
            let info = known.get_or_insert_default();
            info.update(changed);
            info.clone()
        };
        let identified = Arc::new(Identified::new(&info, &connection.key));
        self.remember(connection, &info, &identified);
        self.events.send(HostEvent::Identified {
            peer,
            identified: identified.clone(),
        });
        identified
    }

    /// Remembers what a peer said of itself: protocols, agent, and the addresses that it may name.
    fn remember(self: &Arc<Self>, connection: &Connection, info: &Info, identified: &Identified) {
        let (peer, known) = (connection.key.peer_id(), KnownPeer(connection.key.peer_id()));
        let by = HostAddr::from_multiaddr(connection.info.remote.clone());
        let named = |addrs: &[Multiaddr]| may_be_named(&peer, &by, addrs);
        let addrs = named(&identified.listen_addrs);
        let record = identified.record.as_ref().zip(info.signed_peer_record.as_ref());
        self.drive(|engines, now| {
            // A peer that disconnected meanwhile keeps what it said while it was connected.
            if engines.connections.of_peer(&peer).is_empty() {
                return;
            }
            self.observers
                .each(|observer| observer.supports(&connection.info.peer, &identified.protocols));
            let peers = &mut engines.peers;
            // What does not fit into the limit of one peer is left out.
            let _ = peers.set_protocols(now, &known, identified.protocols.clone());
            let _ = peers.set_agent(now, &known, identified.agent.clone());
            if let Some((record, envelope)) = record {
                let certified = named(&record.addrs);
                let _ = peers.put_record(now, &known, record.seq, envelope, certified, Source::Connected);
            }
            peers.add_addrs(now, &known, addrs, Source::Connected);
        });
    }

    /// Tells the peers of all connections that addresses or protocols of this host have changed.
    pub(super) fn push_identify(self: &Arc<Self>) {
        let connections: Vec<_> = self.engines.lock().open.values().cloned().collect();
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

/// Returns the places of `peer` that a peer whose place is `by`, the same or another one, may name: an address of a narrower scope
/// than `by` would lead dials into networks of this host.
pub(crate) fn may_be_named(peer: &PeerId, by: &HostAddr, addrs: &[Multiaddr]) -> Vec<Multiaddr> {
    let places = addrs.iter().filter_map(|addr| place_for(peer, addr.clone()));
    let may_name = |place: &Multiaddr| Scope::may_name(by, &HostAddr::from_multiaddr(place.clone()));
    places.filter(may_name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> Multiaddr {
        text.parse().expect("a multiaddr")
    }

    fn peer_id(seed: u8) -> PeerId {
        let key = p2p_formats::x509::PrivateKey::ed25519(&[seed; 32]);
        crate::key::Keypair::new(&key).expect("a key").peer_id()
    }

    #[test]
    fn a_peer_names_no_address_of_a_narrower_scope_than_its_own() {
        let peer = peer_id(1);
        let all = [
            "/ip4/0.0.0.0/tcp/1",
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/192.168.0.1/udp/1/quic-v1",
            "/ip4/198.51.100.1/tcp/1",
        ]
        .map(addr);
        for (by, from) in [
            ("/ip4/198.51.100.9/tcp/5", 3),
            ("/ip4/192.168.0.9/udp/5/quic-v1", 2),
            ("/ip4/127.0.0.1/tcp/5", 1),
            ("/unix/5/quic-v1", 1),
        ] {
            let by = HostAddr::from_multiaddr(addr(by));
            assert_eq!(may_be_named(&peer, &by, &all), all[from..], "{by}");
        }
        let own = addr(&format!("/ip4/198.51.100.1/tcp/1/p2p/{peer}"));
        let other = addr(&format!("/ip4/198.51.100.1/tcp/2/p2p/{}", peer_id(2)));
        let by = HostAddr::from_multiaddr(addr("/ip4/198.51.100.9/tcp/5"));
        assert_eq!(
            may_be_named(&peer, &by, &[own, other, Multiaddr::empty()]),
            all[3..]
        );
    }
}
