//! Building blocks of laws: numbered payloads, deliveries that tolerate loss, asks, floods, and bounded
//! waits.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use p2p::{Addr, AskSwarm as _, Error, Message, Packet, Request, Result, Swarm as _};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::chance::attempts;
use crate::kind::Node;
use crate::report::{Outcome, Unmet};
use crate::testbed::{Testbed, chain};

/// Ends a law: the swarm breaks it.
macro_rules! broken {
    ($($text:tt)+) => { return Err($crate::report::Unmet::Broken(format!($($text)+))) };
}

/// Ends a law unless the condition holds.
macro_rules! ensure {
    ($holds:expr, $($text:tt)+) => { if !$holds { $crate::harness::broken!($($text)+) } };
}

pub(crate) use {broken, ensure};

/// Prefix of every payload, to distinguish it from packets of layers.
const MAGIC: [u8; 4] = *b"law:";

/// Minimum length of a payload in bytes: its prefix and its number.
pub(crate) const MIN_PAYLOAD: usize = 8;

/// Length of payloads in laws that are not about lengths, in bytes.
pub(crate) const PLAIN: usize = 16;

/// Longer payloads are not told: the law is waived.
const LONGEST: usize = 16 << 20;

/// Returns a payload of `len` bytes (at least [`MIN_PAYLOAD`]) with a number and a pattern derived from it.
pub(crate) fn numbered_payload(number: u32, len: usize) -> Vec<u8> {
    let mut bytes = [MAGIC, number.to_le_bytes()].concat();
    let seed = number.wrapping_add(1).wrapping_mul(0x9E37_79B1) | 1;
    bytes.extend((MIN_PAYLOAD..len).map(|at| (seed.wrapping_mul(at as u32 + 1) >> 24) as u8));
    bytes
}

/// Returns `len` incompressible bytes derived from the seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let next = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    });
    next.take(len).collect()
}

/// Returns the number of a payload.
pub(crate) fn number(payload: &[u8]) -> Option<u32> {
    let (magic, rest) = payload.split_first_chunk::<4>()?;
    let (number, _) = rest.split_first_chunk::<4>()?;
    (*magic == MAGIC).then(|| u32::from_le_bytes(*number))
}

/// Returns whether `payload` has the number of `expected`; the bytes behind it may be damaged.
fn same(payload: &[u8], expected: &[u8]) -> bool {
    match number(expected) {
        Some(wanted) => number(payload) == Some(wanted),
        None => payload == expected,
    }
}

/// Returns the output of `future`, if it completes within `limit`.
pub(crate) async fn in_time<T>(doing: &str, limit: Duration, future: impl Future<Output = T>) -> Outcome<T> {
    timeout(limit, future)
        .await
        .map_err(|_| Unmet::Broken(format!("{doing} did not end within {limit:?}")))
}

/// Returns the MTU, if payloads fit and the longest can be told.
pub(crate) fn mtu<A: Addr>(node: &Node<A>) -> Outcome<usize> {
    let mtu = node.mtu();
    ensure!(mtu >= PLAIN, "an MTU of {mtu} bytes is too small");
    if mtu > LONGEST {
        return Err(Unmet::Waived(format!(
            "an MTU of {mtu} bytes is more than laws tell"
        )));
    }
    Ok(mtu)
}

impl<A: Addr> Testbed<A> {
    /// Returns the length of the longest message that can be expected to arrive.
    pub(crate) fn longest(&self, node: &Node<A>) -> Outcome<usize> {
        Ok(mtu(node)?.min(self.the_profile().longest.max(PLAIN)))
    }

    /// Returns the length of the longest request and response between two nodes that can be expected to
    /// arrive.
    pub(crate) fn longest_ask(&self, a: &Node<A>, b: &Node<A>) -> Outcome<usize> {
        let most = mtu(a)?.min(mtu(b)?);
        Ok(most.min(self.the_profile().longest_ask.max(PLAIN)))
    }

    pub(crate) fn settle(&self) -> Duration {
        self.the_profile().settle
    }

    pub(crate) fn patience(&self) -> Duration {
        self.the_profile().patience
    }

    /// Returns how long to wait for a message that was told once: on a lossless medium the full patience.
    pub(crate) fn quiet(&self) -> Duration {
        if self.lossless() {
            self.patience()
        } else {
            self.settle()
        }
    }

    pub(crate) fn lossless(&self) -> bool {
        self.the_profile().loss <= 0.0
    }

    /// Tells a payload until it arrives, which may take several attempts on a lossy medium.
    pub(crate) async fn deliver(&self, from: &Node<A>, to: &Node<A>, payload: &[u8]) -> Outcome<Message<A>> {
        self.deliver_at(from, &to.addr()?, to, payload).await
    }

    /// Delivers as [`deliver`](Self::deliver) does, to an address that `to` should have.
    pub(crate) async fn deliver_at(
        &self,
        from: &Node<A>,
        dst: &A,
        to: &Node<A>,
        payload: &[u8],
    ) -> Outcome<Message<A>> {
        self.deliver_packet(from, dst, to, Tells::Repeated, &|| Packet::from(payload))
            .await
    }

    /// Delivers as [`deliver_at`](Self::deliver_at) does, with packets that the caller creates.
    pub(crate) async fn deliver_packet(
        &self,
        from: &Node<A>,
        dst: &A,
        to: &Node<A>,
        tells: Tells,
        packet: &(dyn Fn() -> Packet + Sync),
    ) -> Outcome<Message<A>> {
        let payload = packet();
        let mut refusal = None;
        let is_lost = self.the_profile().loss_of(payload.len()) > 0.0;
        let (mut again, wait) = if tells == Tells::Once && !is_lost {
            (Again::new(1, Duration::ZERO), self.patience())
        } else {
            (self.again(payload.len()), self.settle())
        };
        while again.next() {
            if let Err(error) = in_time("a tell", self.patience(), from.tell(dst, packet())).await? {
                refusal = Some(chain(&error));
            }
            if let Some(message) = self.arrival(to, &payload, wait).await? {
                return Ok(message);
            }
        }
        let (len, times) = (payload.len(), again.times);
        let why = refusal.map_or(String::new(), |error| format!("; telling said: {error}"));
        broken!("a message of {len} bytes, told {times} times to {dst}, did not arrive{why}")
    }

    /// Returns the payload, if it arrives within `limit`. Earlier messages are discarded.
    pub(crate) async fn arrival(
        &self,
        to: &Node<A>,
        payload: &[u8],
        limit: Duration,
    ) -> Outcome<Option<Message<A>>> {
        let wanted = async {
            loop {
                let message = to.receive().await?;
                if same(&message.payload, payload) {
                    return Ok::<_, Unmet>(message);
                }
            }
        };
        timeout(limit, wanted).await.ok().transpose()
    }

    /// Receives until no further message arrives, up to `max` messages.
    pub(crate) async fn drain(&self, node: &Node<A>, max: usize) -> Outcome<Vec<Message<A>>> {
        let mut out = Vec::new();
        while out.len() < max {
            match timeout(self.settle(), node.receive()).await {
                Ok(message) => out.push(message?),
                Err(_) => break,
            }
        }
        Ok(out)
    }

    /// Receives until no further message arrives, and returns the numbers of the payloads.
    pub(crate) async fn drain_numbers(&self, node: &Node<A>, max: usize) -> Outcome<Vec<u32>> {
        let messages = self.drain(node, max).await?;
        Ok(messages
            .iter()
            .filter_map(|message| number(&message.payload))
            .collect())
    }

    /// Tells more payloads than any queue holds, while none is read. Returns the result of each; stops where
    /// a tell stalls, which another law checks.
    pub(crate) async fn flood(&self, from: &Node<A>, dst: &A) -> Vec<Result<()>> {
        let mut results = Vec::new();
        for number in 0..self.the_profile().flood() {
            let tell = from.tell(dst, Packet::from(numbered_payload(number, PLAIN).as_slice()));
            match timeout(self.settle(), tell).await {
                Ok(result) => results.push(result),
                Err(_) => break,
            }
            breathe(number).await;
        }
        results
    }

    /// Asks until `accept` accepts the result; a lossy medium may lose the request or the response.
    pub(crate) async fn ask_until<T>(
        &self,
        asker: &Node<A>,
        dst: &A,
        request: &[u8],
        accept: impl Fn(Result<Packet>) -> Result<T, String>,
    ) -> Outcome<T> {
        let asks = asker.ask_side()?;
        let mut again = self.again_round_trip(request.len());
        let mut why = String::new();
        while again.next() {
            let limit = self.the_profile().ask_patience;
            match accept(in_time("an ask", limit, asks.ask(dst, Packet::from(request))).await?) {
                Ok(accepted) => return Ok(accepted),
                Err(found) => why = found,
            }
            sleep(self.settle()).await;
        }
        broken!("{why} ({} attempts)", again.times)
    }

    /// Asks until the ask is answered.
    pub(crate) async fn ask(&self, asker: &Node<A>, dst: &A, request: &[u8]) -> Outcome<Packet> {
        let answered =
            |outcome: Result<Packet>| outcome.map_err(|error| format!("an ask failed: {}", chain(&error)));
        self.ask_until(asker, dst, request, answered).await
    }

    /// Tells payloads, each once.
    pub(crate) async fn tell_each(
        &self,
        from: &Node<A>,
        dst: &A,
        numbers: impl IntoIterator<Item = u32>,
    ) -> Outcome {
        for number in numbers {
            let tell = from.tell(dst, Packet::from(numbered_payload(number, PLAIN).as_slice()));
            in_time("a tell", self.patience(), tell).await??;
        }
        Ok(())
    }

    /// Returns the attempts of an operation that fails when one message of `len` bytes is lost.
    pub(crate) fn again(&self, len: usize) -> Again {
        Again::new(attempts(self.the_profile().loss_of(len)), self.patience())
    }

    /// Returns the attempts of an operation that fails when a request or its response is lost.
    pub(crate) fn again_round_trip(&self, len: usize) -> Again {
        let arrives = 1.0 - self.the_profile().loss_of(len);
        Again::new(attempts(1.0 - arrives * arrives), self.patience())
    }

    /// Returns the attempts of an operation that fails when one of `count` short messages is lost.
    pub(crate) fn again_all(&self, count: i32) -> Again {
        let all_arrive = (1.0 - self.the_profile().loss).powi(count);
        Again::new(attempts(1.0 - all_arrive), self.patience())
    }
}

/// How often a message is told that must arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tells {
    /// Until it arrives.
    Repeated,
    /// Once, if the medium loses no message of its length; otherwise until it arrives.
    Once,
}

/// Attempts that may be lost: at least as many as make the loss of all implausible, and for at least the
/// patience of the profile.
pub(crate) struct Again {
    least: usize,
    until: Instant,
    /// Number of attempts so far.
    pub(crate) times: usize,
}

impl Again {
    fn new(least: usize, patience: Duration) -> Self {
        Self {
            least,
            until: Instant::now() + patience,
            times: 0,
        }
    }

    /// Returns the minimum number of attempts.
    pub(crate) fn least(&self) -> usize {
        self.least
    }

    /// Begins another attempt. Returns false, if there is to be none.
    pub(crate) fn next(&mut self) -> bool {
        let goes_on = self.times < self.least || Instant::now() < self.until;
        self.times += usize::from(goes_on);
        goes_on
    }
}

/// Yields to other tasks of the runtime at intervals, as an ordinary sender does.
pub(crate) async fn breathe(number: u32) {
    if number % 32 == 31 {
        tokio::task::yield_now().await;
    }
}

/// Answers the asks of `node` with `answer`, in a task that ends with the set.
pub(crate) fn serve<A: Addr>(
    node: &Node<A>,
    answer: impl Fn(&Request<A>) -> Vec<u8> + Send + 'static,
) -> Outcome<JoinSet<()>> {
    let mut serving = JoinSet::new();
    let asks = node.ask_side()?.clone();
    serving.spawn(async move {
        while let Ok(request) = asks.receive_ask().await {
            let response = answer(&request);
            // The asker observes errors of this call.
            let _ = request.respond(Packet::from(response)).await;
        }
    });
    Ok(serving)
}

/// Returns the response that laws expect: the reversed request.
pub(crate) fn reversed(request: &[u8]) -> Vec<u8> {
    request.iter().rev().copied().collect()
}

/// A future that is polled by hand.
pub(crate) struct Held<F> {
    future: Pin<Box<F>>,
    woken: Arc<Bell>,
}

struct Bell(Notify);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

impl<F: Future> Held<F> {
    pub(crate) fn new(future: F) -> Self {
        Self {
            future: Box::pin(future),
            woken: Arc::new(Bell(Notify::new())),
        }
    }

    /// Polls once.
    pub(crate) fn poll(&mut self) -> Poll<F::Output> {
        let waker = Waker::from(self.woken.clone());
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }

    /// Returns the future, to be awaited.
    pub(crate) fn future(self) -> Pin<Box<F>> {
        self.future
    }

    /// Waits until the future's waker is called, for at most `limit`.
    pub(crate) async fn woken(&mut self, limit: Duration) -> bool {
        timeout(limit, self.woken.0.notified()).await.is_ok()
    }
}

/// Checks that a result is [`Error::Closed`].
pub(crate) fn closed<T>(call: &str, result: Result<T>) -> Outcome {
    match result {
        Err(Error::Closed) => Ok(()),
        Err(error) => broken!("{call} failed with \"{error}\" and not with Error::Closed"),
        Ok(_) => broken!("{call} succeeded"),
    }
}

/// Spawns a task for each call, so that they wait concurrently; returns when each has been polled.
pub(crate) async fn pending<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    calls: impl IntoIterator<Item = F>,
) -> JoinSet<T> {
    let tasks: JoinSet<T> = calls.into_iter().collect();
    for _ in 0..4 {
        tokio::task::yield_now().await;
    }
    tasks
}

/// Expects every pending call to end with [`Error::Closed`].
pub(crate) async fn all_closed<T: Send + 'static>(
    call: &str,
    limit: Duration,
    calls: JoinSet<Result<T>>,
) -> Outcome {
    all_closed_but(call, limit, calls, |_| false).await
}

/// Expects the same as [`all_closed`], except for calls that failed earlier with an error that `excused`
/// accepts.
pub(crate) async fn all_closed_but<T: Send + 'static>(
    call: &str,
    limit: Duration,
    mut calls: JoinSet<Result<T>>,
    excused: impl Fn(&Error) -> bool,
) -> Outcome {
    while let Some(done) = in_time(call, limit, calls.join_next()).await? {
        let result = done.map_err(|error| Unmet::Broken(error.to_string()))?;
        if !matches!(&result, Err(error) if excused(error)) {
            closed(call, result)?;
        }
    }
    Ok(())
}

/// Whether the runtime's clock stands still while there is anything to do, and jumps when there is not.
pub(crate) fn virtual_time() -> bool {
    let started = Instant::now();
    std::thread::sleep(Duration::from_millis(2));
    started.elapsed() < Duration::from_millis(1)
}

/// Waits for the time after which nothing more is expected.
pub(crate) async fn settle<A: Addr>(testbed: &Testbed<A>) {
    sleep(testbed.settle()).await;
}
