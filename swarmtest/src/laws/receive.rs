//! Laws of `receive`.

use std::collections::BTreeSet;
use std::task::Poll;

use p2p::{Addr, Message, Packet, Result, Swarm as _};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::field::{Held, PLAIN, broken, ensure, letter, number, pending};
use crate::kind::Node;
use crate::profile::arrive_at_least;
use crate::report::{Outcome, Unmet};
use crate::testbed::Testbed;

/// Lets several tasks receive at the same time and compares what they got.
pub async fn a_message_goes_to_one_caller<A: Addr>(bed: &Testbed<A>) -> Outcome {
    const TOLD: u32 = 32;
    if bed.the_profile().duplicates {
        return Err(Unmet::Waived(
            "the medium duplicates, and its copies look the same".into(),
        ));
    }
    let [a, b] = bed.nodes().await?;
    let (results, mut got) = mpsc::channel(TOLD as usize);
    let mut callers = JoinSet::new();
    for _ in 0..4 {
        let (b, results) = (b.clone(), results.clone());
        callers.spawn(async move {
            while let Ok(message) = b.receive().await {
                let _ = results.send(number(&message.payload)).await;
            }
        });
    }
    let dst = b.addr()?;
    let mut seen = BTreeSet::new();
    for burst in 0..TOLD / 4 {
        bed.tell_each(&a, &dst, burst * 4..burst * 4 + 4).await?;
        tokio::task::yield_now().await;
    }
    while let Ok(Some(number)) = timeout(bed.settle(), got.recv()).await {
        if let Some(number) = number {
            ensure!(seen.insert(number), "a message went to two callers of receive");
        }
    }
    Ok(())
}

/// Lets several tasks wait, tells as many messages at once, and expects each task to return.
pub async fn every_waiting_caller_is_woken<A: Addr>(bed: &Testbed<A>) -> Outcome {
    woken(bed, false).await?;
    woken(bed, true).await
}

async fn woken<A: Addr>(bed: &Testbed<A>, as_batch: bool) -> Outcome {
    const CALLERS: usize = 4;
    let [a, b] = bed.nodes().await?;
    let dst = b.addr()?;
    let mut again = bed.again_all(4);
    let mut most = 0;
    while again.next() {
        bed.drain(&b, usize::MAX).await?;
        let mut callers = waiting(&b, CALLERS).await;
        let numbers = 0..CALLERS as u32;
        if as_batch {
            let packet = |number| Packet::from(letter(number, PLAIN).as_slice());
            let mut batch = numbers.map(|number| (dst.clone(), packet(number))).collect();
            // What a batch says is looked at elsewhere.
            let _ = a.tell_batch(&mut batch).await;
        } else {
            bed.tell_each(&a, &dst, numbers).await?;
        }
        let mut returned = 0;
        while let Ok(Some(done)) = timeout(bed.settle(), callers.join_next()).await {
            done.map_err(|error| Unmet::Broken(error.to_string()))??;
            returned += 1;
        }
        if returned == CALLERS {
            return Ok(());
        }
        most = most.max(returned);
    }
    broken!("{CALLERS} messages were told while {CALLERS} callers waited; at most {most} of them returned")
}

/// Tasks that wait in `receive`.
async fn waiting<A: Addr>(node: &Node<A>, count: usize) -> JoinSet<Result<Message<A>>> {
    let receive = |node: Node<A>| async move { node.receive().await };
    pending((0..count).map(|_| receive(node.clone()))).await
}

/// Cancels `receive` after zero to two polls since a message came, and expects the next call to get it.
pub async fn cancelling_loses_nothing<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, b] = bed.nodes().await?;
    let dst = b.addr()?;
    let rounds: u32 = if bed.lossless() { 9 } else { 60 };
    let mut arrived = 0;
    for round in 0..rounds {
        let told = letter(round, PLAIN);
        let mut receive = Held::new(b.receive());
        // A copy that the medium made of an earlier message may be here already.
        while receive.poll().is_ready() {
            receive = Held::new(b.receive());
        }
        bed.tell_each(&a, &dst, [round]).await?;
        receive.woken(bed.settle()).await;
        let mut got = false;
        for _ in 0..round % 3 {
            if let Poll::Ready(message) = receive.poll() {
                got = number(&message?.payload) == Some(round);
                break;
            }
        }
        drop(receive);
        if got || bed.arrival(&b, &told, bed.quiet()).await?.is_some() {
            arrived += 1;
        } else if bed.lossless() {
            break;
        }
    }
    let least = arrive_at_least(rounds as usize, bed.the_profile().loss);
    ensure!(
        arrived >= least,
        "of {rounds} messages that came while a receive was cancelled, {arrived} were received later and not {least}"
    );
    Ok(())
}

/// Cancels the caller that was woken before it could look, while another one waits.
pub async fn a_cancelled_caller_passes_its_turn_on<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, b] = bed.nodes().await?;
    let dst = b.addr()?;
    let mut again = bed.again(PLAIN);
    while again.next() {
        bed.drain(&b, usize::MAX).await?;
        let mut first = Held::new(b.receive());
        if first.poll().is_ready() {
            continue;
        }
        let mut second = waiting(&b, 1).await;
        bed.tell_each(&a, &dst, [0]).await?;
        first.woken(bed.settle()).await;
        drop(first);
        if let Ok(Some(Ok(Ok(_)))) = timeout(bed.settle(), second.join_next()).await {
            return Ok(());
        }
    }
    broken!("a message came for a caller that was then cancelled, and the next one was not woken")
}
