//! Laws of keys and of addresses that name an identity.

use std::collections::BTreeSet;

use p2p::{Addr, Packet, SecureSwarm as _, Swarm as _};
use tokio::time::timeout;

use crate::field::{PLAIN, broken, ensure, in_time, letter, number};
use crate::kind::Node;
use crate::report::Outcome;
use crate::testbed::{Testbed, chain};

mod wrong;

pub use wrong::{
    a_flooded_node_proves_its_key, a_wrong_id_makes_nobody_unreachable,
    a_wrong_id_reaches_nobody_beside_the_true_one,
};

/// Lets two nodes tell a third in turn, and compares the sources.
pub async fn src_is_who_it_says<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, c, reader] = bed.nodes().await?;
    let dst = reader.addr()?;
    let mut missing: BTreeSet<u32> = (0..4).collect();
    let mut again = bed.again(PLAIN);
    while again.next() {
        for number in 0..4 {
            bed.tell_each(if number % 2 == 0 { &a } else { &c }, &dst, [number])
                .await?;
        }
        while let Ok(message) = timeout(bed.settle(), reader.receive()).await {
            let message = message?;
            let Some(number) = number(&message.payload) else {
                continue;
            };
            let sender = if number % 2 == 0 { &a } else { &c };
            is_from(bed, &reader, &message.src, sender).await?;
            missing.remove(&number);
            if missing.is_empty() {
                return Ok(());
            }
        }
    }
    broken!(
        "of four messages of two nodes, told {} times, these never arrived: {missing:?}",
        again.times
    )
}

/// Compares identities; where addresses have none, keys.
async fn is_from<A: Addr>(bed: &Testbed<A>, reader: &Node<A>, src: &A, sender: &Node<A>) -> Outcome {
    if let (Some(named), Some(sent)) = (src.peer_id(), sender.addr()?.peer_id()) {
        ensure!(named == sent, "a message of {sent} names {named} as its source");
        return Ok(());
    }
    let found = lookup(bed, reader, src).await?;
    let sent = sender.secure_side()?.public_key();
    ensure!(
        found == sent,
        "the source {src} of a message has a key that is not its sender's"
    );
    Ok(())
}

/// The public key at `addr`; a medium that loses may take some attempts.
async fn lookup<A: Addr>(bed: &Testbed<A>, node: &Node<A>, addr: &A) -> Outcome<p2p::BoxKey> {
    let keys = node.secure_side()?;
    let mut again = bed.again_round_trip(PLAIN);
    let mut why = String::new();
    while again.next() {
        let limit = bed.the_profile().ask_patience;
        match in_time("a lookup", limit, keys.lookup_public_key(addr)).await? {
            Ok(key) => return Ok(key),
            Err(error) => why = chain(&error),
        }
        tokio::time::sleep(bed.settle()).await;
    }
    broken!(
        "the public key of {addr} was not found in {} attempts: {why}",
        again.times
    )
}

/// Compares the public keys of three nodes.
pub async fn nodes_have_keys_of_their_own<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let nodes: [_; 3] = bed.nodes().await?;
    let mut keys = BTreeSet::new();
    for node in &nodes {
        let key = node.secure_side()?.public_key().as_ref().to_vec();
        ensure!(keys.insert(key), "two nodes have the same public key");
    }
    Ok(())
}

/// Looks up in both directions.
pub async fn lookup_gives_the_other_nodes_key<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, b] = bed.nodes().await?;
    for (from, to) in [(&a, &b), (&b, &a)] {
        let found = lookup(bed, from, &to.addr()?).await?;
        let own = to.secure_side()?.public_key();
        ensure!(
            found == own,
            "looking up {} gave {found:?}, its own key is {own:?}",
            to.addr()?
        );
    }
    Ok(())
}

/// Tells to the identity of one node at the place of another.
pub async fn a_wrong_id_reaches_nobody<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, named, other] = bed.nodes().await?;
    let forged = bed.forged(&named.addr()?, &other.addr()?)?;
    for number in 0..bed.again(PLAIN).least() as u32 {
        let tell = a.tell(&forged, Packet::from(letter(number, PLAIN).as_slice()));
        // It may wait for a handshake that never ends well.
        let _ = timeout(bed.settle(), tell).await;
    }
    let reached = bed.drain_numbers(&other, 64).await?.len();
    ensure!(
        reached == 0,
        "{reached} messages to {forged} reached another identity"
    );
    Ok(())
}

/// Looks up the identity of one node at the place of another.
pub async fn a_wrong_id_has_no_key<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, named, other] = bed.nodes().await?;
    let forged = bed.forged(&named.addr()?, &other.addr()?)?;
    let (keys, wrong) = (a.secure_side()?, other.secure_side()?.public_key());
    for _ in 0..bed.again(PLAIN).least() {
        // It may wait for a handshake that never ends well.
        if let Ok(Ok(found)) = timeout(bed.settle(), keys.lookup_public_key(&forged)).await {
            ensure!(
                found != wrong,
                "looking up {forged} gave the key of another identity"
            );
        }
    }
    Ok(())
}
