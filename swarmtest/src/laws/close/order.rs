//! The first effects of close, and calls that were accepted before it.

use std::collections::BTreeSet;

use p2p::{Addr, AskSwarm as _, Error, Packet, SecureSwarm as _, Swarm as _};
use tokio::task::{JoinSet, yield_now};
use tokio::time::timeout;

use super::close;
use crate::harness::{
    Held, MIN_PAYLOAD, PLAIN, broken, ensure, in_time, mtu, number, numbered_payload, pending, serve,
};
use crate::kind::Node;
use crate::report::{Outcome, Unmet};
use crate::testbed::Testbed;

/// Returns the calls of a closed swarm that did not fail with [`Error::Closed`], by name.
async fn not_closed<A: Addr>(
    testbed: &Testbed<A>,
    node: &Node<A>,
    dst: &A,
) -> Outcome<BTreeSet<&'static str>> {
    let packet = || Packet::from(numbered_payload(0, PLAIN).as_slice());
    let limit = testbed.patience();
    let mut found = BTreeSet::new();
    let mut look = |call, is_closed: bool| {
        if !is_closed {
            found.insert(call);
        }
    };
    let told = timeout(limit, node.tell(dst, packet())).await;
    look("tell", matches!(told, Ok(Err(Error::Closed))));
    let mut batch = vec![(dst.clone(), packet())];
    let told = timeout(limit, node.tell_batch(&mut batch)).await;
    look(
        "tell_batch",
        matches!(told, Ok(Err(error)) if matches!(error.first, Error::Closed)),
    );
    let received = timeout(limit, node.receive()).await;
    look("receive", matches!(received, Ok(Err(Error::Closed))));
    let mut out = Vec::new();
    let received = timeout(limit, node.receive_batch(&mut out, 4)).await;
    look("receive_batch", matches!(received, Ok(Err(Error::Closed))));
    if let Ok(asks) = node.ask_side() {
        let asked = timeout(limit, asks.ask(dst, packet())).await;
        look("ask", matches!(asked, Ok(Err(Error::Closed))));
        let received = timeout(limit, asks.receive_ask()).await;
        look("receive_ask", matches!(received, Ok(Err(Error::Closed))));
    }
    if let Ok(keys) = node.secure_side() {
        let found = timeout(limit, keys.lookup_public_key(dst)).await;
        look("lookup_public_key", matches!(found, Ok(Err(Error::Closed))));
    }
    Ok(found)
}

/// Polls `close` once and drops it, then makes every call: a call that fails with [`Error::Closed`] after a
/// complete `close` does so now.
pub async fn close_takes_effect_at_its_first_poll<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    for used in [false, true] {
        let [a, b] = testbed.nodes().await?;
        let dst = b.addr()?;
        if used {
            testbed.deliver(&a, &b, &numbered_payload(0, PLAIN)).await?;
            testbed.deliver(&b, &a, &numbered_payload(0, PLAIN)).await?;
        }
        // A duplicate of an earlier message may arrive late.
        let mut waiting: Vec<_> = (0..16).map(|_| Held::new(a.receive())).collect();
        waiting.retain_mut(|receive| receive.poll().is_pending());
        let _ = Held::new(a.close()).poll();
        let early = not_closed(testbed, &a, &dst).await?;
        let mut ended = Ok(());
        for receive in waiting {
            ended = ended.and(
                in_time("a receive", testbed.patience(), receive.future())
                    .await
                    .map(drop),
            );
        }
        close(testbed, &a).await?;
        // Another law covers calls that do not fail after close either.
        let late = not_closed(testbed, &a, &dst).await?;
        if let Some(call) = early.difference(&late).next() {
            broken!("{call} still works after close was polled once and dropped");
        }
        ensure!(
            late.contains("receive") || ended.is_ok(),
            "a pending receive continues after close was polled once and dropped"
        );
    }
    Ok(())
}

/// The numbers of arriving payloads, read by a task until it is dropped.
fn reading<A: Addr>(node: &Node<A>) -> (JoinSet<()>, tokio::sync::mpsc::UnboundedReceiver<(u32, usize)>) {
    let (told, numbers) = tokio::sync::mpsc::unbounded_channel();
    let (node, mut tasks) = (node.clone(), JoinSet::new());
    tasks.spawn(async move {
        while let Ok(message) = node.receive().await {
            if let Some(number) = number(&message.payload) {
                let _ = told.send((number, message.payload.len()));
            }
        }
    });
    (tasks, numbers)
}

fn needs_no_loss<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    if testbed.lossless() && testbed.the_profile().loss_at_mtu <= 0.0 {
        return Ok(());
    }
    Err(Unmet::Waived("the medium may lose the last messages".into()))
}

/// Tells some messages, closes at once, and counts the arrivals of those that were accepted: on new nodes
/// each time, with and without an earlier message.
pub async fn what_was_told_before_close_arrives<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    needs_no_loss(testbed)?;
    for (round, count) in [1, 1, 2, 16, 1, 5, 16, 3, 1, 8].into_iter().enumerate() {
        let count = count.min(testbed.window() as u32);
        let [a, b] = testbed.nodes().await?;
        let (dst, most) = (b.addr()?, mtu(&a)?.min(8 << 10));
        if round % 2 == 1 {
            testbed
                .deliver(&a, &b, &numbered_payload(u32::MAX, PLAIN))
                .await?;
        }
        let (_reading, mut came) = reading(&b);
        let mut accepted = BTreeSet::new();
        let packet = |number: u32| {
            let len = MIN_PAYLOAD + (number as usize * 397 + round * 31) % (most - MIN_PAYLOAD);
            Packet::from(numbered_payload(number, len))
        };
        if round % 3 == 2 {
            let mut batch = (0..count).map(|number| (dst.clone(), packet(number))).collect();
            if in_time("tell_batch", testbed.patience(), a.tell_batch(&mut batch))
                .await?
                .is_ok()
            {
                accepted.extend(0..count);
            }
        } else {
            for number in 0..count {
                if in_time("a tell", testbed.patience(), a.tell(&dst, packet(number)))
                    .await?
                    .is_ok()
                {
                    accepted.insert(number);
                }
                if number % 4 == 3 {
                    yield_now().await;
                }
            }
        }
        close(testbed, &a).await?;
        let told = accepted.len();
        let arrive = async {
            while !accepted.is_empty() {
                let Some((number, _)) = came.recv().await else {
                    break;
                };
                accepted.remove(&number);
            }
        };
        let _ = timeout(testbed.patience(), arrive).await;
        ensure!(
            accepted.is_empty(),
            "of {told} messages that tell accepted right before close, {} did not arrive (round {round})",
            accepted.len()
        );
    }
    Ok(())
}

/// Answers, and closes at once.
pub async fn what_was_answered_before_close_arrives<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    needs_no_loss(testbed)?;
    for round in 0..6_u32 {
        let count = [1, 1, 2, 1, 6, 3][round as usize];
        let count = count
            .min(testbed.the_profile().asks as u32)
            .min(testbed.window() as u32);
        let [a, b] = testbed.nodes().await?;
        let (asks, server, dst) = (a.ask_side()?.clone(), b.ask_side()?.clone(), b.addr()?);
        if round % 2 == 1 {
            let serving = serve(&b, |_| Vec::new())?;
            testbed.ask(&a, &dst, &numbered_payload(1, PLAIN)).await?;
            drop(serving);
        }
        let ask = |number: u32, asks: p2p::BoxAskSwarm<A>, dst: A| async move {
            let outcome = asks
                .ask(&dst, Packet::from(numbered_payload(number, PLAIN)))
                .await;
            (number, outcome)
        };
        let asking = (0..count).map(|number| ask(number, asks.clone(), dst.clone()));
        let mut asking = pending(asking).await;
        let mut requests = Vec::new();
        for _ in 0..count {
            requests.push(in_time("receive_ask", testbed.patience(), server.receive_ask()).await??);
        }
        let most = mtu(&b)?.min(4096) - MIN_PAYLOAD;
        let answer =
            |number: u32| numbered_payload(number, MIN_PAYLOAD + ((round + number) as usize * 151) % most);
        let mut accepted = BTreeSet::new();
        for request in requests {
            let number = number(&request.message.payload).unwrap_or(u32::MAX);
            let response = request.respond(Packet::from(answer(number)));
            if in_time("a response", testbed.patience(), response).await?.is_ok() {
                accepted.insert(number);
            }
        }
        close(testbed, &b).await?;
        while let Some(done) =
            in_time("an ask", testbed.the_profile().ask_patience, asking.join_next()).await?
        {
            let (number, outcome) = done.map_err(|error| Unmet::Broken(error.to_string()))?;
            if matches!(outcome, Ok(response) if response == *answer(number).as_slice()) {
                accepted.remove(&number);
            }
        }
        ensure!(
            accepted.is_empty(),
            "of {count} responses, {} that were accepted right before close did not arrive (round {round})",
            accepted.len()
        );
    }
    Ok(())
}

/// Calls a closed peer, with and without an earlier message, then another.
pub async fn a_closed_peer_is_no_closed_swarm<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    for used in [true, false] {
        let [a, b, c] = testbed.nodes().await?;
        let (gone, there) = (b.addr()?, c.addr()?);
        if used {
            testbed.deliver(&a, &b, &numbered_payload(0, PLAIN)).await?;
            testbed.deliver(&b, &a, &numbered_payload(0, PLAIN)).await?;
        }
        close(testbed, &b).await?;
        let packet = || Packet::from(numbered_payload(1, PLAIN).as_slice());
        let works = timeout(testbed.patience(), a.tell(&there, packet())).await;
        if matches!(works, Ok(Err(Error::Closed))) {
            // The node closes with others, which another law checks.
            return Ok(());
        }
        let mut found = Vec::new();
        for _ in 0..4 {
            let told = timeout(testbed.settle(), a.tell(&gone, packet())).await;
            found.push(("tell", matches!(told, Ok(Err(Error::Closed)))));
            let mut batch = vec![(gone.clone(), packet()), (there.clone(), packet())];
            let told = timeout(testbed.settle(), a.tell_batch(&mut batch)).await;
            let is_closed = matches!(told, Ok(Err(error)) if matches!(error.first, Error::Closed));
            found.push(("tell_batch", is_closed));
            if let Ok(asks) = a.ask_side() {
                let asked = timeout(testbed.settle(), asks.ask(&gone, packet())).await;
                found.push(("ask", matches!(asked, Ok(Err(Error::Closed)))));
            }
            if let Ok(keys) = a.secure_side() {
                let looked = timeout(testbed.settle(), keys.lookup_public_key(&gone)).await;
                found.push(("lookup_public_key", matches!(looked, Ok(Err(Error::Closed)))));
            }
            tokio::time::sleep(testbed.settle() / 4).await;
        }
        if let Some((call, _)) = found.iter().find(|(_, is_closed)| *is_closed) {
            broken!("{call} to a peer that is closed failed with Error::Closed");
        }
        let works = timeout(testbed.patience(), a.tell(&there, packet())).await;
        ensure!(
            !matches!(works, Ok(Err(Error::Closed))),
            "calls to a peer that is closed closed the node"
        );
    }
    Ok(())
}
