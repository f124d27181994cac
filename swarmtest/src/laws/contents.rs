//! Laws of the contents of messages.

use p2p::{Addr, Packet, Swarm as _};
use tokio::time::timeout;

use crate::harness::{ensure, in_time};
use crate::kind::Node;
use crate::laws::tell::all_lengths;
use crate::ledger::Ledger;
use crate::payloads::{KINDS, MAGICS, contents, magic};
use crate::report::Outcome;
use crate::series::WINDOW_BYTES;
use crate::testbed::Testbed;

/// Tells these payloads, each once, and records the arrivals in the ledger.
async fn told<A: Addr>(
    testbed: &Testbed<A>,
    nodes: &[Node<A>; 2],
    payloads: impl IntoIterator<Item = Vec<u8>>,
) -> Outcome {
    let dst = nodes[1].addr()?;
    let lossy = testbed.worst_loss() > 0.0;
    let mut ledger = Ledger::new(testbed.the_profile(), nodes);
    let mut payloads = payloads.into_iter().peekable();
    while payloads.peek().is_some() {
        while let Some(payload) = payloads.peek()
            && let (open, bytes) = ledger.open(1)
            && (open == 0 || (open < testbed.window() && bytes + payload.len() <= WINDOW_BYTES))
            && let Some(payload) = payloads.next()
        {
            ledger.tell(0, 1, &payload);
            let tell = nodes[0].tell(&dst, Packet::from(&payload[..]));
            in_time("a tell", testbed.patience(), tell).await??;
        }
        while ledger.open(1).0 > 0 {
            let limit = if lossy {
                testbed.settle()
            } else {
                testbed.patience()
            };
            if let Ok(message) = timeout(limit, nodes[1].receive()).await {
                ledger.came(1, &nodes[1], &message?)?;
                continue;
            }
            let missing = ledger.missing(1).unwrap_or(&[]);
            let begin = &missing[..missing.len().min(16)];
            ensure!(
                lossy,
                "a message of {} bytes that begins with {begin:02x?} did not arrive within {limit:?}",
                missing.len()
            );
            ledger.give_up(1);
        }
    }
    for message in testbed.drain(&nodes[1], usize::MAX).await? {
        ledger.came(1, &nodes[1], &message)?;
    }
    ledger.settle()
}

/// Tells zeros, ones, one byte, counted bytes, text and noise, of lengths from 0 on.
pub async fn any_content_of_any_length_arrives_whole<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    testbed.undamaged()?;
    let nodes = testbed.nodes().await?;
    let mut lengths = all_lengths(testbed, 0, testbed.longest(&nodes[0])?);
    // Long messages reveal less about contents, and all of them would take long.
    lengths.retain(|len| *len <= 4096 || len % 7 == 0);
    let mut rng = testbed.rng();
    let payloads = lengths.into_iter().enumerate().flat_map(|(index, len)| {
        let kinds = [index % KINDS, KINDS - 1];
        kinds.map(|kind| contents(&mut rng, kind, len))
    });
    told(testbed, &nodes, payloads.collect::<Vec<_>>()).await
}

/// Tells every byte alone and repeated, first and last.
pub async fn every_byte_arrives_whole<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    testbed.undamaged()?;
    let nodes = testbed.nodes().await?;
    let most = testbed.longest(&nodes[0])?;
    let payloads = (0..=u8::MAX).flat_map(|byte| {
        let mut first = vec![0; 40.min(most)];
        first[0] = byte;
        let mut last = vec![0xff; 41.min(most)];
        if let Some(end) = last.last_mut() {
            *end = byte;
        }
        [
            vec![byte],
            vec![byte; 2],
            vec![byte; 4],
            vec![byte; 16],
            vec![byte; 100.min(most)],
            first,
            last,
        ]
    });
    told(testbed, &nodes, payloads).await
}

/// Tells payloads that begin like headers of layers, at several lengths.
pub async fn what_looks_like_a_header_arrives_whole<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    testbed.undamaged()?;
    let nodes = testbed.nodes().await?;
    let most = testbed.longest(&nodes[0])?;
    let mut rng = testbed.rng();
    let mut payloads = Vec::new();
    for which in 0..MAGICS {
        for len in [
            1,
            2,
            3,
            4,
            5,
            7,
            8,
            9,
            12,
            16,
            24,
            32,
            33,
            48,
            64,
            100,
            333,
            1000,
            most - 1,
            most,
        ] {
            payloads.push(magic(&mut rng, which, len.min(most.min(8192))));
        }
    }
    told(testbed, &nodes, payloads).await
}
