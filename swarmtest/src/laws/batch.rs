//! Laws of `tell_batch` and `receive_batch`.

use std::collections::BTreeSet;
use std::task::Poll;

use p2p::{Addr, Error, Message, Packet, Swarm as _};
use tokio::time::timeout;

use crate::field::{Held, PLAIN, broken, ensure, in_time, letter, mtu, number, settle};
use crate::profile::arrive_at_least;
use crate::report::Outcome;
use crate::testbed::Testbed;

/// Messages in a batch.
const COUNT: u32 = 4;

fn batch_of<A: Addr>(dst: &A, lengths: impl IntoIterator<Item = usize>) -> Vec<(A, Packet)> {
    let packets = (0..).zip(lengths).map(|(number, len)| letter(number, len));
    packets
        .map(|letter| (dst.clone(), Packet::from(letter.as_slice())))
        .collect()
}

/// Tells the same batch until each of its messages has arrived, and compares them.
pub async fn tell_batch_sends_what_tells_would<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, b] = bed.nodes().await?;
    let dst = b.addr()?;
    let mut again = bed.again(PLAIN);
    let mut missing: BTreeSet<u32> = (0..COUNT).collect();
    while again.next() {
        let mut batch = batch_of(&dst, [PLAIN; COUNT as usize]);
        in_time("tell_batch", bed.patience(), a.tell_batch(&mut batch))
            .await?
            .map_err(|error| error.first)?;
        while let Ok(message) = timeout(bed.settle(), b.receive()).await {
            let payload = message?.payload;
            if let Some(number) = number(&payload) {
                ensure!(
                    payload == *letter(number, PLAIN).as_slice(),
                    "a message of a batch was damaged"
                );
                missing.remove(&number);
            }
            if missing.is_empty() {
                return Ok(());
            }
        }
    }
    broken!(
        "of a batch of {COUNT}, told {} times, these never arrived: {missing:?}",
        again.times
    )
}

/// Puts one that is too long among the first of a batch.
pub async fn a_refused_message_holds_up_none_behind_it<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, b] = bed.nodes().await?;
    let (dst, most) = (b.addr()?, mtu(&a)?);
    let mut again = bed.again(PLAIN);
    while again.next() {
        let mut batch = batch_of(&dst, [PLAIN, most + 1, PLAIN]);
        // What the error says is the next law.
        let _ = in_time("tell_batch", bed.patience(), a.tell_batch(&mut batch)).await?;
        if bed.arrival(&b, &letter(2, PLAIN), bed.settle()).await?.is_some() {
            return Ok(());
        }
    }
    broken!(
        "a message behind a refused one never arrived, though its batch was told {} times",
        again.times
    )
}

/// Reads the numbers in the error of a batch with one message that is too long.
pub async fn tell_batch_says_what_was_refused<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, b] = bed.nodes().await?;
    let (dst, most) = (b.addr()?, mtu(&a)?);
    let mut batch = batch_of(&dst, [PLAIN, most + 1, PLAIN]);
    let told = in_time("tell_batch", bed.patience(), a.tell_batch(&mut batch)).await?;
    let Err(error) = told else {
        broken!("a batch with a message over the MTU succeeded")
    };
    ensure!(
        (error.sent, error.refused) == (2, 1) && matches!(error.first, Error::MtuExceeded { .. }),
        "a batch of which the second of three messages is over the MTU failed with: {error}"
    );
    let mut batch = batch_of(&dst, [PLAIN, PLAIN]);
    let told = in_time("tell_batch", bed.patience(), a.tell_batch(&mut batch)).await?;
    told.map_err(|error| error.first.into())
}

/// Looks into the buffer after a batch was told.
pub async fn tell_batch_empties_the_batch<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, b] = bed.nodes().await?;
    let (dst, most) = (b.addr()?, mtu(&a)?);
    for lengths in [vec![PLAIN, PLAIN], vec![PLAIN, most + 1, PLAIN], vec![]] {
        let mut batch = batch_of(&dst, lengths);
        let _ = in_time("tell_batch", bed.patience(), a.tell_batch(&mut batch)).await?;
        ensure!(
            batch.is_empty(),
            "{} messages are left in a batch that was told",
            batch.len()
        );
    }
    Ok(())
}

/// Reads with `receive_batch` alone what is told, until each message has come.
pub async fn receive_batch_takes_what_receives_would<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, b] = bed.nodes().await?;
    let dst = b.addr()?;
    let mut again = bed.again(PLAIN);
    let mut missing: BTreeSet<u32> = (0..COUNT).collect();
    let mut out: Vec<Message<A>> = Vec::new();
    while again.next() {
        bed.tell_each(&a, &dst, 0..COUNT).await?;
        while let Ok(taken) = timeout(bed.settle(), b.receive_batch(&mut out, 3)).await {
            taken?;
            for message in out.drain(..) {
                if let Some(number) = number(&message.payload) {
                    ensure!(
                        message.payload == *letter(number, PLAIN).as_slice(),
                        "a message of receive_batch was damaged"
                    );
                    missing.remove(&number);
                }
            }
            if missing.is_empty() {
                return Ok(());
            }
        }
    }
    broken!(
        "of {COUNT} messages, told {} times, receive_batch never gave {missing:?}",
        again.times
    )
}

/// Takes two of the several messages that wait.
pub async fn receive_batch_keeps_to_its_maximum<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, b] = bed.nodes().await?;
    let dst = b.addr()?;
    for _ in 0..2 {
        bed.tell_each(&a, &dst, 0..COUNT).await?;
        settle(bed).await;
        let mut out = Vec::new();
        while let Ok(taken) = timeout(bed.settle(), b.receive_batch(&mut out, 2)).await {
            let taken = taken?.max(out.len());
            ensure!(
                taken <= 2,
                "receive_batch with a maximum of 2 took {taken} messages"
            );
            out.clear();
        }
    }
    Ok(())
}

/// Receives into a buffer that is not empty.
pub async fn receive_batch_appends<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, b] = bed.nodes().await?;
    let dst = b.addr()?;
    let mut out = vec![bed.deliver(&a, &b, &letter(COUNT, PLAIN)).await?];
    let first = out.clone();
    let mut again = bed.again(PLAIN);
    while again.next() {
        bed.tell_each(&a, &dst, [0]).await?;
        if let Ok(taken) = timeout(bed.settle(), b.receive_batch(&mut out, 4)).await {
            let taken = taken?;
            ensure!(
                out.starts_with(&first) && out.len() == 1 + taken,
                "receive_batch said {taken} and left {} messages in a buffer that held 1",
                out.len()
            );
            return Ok(());
        }
    }
    broken!("receive_batch took none of {} messages", again.times)
}

/// Asks for no message where there is none.
pub async fn receive_batch_of_none_returns_at_once<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [node] = bed.nodes().await?;
    let mut out = Vec::new();
    let taken = in_time(
        "receive_batch with a maximum of 0",
        bed.patience(),
        node.receive_batch(&mut out, 0),
    );
    let taken = taken.await??;
    ensure!(
        taken == 0 && out.is_empty(),
        "receive_batch with a maximum of 0 took {taken} messages"
    );
    Ok(())
}

/// Cancels `receive_batch` after zero to two polls since a message came; what is in its buffer counts.
pub async fn cancelling_receive_batch_loses_nothing<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, b] = bed.nodes().await?;
    let dst = b.addr()?;
    let rounds: u32 = if bed.lossless() { 9 } else { 60 };
    let mut arrived = 0;
    for round in 0..rounds {
        let told = letter(round, PLAIN);
        // A copy that the medium made of an earlier message may be here already.
        while let Poll::Ready(message) = Held::new(b.receive()).poll() {
            message?;
        }
        let mut out = Vec::new();
        let mut receive = Held::new(b.receive_batch(&mut out, 4));
        let mut done = receive.poll();
        bed.tell_each(&a, &dst, [round]).await?;
        if done.is_pending() {
            receive.woken(bed.settle()).await;
        }
        for _ in 0..round % 3 {
            if done.is_pending() {
                done = receive.poll();
            }
        }
        drop(receive);
        let got = out.iter().any(|message| number(&message.payload) == Some(round));
        if got || bed.arrival(&b, &told, bed.quiet()).await?.is_some() {
            arrived += 1;
        } else if bed.lossless() {
            break;
        }
    }
    let least = arrive_at_least(rounds as usize, bed.the_profile().loss);
    ensure!(
        arrived >= least,
        "of {rounds} messages that came while a receive_batch was cancelled, {arrived} were received and not {least}"
    );
    Ok(())
}
