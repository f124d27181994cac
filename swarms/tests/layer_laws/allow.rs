//! Which peers messages are received from and sent to, in both directions, and from which moment on.

use std::fmt;

use p2p::{Addr, AskSwarm, DropReason, Error, Packet, PeerId, Rejection, SecureSwarm, Swarm};
use p2p_swarms::allow::{AllowSwarm, Policy, Rule};
use p2p_swarms::map::{MapSwarm, Translate};
use p2p_swarms::{MemoryAddr, MemoryRealm, MemorySwarm, SwarmExt as _};
use p2p_swarmtest::SecureAsk;

use crate::{counted, keeps_all_laws, over_memory, poll_once};

/// A memory address that contains an identity, all bytes of which are the number.
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
fn pair(others: Policy) -> (AllowSwarm<Named, Node>, Node) {
    let realm = MemoryRealm::default();
    let a = AllowSwarm::new(MapSwarm::new(realm.open(), Name), others);
    (a, MapSwarm::new(realm.open(), Name))
}

fn denied(swarm: &impl Swarm<Named>) -> u64 {
    counted(swarm, "allow").dropped(DropReason::Denied)
}

#[tokio::test(start_paused = true)]
async fn all_laws_hold_if_every_peer_is_allowed() {
    let allowing = |swarm: MemorySwarm| Ok(swarm.allow(Policy::Allow));
    keeps_all_laws(over_memory!(SecureAsk, allowing)).await;
}

#[tokio::test]
async fn no_message_is_sent_to_a_denied_address() {
    let (a, b) = pair(Policy::Deny);
    assert!(matches!(
        a.tell(&B, Packet::default()).await,
        Err(Error::Denied { .. })
    ));
    assert!(matches!(
        a.ask(&B, Packet::default()).await,
        Err(Error::Denied { .. })
    ));
    assert!(matches!(a.lookup_public_key(&B).await, Err(Error::Denied { .. })));
    a.set(Rule::Addr(A), Policy::Allow);
    let mut batch = vec![(B, "no".into()), (A, "yes".into()), (B, "no".into())];
    let error = a.tell_batch(&mut batch).await.expect_err("two are refused");
    assert_eq!((error.sent, error.refused, batch.len()), (1, 2, 0));
    assert_eq!(&*a.receive().await.expect("received").payload, b"yes");
    let mut batch = vec![(B, "no".into())];
    let error = a.tell_batch(&mut batch).await.expect_err("all are refused");
    assert_eq!((error.sent, error.refused, batch.len()), (0, 1, 0));
    assert!(poll_once(b.receive()).is_pending(), "nothing arrived at B");
    assert!(poll_once(b.receive_ask()).is_pending());
    assert_eq!(counted(&a, "allow").sent, 1);
}

#[tokio::test]
async fn messages_from_a_denied_address_are_dropped_and_counted_and_its_asks_rejected_at_once() {
    let (a, b) = pair(Policy::Allow);
    a.set(Rule::Peer(id(1)), Policy::Deny);
    b.tell(&A, "denied".into()).await.expect("told");
    a.inner().tell(&A, "mine".into()).await.expect("told");
    let mut out = vec![a.inner().receive().await.expect("an earlier message")];
    assert_eq!(a.receive_batch(&mut out, 10).await.expect("received"), 1);
    assert_eq!(
        (&*out[0].payload, &*out[1].payload),
        (&b"denied"[..], &b"mine"[..]),
        "earlier contents of the vector stay"
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
    let (a, b) = pair(Policy::Deny);
    let changes = async {
        for early in 1..=50 {
            b.tell(&A, "too early".into()).await.expect("told");
            while denied(&a) < early {
                tokio::task::yield_now().await;
            }
        }
        a.set(Rule::Peer(id(1)), Policy::Allow);
        b.tell(&A, "in time".into()).await.expect("told");
    };
    let (message, ()) = tokio::join!(a.receive(), changes);
    assert_eq!(&*message.expect("received").payload, b"in time");
    assert_eq!(denied(&a), 50);
    a.unset(&Rule::Peer(id(1)));
    assert!(!a.allows(&B));
    a.set_others(Policy::Allow);
    assert!(a.allows(&B));
}

/// All combinations of rules for one address, and one rule for another address.
#[tokio::test]
async fn a_denial_wins_over_a_permission_and_others_get_the_default() {
    let policies = [None, Some(Policy::Allow), Some(Policy::Deny)];
    for others in [Policy::Allow, Policy::Deny] {
        for (addr, peer) in policies
            .iter()
            .flat_map(|addr| policies.map(|peer| (*addr, peer)))
        {
            for about_another in policies {
                let (a, _b) = pair(others);
                let rules = [
                    (Rule::Addr(B), addr),
                    (Rule::Peer(id(1)), peer),
                    (Rule::Peer(id(9)), about_another),
                ];
                for (rule, policy) in rules.iter().filter_map(|(rule, policy)| Some((rule, (*policy)?))) {
                    a.set(rule.clone(), policy);
                }
                let due = match [addr, peer] {
                    [None, None] => others == Policy::Allow,
                    rules => !rules.contains(&Some(Policy::Deny)),
                };
                assert_eq!(a.allows(&B), due, "{others:?}, {rules:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_batch_of_denied_messages_does_not_end_a_receive() {
    let (a, b) = pair(Policy::Allow);
    a.set(Rule::Peer(id(1)), Policy::Deny);
    b.tell_batch(&mut (0..5).map(|_| (A, "denied".into())).collect())
        .await
        .expect("told");
    let mut out = Vec::new();
    assert!(poll_once(a.receive_batch(&mut out, 10)).is_pending());
    assert_eq!((out.len(), denied(&a)), (0, 5));
    let mut mixed = vec![(A, "mine".into()), (A, "mine, too".into())];
    a.inner().tell_batch(&mut mixed).await.expect("told");
    b.tell(&A, "denied".into()).await.expect("told");
    assert_eq!(a.receive_batch(&mut out, 10).await.expect("received"), 2);
    assert_eq!((out.len(), denied(&a)), (2, 6));
    let counts = counted(&a, "allow");
    assert_eq!((counts.received, counts.delivered), (8, 2));
    assert!(format!("{a:?}").starts_with("AllowSwarm { inner: MapSwarm { inner: MemorySwarm"));
    assert_eq!(a.receive_batch(&mut out, 0).await.expect("at once"), 0);
}

#[tokio::test]
async fn a_rule_matches_an_identity_or_an_address_and_passes_asks() {
    let (a, b) = pair(Policy::Deny);
    for (text, rule) in [
        (id(1).to_string(), Rule::Peer(id(1))),
        ("1".to_owned(), Rule::Addr(B)),
    ] {
        let parsed = Rule::parse(&text, &a).expect("a rule");
        assert_eq!((parsed.to_string(), &parsed), (text, &rule));
        a.set(parsed, Policy::Allow);
        let answer = async {
            let request = a.receive_ask().await.expect("asked");
            request.respond("pong".into()).await.expect("responded");
        };
        let (response, ()) = tokio::join!(b.ask(&A, "ping".into()), answer);
        assert_eq!(&*response.expect("answered"), b"pong");
        a.unset(&rule);
    }
    assert!(matches!(Rule::parse("x", &a), Err(Error::InvalidAddr { .. })));
}
