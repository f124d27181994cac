//! Laws of `tell` about the MTU.

use p2p::{Addr, Error, Packet, Swarm as _};
use rand::RngExt as _;

use crate::harness::{broken, ensure, in_time, mtu, numbered_payload};
use crate::report::{Outcome, Unmet};
use crate::testbed::Testbed;

/// Returns lengths over the MTU: slightly, by multiples of it, by a power of two so that a short counter
/// wraps, and random ones.
pub(crate) fn lengths_over<A: Addr>(testbed: &Testbed<A>, mtu: usize) -> Vec<usize> {
    let mut rng = testbed.rng();
    let mut lengths = vec![mtu + 1, mtu * 2];
    lengths.extend([
        mtu + 2,
        mtu + 3,
        mtu + 8,
        mtu + 16,
        mtu + 100,
        mtu * 2 + 1,
        mtu * 3,
        mtu * 4,
    ]);
    for wrap in [1 << 8, 1 << 14, 1 << 15, 1 << 16, 1 << 17, 1 << 20] {
        lengths.extend([wrap, wrap + 1, wrap + 16, wrap + mtu / 2, wrap + mtu]);
    }
    lengths.extend((0..testbed.amount(100)).map(|_| mtu + rng.random_range(1..=2 * mtu)));
    lengths.retain(|len| *len > mtu);
    // A message in memory is no longer than this.
    lengths.retain(|len| *len <= (4 << 20).max(2 * mtu));
    lengths
}

/// Tells messages over the MTU, many of them by one byte.
pub async fn over_the_mtu_is_mtu_exceeded<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let (dst, most) = (b.addr()?, mtu(&a)?);
    let mut lengths = lengths_over(testbed, most);
    lengths.extend(vec![most + 1; testbed.amount(50)]);
    for len in lengths {
        let tell = a.tell(&dst, Packet::from(numbered_payload(0, len).as_slice()));
        match in_time("a tell", testbed.patience(), tell).await? {
            Err(Error::MtuExceeded { size, mtu }) if (size, mtu) == (len, most) => {}
            Err(error) => broken!("telling {len} bytes with an MTU of {most} failed with: {error}"),
            Ok(()) => broken!("telling {len} bytes with an MTU of {most} succeeded"),
        }
    }
    Ok(())
}

/// Tells messages over the MTU, alone and in batches, and expects no arrival.
pub async fn over_the_mtu_nothing_is_sent<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let (dst, most) = (b.addr()?, mtu(&a)?);
    let mut lengths = lengths_over(testbed, most);
    let least = testbed.again(testbed.longest(&a)?).least();
    lengths.extend((lengths.len()..least).map(|count| if count % 2 == 0 { most + 1 } else { most * 2 }));
    for (count, len) in lengths.into_iter().enumerate() {
        let packet = Packet::from(numbered_payload(0, len).as_slice());
        // The previous law checks the error of the tell.
        if count % 4 == 3 {
            let mut batch = vec![(dst.clone(), packet.clone()), (dst.clone(), packet)];
            let _ = in_time("tell_batch", testbed.patience(), a.tell_batch(&mut batch)).await?;
        } else {
            let _ = in_time("a tell", testbed.patience(), a.tell(&dst, packet)).await?;
        }
        if count % 64 == 63 && count > least {
            tokio::task::yield_now().await;
        }
    }
    match testbed.drain(&b, 1).await?.first() {
        Some(message) => broken!(
            "{} bytes of a message over the MTU arrived",
            message.payload.len()
        ),
        None => Ok(()),
    }
}

/// Tells payloads of exactly the MTU.
pub async fn exactly_the_mtu_works<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    /// Total bytes.
    const BYTES: usize = 8 << 20;
    let [a, b] = testbed.nodes().await?;
    let most = mtu(&a)?;
    if testbed.longest(&a)? < most {
        let dst = b.addr()?;
        let tell = a.tell(&dst, Packet::from(numbered_payload(0, most)));
        in_time("a tell", testbed.patience(), tell).await??;
        return Err(Unmet::Waived(format!(
            "the medium loses nearly every message of {most} bytes"
        )));
    }
    let came = testbed
        .deliver(&a, &b, &numbered_payload(0, most))
        .await?
        .payload
        .len();
    ensure!(came == most, "of {most} bytes {came} arrived");
    let count = testbed.amount(100).min(testbed.amount(BYTES) / most);
    let lengths = vec![most; count];
    let series = testbed.series(&a, &b, &lengths, |message, told| {
        let came = message.payload.len();
        ensure!(came == told.len(), "of {most} bytes {came} arrived");
        Ok(())
    });
    series.await?.arrived(testbed.worst_loss())
}
