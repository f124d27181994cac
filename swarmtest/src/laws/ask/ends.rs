//! Asks that end without a response, and the state that they leave.

use std::num::NonZeroU8;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use p2p::{Addr, AskSwarm as _, Error, Packet, Rejection, Request, Swarm as _};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::load::is_refused;
use crate::harness::{
    Held, PLAIN, broken, ensure, in_time, mtu, number, numbered_payload, pending, reversed, serve,
    virtual_time,
};
use crate::report::{Outcome, Unmet};
use crate::testbed::{Testbed, chain};

/// Concurrent asks in laws that count slots.
const WINDOW: u32 = 32;

/// More asks than may be in flight, or a few if each may be lost.
fn more_than_slots<A: Addr>(testbed: &Testbed<A>) -> u32 {
    let asks = testbed.the_profile().asks;
    let count = if testbed.lossless() {
        testbed
            .amount(asks.saturating_mul(2).saturating_add(64))
            .max(asks + 8)
            .min(20_000)
    } else {
        16
    };
    u32::try_from(count).unwrap_or(20_000)
}

/// How a handler gives no response.
#[derive(Clone, Copy, Debug)]
enum Refusal {
    Reject,
    Drop,
    Oversize,
    Cancel,
}

/// Makes more asks than there are slots, which are rejected, dropped, answered with a response over the MTU,
/// or answered by a cancelled call; then asks.
pub async fn an_ask_without_a_response_frees_its_slot<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    for refusal in [Refusal::Reject, Refusal::Drop, Refusal::Oversize, Refusal::Cancel] {
        let [a, b] = testbed.nodes().await?;
        let (server, most) = (b.ask_side()?.clone(), mtu(&b)?);
        let serving = pending([async move {
            while let Ok(request) = server.receive_ask().await {
                match refusal {
                    Refusal::Reject => request.reject(Rejection::DENIED),
                    Refusal::Drop => drop(request),
                    Refusal::Oversize => drop(request.respond(Packet::from(vec![0; most + 1])).await),
                    Refusal::Cancel => drop(Held::new(
                        request.respond(Packet::from(numbered_payload(0, PLAIN))),
                    )),
                }
            }
        }])
        .await;
        let (asks, dst) = (a.ask_side()?.clone(), b.addr()?);
        let left = Arc::new(AtomicU32::new(more_than_slots(testbed)));
        let mut asking = JoinSet::new();
        for _ in 0..WINDOW {
            let (asks, dst, left, testbed) = (asks.clone(), dst.clone(), left.clone(), testbed.clone());
            asking.spawn(async move {
                while left
                    .fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1))
                    .is_ok()
                {
                    let ask = asks.ask(&dst, Packet::from(numbered_payload(0, PLAIN)));
                    if let Ok(response) = in_time("an ask", testbed.the_profile().ask_patience, ask).await? {
                        broken!("an ask without a response got {} bytes", response.len());
                    }
                }
                Ok::<_, Unmet>(())
            });
        }
        while let Some(done) = asking.join_next().await {
            done.map_err(|error| Unmet::Broken(error.to_string()))??;
        }
        drop(serving);
        let _serving = serve(&b, |request| reversed(&request.message.payload))?;
        if let Err(Unmet::Broken(how)) = testbed.ask(&a, &dst, &numbered_payload(1, PLAIN)).await {
            broken!("after many asks that ended by {refusal:?}, {how}");
        }
    }
    Ok(())
}

/// Rejects with each code.
pub async fn every_code_of_a_rejection_arrives<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let server = b.ask_side()?.clone();
    let _serving = pending([async move {
        while let Ok(request) = server.receive_ask().await {
            let code = request.message.payload.first().copied().and_then(NonZeroU8::new);
            request.reject(code.map_or(Rejection::DROPPED, Rejection::new));
        }
    }])
    .await;
    let dst = b.addr()?;
    let step = if testbed.lossless() { 1 } else { 16 };
    for code in (1..=u8::MAX).step_by(step) {
        let wanted = NonZeroU8::new(code).map(Rejection::new);
        let why = |outcome| match outcome {
            Err(Error::Rejected(why)) => Ok(why),
            Err(error) => Err(format!("a rejected ask failed with: {}", chain(&error))),
            Ok(_) => Err("a rejected ask was answered".to_owned()),
        };
        let came = testbed.ask_until(&a, &dst, &[code], why).await?;
        ensure!(
            Some(came) == wanted,
            "a rejection with code {code} arrived with code {}",
            came.code()
        );
    }
    Ok(())
}

/// Measures answers and dropped requests alternately.
pub async fn a_dropped_request_takes_no_longer_than_an_answer<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    if !testbed.lossless() {
        return Err(Unmet::Waived(
            "the medium loses requests, which takes time".into(),
        ));
    }
    let [a, b] = testbed.nodes().await?;
    let server = b.ask_side()?.clone();
    let _serving = pending([async move {
        while let Ok(request) = server.receive_ask().await {
            if number(&request.message.payload).is_some_and(|number| number % 2 == 1) {
                drop(request);
            } else {
                let _ = request.respond(Packet::default()).await;
            }
        }
    }])
    .await;
    let (asks, dst) = (a.ask_side()?, b.addr()?);
    testbed.ask(&a, &dst, &numbered_payload(0, PLAIN)).await?;
    // On a runtime with its own clock nothing is late by chance.
    let allowance = if virtual_time() {
        testbed.settle()
    } else {
        testbed.patience() / 5
    };
    let mut answers = Vec::new();
    for number in 0..2 * testbed.amount(120).max(8) as u32 {
        let started = Instant::now();
        let ask = asks.ask(&dst, Packet::from(numbered_payload(number, PLAIN)));
        let outcome = in_time("an ask", testbed.the_profile().ask_patience, ask).await?;
        let took = started.elapsed();
        if number % 2 == 0 {
            answers.push(took);
            continue;
        }
        answers.sort_unstable();
        let usual = answers.get(answers.len() / 2).copied().unwrap_or_default();
        ensure!(
            matches!(outcome, Err(Error::Rejected(_))),
            "a dropped request was not Error::Rejected at the asker"
        );
        ensure!(
            took <= 20 * usual + allowance,
            "a dropped request took {took:?}, an answer {usual:?} in the median"
        );
    }
    Ok(())
}

/// Lets requests wait for seconds, or for most of one where that takes real time, and asks something else meanwhile and
/// afterwards.
pub async fn a_slow_handler_runs_once<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let slow = if virtual_time() {
        vec![
            Duration::from_secs(3),
            Duration::from_secs(12),
            Duration::from_secs(25),
        ]
    } else {
        vec![Duration::from_millis(900)]
    };
    let [a, b] = testbed.nodes().await?;
    let (server, dst) = (b.ask_side()?.clone(), b.addr()?);
    let most = testbed.longest_ask(&a, &b)?;
    let runs = Arc::new([const { AtomicU32::new(0) }; 64]);
    let (counted, waits) = (runs.clone(), slow.clone());
    let _serving = pending([async move {
        let mut late = JoinSet::new();
        while let Ok(request) = server.receive_ask().await {
            let number = number(&request.message.payload).unwrap_or(0);
            if let Some(runs) = counted.get(number as usize) {
                runs.fetch_add(1, SeqCst);
            }
            let wait = waits.get(number as usize / 8).copied();
            late.spawn(async move {
                sleep(wait.unwrap_or_default()).await;
                let response = Packet::from(reversed(&request.message.payload));
                let _ = request.respond(response).await;
            });
        }
    }])
    .await;
    // The concurrent ask is one more.
    let asks = testbed.the_profile().asks;
    let (width, beside) = ((asks.saturating_sub(1)).clamp(1, 4) as u32, asks > 1);
    for (round, _) in slow.iter().enumerate() {
        let asks = a.ask_side()?.clone();
        let limit = testbed.the_profile().ask_patience;
        let ask = |number: u32, asks: p2p::BoxAskSwarm<A>, dst: A| async move {
            let request = numbered_payload(number, most.min(PLAIN + number as usize));
            let outcome = timeout(limit, asks.ask(&dst, Packet::from(request.as_slice()))).await;
            (outcome, request)
        };
        let first = round as u32 * 8;
        let mut asking =
            pending((first..first + width).map(|number| ask(number, asks.clone(), dst.clone()))).await;
        if beside {
            testbed
                .ask(&a, &dst, &numbered_payload(u32::MAX - round as u32, PLAIN))
                .await?;
        }
        while let Some(done) = asking.join_next().await {
            let (outcome, request) = done.map_err(|error| Unmet::Broken(error.to_string()))?;
            match outcome {
                Ok(Ok(response)) => ensure!(
                    *response == *reversed(&request),
                    "an ask with a slow handler got the response to another ask"
                ),
                // A layer may have a deadline.
                Ok(Err(_)) => {}
                Err(_) => broken!("an ask with a slow handler did not end within {limit:?}"),
            }
            let request = numbered_payload(u32::MAX / 2 - round as u32, PLAIN);
            let response = testbed.ask(&a, &dst, &request).await?;
            ensure!(
                *response == *reversed(&request),
                "an ask after one with a slow handler got the response to another ask"
            );
        }
    }
    let most = runs.iter().map(|runs| runs.load(SeqCst)).max();
    ensure!(most <= Some(1), "a slow handler ran {most:?} times for one ask");
    Ok(())
}

/// Cancels asks whose requests are held, asks again, and answers the old requests before the new ones.
pub async fn a_late_answer_reaches_no_other_ask<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let (asks, server, dst) = (a.ask_side()?.clone(), b.ask_side()?.clone(), b.addr()?);
    let most = testbed.longest_ask(&a, &b)?;
    {
        let _serving = serve(&b, |request| reversed(&request.message.payload))?;
        testbed.ask(&a, &dst, &numbered_payload(u32::MAX, PLAIN)).await?;
    }
    let mut width = 16_u32;
    let rounds = more_than_slots(testbed).div_ceil(width);
    for round in 0..rounds {
        let begin = |first: u32, width: u32| {
            let ask = |number: u32, asks: p2p::BoxAskSwarm<A>, dst: A| async move {
                let request = numbered_payload(number, most.min(PLAIN + (number % 50) as usize));
                let outcome = asks.ask(&dst, Packet::from(request.as_slice())).await;
                (outcome, request)
            };
            let (asks, dst) = (asks.clone(), dst.clone());
            pending((first..first + width).map(move |number| ask(number, asks.clone(), dst.clone())))
        };
        let mut given_up = begin(round * 64, width).await;
        let old = requests(testbed, &server, &mut given_up, width, round * 64).await?;
        let refused = given_up.len() < width as usize;
        given_up.shutdown().await;
        let mut asking = begin(round * 64 + 32, width).await;
        for request in old {
            let answer = Packet::from(reversed(&request.message.payload));
            let said = in_time("a late answer", testbed.patience(), request.respond(answer)).await?;
            ensure!(
                !matches!(said, Err(Error::Closed)),
                "the answer to an ask that was given up failed with Error::Closed, and no swarm is closed"
            );
        }
        let new = requests(testbed, &server, &mut asking, width, round * 64 + 32).await?;
        let expected = new.len();
        for request in new.into_iter().rev() {
            let answer = Packet::from(reversed(&request.message.payload));
            let _ = in_time("an answer", testbed.patience(), request.respond(answer)).await?;
        }
        let mut answered = 0;
        while let Ok(Some(done)) = timeout(testbed.quiet(), asking.join_next()).await {
            let (outcome, request) = done.map_err(|error| Unmet::Broken(error.to_string()))?;
            match outcome {
                Ok(response) => {
                    ensure!(
                        *response == *reversed(&request),
                        "an ask got the late response to one that was cancelled"
                    );
                    answered += 1;
                }
                Err(error) if is_refused(&error) || !testbed.lossless() => {}
                Err(error) => broken!("after cancelled asks, an ask failed: {}", chain(&error)),
            }
        }
        ensure!(
            answered == expected && expected > 0 || !testbed.lossless(),
            "of {width} asks after {} cancelled ones {expected} were received and {answered} answered",
            round * width + width
        );
        if refused {
            width = (width / 2).max(1);
        }
    }
    Ok(())
}

/// The requests of asks that have just started, with numbers from `first` on; fewer if some asks ended
/// already.
async fn requests<A: Addr, T: Send + 'static>(
    testbed: &Testbed<A>,
    server: &p2p::BoxAskSwarm<A>,
    asking: &mut JoinSet<(p2p::Result<Packet>, T)>,
    width: u32,
    first: u32,
) -> Outcome<Vec<Request<A>>> {
    let mut out = Vec::new();
    let until = Instant::now() + testbed.quiet();
    while out.len() < width as usize {
        let wait = if asking.len() < width as usize {
            testbed.settle()
        } else {
            testbed.quiet()
        };
        match timeout(wait, server.receive_ask()).await {
            Ok(request) => {
                let request = request?;
                if number(&request.message.payload)
                    .is_some_and(|number| (first..first + width).contains(&number))
                {
                    out.push(request);
                }
            }
            Err(_) if Instant::now() < until && asking.is_empty() => break,
            Err(_) => break,
        }
    }
    Ok(out)
}

/// Closes, and drops, a node that holds requests and has others waiting.
pub async fn a_server_that_goes_ends_the_asks_of_others<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let (closing, dropping) = tokio::join!(goes(testbed, true), goes(testbed, false));
    closing.and(dropping)
}

async fn goes<A: Addr>(testbed: &Testbed<A>, closes: bool) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let (asks, dst) = (a.ask_side()?.clone(), b.addr()?);
    let ask = |asks: p2p::BoxAskSwarm<A>, dst: A| async move {
        asks.ask(&dst, Packet::from(numbered_payload(0, PLAIN))).await
    };
    let mut asking = pending((0..6).map(|_| ask(asks.clone(), dst.clone()))).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        if let Ok(request) = timeout(testbed.settle(), b.ask_side()?.receive_ask()).await {
            held.push(request?);
        }
    }
    if closes {
        in_time("close", testbed.patience(), b.close()).await?;
    } else {
        drop(b);
    }
    for (at, request) in held.into_iter().enumerate() {
        match at {
            0 => drop(
                in_time(
                    "a late answer",
                    testbed.patience(),
                    request.respond(Packet::default()),
                )
                .await?,
            ),
            1 => request.reject(Rejection::BUSY),
            _ => drop(request),
        }
    }
    let limit = testbed.the_profile().ask_patience;
    let all = async { while asking.join_next().await.is_some() {} };
    in_time("asks of a node that closed while it held requests", limit, all).await
}
