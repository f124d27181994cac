//! Closing a swarm that many tasks use.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use p2p::{Addr, AskSwarm as _, Packet, SecureSwarm as _, Swarm as _};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::close;
use crate::harness::{Held, PLAIN, broken, closed, ensure, in_time, numbered_payload, pending};
use crate::kind::Node;
use crate::report::{Outcome, Unmet};
use crate::testbed::Testbed;

/// Tasks of one kind.
const TASKS: u32 = 16;

/// Creates two nodes, which have told each other a message if they are to be `used`.
async fn pair<A: Addr>(testbed: &Testbed<A>, used: bool) -> Outcome<[Node<A>; 2]> {
    let [node, other] = testbed.nodes().await?;
    if used {
        let payload = numbered_payload(0, PLAIN);
        testbed.deliver(&node, &other, &payload).await?;
        testbed.deliver(&other, &node, &payload).await?;
    }
    Ok([node, other])
}

/// Closes from many tasks concurrently, some of which cancel after the first poll, then again.
pub async fn close_may_be_called_by_many_tasks<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    for used in [false, true] {
        let [node, _other] = pair(testbed, used).await?;
        let mut given_up: Vec<_> = (0..4).map(|_| Held::new(node.close())).collect();
        for close in &mut given_up {
            let _ = close.poll();
        }
        drop(given_up);
        let call = |node: Node<A>| async move { node.close().await };
        let mut calls = pending((0..TASKS).map(|_| call(node.clone()))).await;
        let all = async {
            while let Some(done) = calls.join_next().await {
                done.map_err(|error| Unmet::Broken(error.to_string()))?;
            }
            Ok::<_, Unmet>(())
        };
        in_time("closing from many tasks", testbed.patience(), all).await??;
        in_time("closing again", testbed.patience(), node.close()).await?;
    }
    Ok(())
}

/// Polls calls of each kind once, holds them, closes, and polls them again.
pub async fn close_waits_for_no_call_that_is_held<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    for used in [false, true] {
        let [node, other] = pair(testbed, used).await?;
        let dst = other.addr()?;
        // A duplicate of an earlier message may arrive late.
        let mut receives: Vec<_> = (0..16).map(|_| Held::new(node.receive())).collect();
        receives.retain_mut(|receive| receive.poll().is_pending());
        let held = receives.len();
        let mut told = Held::new(node.tell(&dst, Packet::from(numbered_payload(1, PLAIN))));
        let told = told.poll().is_pending().then_some(told);
        let asks = node.ask_side().ok();
        let mut ask = asks.map(|asks| Held::new(asks.ask(&dst, Packet::from(numbered_payload(2, PLAIN)))));
        let mut receive_ask = asks.map(|asks| Held::new(asks.receive_ask()));
        let _ = ask.as_mut().map(Held::poll);
        let _ = receive_ask.as_mut().map(Held::poll);
        let keys = node.secure_side().ok();
        let mut lookup = keys.map(|keys| Held::new(keys.lookup_public_key(&dst)));
        let lookup = lookup
            .take()
            .and_then(|mut held| held.poll().is_pending().then_some(held));
        close(testbed, &node).await?;
        let limit = testbed.patience();
        let mut ended = 0;
        for receive in receives {
            if let Ok(result) = in_time("a receive", limit, receive.future()).await {
                if let Err(error) = result {
                    closed(
                        "a receive that was held while the node closed",
                        Err::<(), _>(error),
                    )?;
                }
                ended += 1;
            }
        }
        // Another law checks that at least one ends.
        ensure!(
            ended == 0 || ended == held,
            "of {held} receives that were held while the node closed, {ended} ended"
        );
        if let Some(told) = told {
            let _ = in_time("a tell that was held while the node closed", limit, told.future()).await?;
        }
        if let Some(lookup) = lookup {
            let _ = in_time(
                "a lookup that was held while the node closed",
                limit,
                lookup.future(),
            )
            .await?;
        }
    }
    Ok(())
}

/// Tells and receives at both ends in many tasks, and closes one end, then the other.
pub async fn closing_in_a_flood_ends_every_call<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    for first in [0, 1] {
        let nodes: [_; 2] = testbed.nodes().await?;
        let addrs = [nodes[0].addr()?, nodes[1].addr()?];
        let stop = [0, 1].map(|_| Arc::new(AtomicBool::new(false)));
        let mut tasks = [0, 1].map(|_| JoinSet::new());
        for at in [0, 1] {
            for task in 0..TASKS {
                let (node, dst, stop) = (nodes[at].clone(), addrs[1 - at].clone(), stop[at].clone());
                tasks[at].spawn(async move {
                    let mut buffer = Vec::new();
                    let mut calls = 0;
                    while !stop.load(SeqCst) {
                        let failed = match task % 4 {
                            0 => node
                                .tell(&dst, Packet::from(numbered_payload(task, PLAIN)))
                                .await
                                .is_err(),
                            1 => {
                                let mut batch = (0..5)
                                    .map(|_| (dst.clone(), Packet::from(numbered_payload(task, PLAIN))));
                                node.tell_batch(&mut batch.by_ref().collect()).await.is_err()
                            }
                            2 => node.receive().await.is_err(),
                            _ => node.receive_batch(&mut buffer, 16).await.is_err(),
                        };
                        buffer.clear();
                        calls += 1;
                        // Some runtimes stop the clock while there is anything to do.
                        if failed || (task % 4 < 2 && calls % 8 == 0) {
                            sleep(Duration::from_millis(1)).await;
                        }
                    }
                });
            }
        }
        sleep(testbed.settle() / 4).await;
        for at in [first, 1 - first] {
            close(testbed, &nodes[at]).await?;
            stop[at].store(true, SeqCst);
            let ending = async { while tasks[at].join_next().await.is_some() {} };
            if in_time("", testbed.patience(), ending).await.is_err() {
                let left = tasks[at].len() as u32;
                // Another law covers the case that all receives hang.
                if left < TASKS / 2 {
                    broken!("of {TASKS} tasks that told and received while the node closed, {left} hang");
                }
            }
        }
    }
    Ok(())
}
