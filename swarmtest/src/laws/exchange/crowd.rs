//! Many calls at once on one swarm, and exchanges that are longer than short counters count.
//!
//! The calls are futures that the law polls itself, in an order that is drawn: each once when it begins, and then where it
//! asked to be polled, so that a wakeup that is lost shows. Calls are cancelled at any time.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use p2p::{Addr, Message, Packet, Result, Swarm as _};
use rand::RngExt as _;
use tokio::sync::{Notify, mpsc};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};

use super::Exchange;
use crate::chance::arrive_at_least;
use crate::harness::{PLAIN, broken, ensure, number, numbered_payload, virtual_time};
use crate::payloads::length;
use crate::report::Outcome;
use crate::testbed::{Testbed, chain};

/// Messages on the way to one node, at most.
const WINDOW: usize = 12;

/// Longest messages.
const LONGEST: usize = 512;

/// Messages that are told at least: in so many, each pair of calls at once is seen.
const LEAST: usize = 600;

/// Receives that wait at one node, at most.
const READERS: usize = 5;

/// Messages that a receive took in, also where it is cancelled.
struct Taken<A> {
    at: usize,
    out: Vec<Message<A>>,
    to: mpsc::UnboundedSender<(usize, Message<A>)>,
}

impl<A> Drop for Taken<A> {
    fn drop(&mut self) {
        for message in self.out.drain(..) {
            let _ = self.to.send((self.at, message));
        }
    }
}

/// Says that a call asks to be polled.
struct Flag {
    set: AtomicBool,
    any: Arc<Notify>,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.set.store(true, SeqCst);
        self.any.notify_one();
    }
}

/// What a call is: a tell with what it tells, or a receive.
enum What {
    Tell {
        from: usize,
        to: usize,
        payload: Vec<u8>,
    },
    Receive {
        at: usize,
    },
}

/// A call in progress.
struct Call {
    what: What,
    future: Pin<Box<dyn Future<Output = Result<()>> + Send>>,
    flag: Arc<Flag>,
}

impl Call {
    fn poll(&mut self) -> Poll<Result<()>> {
        self.flag.set.store(false, SeqCst);
        let waker = Waker::from(self.flag.clone());
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }
}

struct Crowd<'a, A> {
    exchange: Exchange<'a, A>,
    calls: Vec<Call>,
    any: Arc<Notify>,
    /// For how long every call was waited for since the last message came or was told. Timers of a swarm wake
    /// its callers without a message, and must not begin this time again.
    waited: Duration,
    taken: mpsc::UnboundedSender<(usize, Message<A>)>,
    came: mpsc::UnboundedReceiver<(usize, Message<A>)>,
}

/// Tells and receives at four nodes with many calls at once, of which some are cancelled.
pub async fn many_calls_at_once_lose_nothing<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    testbed.undamaged()?;
    let nodes: [_; 4] = testbed.nodes().await?;
    let (taken, came) = mpsc::unbounded_channel();
    let mut crowd = Crowd {
        exchange: Exchange::new(testbed, &nodes, LONGEST)?,
        calls: Vec::new(),
        any: Arc::new(Notify::new()),
        waited: Duration::ZERO,
        taken,
        came,
    };
    let (count, mut told) = (testbed.amount(3000).max(LEAST), 0);
    // A slow swarm is told less, not failed.
    let until = Instant::now() + testbed.the_profile().limit / 4;
    while told < count && Instant::now() < until {
        told += crowd.step(true).await?;
    }
    while crowd.is_open() {
        crowd.step(false).await?;
    }
    crowd.calls.clear();
    crowd.look()?;
    crowd.exchange.settle().await
}

impl<A: Addr> Crowd<'_, A> {
    /// Whether a tell is in progress, or a message that was told has not come.
    fn is_open(&self) -> bool {
        let tells = |call: &Call| matches!(call.what, What::Tell { .. });
        self.calls.iter().any(tells) || (0..self.exchange.nodes.len()).any(|at| self.exchange.is_open(at))
    }

    /// Begins, cancels, or polls a call. Returns how many tells it began.
    async fn step(&mut self, tells: bool) -> Outcome<usize> {
        let mut began = 0;
        match self.exchange.rng.random_range(0..8) {
            0..3 if tells => began += usize::from(self.begin_tell()?),
            3 | 4 => self.begin_receive()?,
            5 => self.cancel(),
            _ => {
                let woken = self
                    .calls
                    .iter()
                    .enumerate()
                    .filter(|(_, call)| call.flag.set.load(SeqCst));
                let woken: Vec<usize> = woken.map(|(at, _)| at).collect();
                if woken.is_empty() {
                    self.rest().await?;
                } else {
                    let at = woken[self.exchange.rng.random_range(0..woken.len())];
                    self.poll(at)?;
                }
            }
        }
        if self.exchange.rng.random_range(0..4) == 0 {
            yield_now().await;
        }
        self.look()?;
        Ok(began)
    }

    fn begin(&mut self, what: What, future: impl Future<Output = Result<()>> + Send + 'static) -> Outcome {
        let flag = Arc::new(Flag {
            set: AtomicBool::new(true),
            any: self.any.clone(),
        });
        self.calls.push(Call {
            what,
            future: Box::pin(future),
            flag,
        });
        self.poll(self.calls.len() - 1)
    }

    /// Begins a tell, where its destination has room.
    fn begin_tell(&mut self) -> Outcome<bool> {
        let exchange = &mut self.exchange;
        let from = exchange.rng.random_range(0..4);
        let to = (from + exchange.rng.random_range(1..4)) % 4;
        if exchange.ledger.open(to).0 >= WINDOW.min(exchange.testbed.window()) {
            return Ok(false);
        }
        let len = length(&mut exchange.rng, exchange.longest);
        let payload = exchange.payload(from, to, len);
        let (node, dst) = (exchange.nodes[from].clone(), exchange.addrs[to].clone());
        let packet = Packet::from(&payload[..]);
        self.waited = Duration::ZERO;
        self.begin(What::Tell { from, to, payload }, async move {
            node.tell(&dst, packet).await
        })?;
        Ok(true)
    }

    fn begin_receive(&mut self) -> Outcome {
        let at = self.exchange.rng.random_range(0..self.exchange.nodes.len());
        let waits = |call: &&Call| matches!(call.what, What::Receive { at: other } if other == at);
        if self.calls.iter().filter(waits).count() >= READERS {
            return Ok(());
        }
        let node = self.exchange.nodes[at].clone();
        let mut taken = Taken {
            at,
            out: Vec::new(),
            to: self.taken.clone(),
        };
        let max = self.exchange.rng.random_range(0..6);
        self.begin(What::Receive { at }, async move {
            if max == 0 {
                let message = node.receive().await?;
                taken.out.push(message);
            } else {
                node.receive_batch(&mut taken.out, max).await?;
            }
            Ok(())
        })
    }

    /// Cancels a call at random, a tell seldom.
    fn cancel(&mut self) {
        if self.calls.is_empty() {
            return;
        }
        let at = self.exchange.rng.random_range(0..self.calls.len());
        if matches!(self.calls[at].what, What::Tell { .. }) && self.exchange.rng.random_range(0..8) > 0 {
            return;
        }
        let call = self.calls.swap_remove(at);
        drop(call.future);
        if let What::Tell { from, to, payload } = call.what {
            self.exchange.ledger.doubt(from, to, &payload);
        }
    }

    fn poll(&mut self, at: usize) -> Outcome {
        let Poll::Ready(ended) = self.calls[at].poll() else {
            return Ok(());
        };
        let call = self.calls.swap_remove(at);
        if matches!(call.what, What::Tell { .. }) {
            self.waited = Duration::ZERO;
        }
        match (ended, call.what) {
            (Ok(()), _) => Ok(()),
            (Err(error), What::Tell { from, to, payload }) => {
                self.exchange.refused(from, to, &payload, &error)
            }
            (Err(error), What::Receive { .. }) => {
                broken!("a receive beside other calls failed: {}", chain(&error))
            }
        }
    }

    /// Enters what came.
    fn look(&mut self) -> Outcome {
        while let Ok((at, message)) = self.came.try_recv() {
            self.waited = Duration::ZERO;
            self.exchange
                .ledger
                .came(at, &self.exchange.nodes[at], &message)?;
        }
        Ok(())
    }

    /// Waits where no call asks to be polled, and gives up what does not come although it is waited for.
    async fn rest(&mut self) -> Outcome {
        self.look()?;
        let waits = |crowd: &Self, at| {
            crowd
                .calls
                .iter()
                .any(|call| matches!(call.what, What::Receive { at: other } if other == at))
        };
        let open: Vec<usize> = (0..self.exchange.nodes.len())
            .filter(|at| self.exchange.is_open(*at))
            .collect();
        let tells = |call: &Call| matches!(call.what, What::Tell { .. });
        let telling = self.calls.iter().any(tells);
        if open.is_empty() && !telling || open.iter().any(|at| !waits(self, *at)) {
            // There is something else to begin.
            yield_now().await;
            return Ok(());
        }
        // What is lost is not waited for as long as a tell, before which a session may have to begin.
        let testbed = self.exchange.testbed;
        let limit = if telling {
            testbed.patience()
        } else {
            testbed.quiet()
        };
        let began = Instant::now();
        let left = limit.saturating_sub(self.waited);
        let is_woken = timeout(left, self.any.notified()).await.is_ok();
        self.waited += began.elapsed();
        if is_woken {
            return Ok(());
        }
        self.waited = Duration::ZERO;
        ensure!(!telling, "a tell beside other calls did not end within {limit:?}");
        for at in open {
            let lost = self.exchange.ledger.give_up(at);
            ensure!(
                testbed.may_lose(),
                "of messages between nodes with many calls at once, {lost} did not arrive within {limit:?}, or woke no caller"
            );
        }
        Ok(())
    }
}

/// Messages that a counter of 16 bits does not count.
const MANY: usize = 70_000;

/// Tells so many short messages that counters and ids of 16 bits wrap; where each takes real time, a tenth of them.
pub async fn ids_of_messages_may_wrap<A: Addr>(testbed: &Testbed<A>) -> Outcome {
    testbed.undamaged()?;
    let [a, b] = testbed.nodes().await?;
    let dst = b.addr()?;
    let count = testbed
        .amount(if virtual_time() { MANY } else { MANY / 10 })
        .min(2 * MANY);
    // A slow swarm is told less, not failed.
    let (started, limit) = (std::time::Instant::now(), testbed.the_profile().limit / 8);
    let mut seen = vec![false; count];
    let (mut told, mut came) = (0, 0);
    let mut out = Vec::new();
    while told < count && started.elapsed() < limit {
        let numbers = told as u32..(told + testbed.window()).min(count) as u32;
        told = numbers.end as usize;
        let packet = |number| Packet::from(numbered_payload(number, PLAIN).as_slice());
        let mut batch = numbers.map(|number| (dst.clone(), packet(number))).collect();
        if let Err(error) = a.tell_batch(&mut batch).await {
            ensure!(
                !testbed.lossless(),
                "message {told} was refused: {}",
                chain(&error.first)
            );
        }
        while came < told {
            out.clear();
            let Ok(taken) = timeout(testbed.quiet(), b.receive_batch(&mut out, 64)).await else {
                break;
            };
            taken?;
            for message in &out {
                let Some(seen) = number(&message.payload).and_then(|number| seen.get_mut(number as usize))
                else {
                    continue;
                };
                ensure!(
                    !*seen || testbed.the_profile().duplicates,
                    "of {told} messages one came twice"
                );
                came += usize::from(!std::mem::replace(seen, true));
            }
        }
        if testbed.lossless() && came < told {
            break;
        }
        // What was lost is not waited for again.
        came = told;
    }
    let came = seen.iter().filter(|seen| **seen).count();
    let least = arrive_at_least(told, testbed.the_profile().loss);
    ensure!(
        came >= least,
        "of {told} short messages one after another {came} came and not {least}"
    );
    Ok(())
}
