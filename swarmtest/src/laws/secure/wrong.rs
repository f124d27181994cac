//! Wrong identities next to the true one, and flooded nodes.

use std::collections::BTreeSet;

use p2p::{Addr, AskSwarm as _, Packet, SecureSwarm as _, Swarm as _};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::harness::{PLAIN, broken, ensure, in_time, number, numbered_payload, serve};
use crate::kind::Node;
use crate::report::Outcome;
use crate::testbed::Testbed;

/// The first number of payloads to wrong identities.
const WRONG: u32 = 1 << 20;

/// Reads the arrivals at a node, in a task.
struct Reader {
    _task: JoinSet<()>,
    came: mpsc::UnboundedReceiver<u32>,
    seen: BTreeSet<u32>,
}

impl Reader {
    fn new<A: Addr>(node: &Node<A>) -> Self {
        let (tell, came) = mpsc::unbounded_channel();
        let (node, mut task) = (node.clone(), JoinSet::new());
        task.spawn(async move {
            while let Ok(message) = node.receive().await {
                if let Some(number) = number(&message.payload) {
                    let _ = tell.send(number);
                }
            }
        });
        Self {
            _task: task,
            came,
            seen: BTreeSet::new(),
        }
    }

    /// Returns [`crate::Unmet::Broken`] if a payload to a wrong identity arrived.
    fn check(&mut self) -> Outcome {
        while let Ok(number) = self.came.try_recv() {
            self.seen.insert(number);
        }
        let wrong = self.seen.range(WRONG..).count();
        ensure!(
            wrong == 0,
            "{wrong} messages to a wrong identity arrived at the node at its place"
        );
        Ok(())
    }

    /// Tells the node a payload until it arrives.
    async fn reached<A: Addr>(
        &mut self,
        testbed: &Testbed<A>,
        from: &Node<A>,
        dst: &A,
        number: u32,
    ) -> Outcome {
        let mut again = testbed.again(PLAIN);
        while again.next() {
            let _ = timeout(
                testbed.patience(),
                from.tell(dst, Packet::from(numbered_payload(number, PLAIN))),
            )
            .await;
            let until = Instant::now() + testbed.settle();
            while let Ok(Some(came)) = tokio::time::timeout_at(until, self.came.recv()).await {
                self.seen.insert(came);
                if came == number {
                    return self.check();
                }
            }
        }
        self.check()?;
        broken!(
            "during calls to wrong identities at its place, a node was told {} times, and nothing arrived",
            again.times
        )
    }
}

/// Calls to a wrong identity, in tasks that end soon.
fn wrong_calls<A: Addr>(
    testbed: &Testbed<A>,
    from: &Node<A>,
    forged: &A,
    number: u32,
) -> JoinSet<Option<&'static str>> {
    let mut calls = JoinSet::new();
    let limit = 2 * testbed.settle();
    let packet = move |more: u32| Packet::from(numbered_payload(WRONG + 4 * number + more, PLAIN));
    let (node, dst) = (from.clone(), forged.clone());
    calls.spawn(async move {
        let _ = timeout(limit, node.tell(&dst, packet(0))).await;
        let mut batch = vec![(dst.clone(), packet(1)), (dst, packet(2))];
        let _ = timeout(limit, node.tell_batch(&mut batch)).await;
        None
    });
    if let Ok(asks) = from.ask_side() {
        let (asks, dst) = (asks.clone(), forged.clone());
        calls.spawn(async move {
            let asked = timeout(limit, asks.ask(&dst, packet(3))).await;
            matches!(asked, Ok(Ok(_))).then_some("an ask to a wrong identity was answered")
        });
    }
    calls
}

async fn ended(mut calls: JoinSet<Option<&'static str>>) -> Outcome {
    while let Some(done) = calls.join_next().await {
        if let Ok(Some(fault)) = done {
            broken!("{fault}");
        }
    }
    Ok(())
}

/// Calls a wrong identity and the true one at the same place alternately, when the true one is known.
pub async fn a_wrong_id_reaches_no_node_beside_the_true_one<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, named, other] = testbed.nodes().await?;
    let (there, forged) = (other.addr()?, testbed.forged(&named.addr()?, &other.addr()?)?);
    testbed.deliver(&a, &named, &numbered_payload(0, PLAIN)).await?;
    testbed.deliver(&named, &a, &numbered_payload(0, PLAIN)).await?;
    testbed.deliver(&other, &a, &numbered_payload(0, PLAIN)).await?;
    let _serving = other.ask_side().is_ok().then(|| serve(&other, |_| Vec::new()));
    let mut reader = Reader::new(&other);
    reader.reached(testbed, &a, &there, 1).await?;
    for number in 0..testbed.amount(30) as u32 {
        let calls = wrong_calls(testbed, &a, &forged, number);
        let mut batch: Vec<_> = [&there, &forged, &there]
            .into_iter()
            .zip([2, WRONG, 3])
            .map(|(dst, base)| {
                (
                    dst.clone(),
                    Packet::from(numbered_payload(base + 8 * number, PLAIN)),
                )
            })
            .collect();
        let _ = timeout(2 * testbed.settle(), a.tell_batch(&mut batch)).await;
        if number % 3 == 0 {
            reader.reached(testbed, &a, &there, 4 + 8 * number).await?;
        }
        ended(calls).await?;
        if number % 5 == 0 {
            let keys = a.secure_side()?;
            let found = timeout(testbed.settle(), keys.lookup_public_key(&forged)).await;
            let wrong = other.secure_side()?.public_key();
            ensure!(
                !matches!(found, Ok(Ok(found)) if found == wrong),
                "the lookup of a wrong identity returned the key of the node at its place"
            );
        }
        reader.check()?;
    }
    let until = Instant::now() + 2 * testbed.settle();
    while let Ok(Some(number)) = tokio::time::timeout_at(until, reader.came.recv()).await {
        reader.seen.insert(number);
    }
    reader.check()
}

/// Calls wrong identities at a node's place first, then the node: it is reached, and reaches the caller.
pub async fn a_wrong_id_makes_no_node_unreachable<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    for trial in 0..3_u32 {
        let [a, other, one, two, three] = testbed.nodes().await?;
        let there = other.addr()?;
        let mut forged = Vec::new();
        for named in [&one, &two, &three] {
            forged.push(testbed.forged(&named.addr()?, &there)?);
        }
        let mut reader = Reader::new(&other);
        if trial == 1 {
            reader.reached(testbed, &a, &there, 0).await?;
        }
        let mut calls = Vec::new();
        for number in 0..4 {
            for forged in &forged {
                calls.push(wrong_calls(testbed, &a, forged, number));
            }
        }
        tokio::task::yield_now().await;
        if trial == 2 {
            tokio::time::sleep(testbed.settle()).await;
        }
        reader.reached(testbed, &a, &there, 1).await?;
        testbed.deliver(&other, &a, &numbered_payload(2, PLAIN)).await?;
        for calls in calls {
            ended(calls).await?;
        }
        reader.reached(testbed, &a, &there, 3).await?;
    }
    Ok(())
}

/// Floods a node that does not receive, looks its key up from other nodes, and lets one of them tell it for
/// the first time.
pub async fn a_flooded_node_proves_its_key<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b, others @ ..]: [_; 5] = testbed.nodes().await?;
    let dst = b.addr()?;
    let flood = testbed.flood(&a, &dst).await.len();
    for node in &others {
        let keys = node.secure_side()?;
        let mut again = testbed.again_round_trip(PLAIN);
        let mut found = None;
        while found.is_none() && again.next() {
            let limit = testbed.the_profile().ask_patience;
            found = in_time("a lookup", limit, keys.lookup_public_key(&dst))
                .await?
                .ok();
            tokio::time::sleep(testbed.settle() / 4).await;
        }
        ensure!(
            found.as_ref() == Some(&b.secure_side()?.public_key()),
            "a node with {flood} unread messages did not prove its key to another"
        );
    }
    testbed.drain(&b, flood).await?;
    testbed
        .deliver(&others[0], &b, &numbered_payload(u32::MAX, PLAIN))
        .await
        .map(drop)
}
