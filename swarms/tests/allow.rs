//! Who is heard and spoken to, in both directions, and from which moment on.

use std::fmt;

use p2p::{Addr, AskSwarm, Error, Packet, PeerId, Reason, Rejection, SecureSwarm, Swarm};
use p2p_swarms::allow::{AllowSwarm, Party, Verdict};
use p2p_swarms::map::{MapSwarm, Translate};
use p2p_swarms::{MemoryAddr, MemoryRealm, MemorySwarm};

/// A memory address that names an identity: all bytes are the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Named(MemoryAddr);

fn id(number: i64) -> PeerId {
    PeerId::new([number.to_le_bytes()[0]; 32])
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Addr for Named {
    fn peer_id(&self) -> Option<PeerId> {
        Some(id(self.0.number()))
    }
}

struct Name;

impl Translate<Named, MemoryAddr> for Name {
    const TOTAL: bool = true;
    fn down(&self, addr: &Named) -> p2p::Result<MemoryAddr> {
        Ok(addr.0)
    }
    fn up(&self, addr: MemoryAddr) -> Option<Named> {
        Some(Named(addr))
    }
}

type Node = MapSwarm<Named, MemoryAddr, MemorySwarm, Name>;

const A: Named = Named(MemoryAddr::new(0));
const B: Named = Named(MemoryAddr::new(1));

/// Node 0 with a list, and node 1 without.
fn pair(others: Verdict) -> (AllowSwarm<Named, Node>, Node) {
    let realm = MemoryRealm::default();
    let a = AllowSwarm::new(MapSwarm::new(realm.open(), Name), others);
    (a, MapSwarm::new(realm.open(), Name))
}

fn denied(swarm: &impl Swarm<Named>) -> u64 {
    let mut denied = 0;
    swarm.visit_counters(&mut |counters| denied += counters.snapshot().dropped(Reason::Denied));
    denied
}

#[tokio::test]
async fn nothing_goes_to_a_denied_address() {
    let (a, b) = pair(Verdict::Deny);
    assert!(matches!(
        a.tell(&B, Packet::default()).await,
        Err(Error::Denied { .. })
    ));
    assert!(matches!(
        a.ask(&B, Packet::default()).await,
        Err(Error::Denied { .. })
    ));
    assert!(matches!(a.lookup_public_key(&B).await, Err(Error::Denied { .. })));
    a.set(Party::Addr(A), Verdict::Allow);
    let mut batch = vec![(B, "no".into()), (A, "yes".into()), (B, "no".into())];
    let error = a.tell_batch(&mut batch).await.expect_err("two are refused");
    assert_eq!((error.sent, error.refused, batch.len()), (1, 2, 0));
    assert_eq!(&*a.receive().await.expect("received").payload, b"yes");
    b.close().await;
    assert!(
        matches!(b.receive().await, Err(Error::Closed)),
        "nothing was queued at B"
    );
}

#[tokio::test]
async fn messages_from_a_denied_address_are_dropped_and_counted_and_its_asks_rejected_at_once() {
    let (a, b) = pair(Verdict::Allow);
    a.set(Party::Peer(id(1)), Verdict::Deny);
    b.tell(&A, "denied".into()).await.expect("told");
    a.inner().tell(&A, "mine".into()).await.expect("told");
    let mut out = vec![a.inner().receive().await.expect("kept as it is")];
    assert_eq!(a.receive_batch(&mut out, 10).await.expect("received"), 1);
    assert_eq!(
        (&*out[0].payload, &*out[1].payload),
        (&b"denied"[..], &b"mine"[..]),
        "what was in the vector stays"
    );
    b.tell(&A, "denied".into()).await.expect("told");
    a.inner().tell(&A, "mine".into()).await.expect("told");
    assert_eq!(&*a.receive().await.expect("received").payload, b"mine");
    assert_eq!(denied(&a), 1);
    let rejected = tokio::select! {
        rejected = b.ask(&A, Packet::default()) => rejected,
        request = a.receive_ask() => panic!("{request:?} is denied"),
    };
    assert!(matches!(rejected, Err(Error::Rejected(Rejection::DENIED))));
    assert_eq!(denied(&a), 2);
}

#[tokio::test]
async fn rules_change_while_a_reader_waits() {
    let (a, b) = pair(Verdict::Deny);
    let changes = async {
        for early in 1..=50 {
            b.tell(&A, "too early".into()).await.expect("told");
            while denied(&a) < early {
                tokio::task::yield_now().await;
            }
        }
        a.set(Party::Peer(id(1)), Verdict::Allow);
        b.tell(&A, "in time".into()).await.expect("told");
    };
    let (message, ()) = tokio::join!(a.receive(), changes);
    assert_eq!(&*message.expect("received").payload, b"in time");
    assert_eq!(denied(&a), 50);
    a.unset(&Party::Peer(id(1)));
    assert!(!a.allows(&B));
    a.set_others(Verdict::Allow);
    assert!(a.allows(&B));
}

#[tokio::test]
async fn a_denial_wins_over_a_permission() {
    for (addr, peer) in [(Verdict::Allow, Verdict::Deny), (Verdict::Deny, Verdict::Allow)] {
        let (a, _b) = pair(Verdict::Allow);
        a.set(Party::Addr(B), addr);
        a.set(Party::Peer(id(1)), peer);
        assert!(!a.allows(&B));
    }
}

#[tokio::test]
async fn a_party_is_an_identity_or_an_address_and_both_pass_asks() {
    let (a, b) = pair(Verdict::Deny);
    for (text, party) in [
        (id(1).to_string(), Party::Peer(id(1))),
        ("1".to_owned(), Party::Addr(B)),
    ] {
        let parsed = Party::parse(&text, &a).expect("a party");
        assert_eq!((parsed.to_string(), &parsed), (text, &party));
        a.set(parsed, Verdict::Allow);
        let answer = async {
            let request = a.receive_ask().await.expect("asked");
            request.respond("pong".into()).await.expect("responded");
        };
        let (response, ()) = tokio::join!(b.ask(&A, "ping".into()), answer);
        assert_eq!(&*response.expect("answered"), b"pong");
        a.unset(&party);
    }
    assert!(matches!(Party::parse("x", &a), Err(Error::InvalidAddr { .. })));
}
