//! Contents cannot be read on the wire.

use std::collections::HashSet;

use p2p::Addr;
use rand::RngExt as _;

use crate::harness::{PLAIN, broken, ensure, mtu, numbered_payload, reversed, serve};
use crate::kind::Node;
use crate::report::Outcome;
use crate::testbed::Testbed;
use crate::wire::{Datagram, Wire};

/// Number of consecutive bytes that count as plaintext. About ten thousand random bytes share that many with
/// a few hundred bytes of payloads with a probability below 10⁻¹².
const RUN: usize = 8;

/// Length of the messages that are searched for by their pattern instead of their bytes.
const LONG: usize = 240;

/// Tells messages of several kinds, and searches every packet for traces of them.
pub async fn tells_cannot_be_read_on_the_wire<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let (wire, _, [a, b]) = testbed.wired().await?;
    cannot_be_read(&Talk {
        testbed,
        wire,
        a,
        b,
        asks: false,
    })
    .await
}

/// Asks with messages of several kinds, and searches every packet for traces of requests and responses.
pub async fn asks_cannot_be_read_on_the_wire<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let (wire, _, [a, b]) = testbed.wired().await?;
    let _serving = serve(&b, |request| reversed(&request.message.payload))?;
    cannot_be_read(&Talk {
        testbed,
        wire,
        a,
        b,
        asks: true,
    })
    .await
}

struct Talk<'a, A> {
    testbed: &'a Testbed<A>,
    wire: Wire,
    a: Node<A>,
    b: Node<A>,
    asks: bool,
}

impl<A: Addr> Talk<'_, A> {
    /// Sends the payload in each direction; returns the packets on the wire.
    async fn say(&self, payload: &[u8]) -> Outcome<Vec<Datagram>> {
        self.wire.record();
        if self.asks {
            self.testbed.ask(&self.a, &self.b.addr()?, payload).await?;
        } else {
            self.testbed.deliver(&self.a, &self.b, payload).await?;
            self.testbed.deliver(&self.b, &self.a, payload).await?;
        }
        Ok(self.wire.recorded())
    }
}

async fn cannot_be_read<A: Addr>(talk: &Talk<'_, A>) -> Outcome {
    let most = mtu(&talk.a)?.min(mtu(&talk.b)?);
    let long = LONG.min(most);
    // Includes the first packets, with the handshake.
    let first = [PLAIN, 64.min(most), long];
    let mut rng = talk.testbed.rng();
    let more = (0..talk.testbed.amount(60)).map(|_| rng.random_range(PLAIN..=long));
    for (number, len) in first.into_iter().chain(more).enumerate() {
        let said = numbered_payload(number as u32, len);
        let seen = talk.say(&said).await?;
        ensure!(!seen.is_empty(), "a message arrived, and nothing was on the wire");
        let both = [said.clone(), reversed(&said)];
        let known: HashSet<&[u8]> = both.iter().flat_map(|text| text.windows(RUN)).collect();
        if let Some(packet) = seen.iter().find(|packet| has_any(&packet.bytes, &known)) {
            broken!(
                "{RUN} consecutive bytes of a message of {len} bytes are in a packet of {} bytes",
                packet.bytes.len()
            );
        }
    }
    let (one, two) = (
        numbered_payload(u32::MAX, long),
        numbered_payload(u32::MAX - 1, long),
    );
    let (first, second) = (talk.say(&one).await?, talk.say(&two).await?);
    same_key_stream(&first, &second, &one, &two)?;
    // A message that repeats itself, if packets do not anyway.
    let flat = talk.say(&vec![0; long]).await?;
    let repeat = |seen: &[Datagram]| seen.iter().any(|packet| repeats(&packet.bytes));
    ensure!(
        repeat(&first) || !repeat(&flat),
        "{RUN} consecutive bytes occur twice in the packet of a message of zeros, but not in that of another"
    );
    Ok(())
}

fn has_any(packet: &[u8], known: &HashSet<&[u8]>) -> bool {
    packet.windows(RUN).any(|window| known.contains(window))
}

fn repeats(packet: &[u8]) -> bool {
    let mut seen = HashSet::new();
    packet.windows(RUN).any(|window| !seen.insert(window))
}

/// If two messages use the same key stream, the difference of the packets is that of the messages.
fn same_key_stream(first: &[Datagram], second: &[Datagram], one: &[u8], two: &[u8]) -> Outcome {
    let differ = |a: &[u8], b: &[u8]| -> Vec<u8> { a.iter().zip(b).map(|(a, b)| a ^ b).collect() };
    let forth = differ(one, two);
    let back = reversed(&forth);
    let known: HashSet<&[u8]> = forth.windows(RUN).chain(back.windows(RUN)).collect();
    for (a, b) in first.iter().flat_map(|a| second.iter().map(move |b| (a, b))) {
        ensure!(
            !has_any(&differ(&a.bytes, &b.bytes), &known),
            "two packets differ exactly as their messages do: the same key stream was used for both"
        );
    }
    Ok(())
}
