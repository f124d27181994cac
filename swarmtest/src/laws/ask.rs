//! Laws of `ask` and `receive_ask`.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU8;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use p2p::{Addr, AskSwarm as _, Error, Packet, Rejection, Request, Swarm as _};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::chance::arrive_at_least;
use crate::harness::{
    Held, MIN_PAYLOAD, PLAIN, breathe, broken, ensure, in_time, mtu, number, numbered_payload, pending,
    reversed, serve, settle,
};
use crate::kind::Node;
use crate::report::{Outcome, Unmet};
use crate::testbed::{Testbed, chain};

mod busy;
mod ends;
mod load;
mod waiting;

pub use busy::{
    a_handler_may_ask_back, asks_are_answered_while_tells_flood, every_waiting_receive_ask_is_woken,
};
pub use ends::{
    a_dropped_request_takes_no_longer_than_an_answer, a_late_answer_reaches_no_other_ask,
    a_server_that_goes_ends_the_asks_of_others, a_slow_handler_runs_once,
    an_ask_without_a_response_frees_its_slot, every_code_of_a_rejection_arrives,
};
pub use load::{asks_of_every_length_are_answered, of_many_asks_each_gets_its_own_response};
pub use waiting::{
    a_held_ask_outlasts_many_others, asks_may_wait_together,
    cancelling_receive_ask_beside_others_loses_nothing, each_ask_has_its_own_deadline,
};

/// The code of a rejection without a meaning in any library.
const CODE: Rejection = match NonZeroU8::new(200) {
    Some(code) => Rejection::new(code),
    None => Rejection::DROPPED,
};

/// Asks with payloads of several lengths and compares the responses.
pub async fn an_ask_gets_its_response<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let _serving = serve(&b, |request| reversed(&request.message.payload))?;
    let (dst, most) = (b.addr()?, testbed.longest_ask(&a, &b)?);
    for len in [MIN_PAYLOAD, 31, 96, 200, 1000] {
        let request = numbered_payload(len as u32, len.min(most));
        let response = testbed.ask(&a, &dst, &request).await?;
        ensure!(
            response == *reversed(&request).as_slice(),
            "a response of {} bytes arrived as other {} bytes",
            request.len(),
            response.len()
        );
    }
    Ok(())
}

/// Keeps many asks in flight, which are answered in another order.
pub async fn responses_are_never_mixed_up<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let (asks, quiet) = (b.ask_side()?.clone(), testbed.settle() / 4);
    let _serving = pending([async move {
        let mut held: Vec<Request<A>> = Vec::new();
        loop {
            let came = match timeout(quiet, asks.receive_ask()).await {
                Ok(Ok(request)) => {
                    held.push(request);
                    true
                }
                Ok(Err(_)) => return,
                Err(_) => false,
            };
            if came && held.len() < 4 {
                continue;
            }
            for request in held.drain(..).rev() {
                let response = Packet::from(reversed(&request.message.payload));
                let _ = request.respond(response).await;
            }
        }
    }])
    .await;
    let dst = b.addr()?;
    let width = testbed.the_profile().asks.clamp(1, 16) as u32;
    // A lost ask takes as long as the swarm waits for a response.
    let rounds = if testbed.lossless() { testbed.amount(20) } else { 1 };
    for round in 0..rounds as u32 {
        let mut asking = JoinSet::new();
        for number in round * width..(round + 1) * width {
            let (testbed, a, dst) = (testbed.clone(), a.clone(), dst.clone());
            asking.spawn(async move {
                let request = numbered_payload(number, PLAIN);
                let response = testbed.ask(&a, &dst, &request).await?;
                ensure!(
                    response == *reversed(&request).as_slice(),
                    "an ask got the response to another ask"
                );
                Ok::<_, Unmet>(())
            });
        }
        while let Some(done) = asking.join_next().await {
            done.map_err(|error| Unmet::Broken(error.to_string()))??;
        }
    }
    Ok(())
}

/// Asks once with each number, and counts the requests at several callers of `receive_ask`.
pub async fn the_handler_runs_at_most_once<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let runs = Arc::new(Mutex::new(BTreeMap::<u32, usize>::new()));
    let mut serving = Vec::new();
    for _ in 0..4 {
        let runs = runs.clone();
        serving.push(serve(&b, move |request| {
            if let Some(number) = number(&request.message.payload) {
                *runs
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .entry(number)
                    .or_default() += 1;
            }
            reversed(&request.message.payload)
        })?);
    }
    let (asks, dst) = (a.ask_side()?, b.addr()?);
    let count = if testbed.lossless() {
        testbed.amount(300)
    } else {
        16
    };
    for number in 0..count as u32 {
        let ask = asks.ask(&dst, Packet::from(numbered_payload(number, PLAIN).as_slice()));
        // Another law checks whether it is answered.
        let _ = in_time("an ask", testbed.the_profile().ask_patience, ask).await?;
    }
    settle(testbed).await;
    let runs = runs.lock().unwrap_or_else(PoisonError::into_inner);
    match runs.values().max() {
        Some(&most) if most > 1 => broken!("the handler ran {most} times for one ask"),
        _ => Ok(()),
    }
}

/// Asks a closed node.
pub async fn an_unanswered_ask_ends<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let dst = b.addr()?;
    in_time("close", testbed.patience(), b.close()).await?;
    let ask = a
        .ask_side()?
        .ask(&dst, Packet::from(numbered_payload(0, PLAIN).as_slice()));
    match in_time(
        "an ask without an answer",
        testbed.the_profile().ask_patience,
        ask,
    )
    .await?
    {
        Ok(response) => broken!("a closed node answered with {} bytes", response.len()),
        Err(_) => Ok(()),
    }
}

/// Handles every request with `handle`, and asks until the asker gets [`Error::Rejected`] soon; then `more`
/// times, each of which counts on a lossless medium.
async fn rejected<A: Addr>(
    testbed: &Testbed<A>,
    more: usize,
    handle: impl Fn(Request<A>) + Send + 'static,
) -> Outcome<Rejection> {
    let [a, b] = testbed.nodes().await?;
    let asks = b.ask_side()?.clone();
    let _serving = pending([async move {
        while let Ok(request) = asks.receive_ask().await {
            handle(request);
        }
    }])
    .await;
    let (asks, dst) = (a.ask_side()?, b.addr()?);
    let mut again = testbed.again_round_trip(PLAIN);
    let mut why = String::new();
    let more = if testbed.lossless() { more } else { 0 };
    let mut number = 0;
    while again.next() {
        let ask = asks.ask(&dst, Packet::from(numbered_payload(number, PLAIN).as_slice()));
        match timeout(testbed.patience(), ask).await {
            Ok(Err(Error::Rejected(rejection))) if number as usize >= more => return Ok(rejection),
            Ok(Err(Error::Rejected(_))) => {
                number += 1;
                again = testbed.again_round_trip(PLAIN);
                continue;
            }
            Ok(Err(error)) => why = format!("failed with: {}", chain(&error)),
            Ok(Ok(response)) => broken!("a rejected ask was answered with {} bytes", response.len()),
            Err(_) if number > 0 => broken!(
                "a rejected ask did not end within {:?}, although {number} before it did",
                testbed.patience()
            ),
            Err(_) => why = format!("did not end within {:?}", testbed.patience()),
        }
        sleep(testbed.settle()).await;
    }
    broken!("a rejected ask {why} ({} attempts)", again.times)
}

/// Drops requests.
pub async fn a_dropped_request_is_an_error_at_once<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    rejected(testbed, testbed.amount(100), drop).await.map(drop)
}

/// Rejects with a code of the application.
pub async fn a_rejection_carries_its_code<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let learnt = rejected(testbed, 0, |request| request.reject(CODE)).await?;
    ensure!(learnt == CODE, "a rejection with {CODE} arrived as \"{learnt}\"");
    Ok(())
}

/// Starts and cancels more asks than may be in flight, then asks.
pub async fn a_cancelled_ask_frees_its_slot<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let _serving = serve(&b, |request| reversed(&request.message.payload))?;
    let (asks, dst) = (a.ask_side()?, b.addr()?);
    let cancelled = testbed.the_profile().asks.saturating_mul(2).saturating_add(64);
    for number in 0..u32::try_from(cancelled).unwrap_or(u32::MAX) {
        let mut ask = Held::new(asks.ask(&dst, Packet::from(numbered_payload(number, PLAIN).as_slice())));
        let _ = ask.poll();
        breathe(number).await;
    }
    match testbed.ask(&a, &dst, &numbered_payload(u32::MAX, PLAIN)).await {
        Err(Unmet::Broken(how)) => broken!("after {cancelled} cancelled asks, {how}"),
        outcome => outcome.map(drop),
    }
}

/// Excess lengths over the MTU in bytes: 1, multiples of the MTU, and more than 16 bits can count.
fn too_many(most: usize) -> impl Iterator<Item = usize> {
    [1, 2, 7, 16, 64, most, most + 1, 2 * most, 1 << 16, (1 << 16) + 1].into_iter()
}

/// Asks with a request over the MTU.
pub async fn a_request_over_the_mtu_is_refused<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let (received, mut requests) = mpsc::channel(16);
    let _serving = serve(&b, move |request| {
        let _ = received.try_send(request.message.payload.len());
        Vec::new()
    })?;
    let (asks, dst, most) = (a.ask_side()?, b.addr()?, mtu(&a)?);
    for over in too_many(most) {
        let len = most + over;
        let ask = asks.ask(&dst, Packet::from(numbered_payload(0, len).as_slice()));
        match in_time("an ask over the MTU", testbed.patience(), ask).await? {
            Err(Error::MtuExceeded { size, mtu }) if (size, mtu) == (len, most) => {}
            Err(error) => broken!("an ask of {len} bytes with an MTU of {most} failed with: {error}"),
            Ok(_) => broken!("an ask of {len} bytes with an MTU of {most} was answered"),
        }
    }
    match timeout(testbed.settle(), requests.recv()).await {
        Ok(Some(len)) => broken!("{len} bytes of a request over the MTU arrived"),
        _ => Ok(()),
    }
}

/// Asks with a request of exactly the MTU and a response of exactly the MTU.
pub async fn exactly_the_mtu_works_both_ways<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let _serving = serve(&b, |request| reversed(&request.message.payload))?;
    let (most, mtu) = (testbed.longest_ask(&a, &b)?, mtu(&a)?.min(mtu(&b)?));
    if most < mtu {
        return Err(Unmet::Waived(format!(
            "the medium loses nearly every message of {mtu} bytes"
        )));
    }
    let came = testbed
        .ask(&a, &b.addr()?, &numbered_payload(0, most))
        .await?
        .len();
    ensure!(came == most, "{came} bytes of a response of {most} bytes arrived");
    Ok(())
}

/// Asks with an empty request and answers with an empty response.
pub async fn empty_works_both_ways<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let _serving = serve(&b, |request| reversed(&request.message.payload))?;
    let came = testbed.ask(&a, &b.addr()?, &[]).await?.len();
    ensure!(came == 0, "an empty response arrived with {came} bytes");
    Ok(())
}

/// Answers with a response over the MTU.
pub async fn a_response_over_the_mtu_fails_at_both_ends<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let (results, mut responded) = mpsc::channel(64);
    let (server, most) = (b.ask_side()?.clone(), mtu(&b)?);
    let _serving = pending([async move {
        while let Ok(request) = server.receive_ask().await {
            let len = number(&request.message.payload).map_or(most + 1, |len| len as usize);
            let _ = results.try_send((len, request.respond(Packet::from(numbered_payload(0, len))).await));
        }
    }])
    .await;
    let (asks, dst) = (a.ask_side()?, b.addr()?);
    // A lost ask takes as long as the swarm waits for a response.
    let count = if testbed.lossless() { usize::MAX } else { 1 };
    let mut lengths = too_many(most).map(|over| most + over).take(count);
    let Some(mut len) = lengths.next() else {
        return Ok(());
    };
    let mut again = testbed.again_round_trip(PLAIN);
    while again.next() {
        let limit = if testbed.lossless() {
            testbed.patience()
        } else {
            testbed.the_profile().ask_patience
        };
        let ask = asks.ask(&dst, Packet::from(numbered_payload(len as u32, PLAIN).as_slice()));
        if let Ok(response) = in_time("an ask whose response is over the MTU", limit, ask).await? {
            broken!(
                "{} bytes of a response of {len} bytes arrived with an MTU of {most}",
                response.len()
            );
        }
        match timeout(testbed.settle(), responded.recv()).await {
            Ok(Some((made, Err(Error::MtuExceeded { size, mtu })))) if (size, mtu) == (made, most) => {
                match lengths.next() {
                    Some(next) => len = next,
                    None => return Ok(()),
                }
                again = testbed.again_round_trip(PLAIN);
            }
            Ok(Some((made, Err(error)))) => {
                broken!("responding with {made} bytes with an MTU of {most} failed with: {error}")
            }
            Ok(Some((made, Ok(())))) => {
                broken!("responding with {made} bytes with an MTU of {most} succeeded")
            }
            // The request was lost.
            _ => {}
        }
    }
    broken!("no request arrived in {} attempts", again.times)
}

/// The sources and the destinations of requests from the first node to the second.
async fn addresses<A: Addr>(
    testbed: &Testbed<A>,
    a: &Node<A>,
    b: &Node<A>,
) -> Outcome<(BTreeSet<A>, BTreeSet<A>)> {
    let (seen, mut requests) = mpsc::unbounded_channel();
    let _serving = serve(b, move |request| {
        let _ = seen.send((request.message.src.clone(), request.message.dst.clone()));
        Vec::new()
    })?;
    let (mut sources, mut destinations) = (BTreeSet::new(), BTreeSet::new());
    for number in 0..testbed.amount(40) as u32 {
        testbed
            .ask(a, &b.addr()?, &numbered_payload(number, PLAIN))
            .await?;
        let Some((src, dst)) = in_time("a request", testbed.patience(), requests.recv()).await? else {
            broken!("a request was answered that was not received");
        };
        sources.insert(src);
        destinations.insert(dst);
    }
    Ok((sources, destinations))
}

/// Tells the source of a request.
pub async fn src_can_be_told_to<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let (sources, _) = addresses(testbed, &a, &b).await?;
    for src in sources.iter().take(8) {
        testbed
            .deliver_at(&b, src, &a, &numbered_payload(0, PLAIN))
            .await?;
    }
    Ok(())
}

/// Checks that the destination of a request is one of the receiver's addresses.
pub async fn dst_is_a_local_address<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let (_, destinations) = addresses(testbed, &a, &b).await?;
    let local = b.local_addrs();
    for dst in destinations {
        ensure!(
            local.contains(&dst),
            "the destination {dst} is not among the local addresses {local:?}"
        );
    }
    Ok(())
}

/// Asks until the ask is answered: on a lossless medium within the ordinary timeout.
async fn ask_soon<A: Addr>(
    testbed: &Testbed<A>,
    asker: &Node<A>,
    dst: &A,
    request: &[u8],
) -> Outcome<Packet> {
    let ask = testbed.ask(asker, dst, request);
    if testbed.lossless() {
        in_time("an ask", testbed.patience(), ask).await.flatten()
    } else {
        ask.await
    }
}

/// Holds some requests forever, and answers the others.
pub async fn a_slow_handler_holds_up_no_other<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let slow_ones = (testbed.the_profile().asks / 2).min(12);
    if slow_ones == 0 {
        return Err(Unmet::Waived("a node may have only one ask in flight".into()));
    }
    let [a, b] = testbed.nodes().await?;
    let server = b.ask_side()?.clone();
    let _serving = pending([async move {
        let mut held = Vec::new();
        while let Ok(request) = server.receive_ask().await {
            if number(&request.message.payload) == Some(0) {
                held.push(request);
            } else {
                let _ = request.respond(Packet::default()).await;
            }
        }
    }])
    .await;
    let (asks, dst) = (a.ask_side()?.clone(), b.addr()?);
    let slow = |asks: p2p::BoxAskSwarm<A>, dst: A| async move {
        asks.ask(&dst, Packet::from(numbered_payload(0, PLAIN).as_slice()))
            .await
    };
    let mut waiting = Vec::new();
    for waits in 1..=slow_ones {
        waiting.push(pending([slow(asks.clone(), dst.clone())]).await);
        for number in 1..=testbed.amount(8) as u32 {
            match ask_soon(testbed, &a, &dst, &numbered_payload(number, PLAIN)).await {
                Err(Unmet::Broken(how)) => broken!("while {waits} others waited, {how}"),
                outcome => drop(outcome?),
            }
        }
    }
    Ok(())
}

/// Floods a node that answers asks but receives no messages.
pub async fn a_stopped_reader_of_tells_stalls_no_ask<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let _serving = serve(&b, |request| reversed(&request.message.payload))?;
    let dst = b.addr()?;
    let (flood, most) = (testbed.flood(&a, &dst).await.len(), mtu(&a)?.min(mtu(&b)?));
    for number in 0..testbed.amount(40).max(4) as u32 {
        let len = [PLAIN, 700, MIN_PAYLOAD, 40][number as usize % 4].min(most);
        let request = numbered_payload(number, len);
        match testbed.ask(&a, &dst, &request).await {
            Err(Unmet::Broken(how)) => {
                broken!("after {flood} messages that were not read, of a request of {len} bytes: {how}")
            }
            response => ensure!(
                response? == *reversed(&request).as_slice(),
                "after {flood} messages that were not read, an ask got the response to another ask"
            ),
        }
    }
    Ok(())
}

/// Polls a `receive` once at either end and holds it, as a program does that awaits something long in another
/// branch of a `select!`, then asks.
pub async fn a_held_receive_stalls_no_ask<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let mut held = [&a, &b].map(|node| Held::new(node.receive()));
    for receive in &mut held {
        ensure!(
            receive.poll().is_pending(),
            "a receive completed before a message was told"
        );
    }
    let _serving = serve(&b, |request| reversed(&request.message.payload))?;
    let dst = b.addr()?;
    for number in 0..testbed.amount(40).max(4) as u32 {
        match ask_soon(testbed, &a, &dst, &numbered_payload(number, PLAIN)).await {
            Err(Unmet::Broken(how)) => broken!("while a receive was held at either end, {how}"),
            answered => drop(answered?),
        }
    }
    Ok(())
}

/// Cancels `receive_ask` after zero to two polls since a request arrived; the next call gets it.
pub async fn cancelling_receive_ask_loses_nothing<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let (asks, server, dst) = (a.ask_side()?, b.ask_side()?, b.addr()?);
    let rounds = if testbed.lossless() {
        testbed.amount(90) as u32
    } else {
        60
    };
    let mut answered = 0;
    for round in 0..rounds {
        let mut receive = Held::new(server.receive_ask());
        // The request of a cancelled ask may arrive late.
        while receive.poll().is_ready() {
            receive = Held::new(server.receive_ask());
        }
        let (asks, dst) = (asks.clone(), dst.clone());
        let asking = async move {
            asks.ask(&dst, Packet::from(numbered_payload(round, PLAIN).as_slice()))
                .await
        };
        let mut asking = pending([asking]).await;
        receive.woken(testbed.settle()).await;
        let mut got = None;
        for _ in 0..round % 3 {
            if let Poll::Ready(request) = receive.poll() {
                got = Some(request?);
                break;
            }
        }
        drop(receive);
        let later = async {
            loop {
                let request = server.receive_ask().await?;
                if number(&request.message.payload) == Some(round) {
                    return Ok::<_, Error>(request);
                }
            }
        };
        let request = match got {
            Some(request) => Some(request),
            None => timeout(testbed.quiet(), later).await.ok().transpose()?,
        };
        if let Some(request) = request {
            let _ = request.respond(Packet::default()).await;
            if let Ok(Some(Ok(Ok(_)))) = timeout(testbed.quiet(), asking.join_next()).await {
                answered += 1;
            }
        }
        if testbed.lossless() && answered <= round as usize {
            break;
        }
    }
    let loss = testbed.the_profile().loss;
    let least = arrive_at_least(rounds as usize, 1.0 - (1.0 - loss) * (1.0 - loss));
    ensure!(
        answered >= least,
        "of {rounds} requests that arrived while a receive_ask was cancelled, {answered} were answered instead of {least}"
    );
    Ok(())
}
