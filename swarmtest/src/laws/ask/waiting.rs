//! Asks that wait beside others, for long, and callers of `receive_ask` that are cancelled beside others.

use std::time::Duration;

use p2p::{Addr, AskSwarm as _, BoxAskSwarm, Error, Packet, Request};
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, sleep, timeout};

use super::load::is_refused;
use crate::harness::{
    Held, PLAIN, broken, ensure, in_time, number, numbered_payload, pending, reversed, virtual_time,
};
use crate::kind::Node;
use crate::report::{Outcome, Unmet};
use crate::testbed::{Testbed, chain};

/// The number of the request that is held.
const HELD: u32 = u32::MAX;

fn needs_no_loss<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    if testbed.lossless() {
        return Ok(());
    }
    Err(Unmet::Waived("the medium may lose the ask that waits".into()))
}

/// Begins an ask with this number, and takes its request.
async fn held<A: Addr>(
    testbed: &Testbed<A>,
    [a, b]: [&Node<A>; 2],
    number: u32,
) -> Outcome<(JoinSet<p2p::Result<Packet>>, Request<A>)> {
    let (asks, dst) = (a.ask_side()?.clone(), b.addr()?);
    let asking = pending([async move {
        asks.ask(&dst, Packet::from(numbered_payload(number, PLAIN)))
            .await
    }])
    .await;
    let request = in_time("receive_ask", testbed.patience(), b.ask_side()?.receive_ask()).await??;
    Ok((asking, request))
}

/// Answers requests in a task.
fn answering<A: Addr>(server: &BoxAskSwarm<A>) -> JoinSet<()> {
    let (server, mut tasks) = (server.clone(), JoinSet::new());
    tasks.spawn(async move {
        while let Ok(request) = server.receive_ask().await {
            let response = Packet::from(reversed(&request.message.payload));
            let _ = request.respond(response).await;
        }
    });
    tasks
}

/// Holds one request back while thousands of others are answered, so that ids of few bits are given out again, and answers
/// it then.
pub async fn a_held_ask_outlasts_many_others<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    needs_no_loss(testbed)?;
    if testbed.the_profile().asks < 2 {
        return Err(Unmet::Waived("a node may have one ask under way".into()));
    }
    let [a, b] = testbed.nodes().await?;
    let began = Instant::now();
    let (mut asking, request) = held(testbed, [&a, &b], HELD).await?;
    let serving = answering(b.ask_side()?);
    let (asks, dst) = (a.ask_side()?, b.addr()?);
    // Where asks take real time, a deadline is not what is looked at.
    let until = Instant::now() + testbed.patience();
    let mut asked = 0;
    while asked < testbed.amount(7000) as u32 && Instant::now() < until {
        let request = numbered_payload(asked, PLAIN);
        let ask = asks.ask(&dst, Packet::from(&request[..]));
        match in_time("an ask", testbed.the_profile().ask_patience, ask).await? {
            Ok(response) => ensure!(
                *response == *reversed(&request),
                "ask {asked} beside one that waits got a response that is not its own"
            ),
            Err(error) if is_refused(&error) => {}
            Err(error) => broken!("ask {asked} beside one that waits failed: {}", chain(&error)),
        }
        asked += 1;
    }
    drop(serving);
    let answer = Packet::from(reversed(&request.message.payload));
    let _ = in_time("an answer", testbed.patience(), request.respond(answer)).await?;
    let ended = in_time("an ask", testbed.the_profile().ask_patience, asking.join_next()).await?;
    match ended {
        Some(Ok(Ok(response))) => ensure!(
            *response == *reversed(&numbered_payload(HELD, PLAIN)),
            "an ask that waited for {asked} others got a response that is not its own"
        ),
        // So long a wait is too long for one alone.
        Some(Ok(Err(Error::TimedOut { limit, .. }))) if began.elapsed() >= limit / 10 * 9 => {}
        Some(Ok(Err(error))) => broken!("an ask that waited for {asked} others failed: {}", chain(&error)),
        _ => broken!("the task of an ask is gone"),
    }
    Ok(())
}

/// Lets one ask wait until its deadline, and another that began later wait beside it and then get its answer.
pub async fn each_ask_has_its_own_deadline<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    needs_no_loss(testbed)?;
    if !virtual_time() {
        return Err(Unmet::Waived("a deadline takes long in real time".into()));
    }
    if testbed.the_profile().asks < 2 {
        return Err(Unmet::Waived("a node may have one ask under way".into()));
    }
    let [a, b] = testbed.nodes().await?;
    let started = Instant::now();
    let (mut asking, _request) = held(testbed, [&a, &b], 0).await?;
    let ended = timeout(testbed.the_profile().ask_patience, asking.join_next()).await;
    let deadline = started.elapsed();
    if ended.is_err() {
        // An ask that never ends breaks another law.
        return Ok(());
    }
    for (trial, tenths) in (0..).zip([7, 5, 9]) {
        if trial > 0 && started.elapsed() + 2 * deadline > testbed.the_profile().limit {
            break;
        }
        // New nodes: a session in which nothing was said for as long as an ask may wait may end with it.
        let [a, b] = testbed.nodes().await?;
        let (mut first, _held) = held(testbed, [&a, &b], 2 * trial + 1).await?;
        sleep(deadline / 10 * tenths).await;
        let number = 2 * trial + 2;
        let (mut second, request) = held(testbed, [&a, &b], number).await?;
        let _ = in_time("an ask", testbed.the_profile().ask_patience, first.join_next()).await?;
        let answer = Packet::from(reversed(&request.message.payload));
        let _ = in_time("an answer", testbed.patience(), request.respond(answer)).await?;
        let ended = in_time("an ask", testbed.the_profile().ask_patience, second.join_next()).await?;
        match ended {
            Some(Ok(Ok(response))) if *response == *reversed(&numbered_payload(number, PLAIN)) => {}
            Some(Ok(Err(error))) => broken!(
                "an ask that was answered after {:?} failed with \"{}\", where the deadline is {deadline:?}",
                deadline / 10 * (10 - tenths),
                chain(&error)
            ),
            _ => broken!("an ask beside one that ended by its deadline got a response that is not its own"),
        }
    }
    Ok(())
}

/// Lets as many asks wait together as may be in progress, for as long as one may wait alone, and answers all.
pub async fn asks_may_wait_together<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    needs_no_loss(testbed)?;
    let wait = if virtual_time() {
        Duration::from_secs(3)
    } else {
        Duration::from_millis(300)
    };
    for count in [1, testbed.the_profile().asks.min(48) as u32] {
        let [a, b] = testbed.nodes().await?;
        let (asks, server, dst) = (a.ask_side()?.clone(), b.ask_side()?.clone(), b.addr()?);
        let ask = |number: u32, asks: BoxAskSwarm<A>, dst: A| async move {
            let request = numbered_payload(number, PLAIN);
            (asks.ask(&dst, Packet::from(&request[..])).await, request)
        };
        let mut asking = pending((0..count).map(|number| ask(number, asks.clone(), dst.clone()))).await;
        let mut requests = Vec::new();
        while let Ok(request) = timeout(testbed.settle(), server.receive_ask()).await {
            requests.push(request?);
        }
        sleep(wait).await;
        let received = requests.len();
        for request in requests.into_iter().rev() {
            let answer = Packet::from(reversed(&request.message.payload));
            let _ = in_time("an answer", testbed.patience(), request.respond(answer)).await?;
        }
        // What came later.
        let _serving = answering(&server);
        let (mut answered, mut why) = (0, None);
        while let Some(done) =
            in_time("an ask", testbed.the_profile().ask_patience, asking.join_next()).await?
        {
            match done.map_err(|error| Unmet::Broken(error.to_string()))? {
                (Ok(response), request) => {
                    ensure!(
                        *response == *reversed(&request),
                        "an ask that waited beside others got a response that is not its own"
                    );
                    answered += 1;
                }
                (Err(error), _) if is_refused(&error) => answered += 1,
                (Err(error), _) => why = Some(error),
            }
        }
        match why {
            // So long a wait is too long for one alone.
            Some(Error::TimedOut { .. }) if count == 1 => return Ok(()),
            Some(error) => broken!(
                "of {count} asks, of which {received} waited together for {wait:?}, {answered} were answered: {}",
                chain(&error)
            ),
            None => {}
        }
    }
    Ok(())
}

/// Receives requests in several tasks that give up and begin again all the time, and asks meanwhile.
pub async fn cancelling_receive_ask_beside_others_loses_nothing<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    needs_no_loss(testbed)?;
    let [a, b] = testbed.nodes().await?;
    let mut rng = testbed.rng();
    let mut serving = JoinSet::new();
    for _ in 0..4 {
        let (server, mut rng) = (
            b.ask_side()?.clone(),
            rand::rngs::StdRng::seed_from_u64(rng.random()),
        );
        serving.spawn(async move {
            loop {
                let mut receive = Held::new(server.receive_ask());
                let mut polls = rng.random_range(1..5);
                let request = loop {
                    match receive.poll() {
                        std::task::Poll::Ready(Ok(request)) => break Some(request),
                        std::task::Poll::Ready(Err(_)) => return,
                        std::task::Poll::Pending if polls == 0 => break None,
                        std::task::Poll::Pending => {}
                    }
                    polls -= 1;
                    receive.woken(Duration::from_millis(rng.random_range(1..3))).await;
                    if rng.random() {
                        yield_now().await;
                    }
                };
                drop(receive);
                if let Some(request) = request {
                    let response = Packet::from(reversed(&request.message.payload));
                    let _ = request.respond(response).await;
                }
            }
        });
    }
    let (asks, dst) = (a.ask_side()?.clone(), b.addr()?);
    let most = testbed.the_profile().asks.min(8) as u32;
    let mut next = 0;
    for _ in 0..testbed.amount(400) {
        // Few at a time, so that a caller takes one while others wait.
        let numbers = next..next + rng.random_range(1..=most);
        next = numbers.end;
        let ask = |number: u32, asks: BoxAskSwarm<A>, dst: A| async move {
            let request = numbered_payload(number, PLAIN);
            (asks.ask(&dst, Packet::from(&request[..])).await, request)
        };
        let mut asking: JoinSet<_> = numbers
            .map(|number| ask(number, asks.clone(), dst.clone()))
            .collect();
        while let Some(done) =
            in_time("an ask", testbed.the_profile().ask_patience, asking.join_next()).await?
        {
            match done.map_err(|error| Unmet::Broken(error.to_string()))? {
                (Ok(response), request) => ensure!(
                    *response == *reversed(&request),
                    "an ask got a response that is not its own"
                ),
                (Err(error), _) if is_refused(&error) => {}
                (Err(error), request) => broken!(
                    "ask {:?} was not answered where callers of receive_ask give up: {}",
                    number(&request),
                    chain(&error)
                ),
            }
        }
    }
    Ok(())
}
