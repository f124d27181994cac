//! Asks with seeded lengths and contents, many at a time and in every direction, and a record of received
//! requests.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use p2p::{Addr, AskSwarm as _, Error, Packet, Rejection, Swarm as _};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::harness::{PLAIN, broken, ensure, in_time, noise, numbered_payload};
use crate::kind::Node;
use crate::report::{Outcome, Unmet};
use crate::testbed::{Testbed, chain};

/// Maximum length of a request and a response in bytes, except in laws of lengths.
const LONGEST: usize = 2048;

/// Maximum number of asks of one node in flight.
const WINDOW: u32 = 48;

fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
    })
}

/// Returns the request with this number, which determines its length and content.
fn request(number: u32, most: usize) -> Vec<u8> {
    let seed = hash(&number.to_le_bytes());
    let len = (seed >> 16) as usize % (most.min(LONGEST) - 3);
    [&number.to_le_bytes()[..], &noise(seed, len)].concat()
}

/// Returns the response to a request, of another length, sometimes empty.
pub(super) fn answer(request: &[u8], most: usize) -> Vec<u8> {
    let seed = hash(request);
    let len = match seed % 13 {
        0 => 0,
        _ => (seed >> 20) as usize % (most.min(LONGEST) + 1),
    };
    noise(seed, len)
}

/// Returns whether an ask was refused because too many are in flight; such an ask may be repeated.
pub(super) fn is_refused(error: &Error) -> bool {
    matches!(error, Error::Limit { .. }) || matches!(error, Error::Rejected(why) if *why == Rejection::BUSY)
}

/// The received requests of each node.
struct Seen<A> {
    runs: BTreeMap<u32, usize>,
    sources: BTreeMap<u32, Vec<A>>,
    fault: Option<String>,
}

struct Load<A> {
    most: usize,
    seen: Mutex<Seen<A>>,
    next: AtomicU32,
    answered: AtomicU32,
    /// Whether an ask was refused: then no request is held.
    crowded: AtomicBool,
    release: Notify,
}

/// The asker is in the number's last two bits.
const ASKERS: u32 = 4;

impl<A: Addr> Load<A> {
    fn lock(&self) -> std::sync::MutexGuard<'_, Seen<A>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a request.
    fn record(&self, payload: &[u8], src: &A, is_local: bool) {
        let Some(number) = payload.first_chunk().map(|bytes| u32::from_le_bytes(*bytes)) else {
            return;
        };
        let mut seen = self.lock();
        if payload != request(number, self.most) {
            seen.fault = Some(format!(
                "a request of {} bytes arrived that was never asked",
                payload.len()
            ));
        }
        if !is_local {
            seen.fault = Some("the destination of a request is not an address of the receiver".into());
        }
        let runs = seen.runs.entry(number).or_default();
        *runs += 1;
        if *runs > 1 {
            let runs = *runs;
            seen.fault = Some(format!("a request was received {runs} times"));
        }
        let asker = number % ASKERS;
        let others = |(other, sources): (&u32, &Vec<A>)| *other != asker && sources.contains(src);
        if seen.sources.iter().any(others) {
            seen.fault = Some(format!("requests of two nodes name {src} as their source"));
        }
        let sources = seen.sources.entry(asker).or_default();
        if !sources.contains(src) {
            sources.push(src.clone());
        }
    }
}

/// Receives requests and answers each after a delay of its own; holds the first one until it is released.
fn serve_late<A: Addr>(testbed: &Testbed<A>, node: &Node<A>, load: &Arc<Load<A>>) -> Outcome<JoinSet<()>> {
    let mut serving = JoinSet::new();
    let (asks, node, load) = (node.ask_side()?.clone(), node.clone(), load.clone());
    let slowest = testbed.settle().as_micros() as u64 / 4;
    serving.spawn(async move {
        let (mut late, mut count) = (JoinSet::new(), 0_u64);
        while let Ok(request) = asks.receive_ask().await {
            load.record(
                &request.message.payload,
                &request.message.src,
                node.local_addrs().contains(&request.message.dst),
            );
            let number = count;
            count += 1;
            while late.try_join_next().is_some() {}
            let load = load.clone();
            late.spawn(async move {
                if number == 0 {
                    let released = load.release.notified();
                    if !load.crowded.load(SeqCst) {
                        released.await;
                    }
                } else if number % 3 > 0 {
                    sleep(Duration::from_micros(hash(&number.to_le_bytes()) % (slowest + 1))).await;
                }
                let response = answer(&request.message.payload, load.most);
                // The asker observes errors of this call.
                let _ = request.respond(Packet::from(response)).await;
            });
        }
    });
    Ok(serving)
}

/// Three nodes ask each other, many asks at a time, which are answered in other orders, and the first one
/// last.
pub async fn of_many_asks_each_gets_its_own_response<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b, c] = testbed.nodes().await?;
    let each = testbed.amount(500) as u32;
    let load = Arc::new(Load {
        most: testbed.longest_ask(&a, &b)?,
        seen: Mutex::new(Seen {
            runs: BTreeMap::new(),
            sources: BTreeMap::new(),
            fault: None,
        }),
        next: AtomicU32::new(0),
        answered: AtomicU32::new(0),
        crowded: AtomicBool::new(false),
        release: Notify::new(),
    });
    let _serving = (serve_late(testbed, &b, &load)?, serve_late(testbed, &a, &load)?);
    let mut asking = JoinSet::new();
    for (asker, (from, to)) in [(&a, &b), (&c, &b), (&b, &a)].into_iter().enumerate() {
        let target = Arc::new(AtomicU32::new(each));
        for _ in 0..WINDOW.min(each) {
            let worker = worker(testbed, from, &to.addr()?, &load, asker as u32, &target)?;
            asking.spawn(worker);
        }
    }
    let mut last = (Instant::now(), 0);
    let deadline = testbed.the_profile().ask_patience;
    while !asking.is_empty() {
        if let Ok(Some(done)) = tokio::time::timeout(testbed.patience(), asking.join_next()).await {
            done.map_err(|error| Unmet::Broken(error.to_string()))??;
        }
        let answered = load.answered.load(SeqCst);
        if answered != last.1 {
            last = (Instant::now(), answered);
        }
        // Only held requests are left.
        if asking.len() <= 3 || load.crowded.load(SeqCst) {
            load.crowded.store(true, SeqCst);
            load.release.notify_waiters();
        }
        let stalled = last.0.elapsed();
        ensure!(
            stalled <= 2 * deadline,
            "of {} asks {answered} were answered, and no further one",
            3 * each
        );
    }
    if let Some(fault) = load.lock().fault.take() {
        broken!("{fault}");
    }
    let sources = load.lock().sources.clone();
    for (asker, (asked, from)) in [(&b, &a), (&b, &c), (&a, &b)].into_iter().enumerate() {
        for src in sources.get(&(asker as u32)).into_iter().flatten().take(4) {
            testbed
                .deliver_at(asked, src, from, &numbered_payload(0, PLAIN))
                .await?;
        }
    }
    Ok(())
}

/// Asks sequentially until this number of asks of the node is answered.
fn worker<A: Addr>(
    testbed: &Testbed<A>,
    from: &Node<A>,
    dst: &A,
    load: &Arc<Load<A>>,
    asker: u32,
    left: &Arc<AtomicU32>,
) -> Outcome<impl Future<Output = Outcome> + Send + use<A>> {
    let (testbed, asks) = (testbed.clone(), from.ask_side()?.clone());
    let (dst, load, left) = (dst.clone(), load.clone(), left.clone());
    Ok(async move {
        let take = |left: u32| left.checked_sub(1);
        let (mut failures, mut refusals) = (0, 0_u32);
        while left.fetch_update(SeqCst, SeqCst, take).is_ok() {
            loop {
                let number = load.next.fetch_add(1, SeqCst) * ASKERS + asker;
                let request = request(number, load.most);
                let ask = asks.ask(&dst, Packet::from(request.as_slice()));
                match in_time("an ask", testbed.the_profile().ask_patience, ask).await? {
                    Ok(response) => {
                        ensure!(
                            *response == *answer(&request, load.most),
                            "one of many asks got the response to another ask: {} bytes for {}",
                            response.len(),
                            answer(&request, load.most).len()
                        );
                        load.answered.fetch_add(1, SeqCst);
                        refusals = 0;
                        break;
                    }
                    Err(error) if is_refused(&error) => {
                        if !load.crowded.swap(true, SeqCst) {
                            load.release.notify_waiters();
                        }
                        // Backs off: a node that stays busy is not asked all the time.
                        sleep(testbed.settle() / 4 * (1 << refusals.min(6))).await;
                        refusals += 1;
                    }
                    Err(error) => {
                        // A full buffer below may lose some of so many.
                        failures += 1;
                        ensure!(
                            failures < 20 || !testbed.lossless(),
                            "asks failed repeatedly, most recently with: {}",
                            chain(&error)
                        );
                        if failures % 8 == 7 {
                            break;
                        }
                        sleep(testbed.settle() / 4).await;
                    }
                }
            }
        }
        Ok(())
    })
}

/// Asks with requests and responses of every length, sequentially; on a lossless medium none fails.
pub async fn asks_of_every_length_are_answered<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    let [a, b] = testbed.nodes().await?;
    let most = testbed.longest_ask(&a, &b)?;
    let server = b.ask_side()?.clone();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        while let Ok(request) = server.receive_ask().await {
            let len = request
                .message
                .payload
                .first_chunk()
                .map_or(0, |len| u32::from_le_bytes(*len) as usize);
            let response = noise(hash(&request.message.payload), len.min(most));
            let _ = request.respond(Packet::from(response)).await;
        }
    });
    let dst = b.addr()?;
    testbed.ask(&a, &dst, &[]).await?;
    let asks = a.ask_side()?;
    let lengths = lengths(testbed, most);
    for (at, &len) in lengths.iter().enumerate() {
        let back = lengths[lengths.len() - 1 - at];
        let mut request = noise(at as u64 * 2 + 77, len);
        let wanted = match request.first_chunk_mut() {
            Some(head) => {
                *head = (back as u32).to_le_bytes();
                noise(hash(&request), back)
            }
            None => noise(hash(&request), 0),
        };
        let response = if testbed.lossless() && testbed.the_profile().loss_at_mtu <= 0.0 {
            let ask = asks.ask(&dst, Packet::from(request.as_slice()));
            match in_time("an ask", testbed.the_profile().ask_patience, ask).await? {
                Ok(response) => response,
                Err(error) => broken!("an ask of {len} bytes failed: {}", chain(&error)),
            }
        } else {
            testbed.ask(&a, &dst, &request).await?
        };
        ensure!(
            *response == *wanted,
            "the response to a request of {len} bytes arrived with {} bytes instead of {} bytes",
            response.len(),
            wanted.len()
        );
    }
    Ok(())
}

/// Returns lengths from 0 on, and around possible boundaries.
fn lengths<A: Addr>(testbed: &Testbed<A>, most: usize) -> Vec<usize> {
    let small = 0..=testbed.amount(320).min(2048);
    let mut lengths: Vec<usize> = small.collect();
    let powers = (3..22).map(|bits| 1_usize << bits);
    let parts =
        [1000, 1180, 1200, 1232, 1252, 1280, 1400, 1452, 1472, 1500, 4000].map(|part| [part, 2 * part]);
    let around = powers.chain(parts.into_iter().flatten()).chain([most / 2, most]);
    for near in around {
        lengths.extend([near.saturating_sub(1), near, near + 1]);
    }
    if !testbed.lossless() {
        lengths = lengths.into_iter().step_by(8).collect();
    }
    lengths.retain(|len| *len <= most);
    lengths
}
