//! Inbound connections: admission before their handshake, and its end.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::engines::{Admitted, Failed};
use super::shared::Shared;

/// A handshake that was admitted.
#[derive(Debug)]
pub(super) struct Inbound {
    pub(super) admitted: Admitted,
    /// Completes when the connection manager gives the handshake up.
    ended: oneshot::Receiver<()>,
}

impl Shared {
    /// Returns whether so many handshakes are in progress that an address should prove itself before it takes a place.
    pub(super) fn is_crowded(&self, ip: Option<IpAddr>) -> bool {
        self.engines.lock().connections.is_crowded(ip)
    }

    /// Admits an inbound connection before its handshake, unless a limit is reached.
    pub(super) fn admit(self: &Arc<Self>, ip: Option<IpAddr>) -> Option<Inbound> {
        self.drive(|engines, now| {
            if engines.is_closed {
                return None;
            }
            let id = engines.connections.admit_inbound(now, ip).ok()?;
            let (end, ended) = oneshot::channel();
            engines.handshakes.insert(id, end);
            let attempt = None;
            let admitted = Admitted { id, attempt };
            Some(Inbound { admitted, ended })
        })
    }

    /// Awaits a handshake in a task, until it ends or the connection manager gives it up.
    pub(super) fn await_handshake(
        self: &Arc<Self>,
        inbound: Inbound,
        remote: impl fmt::Display + Send + 'static,
        handshake: impl Future<Output = Result<(), Failed>> + Send + 'static,
    ) {
        let shared = self.clone();
        self.spawn(async move {
            let Inbound { admitted, ended } = inbound;
            let result = tokio::select! {
                biased;
                _ = ended => {
                    tracing::debug!(layer = "libp2p", %remote, "a handshake was given up");
                    return;
                }
                result = handshake => result,
            };
            if let Err(Failed { error, .. }) = result {
                tracing::debug!(layer = "libp2p", %remote, %error, "a handshake failed");
                shared.drive(|engines, _| {
                    engines.handshakes.remove(&admitted.id);
                    engines.connections.handle_failed(admitted.id);
                });
            }
        });
    }
}
