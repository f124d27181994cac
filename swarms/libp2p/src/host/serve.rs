//! Streams that peers open: they are negotiated, and handed to handlers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use p2p_protocols::connections::CloseReason;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use super::shared::{Handler, Shared};
use crate::connection::{Acceptor, Connection, End};
use crate::identify::{IDENTIFY, PUSH};
use crate::negotiate::Negotiated;
use crate::ping::{self, PING};
use crate::stream::RawStream;

/// How long the end of a connection waits until the peer has taken what was written.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Datagrams that are delivered in one go.
const DATAGRAMS: usize = 64;

/// Waits for a datagram of the peer, forever over TCP and once the connection has ended.
async fn next_datagram(connection: &Connection) -> Bytes {
    if let Some(quic) = connection.quic()
        && let Ok(datagram) = quic.read_datagram().await
    {
        return datagram;
    }
    std::future::pending().await
}

/// What serves a stream.
enum Service {
    Ping,
    Identify,
    Push,
    Program(Handler),
}

/// Returns whether the host itself serves a protocol.
pub(super) fn is_built_in(protocol: &str) -> bool {
    [PING, IDENTIFY, PUSH].contains(&protocol)
}

impl Shared {
    /// Returns the protocols that this host accepts.
    pub(super) fn protocols(&self) -> Vec<String> {
        let built_in = [IDENTIFY, PUSH, PING].map(str::to_owned);
        let handlers = self.handlers.read();
        built_in
            .into_iter()
            .chain(handlers.keys().map(ToString::to_string))
            .collect()
    }

    /// Serves a connection in a task until it ends.
    pub(super) fn serve(self: &Arc<Self>, connection: &Arc<Connection>, mut acceptor: Acceptor) {
        let (shared, connection) = (self.clone(), connection.clone());
        self.spawn_to_end(async move {
            let from = &connection.info.peer;
            let end = loop {
                let accepted = tokio::select! {
                    biased;
                    () = shared.closed() => {
                        let _ = timeout(CLOSE_TIMEOUT, acceptor.close()).await;
                        break End::new(CloseReason::Local, "this host is closed");
                    }
                    () = connection.closing() => {
                        let _ = timeout(CLOSE_TIMEOUT, acceptor.close()).await;
                        break End::new(CloseReason::Local, "this host closed the connection");
                    }
                    accepted = acceptor.accept() => accepted,
                    datagram = next_datagram(&connection) => {
                        shared.packets.deliver(from, &datagram);
                        shared.deliver_waiting(&connection);
                        continue;
                    }
                };
                let raw = match accepted {
                    Ok(raw) => raw,
                    Err(end) => break end,
                };
                // The muxer bounds the streams of a connection, and the negotiation ends in time.
                let (stream, host, with) = (Negotiated::new(raw), shared.clone(), connection.clone());
                shared.spawn(async move { host.serve_stream(&with, stream).await });
            };
            shared.deliver_waiting(&connection);
            // The connection manager may have ended it, and then says why.
            connection.set_end(end.detail);
            shared.drive(|engines, _| engines.connections.handle_closed(connection.info.id, end.reason));
        });
    }

    /// Delivers some of the datagrams that have arrived, so that those of one connection hold up no others.
    fn deliver_waiting(&self, connection: &Connection) {
        let Some(quic) = connection.quic() else {
            return;
        };
        for _ in 0..DATAGRAMS {
            let Some(Ok(datagram)) = quic.read_datagram().now_or_never() else {
                return;
            };
            self.packets.deliver(&connection.info.peer, &datagram);
        }
    }

    async fn serve_stream(self: Arc<Self>, connection: &Arc<Connection>, mut stream: Negotiated<RawStream>) {
        let accepted = stream.listen(|protocol| self.service(protocol));
        let (protocol, service) = match timeout(self.config.stream_timeout, accepted).await {
            Ok(Ok(accepted)) => accepted,
            Ok(Err(error)) => {
                tracing::debug!(layer = "libp2p", peer = %connection.info.peer, %error, "no protocol was negotiated");
                // The peer learns of refusals that were sent, where a reset would discard them.
                let _ = stream.shutdown().await;
                return;
            }
            Err(_) => return,
        };
        let held = match &service {
            Service::Program(_) => &connection.streams,
            Service::Ping | Service::Identify | Service::Push => &connection.reserved,
        };
        let Ok(permit) = held.clone().try_acquire_owned() else {
            tracing::debug!(layer = "libp2p", peer = %connection.info.peer, "too many streams");
            return;
        };
        let mut stream = connection.stream(stream, protocol, Some(permit));
        match service {
            Service::Ping => ping::serve(stream).await,
            Service::Identify => {
                let sent = self.send_identify(connection, &mut stream);
                let _ = timeout(self.config.stream_timeout, sent).await;
            }
            Service::Push => {
                let _ = timeout(
                    self.config.stream_timeout,
                    self.receive_push(connection, &mut stream),
                )
                .await;
            }
            Service::Program(handler) => handler(stream).await,
        }
    }

    fn service(&self, protocol: &str) -> Option<(Arc<str>, Service)> {
        let built_in = match protocol {
            PING => Service::Ping,
            IDENTIFY => Service::Identify,
            PUSH => Service::Push,
            _ => {
                let handlers = self.handlers.read();
                let (id, handler) = handlers.get_key_value(protocol)?;
                return Some((id.clone(), Service::Program(handler.clone())));
            }
        };
        Some((protocol.into(), built_in))
    }
}
