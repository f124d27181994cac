//! Laws of `close` and of dropping a swarm.

use p2p::{Addr, AskSwarm as _, Error, Packet, SecureSwarm as _, Swarm as _};
use tokio::task::JoinSet;

use crate::harness::{
    PLAIN, all_closed, all_closed_but, broken, closed, in_time, mtu, numbered_payload, pending, settle,
};
use crate::kind::Node;
use crate::report::Outcome;
use crate::testbed::Testbed;

mod crowd;
mod dropped;
mod frees;
mod order;

pub use crowd::{
    close_may_be_called_by_many_tasks, close_waits_for_no_call_that_is_held,
    closing_in_a_flood_ends_every_call,
};
pub use dropped::{
    a_close_that_is_given_up_frees_the_address, a_second_close_frees_the_address_as_well,
    dropping_after_a_tell_harms_no_message,
};
pub use frees::{
    a_node_made_again_is_reached_by_others, closing_frees_an_address_in_use, closing_frees_the_address,
    dropping_frees_an_address_in_use, dropping_frees_the_address,
};
pub use order::{
    a_closed_peer_is_no_closed_swarm, close_takes_effect_at_its_first_poll,
    what_was_answered_before_close_arrives, what_was_told_before_close_arrives,
};

/// Number of concurrently waiting calls of one kind.
const MANY: usize = 48;

async fn close<A: Addr>(testbed: &Testbed<A>, node: &Node<A>) -> Outcome {
    in_time("close", testbed.patience(), node.close()).await
}

/// Closes twice concurrently, and then again.
pub async fn close_is_idempotent<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [node] = testbed.nodes().await?;
    let both = async { tokio::join!(node.close(), node.close()) };
    in_time("closing twice at the same time", testbed.patience(), both).await?;
    in_time("closing again", testbed.patience(), node.close()).await
}

/// Closes while several calls wait for messages.
pub async fn a_pending_receive_is_closed<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [node] = testbed.nodes().await?;
    let single = |node: Node<A>| async move { node.receive().await };
    let batch = |node: Node<A>| async move { node.receive_batch(&mut Vec::new(), 4).await };
    let singles = pending((0..MANY).map(|_| single(node.clone()))).await;
    let batches = pending((0..MANY).map(|_| batch(node.clone()))).await;
    close(testbed, &node).await?;
    all_closed("a pending receive", testbed.patience(), singles).await?;
    all_closed("a pending receive_batch", testbed.patience(), batches).await
}

/// Closes while several calls wait for requests.
pub async fn a_pending_receive_ask_is_closed<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [node] = testbed.nodes().await?;
    let asks = node.ask_side()?.clone();
    let call = |asks: p2p::BoxAskSwarm<A>| async move { asks.receive_ask().await };
    let calls = pending((0..MANY).map(|_| call(asks.clone()))).await;
    close(testbed, &node).await?;
    all_closed("a pending receive_ask", testbed.patience(), calls).await
}

/// Asks of `a` that `b` does not answer.
async fn asks<A: Addr>(a: &Node<A>, b: &Node<A>, count: usize) -> Outcome<JoinSet<p2p::Result<Packet>>> {
    let (asks, dst) = (a.ask_side()?.clone(), b.addr()?);
    let ask = |asks: p2p::BoxAskSwarm<A>, dst: A| async move {
        asks.ask(&dst, Packet::from(numbered_payload(0, PLAIN).as_slice()))
            .await
    };
    Ok(pending((0..count).map(|_| ask(asks.clone(), dst.clone()))).await)
}

/// Closes the asker while asks wait for their responses.
pub async fn a_pending_ask_is_closed<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let asks = asks(&a, &b, testbed.the_profile().asks.clamp(1, MANY)).await?;
    close(testbed, &a).await?;
    let refused = |error: &Error| matches!(error, Error::Limit { .. } | Error::Rejected(_));
    all_closed_but("a pending ask", testbed.patience(), asks, refused).await
}

/// Closes during the lookup of a closed node's key.
pub async fn a_pending_lookup_is_closed<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let (keys, addr) = (a.secure_side()?.clone(), b.addr()?);
    close(testbed, &b).await?;
    let lookup = |keys: p2p::BoxSecureSwarm<A>, addr: A| async move { keys.lookup_public_key(&addr).await };
    let mut lookups = pending((0..MANY / 2).map(|_| lookup(keys.clone(), addr.clone()))).await;
    // A lookup that ends before the swarm is closed has its own result.
    if lookups.try_join_next().is_some() {
        return Ok(());
    }
    close(testbed, &a).await?;
    all_closed("a pending lookup", testbed.patience(), lookups).await
}

/// Tells after `close`.
pub async fn later_tells_are_closed<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let dst = b.addr()?;
    let most = mtu(&a)?;
    close(testbed, &a).await?;
    for number in 0..testbed.amount(30) as u32 {
        let packet =
            || Packet::from(numbered_payload(number, most.min(PLAIN + 31 * number as usize)).as_slice());
        closed(
            "a tell after close",
            in_time("a tell", testbed.patience(), a.tell(&dst, packet())).await?,
        )?;
        let mut batch = vec![(dst.clone(), packet()), (dst.clone(), packet())];
        match in_time("tell_batch", testbed.patience(), a.tell_batch(&mut batch)).await? {
            Ok(()) => broken!("tell_batch after close succeeded"),
            Err(error) => closed::<()>("tell_batch after close", Err(error.first))?,
        }
    }
    Ok(())
}

/// Receives after `close`, with a message in the queue.
pub async fn later_receives_are_closed<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    testbed
        .tell_each(&a, &b.addr()?, 0..testbed.window() as u32)
        .await?;
    settle(testbed).await;
    close(testbed, &b).await?;
    for _ in 0..testbed.amount(20) {
        closed(
            "receive after close",
            in_time("receive", testbed.patience(), b.receive()).await?,
        )?;
        let mut out = Vec::new();
        let batch = in_time("receive_batch", testbed.patience(), b.receive_batch(&mut out, 4));
        closed("receive_batch after close", batch.await?)?;
    }
    Ok(())
}

/// Asks after `close`.
pub async fn later_asks_are_closed<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let (dst, most) = (b.addr()?, mtu(&a)?);
    close(testbed, &a).await?;
    for number in 0..testbed.amount(20) as u32 {
        let request = numbered_payload(number, most.min(PLAIN + 31 * number as usize));
        let ask = a.ask_side()?.ask(&dst, Packet::from(request.as_slice()));
        closed(
            "an ask after close",
            in_time("an ask", testbed.patience(), ask).await?,
        )?;
    }
    Ok(())
}

/// Receives asks after `close`, with requests in the queue.
pub async fn later_receive_asks_are_closed<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let _asks = asks(&a, &b, 3).await?;
    settle(testbed).await;
    close(testbed, &b).await?;
    for _ in 0..testbed.amount(20) {
        let receive = b.ask_side()?.receive_ask();
        closed(
            "receive_ask after close",
            in_time("receive_ask", testbed.patience(), receive).await?,
        )?;
    }
    Ok(())
}

/// Looks keys up after `close`: one for the first time, and one again.
pub async fn later_lookups_are_closed<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b, known] = testbed.nodes().await?;
    let addrs = [b.addr()?, known.addr()?];
    testbed.deliver(&a, &known, &numbered_payload(0, PLAIN)).await?;
    let keys = a.secure_side()?;
    // Another law checks whether it succeeds.
    let _ = tokio::time::timeout(testbed.patience(), keys.lookup_public_key(&addrs[1])).await;
    close(testbed, &a).await?;
    for addr in addrs.iter().cycle().take(2 * testbed.amount(10)) {
        let lookup = keys.lookup_public_key(addr);
        closed(
            "a lookup after close",
            in_time("a lookup", testbed.patience(), lookup).await?,
        )?;
    }
    Ok(())
}

/// Closes nodes one after another; the others exchange messages.
pub async fn closing_closes_no_other_node<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, c, leaving @ ..]: [_; 5] = testbed.nodes().await?;
    for node in leaving {
        let gone = node.addr()?;
        close(testbed, &node).await?;
        // The tell may be refused or lost.
        let _ = tokio::time::timeout(testbed.settle(), a.tell(&gone, Packet::default())).await;
        for (from, to) in [(&a, &c), (&c, &a)] {
            testbed
                .deliver(from, to, &numbered_payload(u32::MAX, PLAIN))
                .await?;
            let lengths = vec![PLAIN; testbed.amount(60)];
            let series = testbed.series(from, to, &lengths, |_, _| Ok(())).await?;
            series.arrived(testbed.worst_loss())?;
        }
    }
    Ok(())
}
