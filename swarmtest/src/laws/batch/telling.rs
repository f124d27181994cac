//! Laws of `tell_batch`.

use p2p::{Addr, BatchError, Error, Packet, Swarm as _};
use rand::RngExt as _;
use rand::rngs::StdRng;
use tokio::time::timeout;

use crate::chance::arrive_at_least;
use crate::harness::{MIN_PAYLOAD, PLAIN, broken, ensure, in_time, mtu, number, numbered_payload};
use crate::kind::Node;
use crate::payloads::length;
use crate::report::Outcome;
use crate::testbed::Testbed;

/// Maximum number of messages in a batch.
const MOST: usize = 200;

/// Maximum length of messages in a batch.
const LONGEST: usize = 300;

fn batch_of<A: Addr>(dst: &A, lengths: impl IntoIterator<Item = usize>) -> Vec<(A, Packet)> {
    let packets = (0..)
        .zip(lengths)
        .map(|(number, len)| numbered_payload(number, len));
    packets
        .map(|payload| (dst.clone(), Packet::from(payload.as_slice())))
        .collect()
}

/// Returns how many short messages a node holds that does not receive: counted by single tells, a power of
/// two up to 256, of which half is certain.
async fn capacity<A: Addr>(testbed: &Testbed<A>, from: &Node<A>, to: &Node<A>) -> Outcome<usize> {
    let (dst, mut kept) = (to.addr()?, testbed.window());
    if !testbed.lossless() {
        return Ok(kept);
    }
    for count in [64, 128, 256] {
        if count > testbed.the_profile().holds {
            break;
        }
        testbed.tell_each(from, &dst, 0..count as u32).await?;
        let mut came = 0;
        while came < count
            && let Ok(message) = timeout(testbed.quiet(), to.receive()).await
        {
            came += usize::from(number(&message?.payload).is_some());
        }
        if came < count {
            break;
        }
        kept = kept.max(count / 2);
    }
    Ok(kept)
}

/// Batches of various sizes to several destinations, some with refused messages.
struct Shapes {
    rng: StdRng,
    /// Maximum number of messages in flight to each destination.
    room: usize,
    mtu: usize,
    longest: usize,
    next: u32,
}

/// The contents of a batch: the destination, number and length of each message, and how many are over the
/// MTU.
#[derive(Default)]
struct Shape {
    payloads: Vec<(usize, u32, usize)>,
    over: usize,
    /// The length of the first message over the MTU.
    first_over: usize,
}

impl Shapes {
    /// Creates a batch of up to `count` messages: fewer if destinations have no room for them.
    fn batch<A: Addr>(&mut self, dst: &[A], count: usize, over: bool) -> (Vec<(A, Packet)>, Shape) {
        let (mut batch, mut shape) = (Vec::new(), Shape::default());
        let mut open = vec![(0, 0); dst.len()];
        let one = self.rng.random_range(0..3) == 0;
        // All to one destination, or alternating, or at random.
        let refused = match self.rng.random_range(0..4) {
            _ if !over => 0,
            0 => 1,
            1 => 2,
            2 => 10,
            _ => 100,
        };
        for place in 0..count {
            if over && (self.rng.random_range(0..100) < refused || place == count / 2) {
                let len = self.mtu + self.rng.random_range(1..20);
                if shape.over == 0 {
                    shape.first_over = len;
                }
                batch.push((dst[place % dst.len()].clone(), Packet::from(&vec![7; len][..])));
                shape.over += 1;
                continue;
            }
            let to = if one {
                0
            } else {
                self.rng.random_range(0..dst.len())
            };
            let Some(to) = (to..to + dst.len()).map(|to| to % dst.len()).find(|to| {
                let (count, bytes) = open[*to];
                count < self.room && bytes < crate::series::WINDOW_BYTES
            }) else {
                break;
            };
            let len = length(&mut self.rng, LONGEST.min(self.longest)).max(MIN_PAYLOAD);
            batch.push((
                dst[to].clone(),
                Packet::from(&numbered_payload(self.next, len)[..]),
            ));
            shape.payloads.push((to, self.next, len));
            open[to] = (open[to].0 + 1, open[to].1 + len);
            self.next += 1;
        }
        (batch, shape)
    }
}

/// Returns sizes of batches: each up to 70, and some more up to [`MOST`]; in a quick run some of them.
fn sizes<A: Addr>(testbed: &Testbed<A>, rng: &mut StdRng) -> Vec<usize> {
    let mut sizes: Vec<usize> = (0..testbed.amount(100))
        .map(|count| {
            if count <= 70 {
                count
            } else {
                rng.random_range(0..=MOST)
            }
        })
        .collect();
    sizes.extend([4, 17, 33, 65, 100, 129, MOST]);
    sizes
}

/// Tells batches of all sizes to several nodes, and passes the result and the arrivals of each to `look`.
async fn shaped<A: Addr>(
    testbed: &Testbed<A>,
    over: bool,
    mut look: impl FnMut(&Shape, Result<(), BatchError>, usize) -> Outcome,
    arrives: bool,
    whole: bool,
) -> Outcome {
    let [a, others @ ..]: [_; 8] = testbed.nodes().await?;
    let dst: Vec<A> = others.iter().map(Node::addr).collect::<Outcome<_>>()?;
    let mut rng = testbed.rng();
    let sizes = sizes(testbed, &mut rng);
    let room = if arrives {
        capacity(testbed, &a, &others[0]).await?
    } else {
        MOST
    };
    let (mtu, longest) = (mtu(&a)?, testbed.longest(&a)?);
    let mut shapes = Shapes {
        rng,
        room,
        mtu,
        longest,
        // A late payload of the capacity measurement must not count as one of a batch.
        next: 1 << 20,
    };
    let (mut told, mut came) = (0, 0);
    for size in sizes {
        let (mut batch, shape) = shapes.batch(&dst, size, over);
        let said = in_time("tell_batch", testbed.patience(), a.tell_batch(&mut batch)).await?;
        look(&shape, said, batch.len())?;
        if !arrives {
            for node in &others {
                while let Ok(taken) = timeout(
                    std::time::Duration::ZERO,
                    node.receive_batch(&mut Vec::new(), MOST),
                )
                .await
                {
                    taken?;
                }
            }
            continue;
        }
        for (to, node) in others.iter().enumerate() {
            let mut missing: std::collections::BTreeMap<u32, usize> = shape
                .payloads
                .iter()
                .filter(|(dst, _, _)| *dst == to)
                .map(|(_, number, len)| (*number, *len))
                .collect();
            told += missing.len();
            while !missing.is_empty() {
                let Ok(message) = timeout(testbed.quiet(), node.receive()).await else {
                    break;
                };
                let payload = message?.payload;
                let Some(number) = number(&payload) else {
                    continue;
                };
                let Some(len) = missing.remove(&number) else {
                    continue;
                };
                came += 1;
                ensure!(
                    !whole || payload == *numbered_payload(number, len).as_slice(),
                    "a message of a batch of {size} was damaged"
                );
            }
            if testbed.lossless() && !missing.is_empty() {
                broken!(
                    "of a batch of {} messages and {} over the MTU, {} never arrived",
                    shape.payloads.len(),
                    shape.over,
                    missing.len()
                );
            }
        }
    }
    let least = arrive_at_least(told, testbed.worst_loss());
    ensure!(
        came >= least,
        "of {told} messages in batches {came} arrived instead of {least}"
    );
    Ok(())
}

/// Tells batches of all sizes and compares the arrivals.
pub async fn tell_batch_sends_what_tells_would<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    testbed.undamaged()?;
    shaped(
        testbed,
        false,
        |_, said, _| Ok(said.map_err(|error| error.first)?),
        true,
        true,
    )
    .await
}

/// Puts messages over the MTU at any place of a batch.
pub async fn a_refused_message_holds_up_none_behind_it<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    // The next law checks the error.
    shaped(testbed, true, |_, _, _| Ok(()), true, false).await
}

/// Checks the numbers in the errors of batches with messages over the MTU.
pub async fn tell_batch_says_what_was_refused<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let (dst, most) = (b.addr()?, mtu(&a)?);
    let mut batch = batch_of(&dst, [PLAIN, most + 1, PLAIN]);
    let told = in_time("tell_batch", testbed.patience(), a.tell_batch(&mut batch)).await?;
    let Err(error) = told else {
        broken!("a batch with a message over the MTU succeeded")
    };
    ensure!(
        (error.sent, error.refused) == (2, 1) && matches!(error.first, Error::MtuExceeded { .. }),
        "a batch of which the second of three messages is over the MTU failed with: {error}"
    );
    let says = |shape: &Shape, said: Result<(), BatchError>, _| {
        let (sent, over) = (shape.payloads.len(), shape.over);
        match said {
            Ok(()) if over == 0 => Ok(()),
            Ok(()) => broken!("a batch of {sent} messages and {over} over the MTU succeeded"),
            Err(error) if over == 0 => broken!("a batch of {sent} messages failed with: {error}"),
            Err(error) => {
                ensure!(
                    (error.sent, error.refused) == (sent, over),
                    "a batch of {sent} messages and {over} over the MTU failed with: {error}"
                );
                match error.first {
                    Error::MtuExceeded { size, mtu } if (size, mtu) == (shape.first_over, most) => Ok(()),
                    first => broken!(
                        "the first message of a batch that is over the MTU has {} bytes, and the error is: {first}",
                        shape.first_over
                    ),
                }
            }
        }
    };
    shaped(testbed, true, says, false, false).await?;
    shaped(testbed, false, says, false, false).await
}

/// Checks the buffer after batches of all sizes were told.
pub async fn tell_batch_empties_the_batch<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let empty = |_: &Shape, _, left: usize| {
        ensure!(left == 0, "{left} messages are left in a batch that was told");
        Ok(())
    };
    shaped(testbed, false, empty, false, false).await?;
    shaped(testbed, true, empty, false, false).await
}
