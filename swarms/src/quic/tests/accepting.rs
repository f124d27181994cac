//! Which streams of a session are accepted, and how many in one go.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use p2p::{AskSwarm as _, DropReason, Packet, Swarm as _};
use tokio::time::sleep;

use super::{addr, dropped, key};
use crate::quic::QuicSwarm;
use crate::quic::serve::{BURST, accept_streams};
use crate::quic::session::Session;
use crate::{MemoryAddr, MemoryRealm};

/// Longer than what is sent takes to arrive.
const SETTLE: Duration = Duration::from_millis(10);

/// Two connected nodes, and the session of the first one. Its streams are not accepted: the test polls the task for
/// that itself.
async fn unaccepted() -> (
    QuicSwarm<MemoryAddr>,
    QuicSwarm<MemoryAddr>,
    Arc<Session<MemoryAddr>>,
) {
    let realm = MemoryRealm::default();
    let [hub, peer] = [1, 2].map(|seed| QuicSwarm::new(realm.open(), &key(seed)).expect("a node"));
    hub.node.tasks.close();
    peer.tell(&addr(&hub), Packet::from(b"first"))
        .await
        .expect("a session");
    sleep(SETTLE).await;
    let session = hub.node.sessions().list(|_| true).remove(0);
    (hub, peer, session)
}

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_with_many_messages_lets_others_deliver_between_them() {
    const MESSAGES: usize = 5 * BURST;
    let (hub, peer, session) = unaccepted().await;
    let more = (1..MESSAGES).map(|_| (addr(&hub), Packet::from(b"more")));
    peer.tell_batch(&mut more.collect()).await.expect("room");
    sleep(SETTLE).await;

    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let mut accepting = pin!(accept_streams(hub.node.clone(), session));
    for polls in 1..=MESSAGES / BURST {
        let ended = accepting.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(ended.is_pending());
        assert_eq!(hub.node.messages.len(), polls * BURST);
        assert_eq!(woken.0.load(Relaxed), polls, "more may be waiting");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_session_delivers_nothing_of_what_arrived_in_it() {
    let (hub, peer, session) = unaccepted().await;
    let to = addr(&hub);
    let mut asking = pin!(peer.ask(&to, Packet::from(b"ask")));
    tokio::select! {
        _ = &mut asking => unreachable!("no request is accepted"),
        () = sleep(SETTLE) => {}
    }
    // The peer reads from the refusal that nothing was processed, and asks again in another session.
    assert!(session.turn_away());
    accept_streams(hub.node.clone(), session).await;
    assert_eq!((hub.node.messages.len(), hub.node.requests.len()), (0, 0));
    assert_eq!(dropped(&hub, "quic", DropReason::Budget), 1);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_delivered_a_message_is_not_refused() {
    let (hub, _peer, session) = unaccepted().await;
    let mut accepting = pin!(accept_streams(hub.node.clone(), session.clone()));
    let ended = accepting.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(ended.is_pending());
    assert_eq!(hub.node.messages.len(), 1);
    assert!(!session.turn_away());
}
