//! Packets arrive again.

use p2p::Addr;
use rand::seq::SliceRandom as _;

use super::scene::Scene;
use crate::field::PLAIN;
use crate::report::Outcome;
use crate::testbed::Testbed;
use crate::wire::{Datagram, Port};

/// Messages after which a window of any usual size has moved past the first ones.
const MANY: u32 = 10_000;

/// A port where nobody ever was.
const NOWHERE: Port = Port(u32::MAX - 1);

/// Doubles every packet, then sends all of them again in several ways, and the first ones again after many
/// more.
pub async fn replay_repeats_no_message<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let mut scene = Scene::new::<3>(bed).await?;
    double(&scene);
    for _ in 0..4 {
        for (from, to) in [(0, 1), (1, 0), (2, 1)] {
            scene.tell(from, to, PLAIN).await;
            scene.tell(from, to, 100).await;
        }
        scene.settle().await?;
    }
    scene.wire.calm();
    scene.at_most_once()?;
    send_again(&mut scene).await?;
    scene.at_most_once()?;
    let early = scene.wire.recorded();
    for told in 0..MANY {
        scene.tell(0, 1, PLAIN).await;
        if told % 256 == 255 {
            scene.read().await?;
        }
    }
    scene.settle().await?;
    scene.inject(early).await?;
    scene.at_most_once()
}

/// As [`replay_repeats_no_message`], with asks.
pub async fn replay_repeats_no_ask<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let mut scene = Scene::new::<3>(bed).await?;
    let limit = bed.the_profile().ask_patience;
    double(&scene);
    for _ in 0..4 {
        for (from, to) in [(0, 1), (1, 0), (2, 1)] {
            scene.ask(from, to, PLAIN, limit).await?;
        }
        scene.settle().await?;
    }
    scene.wire.calm();
    scene.at_most_once()?;
    send_again(&mut scene).await?;
    scene.at_most_once()
}

/// Replays while nodes talk, and stops.
pub async fn messages_arrive_again_after_replay<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let mut scene = Scene::new::<3>(bed).await?;
    scene.strict = false;
    double(&scene);
    for _ in 0..4 {
        scene.tell(0, 1, PLAIN).await;
        scene.tell(1, 0, PLAIN).await;
        scene.settle().await?;
    }
    scene.wire.calm();
    for _ in 0..2 {
        scene.reach(0, 1).await?;
        scene.reach(1, 0).await?;
        send_again(&mut scene).await?;
    }
    scene.reach(0, 1).await?;
    scene.reach(1, 0).await?;
    if scene.asks() {
        scene.is_answered(0, 1).await?;
    }
    Ok(())
}

/// Records every packet and lets it arrive twice.
fn double<A: Addr>(scene: &Scene<'_, A>) {
    scene.wire.record();
    scene.wire.attack(|sent| vec![sent.clone(), sent]);
}

/// Sends what was recorded again: as it was, in other orders, from other ports, and back to where it came from.
async fn send_again<A: Addr>(scene: &mut Scene<'_, A>) -> Outcome {
    let sent = scene.wire.recorded();
    scene.inject(sent.clone()).await?;
    scene.inject(sent.iter().rev().cloned()).await?;
    let mut shuffled = sent.clone();
    shuffled.shuffle(&mut scene.rng);
    scene.inject(shuffled).await?;
    let third = scene.ports[2];
    for src in [third, NOWHERE] {
        let from_there = |sent: &Datagram| Datagram { src, ..sent.clone() };
        let others = sent.iter().filter(|sent| sent.dst != src).map(from_there);
        let others: Vec<Datagram> = others.collect();
        scene.inject(others).await?;
    }
    let back = sent.into_iter().map(|Datagram { src, dst, bytes }| Datagram {
        src: dst,
        dst: src,
        bytes,
    });
    scene.inject(back).await
}
