//! Asks concurrent with other traffic.

use std::sync::Arc;
use std::time::Duration;

use p2p::{Addr, AskSwarm as _, Packet, Swarm as _};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::load::answer;
use crate::harness::{PLAIN, broken, ensure, noise, numbered_payload, pending, reversed, serve};
use crate::report::{Outcome, Unmet};
use crate::testbed::Testbed;

/// Floods a node with tells from two others, and asks it meanwhile.
pub async fn asks_are_answered_while_tells_flood<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b, c] = testbed.nodes().await?;
    let most = testbed.longest_ask(&a, &b)?;
    let _serving = serve(&b, move |request| answer(&request.message.payload, most))?;
    let dst = b.addr()?;
    let mut flood = JoinSet::new();
    for node in [a.clone(), c.clone()] {
        let dst = dst.clone();
        flood.spawn(async move {
            loop {
                for number in 0..24 {
                    let _ = node
                        .tell(&dst, Packet::from(numbered_payload(number, PLAIN)))
                        .await;
                }
                // Some runtimes stop the clock while there is anything to do.
                sleep(Duration::from_millis(1)).await;
            }
        });
    }
    let reader = b.clone();
    flood.spawn(async move { while reader.receive().await.is_ok() {} });
    for at in 0..testbed.amount(80) as u64 {
        let request = noise(at * 2 + 9, PLAIN + at as usize * 7 % (most.min(900) - PLAIN + 1));
        sleep(Duration::from_millis(1)).await;
        let asker = if at % 3 == 2 { &c } else { &a };
        let response = testbed.ask(asker, &dst, &request).await?;
        ensure!(
            *response == *answer(&request, most),
            "an ask during a flood of tells got the response to another ask"
        );
    }
    Ok(())
}

/// Asks a node whose handler asks the asker before it answers.
pub async fn a_handler_may_ask_back<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    if !testbed.lossless() {
        return Err(Unmet::Waived(
            "the medium may lose either of two nested asks".into(),
        ));
    }
    let [a, b] = testbed.nodes().await?;
    let _answering = serve(&a, |request| reversed(&request.message.payload))?;
    let (server, asks) = (b.ask_side()?.clone(), b.clone());
    let (bed_of_b, back) = (testbed.clone(), a.addr()?);
    let _serving = pending([async move {
        while let Ok(request) = server.receive_ask().await {
            if let Ok(response) = bed_of_b.ask(&asks, &back, &request.message.payload).await {
                let _ = request.respond(response).await;
            }
        }
    }])
    .await;
    for number in 0..testbed.amount(20) as u32 {
        let request = numbered_payload(number, PLAIN);
        let response = testbed.ask(&a, &b.addr()?, &request).await?;
        ensure!(
            *response == *reversed(&request),
            "an ask whose handler asked back got the response to another ask"
        );
    }
    Ok(())
}

/// Several callers wait for requests; each answers when all have one.
pub async fn every_waiting_receive_ask_is_woken<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    if !testbed.lossless() {
        return Err(Unmet::Waived("the medium may lose some of the requests".into()));
    }
    for round in 0..testbed.amount(12) as u32 {
        // More callers than asks may be in flight would wait forever.
        let callers = match round {
            0 => 6,
            _ => 2 + (round as usize * 5) % 15,
        };
        let callers = callers.min(testbed.the_profile().asks).max(1);
        let [a, b] = testbed.nodes().await?;
        let (server, asks, dst) = (b.ask_side()?.clone(), a.ask_side()?.clone(), b.addr()?);
        if round % 2 == 1 {
            let _serving = serve(&b, |_| Vec::new())?;
            testbed.ask(&a, &dst, &numbered_payload(0, PLAIN)).await?;
        }
        let all = Arc::new(Barrier::new(callers));
        let call = |server: p2p::BoxAskSwarm<A>, all: Arc<Barrier>| async move {
            let request = server.receive_ask().await?;
            all.wait().await;
            request.respond(Packet::default()).await
        };
        let _calls = pending((0..callers).map(|_| call(server.clone(), all.clone()))).await;
        let ask = |number: usize, asks: p2p::BoxAskSwarm<A>, dst: A| async move {
            asks.ask(&dst, Packet::from(numbered_payload(number as u32, PLAIN)))
                .await
        };
        let mut asking = pending((0..callers).map(|number| ask(number, asks.clone(), dst.clone()))).await;
        let mut answered = 0;
        while let Ok(Some(done)) = timeout(testbed.patience(), asking.join_next()).await {
            match done.map_err(|error| Unmet::Broken(error.to_string()))? {
                Ok(_) => answered += 1,
                // The swarm permits so few at a time.
                Err(error) if super::load::is_refused(&error) => return Ok(()),
                Err(error) => broken!("an ask failed: {error}"),
            }
        }
        ensure!(
            answered == callers,
            "of {callers} callers of receive_ask and as many asks, {answered} were answered (round {round})"
        );
    }
    Ok(())
}
