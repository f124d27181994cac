//! Closing and dropping free the address.

use std::time::Duration;

use p2p::{Addr, AskSwarm as _, Packet, Request, SecureSwarm as _, Swarm as _};
use tokio::time::timeout;

use super::close;
use crate::harness::{Held, PLAIN, broken, ensure, numbered_payload, pending};
use crate::kind::Node;
use crate::report::Outcome;
use crate::testbed::{Testbed, chain};

/// Returns three nodes and the address of the second one. In every other trial the first two have sessions.
pub(super) async fn three<A: Addr>(testbed: &Testbed<A>, trial: u32) -> Outcome<([Node<A>; 3], A)> {
    let [a, b, c] = testbed.nodes().await?;
    let addr = b.addr()?;
    if trial % 2 == 1 {
        testbed.deliver(&a, &b, &numbered_payload(trial, PLAIN)).await?;
        testbed.deliver(&b, &a, &numbered_payload(trial, PLAIN)).await?;
    }
    Ok(([a, b, c], addr))
}

/// Number of nodes that are closed. Another program may take an address between closing and binding, so a
/// single refusal proves nothing.
const TRIALS: u32 = 4;

/// Closes a node and creates another at its address, at the first attempt, and tells it a message.
pub async fn closing_frees_the_address<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let mut refused = 0;
    for trial in 0..TRIALS {
        let ([_a, b, c], addr) = three(testbed, trial).await?;
        close(testbed, &b).await?;
        taken_at_once(testbed, &c, &addr, &mut refused).await?;
    }
    Ok(())
}

/// Drops a node and creates another at its address, and tells it a message.
pub async fn dropping_frees_the_address<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    for trial in 0..TRIALS {
        let ([_a, b, c], addr) = three(testbed, trial).await?;
        drop(b);
        taken_again(testbed, &c, &addr).await?;
    }
    Ok(())
}

/// The same as [`closing_frees_the_address`], with nodes in every kind of use.
pub async fn closing_frees_an_address_in_use<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let mut refused = 0;
    for usage in Usage::ALL {
        let [a, b, other, c] = testbed.nodes().await?;
        let addr = b.addr()?;
        let held = use_node(testbed, [&a, &b, &other], usage).await?;
        close(testbed, &b).await?;
        taken_at_once(testbed, &c, &addr, &mut refused).await?;
        drop(held);
    }
    Ok(())
}

/// The same as [`dropping_frees_the_address`], with nodes in every kind of use.
pub async fn dropping_frees_an_address_in_use<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    for usage in Usage::ALL {
        let [a, b, other, c] = testbed.nodes().await?;
        let addr = b.addr()?;
        let held = use_node(testbed, [&a, &b, &other], usage).await?;
        drop(b);
        if let Err(crate::Unmet::Broken(how)) = taken_again(testbed, &c, &addr).await {
            broken!("after {usage:?}, {how}");
        }
        drop(held);
    }
    Ok(())
}

/// Closes a node that knows another and creates one at its address: each reaches the other as soon as an ask
/// would have timed out.
pub async fn a_node_made_again_is_reached_by_others<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let (addr, known) = (b.addr()?, a.addr()?);
    testbed.deliver(&a, &b, &numbered_payload(0, PLAIN)).await?;
    testbed.deliver(&b, &a, &numbered_payload(0, PLAIN)).await?;
    close(testbed, &b).await?;
    let node = testbed.rebound(&addr).await?;
    let until = tokio::time::Instant::now() + testbed.the_profile().ask_patience;
    for (from, to, dst) in [(&a, &node, &addr), (&node, &a, &known)] {
        loop {
            match testbed
                .deliver_at(from, dst, to, &numbered_payload(1, PLAIN))
                .await
            {
                Err(crate::Unmet::Broken(how)) if tokio::time::Instant::now() >= until => {
                    broken!("after one of two nodes was created again, {how}")
                }
                Err(crate::Unmet::Broken(_)) => {}
                outcome => {
                    outcome?;
                    break;
                }
            }
        }
    }
    Ok(())
}

/// What a node does before it is closed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Usage {
    /// Calls were polled once and dropped.
    CancelledCalls,
    /// A request was received and is still held.
    HeldRequest,
    /// Messages and requests wait unread.
    UnreadMessages,
    /// Asks were cancelled before their responses.
    CancelledAsks,
    /// Its last call is a cancelled tell to a node that it does not know.
    LastTell,
}

impl Usage {
    pub(super) const ALL: [Usage; 5] = [
        Usage::CancelledCalls,
        Usage::HeldRequest,
        Usage::UnreadMessages,
        Usage::CancelledAsks,
        Usage::LastTell,
    ];
}

/// Uses the second node; returns the held requests.
pub(super) async fn use_node<A: Addr>(
    testbed: &Testbed<A>,
    [a, b, other]: [&Node<A>; 3],
    usage: Usage,
) -> Outcome<Vec<Request<A>>> {
    let (to_a, to_b) = (a.addr()?, b.addr()?);
    let packet = || Packet::from(numbered_payload(0, PLAIN).as_slice());
    let mut held = Vec::new();
    match usage {
        Usage::CancelledCalls => {
            let mut buffer = Vec::new();
            let _ = Held::new(b.receive()).poll();
            let _ = Held::new(b.receive_batch(&mut buffer, 4)).poll();
            let _ = Held::new(b.tell(&to_a, packet())).poll();
            if let Ok(asks) = b.ask_side() {
                let _ = Held::new(asks.receive_ask()).poll();
            }
            if let Ok(keys) = b.secure_side() {
                let _ = Held::new(keys.lookup_public_key(&to_a)).poll();
            }
        }
        Usage::HeldRequest => {
            if let (Ok(asker), Ok(server)) = (a.ask_side(), b.ask_side()) {
                let (asker, to_b) = (asker.clone(), to_b.clone());
                let asking = pending([async move { asker.ask(&to_b, packet()).await }]).await;
                if let Ok(request) = timeout(testbed.quiet(), server.receive_ask()).await {
                    held.push(request?);
                }
                drop(asking);
            }
        }
        Usage::UnreadMessages => {
            testbed.tell_each(a, &to_b, 0..8).await?;
            if let Ok(asker) = a.ask_side() {
                let mut ask = Held::new(asker.ask(&to_b, packet()));
                if ask.poll().is_pending() {
                    tokio::time::sleep(testbed.settle()).await;
                    let _ = ask.poll();
                }
            }
        }
        Usage::CancelledAsks => {
            if let Ok(asker) = b.ask_side() {
                for _ in 0..4 {
                    let mut ask = Held::new(asker.ask(&to_a, packet()));
                    if ask.poll().is_pending() {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                        let _ = ask.poll();
                    }
                }
            }
        }
        Usage::LastTell => {
            let unknown = other.addr()?;
            let _ = Held::new(b.tell(&unknown, packet())).poll();
        }
    }
    Ok(held)
}

/// Makes a node at the address of one that was closed, at the first attempt, and tells it something.
pub(super) async fn taken_at_once<A: Addr>(
    testbed: &Testbed<A>,
    a: &Node<A>,
    addr: &A,
    refused: &mut u32,
) -> Outcome {
    match testbed.rebound_at_once(addr).await? {
        Ok(node) => reached(testbed, a, addr, &node).await,
        Err(error) => {
            *refused += 1;
            ensure!(
                *refused < 2,
                "{addr} is not free after close has returned: {}",
                chain(&error)
            );
            taken_again(testbed, a, addr).await
        }
    }
}

/// Makes a node at this address as soon as it is free, and tells it something.
pub(super) async fn taken_again<A: Addr>(testbed: &Testbed<A>, a: &Node<A>, addr: &A) -> Outcome {
    let node = testbed.rebound(addr).await?;
    reached(testbed, a, addr, &node).await
}

async fn reached<A: Addr>(testbed: &Testbed<A>, a: &Node<A>, addr: &A, node: &Node<A>) -> Outcome {
    let local = node.local_addrs();
    ensure!(
        local.contains(addr),
        "a node created at {addr} has the addresses {local:?}"
    );
    testbed
        .deliver_at(a, addr, node, &numbered_payload(0, PLAIN))
        .await
        .map(drop)
}
