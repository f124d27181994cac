//! Laws of `tell`.

use std::collections::BTreeSet;

use p2p::{Addr, Error, Headroom, Packet, Swarm as _};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::field::{Held, LETTER, PLAIN, broken, ensure, in_time, letter, mtu, number, settle};
use crate::profile::arrive_at_least;
use crate::report::{Outcome, Unmet};
use crate::testbed::Testbed;

/// Lengths around powers of two, from the shortest letter to just below the MTU.
fn lengths(mtu: usize) -> BTreeSet<usize> {
    let powers = (3..usize::BITS)
        .map(|bits| 1_usize << bits)
        .take_while(|power| *power <= mtu);
    powers
        .flat_map(|power| [power - 1, power, power + 1, power + power / 2])
        .filter(|len| (LETTER..mtu).contains(len))
        .collect()
}

/// Tells letters of many lengths, each until it arrives.
pub async fn every_length_up_to_the_mtu_arrives<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, b] = bed.nodes().await?;
    for (count, len) in lengths(mtu(&a)?).into_iter().enumerate() {
        bed.deliver(&a, &b, &letter(count as u32, len)).await?;
    }
    Ok(())
}

/// Compares letters of several lengths as they arrive with what was told.
pub async fn a_message_arrives_whole<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, b] = bed.nodes().await?;
    let most = mtu(&a)?;
    for len in [LETTER, 31, 48, 96, 200, 1000, most / 2, most - 1] {
        let told = letter(len as u32, len.clamp(LETTER, most));
        let message = bed.deliver(&a, &b, &told).await?;
        let (came, differ) = (&*message.payload, |(one, other)| one != other);
        if came != told.as_slice() {
            let at = came
                .iter()
                .zip(&told)
                .position(differ)
                .unwrap_or(came.len().min(told.len()));
            broken!(
                "of {} bytes {} came, which differ from byte {at} on",
                told.len(),
                came.len()
            );
        }
    }
    Ok(())
}

/// Tells bursts without a pause and counts what arrives of all of them.
pub async fn a_burst_arrives_as_far_as_the_medium_lets_it<A: Addr>(bed: &Testbed<A>) -> Outcome {
    const BURST: u32 = 16;
    const BURSTS: u32 = 8;
    let [a, b] = bed.nodes().await?;
    let dst = b.addr()?;
    let mut arrived = BTreeSet::new();
    for burst in 0..BURSTS {
        let numbers = burst * BURST..(burst + 1) * BURST;
        bed.tell_each(&a, &dst, numbers.clone()).await?;
        while arrived.len() < numbers.end as usize {
            let Ok(message) = timeout(bed.quiet(), b.receive()).await else {
                break;
            };
            arrived.extend(number(&message?.payload));
        }
    }
    let (told, came) = ((BURST * BURSTS) as usize, arrived.len());
    let least = arrive_at_least(told, bed.the_profile().loss);
    ensure!(
        came >= least,
        "of {told} messages told in bursts of {BURST}, {came} arrived and not {least}"
    );
    Ok(())
}

/// Tells from several tasks, a few messages each; when they have come, again.
pub async fn tells_of_many_tasks_all_arrive<A: Addr>(bed: &Testbed<A>) -> Outcome {
    const TASKS: u32 = 4;
    const EACH: u32 = 2;
    const WAVES: u32 = 16;
    let [a, b] = bed.nodes().await?;
    let dst = b.addr()?;
    let mut arrived = BTreeSet::new();
    for wave in 0..WAVES {
        let mut tellers = JoinSet::new();
        for task in wave * TASKS..(wave + 1) * TASKS {
            let (bed, a, dst) = (bed.clone(), a.clone(), dst.clone());
            tellers.spawn(async move {
                for number in task * EACH..(task + 1) * EACH {
                    bed.tell_each(&a, &dst, [number]).await?;
                    tokio::task::yield_now().await;
                }
                Ok::<_, Unmet>(())
            });
        }
        while let Some(done) = tellers.join_next().await {
            done.map_err(|error| Unmet::Broken(error.to_string()))??;
        }
        while arrived.len() < ((wave + 1) * TASKS * EACH) as usize {
            let Ok(message) = timeout(bed.quiet(), b.receive()).await else {
                break;
            };
            arrived.extend(number(&message?.payload));
        }
    }
    let (told, came) = ((TASKS * EACH * WAVES) as usize, arrived.len());
    let least = arrive_at_least(told, bed.the_profile().loss);
    ensure!(
        came >= least,
        "of {told} messages told by {TASKS} tasks at a time, {came} arrived and not {least}"
    );
    Ok(())
}

/// Looks at a bystander after others have talked.
pub async fn a_message_reaches_its_destination_alone<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, b, bystander] = bed.nodes().await?;
    for number in 0..4 {
        bed.deliver(&a, &b, &letter(number, PLAIN)).await?;
    }
    let overheard = bed.drain_numbers(&bystander, 8).await?;
    ensure!(
        overheard.is_empty(),
        "a third node got {} messages that were told to another",
        overheard.len()
    );
    Ok(())
}

/// Tells letters of several lengths once each and counts the copies.
pub async fn a_message_arrives_at_most_once<A: Addr>(bed: &Testbed<A>) -> Outcome {
    if bed.the_profile().duplicates {
        return Err(Unmet::Waived("the medium duplicates".into()));
    }
    let [a, b] = bed.nodes().await?;
    let (dst, most) = (b.addr()?, mtu(&a)?);
    for (count, len) in [LETTER, PLAIN, 64, 120, 160, 200, 1000].into_iter().enumerate() {
        a.tell(&dst, Packet::from(letter(count as u32, len.min(most)).as_slice()))
            .await?;
    }
    let mut arrived = BTreeSet::new();
    for number in bed.drain_numbers(&b, 64).await? {
        ensure!(
            arrived.insert(number),
            "a message that was told once arrived twice"
        );
    }
    Ok(())
}

/// Drops tells after some polls and looks at what arrives of them.
pub async fn a_cancelled_tell_leaves_whole_or_not_at_all<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, b] = bed.nodes().await?;
    let (dst, len) = (b.addr()?, mtu(&a)?.min(200));
    let rounds = bed.again(len).least();
    for round in 0..rounds as u32 {
        let mut tell = Held::new(a.tell(&dst, Packet::from(letter(round, len).as_slice())));
        for _ in 0..=(round % 3) {
            if tell.poll().is_ready() {
                break;
            }
        }
    }
    for message in bed.drain(&b, 2 * rounds).await? {
        let told = number(&message.payload).map(|number| letter(number, len));
        ensure!(
            told.is_some_and(|told| message.payload == *told.as_slice()),
            "of a cancelled tell of {len} bytes a part arrived: {} bytes",
            message.payload.len()
        );
    }
    Ok(())
}

/// Tells packets with no, too little and enough room.
pub async fn short_room_is_no_fault<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, b] = bed.nodes().await?;
    let dst = b.addr()?;
    let rooms = [
        Headroom::new(0, 0),
        Headroom::new(1, 0),
        Headroom::new(0, 1),
        a.headroom(),
    ];
    for (count, room) in rooms.into_iter().enumerate() {
        let told = letter(count as u32, PLAIN);
        let message = bed
            .deliver_packet(&a, &dst, &b, &|| Packet::new(room, &told))
            .await?;
        ensure!(
            message.payload == *told.as_slice(),
            "a packet with {} bytes of room in front and {} behind was damaged",
            room.front,
            room.back
        );
    }
    Ok(())
}

/// Tells one byte too many, and twice as many as allowed.
pub async fn over_the_mtu_is_mtu_exceeded<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, b] = bed.nodes().await?;
    let (dst, most) = (b.addr()?, mtu(&a)?);
    for len in [most + 1, most * 2] {
        let tell = a.tell(&dst, Packet::from(letter(0, len).as_slice()));
        match in_time("a tell", bed.patience(), tell).await? {
            Err(Error::MtuExceeded { size, mtu }) if (size, mtu) == (len, most) => {}
            Err(error) => broken!("telling {len} bytes with an MTU of {most} failed with: {error}"),
            Ok(()) => broken!("telling {len} bytes with an MTU of {most} succeeded"),
        }
    }
    Ok(())
}

/// Tells messages that are too long, and looks for any trace at the other end.
pub async fn over_the_mtu_nothing_is_sent<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, b] = bed.nodes().await?;
    let (dst, most) = (b.addr()?, mtu(&a)?);
    for count in 0..bed.again(most).least() {
        let len = if count % 2 == 0 { most + 1 } else { most * 2 };
        let tell = a.tell(&dst, Packet::from(letter(0, len).as_slice()));
        // What the tell says is the law before this one.
        let _ = in_time("a tell", bed.patience(), tell).await?;
    }
    match bed.drain(&b, 1).await?.first() {
        Some(message) => broken!(
            "of a message over the MTU {} bytes arrived",
            message.payload.len()
        ),
        None => Ok(()),
    }
}

/// Tells a letter that fills the MTU.
pub async fn exactly_the_mtu_works<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, b] = bed.nodes().await?;
    let most = mtu(&a)?;
    let came = bed.deliver(&a, &b, &letter(0, most)).await?.payload.len();
    ensure!(came == most, "of {most} bytes {came} arrived");
    Ok(())
}

/// Tells nothing, which must arrive.
pub async fn an_empty_payload_is_a_message<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, b] = bed.nodes().await?;
    bed.deliver(&a, &b, &[]).await.map(drop)
}

/// Reads the MTU before and after messages in both directions.
pub async fn the_mtu_never_changes<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, b] = bed.nodes().await?;
    let before = [mtu(&a)?, mtu(&b)?];
    for number in 0..4 {
        bed.deliver(&a, &b, &letter(number, PLAIN)).await?;
        bed.deliver(&b, &a, &letter(number, PLAIN)).await?;
        let now = [mtu(&a)?, mtu(&b)?];
        ensure!(
            now == before,
            "mtu() of two nodes went from {before:?} to {now:?}"
        );
    }
    Ok(())
}

/// Answers a message at the address that it came from.
pub async fn src_can_be_told_to<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, b] = bed.nodes().await?;
    let src = bed.deliver(&a, &b, &letter(0, PLAIN)).await?.src;
    bed.deliver_at(&b, &src, &a, &letter(1, PLAIN)).await.map(drop)
}

/// Looks for the destination of a message among the receiver's addresses.
pub async fn dst_is_a_local_address<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, b] = bed.nodes().await?;
    let dst = bed.deliver(&a, &b, &letter(0, PLAIN)).await?.dst;
    let local = b.local_addrs();
    ensure!(
        local.contains(&dst),
        "the destination {dst} is not among the local addresses {local:?}"
    );
    Ok(())
}

/// Floods a node that does not read; of what was refused, nothing may arrive.
pub async fn an_error_means_it_did_not_leave<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, b] = bed.nodes().await?;
    let results = bed.flood(&a, &b.addr()?).await;
    for number in bed.drain_numbers(&b, 4 * results.len()).await? {
        if let Some(Err(error)) = results.get(number as usize) {
            broken!("a message arrived although telling it failed with: {error}");
        }
    }
    Ok(())
}

/// Tells more than any queue holds to a node that does not read.
pub async fn a_tell_never_waits_for_the_reader<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, b] = bed.nodes().await?;
    let dst = b.addr()?;
    for number in 0..bed.the_profile().flood() {
        let tell = a.tell(&dst, Packet::from(letter(number, PLAIN).as_slice()));
        if timeout(bed.patience(), tell).await.is_err() {
            broken!(
                "after {number} messages that nobody read, a tell waits for {:?}",
                bed.patience()
            );
        }
        crate::field::breathe(number).await;
    }
    Ok(())
}

/// Tells more than may be kept, and then counts what was.
pub async fn a_stopped_reader_costs_bounded_memory<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, b] = bed.nodes().await?;
    let told = bed.flood(&a, &b.addr()?).await.len();
    settle(bed).await;
    let kept: BTreeSet<u32> = bed.drain_numbers(&b, 4 * told).await?.into_iter().collect();
    let (kept, most) = (kept.len(), bed.the_profile().holds);
    ensure!(
        kept <= most,
        "{kept} of {told} messages were kept for a reader that stopped, more than {most}"
    );
    Ok(())
}

/// Floods one node that does not read, and talks between all the others.
pub async fn a_stopped_reader_stalls_no_other<A: Addr>(bed: &Testbed<A>) -> Outcome {
    let [a, stopped, c] = bed.nodes().await?;
    bed.flood(&a, &stopped.addr()?).await;
    let number = bed.the_profile().flood();
    bed.deliver(&a, &c, &letter(number, PLAIN)).await?;
    bed.deliver(&c, &a, &letter(number, PLAIN)).await?;
    bed.deliver(&stopped, &a, &letter(number + 1, PLAIN)).await?;
    bed.deliver(&stopped, &c, &letter(number + 1, PLAIN)).await?;
    Ok(())
}
