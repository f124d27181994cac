//! Memory swarms beside a bounded tokio channel read with `recv_many`: messages delivered per second.
//!
//! Both carry the same type, a message with a packet that its sender allocates and its reader frees, between
//! two tasks, with room for the same number of messages. They alternate; a figure is the median of all
//! rounds. `…_batch` moves 64 messages per call (`tell_batch` and `receive_batch`; `reserve_many` and
//! `recv_many`), `…_single` one (`tell` and `receive`; `send` and `recv`). The last figure is the number of
//! worker threads.
//!
//! A channel's sender waits while the channel is full; a swarm drops, and its sender must pace itself. So the
//! swarm's reader publishes how much it has read, and the sender yields while a queue's worth of messages is
//! in flight. That cost is part of the swarm's figure, as waiting is part of the channel's. Every message of
//! both is delivered, which each round checks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use p2p::{Headroom, Message, Packet, Swarm as _};
use p2p_swarms::{MemoryAddr, MemoryRealm};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::yield_now;

/// Messages that may wait: the default of a memory swarm.
const QUEUE: usize = 1024;
const BATCH: usize = 64;
const ROUNDS: usize = 15;
const PAYLOAD: [u8; 64] = [7; 64];

fn packet() -> Packet {
    Packet::new(Headroom::new(32, 16), &PAYLOAD)
}

async fn swarm(batch: usize, count: usize) -> Duration {
    let realm = MemoryRealm::default();
    let (sender, reader) = (realm.open(), realm.open());
    let dst = reader.local_addr();
    let read = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let reading = tokio::spawn({
        let read = read.clone();
        async move {
            let mut out = Vec::with_capacity(batch);
            let mut got = 0;
            while got < count {
                if batch == 1 {
                    drop(reader.receive().await.expect("open"));
                    got += 1;
                } else {
                    got += reader.receive_batch(&mut out, batch).await.expect("open");
                    out.clear();
                }
                read.store(got, Ordering::Release);
            }
        }
    });
    let sending = tokio::spawn(async move {
        let mut told = 0;
        let mut out = Vec::with_capacity(batch);
        while told < count {
            while told + batch > read.load(Ordering::Acquire) + QUEUE {
                yield_now().await;
            }
            if batch == 1 {
                sender.tell(&dst, packet()).await.expect("open");
            } else {
                out.extend((0..batch).map(|_| (dst, packet())));
                sender.tell_batch(&mut out).await.expect("open");
            }
            told += batch;
        }
        sender
    });
    // The sender is kept: closing it is not measured.
    let _sender = sending.await.expect("no panic");
    reading.await.expect("no panic");
    start.elapsed()
}

async fn channel(batch: usize, count: usize) -> Duration {
    let (sender, mut reader) = mpsc::channel::<Message<MemoryAddr>>(QUEUE);
    let message = || Message {
        src: MemoryAddr::new(0),
        dst: MemoryAddr::new(1),
        payload: packet(),
    };
    let start = Instant::now();
    let reading = tokio::spawn(async move {
        let mut out = Vec::with_capacity(batch);
        let mut got = 0;
        while got < count {
            if batch == 1 {
                drop(reader.recv().await.expect("open"));
                got += 1;
            } else {
                got += reader.recv_many(&mut out, batch).await;
                out.clear();
            }
        }
    });
    let sending = tokio::spawn(async move {
        let mut told = 0;
        while told < count {
            if batch == 1 {
                sender.send(message()).await.expect("open");
            } else {
                let permits = sender.reserve_many(batch).await.expect("open");
                permits.for_each(|permit| permit.send(message()));
            }
            told += batch;
        }
        sender
    });
    let _sender = sending.await.expect("no panic");
    reading.await.expect("no panic");
    start.elapsed()
}

fn runtime(threads: usize) -> Runtime {
    let mut builder = if threads == 1 {
        Builder::new_current_thread()
    } else {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(threads);
        builder
    };
    builder.build().expect("a runtime")
}

/// Returns the median of the rates in messages per second.
fn median(count: usize, mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    f64::from(u32::try_from(count).expect("small")) / times[times.len() / 2].as_secs_f64()
}

fn main() {
    for (name, batch, count) in [
        ("memory_batch", BATCH, 6400 * BATCH),
        ("memory_single", 1, 100_000),
    ] {
        for threads in [1, 2] {
            let runtime = runtime(threads);
            let (mut ours, mut peer) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                ours.push(
                    runtime.block_on(async { tokio::spawn(swarm(batch, count)).await.expect("no panic") }),
                );
                peer.push(
                    runtime.block_on(async { tokio::spawn(channel(batch, count)).await.expect("no panic") }),
                );
            }
            let (ours, peer) = (median(count, ours), median(count, peer));
            println!(
                "name={name}_{threads} ours={ours:.0} peer={peer:.0} ratio={:.2} unit=messages/s",
                ours / peer
            );
        }
    }
}
