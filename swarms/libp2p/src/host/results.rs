//! The results of dials, for the calls that wait for them.

use multiaddr::Multiaddr;
use p2p::Error;
use p2p_protocols::connections::Refusal;
use p2p_protocols::dial::{DialError, Event, Failure};

use super::engines::{DialKey, Engines};
use crate::addr::HostAddr;

/// Answers the call that waits for a dial.
pub(super) fn answer(engines: &mut Engines, event: Event<DialKey, Multiaddr>) {
    let (Event::Connected { id, .. } | Event::Failed { id, .. }) = event;
    // A reconnection has no caller.
    let Some(caller) = engines.callers.remove(&id) else {
        return;
    };
    let result = match event {
        Event::Connected { peer, attempt, .. } => {
            let mut succeeded = engines.succeeded.iter();
            let own = attempt.and_then(|own| succeeded.find(|(attempt, _)| *attempt == own));
            let of_peer = match &peer {
                DialKey::Peer(peer) => engines.connections.of_peer(peer),
                DialKey::Place(_) => &[],
            };
            let other = if caller.wants_new {
                of_peer.last()
            } else {
                of_peer.first()
            };
            let connection = own.map(|(_, id)| id).or(other);
            let connection = connection.and_then(|id| engines.open.get(id)).cloned();
            connection.ok_or_else(|| Error::unreachable(&caller.addr, "the connection has ended at once"))
        }
        Event::Failed { peer, error, .. } => {
            let errors = engines.errors.get(&peer).map_or(&[][..], |errors| errors);
            Err(dial_error(&caller.addr, &error, errors))
        }
    };
    // A caller that is gone has cancelled its dial.
    let _ = caller.reply.send(result);
}

/// Returns the error of a call whose dial failed.
fn dial_error(addr: &HostAddr, error: &DialError<Multiaddr>, errors: &[(Multiaddr, Error)]) -> Error {
    const DOING: &str = "dialling a peer";
    let error_of = |place: &Multiaddr| errors.iter().find(|(at, _)| at == place).map(|(_, error)| error);
    let attempts = match error {
        DialError::Failed { attempts } => attempts,
        DialError::TimedOut { limit, .. } => {
            return Error::TimedOut {
                doing: DOING,
                limit: *limit,
            };
        }
        _ => return Error::unreachable(addr, "no place of it is known that this host can dial"),
    };
    match &attempts[..] {
        [(_, Failure::TimedOut(limit))] => Error::TimedOut {
            doing: DOING,
            limit: *limit,
        },
        [(place, failure)] => error_of(place)
            .cloned()
            .unwrap_or_else(|| Error::unreachable(place, failure.to_string())),
        attempts => {
            let reasons = attempts.iter().map(|(place, failure)| match error_of(place) {
                Some(error) => error.to_string(),
                None => format!("{place}: {failure}"),
            });
            Error::unreachable(addr, reasons.collect::<Vec<_>>().join("; "))
        }
    }
}

/// Returns the error of a refused connection.
pub(super) fn refused(place: &Multiaddr, refusal: Refusal) -> Error {
    let (what, limit) = match refusal {
        Refusal::Pending { limit } => ("handshakes in progress", limit),
        Refusal::PendingPerPrefix { limit } => ("handshakes in progress with one network", limit),
        Refusal::Connections { limit } => ("connections", limit),
        Refusal::Inbound { limit } => ("inbound connections", limit),
        Refusal::PerPeer { limit } => ("connections with one peer", limit),
        Refusal::PerPrefix { limit } => ("inbound connections of one network", limit),
        _ => return Error::unreachable(place, refusal.to_string()),
    };
    Error::Limit { what, limit }
}
