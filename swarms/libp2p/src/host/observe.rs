//! Protocols of a host that follow its connections.

use std::sync::{Arc, Weak};

use p2p_protocols::identify::Info;
use parking_lot::Mutex;

use super::shared::Shared;
use crate::addr::HostAddr;

/// Follows the connections of a host. Events of the program may be dropped, these calls are not.
///
/// The calls come under the lock of the engines, in the order of their decisions. They may neither wait nor call the host.
pub(crate) trait Observe: Send + Sync {
    /// A connection was established.
    fn connected(&self, peer: &HostAddr);

    /// A connection has ended; whether it was the last one with the peer.
    fn disconnected(&self, peer: &HostAddr, is_last: bool);

    /// A peer said which protocols it supports.
    fn supports(&self, peer: &HostAddr, protocols: &[String]);
}

/// The observers of a host.
#[derive(Default)]
pub(super) struct Observers(Mutex<Vec<Weak<dyn Observe>>>);

impl Observers {
    pub(super) fn each(&self, call: impl Fn(&dyn Observe)) {
        self.0.lock().retain(|observer| match observer.upgrade() {
            Some(observer) => {
                call(&*observer);
                true
            }
            None => false,
        });
    }
}

impl Shared {
    /// Tells an observer of the connections that exist, and of all later changes, as long as it exists.
    pub(crate) fn observe(self: &Arc<Self>, observer: &Arc<impl Observe + 'static>) {
        self.drive(|engines, _| {
            for connection in engines.open.values() {
                observer.connected(&connection.info.peer);
                let info = connection.info_of_peer.lock();
                if let Some(Info { protocols, .. }) = &*info {
                    observer.supports(&connection.info.peer, protocols);
                }
            }
            let observer: Weak<dyn Observe> = Arc::downgrade(observer) as Weak<dyn Observe>;
            self.observers.0.lock().push(observer);
        });
    }
}
