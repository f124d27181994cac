//! `bench`: measures two nodes of a stack in one process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use p2p::{AskSwarm as _, BoxAddr, BoxAskSwarm, Error, Packet, Swarm as _};
use p2p_swarms::stack::Stack;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::cli::Bench;
use crate::output::Out;
use crate::{Failure, first_addr, open, parse, reach};

/// Time without an arrival after which messages in flight count as lost.
const LOST_AFTER: Duration = Duration::from_millis(20);
/// Maximum number of round trips that are recorded.
const MOST_TIMES: usize = 1 << 20;

pub(crate) async fn run(args: Bench, out: Out) -> Result<(), Failure> {
    let text = parse(&args.stack)?;
    if args.ask {
        text.check_asks()?;
    }
    let (a, b) = (open(&text).await?, open(&text).await?);
    a.packet(&vec![0; args.size]).check_mtu(a.mtu())?;
    // The measurement begins once both nodes know each other.
    reach(&text, &a, &first_addr(&b)?).await?;
    let time = Duration::from_secs_f64(args.secs);
    if let (true, Some(from), Some(to)) = (args.ask, a.asks(), b.asks()) {
        asks(&from, &to, &args, time, out).await?;
    } else {
        round_trips(&a, &b, args.size, time / 4, out).await?;
        tells(&a, &b, &args, time * 3 / 4, out).await?;
    }
    tokio::join!(a.close(), b.close());
    Ok(())
}

/// One message at a time, both ends in one task.
async fn round_trips(a: &Stack, b: &Stack, size: usize, time: Duration, out: Out) -> Result<(), Failure> {
    let (to_a, to_b) = (first_addr(a)?, first_addr(b)?);
    let payload = vec![0; size];
    let mut times = Vec::new();
    let end = Instant::now() + time;
    while Instant::now() < end && times.len() < MOST_TIMES {
        let start = Instant::now();
        let there_and_back = async {
            a.tell(&to_b, a.packet(&payload)).await?;
            let message = b.receive().await?;
            b.tell(&to_a, message.payload).await?;
            a.receive().await
        };
        // A round trip that timed out because of a loss is not a latency.
        if let Ok(done) = timeout(LOST_AFTER, there_and_back).await {
            done?;
            times.push(start.elapsed());
        }
    }
    percentiles("round_trip", &mut times, out)
}

fn percentiles(name: &str, times: &mut [Duration], out: Out) -> Result<(), Failure> {
    times.sort_unstable();
    for (suffix, share) in [("p50", 50), ("p99", 99)] {
        if let Some(time) = times.get(times.len() * share / 100) {
            out.value(&format!("{name}_{suffix}"), time.as_secs_f64() * 1e6, "us")?;
        }
    }
    Ok(())
}

/// Sends as many messages as arrive, with a bound on messages in flight.
async fn tells(a: &Stack, b: &Stack, args: &Bench, time: Duration, out: Out) -> Result<(), Failure> {
    let to = first_addr(b)?;
    let arrived = Arc::new(AtomicU64::new(0));
    let arrival = Arc::new(Notify::new());
    let reader = tokio::spawn({
        let (b, arrived, arrival) = (b.clone(), arrived.clone(), arrival.clone());
        async move {
            let mut messages = Vec::new();
            while let Ok(count) = b.receive_batch(&mut messages, 256).await {
                messages.clear();
                arrived.fetch_add(count as u64, Relaxed);
                arrival.notify_one();
            }
        }
    });
    let payload = vec![0; args.size];
    let (mut sent, mut lost) = (0_u64, 0_u64);
    let mut batch = Vec::new();
    let start = Instant::now();
    while start.elapsed() < time {
        let in_flight = sent.saturating_sub(lost + arrived.load(Relaxed));
        let room = u64::from(args.inflight).saturating_sub(in_flight);
        if room == 0 {
            if timeout(LOST_AFTER, arrival.notified()).await.is_err() {
                lost = sent.saturating_sub(arrived.load(Relaxed));
            }
            continue;
        }
        let count = room.min(64);
        batch.extend((0..count).map(|_| (to.clone(), a.packet(&payload))));
        a.tell_batch(&mut batch).await.map_err(|error| error.first)?;
        sent += count;
    }
    // Messages in flight arrive, or are lost.
    while arrived.load(Relaxed) < sent && timeout(LOST_AFTER, arrival.notified()).await.is_ok() {}
    let secs = start.elapsed().as_secs_f64();
    reader.abort();
    let arrived = arrived.load(Relaxed);
    out.value("tells_delivered", ratio(arrived, secs), "1/s")?;
    out.value(
        "goodput",
        ratio(arrived, secs) * number(args.size as u64) / 1e6,
        "MB/s",
    )?;
    out.value("tells_lost", number(sent.saturating_sub(arrived)), "messages")
}

/// Sends as many asks as are answered, with a bound on asks in flight.
async fn asks(
    from: &BoxAskSwarm<BoxAddr>,
    to: &BoxAskSwarm<BoxAddr>,
    args: &Bench,
    time: Duration,
    out: Out,
) -> Result<(), Failure> {
    let addr = first_addr(to)?;
    let server = tokio::spawn({
        let to = to.clone();
        async move { p2p::serve_asks(&to, 1024, async |asked| Ok(asked.payload)).await }
    });
    let payload = vec![0; args.size];
    let mut times = Vec::new();
    let (mut answered, mut failed) = (0_u64, 0_u64);
    let start = Instant::now();
    let mut running = FuturesUnordered::new();
    let one = |request: Packet| async {
        let start = Instant::now();
        (from.ask(&addr, request).await, start.elapsed())
    };
    for _ in 0..args.inflight {
        running.push(one(from.packet(&payload)));
    }
    while let Some((response, took)) = running.next().await {
        match response {
            Ok(_) => {
                answered += 1;
                if times.len() < MOST_TIMES {
                    times.push(took);
                }
            }
            Err(Error::Closed) => return Err(Error::Closed.into()),
            Err(_) => failed += 1,
        }
        if start.elapsed() < time {
            running.push(one(from.packet(&payload)));
        }
    }
    let secs = start.elapsed().as_secs_f64();
    server.abort();
    out.value("asks_answered", ratio(answered, secs), "1/s")?;
    out.value("asks_failed", number(failed), "asks")?;
    percentiles("ask", &mut times, out)
}

#[expect(clippy::cast_precision_loss, reason = "counts of one run are far below 2⁵²")]
fn number(count: u64) -> f64 {
    count as f64
}

fn ratio(count: u64, secs: f64) -> f64 {
    number(count) / secs.max(1e-9)
}
