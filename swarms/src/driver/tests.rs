use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use p2p::{Error, Packet, Result};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

use super::background::GRACE;
use super::{Driver, Interest};
use crate::inbox::{Inbox, Limits};

/// A layer that does nothing: messages from below go to the receiving caller.
struct Layer {
    below: Inbox<Packet>,
    inbox: Inbox<Packet>,
    driver: Driver<()>,
    /// Number of tasks in which the work was polled, as counted by the test.
    polled: AtomicUsize,
}

impl Layer {
    fn new() -> Arc<Self> {
        Self::with_background(true)
    }

    fn with_background(needed: bool) -> Arc<Self> {
        let limits = Limits {
            items: 1 << 20,
            bytes: usize::MAX,
            copy_below: 0,
        };
        let layer = Arc::new(Self {
            below: Inbox::new(limits),
            inbox: Inbox::new(limits),
            driver: Driver::new(),
            polled: AtomicUsize::new(0),
        });
        layer.driver.set_needs_background(needed);
        layer.driver.start(layer.clone().work()).expect("a runtime");
        layer
    }

    async fn work(self: Arc<Self>) {
        let mut pulled = Vec::new();
        while self.below.pop_batch(&mut pulled, 4).await.is_ok() {
            self.polled.fetch_add(1, SeqCst);
            let put = self.inbox.extend(pulled.drain(..)).accepted;
            self.driver.notify((), put);
            self.driver.yield_to_leader().await;
        }
    }

    fn send(&self, number: u32) {
        assert!(self.below.push(Packet::from(&number.to_be_bytes())).is_ok());
    }

    async fn receive(&self) -> Result<u32> {
        let take = |_: &mut Context<'_>| match self.inbox.try_pop() {
            Ok(None) => Poll::Pending,
            Ok(Some(packet)) => Poll::Ready(Ok(packet)),
            Err(error) => Poll::Ready(Err(error)),
        };
        let packet = self.driver.wait(Interest::Items((), 1), take).await?;
        Ok(u32::from_be_bytes(*packet.first_chunk().expect("four bytes")))
    }

    fn close(&self) {
        self.inbox.close();
        self.driver.close();
    }
}

/// A future that is polled by hand.
struct Held<F>(Pin<Box<F>>, Arc<Bell>);

#[derive(Default)]
struct Bell(AtomicBool, Notify);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
        self.1.notify_one();
    }
}

impl<F: Future> Held<F> {
    fn new(future: F) -> Self {
        Self(Box::pin(future), Arc::default())
    }

    fn poll(&mut self) -> Poll<F::Output> {
        self.1.0.store(false, SeqCst);
        let waker = Waker::from(self.1.clone());
        self.0.as_mut().poll(&mut Context::from_waker(&waker))
    }

    fn is_woken(&self) -> bool {
        self.1.0.load(SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiting_caller_polls_the_work_and_gets_its_item_in_the_same_poll() {
    let layer = Layer::new();
    let mut receiving = Held::new(layer.receive());
    assert!(receiving.poll().is_pending());
    layer.send(7);
    assert!(receiving.is_woken());
    assert_eq!(layer.polled.load(SeqCst), 0, "no other task polled it");
    assert!(matches!(receiving.poll(), Poll::Ready(Ok(7))));
    layer.close();
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_arrives_during_a_background_poll_is_woken_for_remaining_work() {
    let (driver, polls) = (Arc::new(Driver::new()), Arc::new(AtomicUsize::new(0)));
    let waiting = {
        let (driver, polls) = (driver.clone(), polls.clone());
        async move {
            let take = |_: &mut Context<'_>| match polls.load(SeqCst) {
                0 | 1 => Poll::Pending,
                _ => Poll::Ready(Ok(())),
            };
            driver.wait(Interest::Items((), 1), take).await
        }
    };
    let waiting = Arc::new(Mutex::new(Held::new(waiting)));
    let work = {
        let (waiting, polls) = (waiting.clone(), polls.clone());
        poll_fn(move |cx| {
            if polls.fetch_add(1, SeqCst) == 0 {
                // A caller registers during this poll, and then more work is due.
                assert!(waiting.lock().expect("not locked").poll().is_pending());
                cx.waker().wake_by_ref();
            }
            Poll::<()>::Pending
        })
    };
    driver.start(work).expect("a runtime");
    for _ in 0..4 {
        yield_now().await;
    }
    assert_eq!(polls.load(SeqCst), 1, "the background yielded");
    let mut held = waiting.lock().expect("not poisoned");
    assert!(held.is_woken());
    assert!(matches!(held.poll(), Poll::Ready(Ok(()))));
    drop(held);
    driver.close();
}

#[tokio::test(start_paused = true)]
async fn the_background_polls_at_once_if_no_caller_ever_waited() {
    let layer = Layer::new();
    let begun = Instant::now();
    layer.send(7);
    for _ in 0..4 {
        yield_now().await;
    }
    assert_eq!((layer.inbox.len(), begun.elapsed()), (1, Duration::ZERO));
    layer.close();
}

#[tokio::test(start_paused = true)]
async fn the_background_takes_over_when_no_caller_returns() {
    let layer = Layer::new();
    layer.send(0);
    assert_eq!(layer.receive().await.expect("open"), 0);
    for round in 1..4 {
        layer.send(round);
        sleep(3 * GRACE).await;
        assert_eq!(layer.receive().await.expect("open"), round);
        assert_eq!(layer.polled.load(SeqCst), round as usize + 1);
    }
    layer.close();
}

/// A caller that asks leaves, and asks of other nodes meanwhile are handled by the background at once.
#[tokio::test(start_paused = true)]
async fn a_caller_of_a_single_result_is_not_expected_to_return() {
    let layer = Layer::new();
    let begun = Instant::now();
    for round in 0..4 {
        let answered = layer.inbox.len() + 1;
        let answer = |_: &mut Context<'_>| match layer.inbox.len() {
            len if len >= answered => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        };
        let mut asking = Held::new(layer.driver.wait(Interest::Own(()), answer));
        assert!(asking.poll().is_pending());
        layer.send(round);
        assert!(asking.is_woken() && asking.poll().is_ready());
        drop(asking);
        let (inbox, polled) = (layer.inbox.len(), layer.polled.load(SeqCst));
        layer.send(round);
        for _ in 0..4 {
            yield_now().await;
        }
        assert_eq!(layer.inbox.len(), inbox + 1, "round {round}");
        assert_eq!(layer.polled.load(SeqCst), polled + 1);
    }
    assert!(begun.elapsed().is_zero());
    // A reader, though, is expected to call again.
    assert_eq!(layer.receive().await.expect("open"), 0);
    while layer.inbox.try_pop().expect("open").is_some() {}
    let mut receiving = Held::new(layer.receive());
    assert!(receiving.poll().is_pending());
    layer.send(7);
    assert!(matches!(receiving.poll(), Poll::Ready(Ok(7))));
    drop(receiving);
    layer.send(8);
    for _ in 0..4 {
        yield_now().await;
    }
    assert_eq!(layer.inbox.len(), 0);
    sleep(3 * GRACE).await;
    assert_eq!(layer.inbox.len(), 1);
    layer.close();
}

#[tokio::test(start_paused = true)]
async fn an_unpolled_receive_does_not_block_other_readers() {
    let layer = Layer::new();
    let mut unpolled = Held::new(layer.receive());
    assert!(unpolled.poll().is_pending());
    // Woken first, and does not poll.
    layer.send(1);
    layer.send(2);
    let begun = Instant::now();
    let other = timeout(Duration::from_secs(1), layer.receive()).await;
    assert!(other.is_ok_and(|other| other.is_ok()));
    assert!(begun.elapsed() <= 3 * GRACE, "{:?}", begun.elapsed());
    // From then on other callers are woken instead.
    let begun = Instant::now();
    let mut other = Held::new(layer.receive());
    assert!(
        other.poll().is_ready() || {
            layer.send(3);
            other.is_woken()
        }
    );
    assert!(begun.elapsed().is_zero());
    drop(other);
    layer.close();
    assert!(matches!(unpolled.poll(), Poll::Ready(_)));
}

#[tokio::test(start_paused = true)]
async fn without_a_need_for_the_background_items_wait_below_until_a_call() {
    let layer = Layer::with_background(false);
    layer.send(0);
    assert_eq!(layer.receive().await.expect("open"), 0);
    let mut unpolled = Held::new(layer.receive());
    assert!(unpolled.poll().is_pending());
    for number in 1..=2 {
        layer.send(number);
        sleep(3 * GRACE).await;
        assert_eq!((layer.inbox.len(), layer.below.len()), (0, number as usize));
        assert!(unpolled.is_woken());
    }
    // A second caller waits for no unpolled one, whether it comes before or after the item.
    assert_eq!(layer.receive().await.expect("open"), 1);
    assert_eq!(layer.receive().await.expect("open"), 2);
    let mut other = Held::new(layer.receive());
    assert!(other.poll().is_pending());
    layer.send(3);
    sleep(3 * GRACE).await;
    assert!(matches!(other.poll(), Poll::Ready(Ok(3))));
    drop(other);
    // From when the background is needed, it polls.
    drop(unpolled);
    layer.driver.set_needs_background(true);
    layer.send(4);
    sleep(3 * GRACE).await;
    assert_eq!((layer.inbox.len(), layer.below.len()), (1, 0));
    layer.close();
}

#[tokio::test(start_paused = true)]
async fn items_found_by_other_callers_wake_the_readers_of_their_kind() {
    let layer = Layer::new();
    let mut readers = [(); 3].map(|()| Held::new(layer.receive()));
    for reader in &mut readers {
        assert!(reader.poll().is_pending());
    }
    // A caller that wants a single result polls the work.
    let mut other = Held::new(
        layer
            .driver
            .wait(Interest::Own(()), |_| Poll::<Result<()>>::Pending),
    );
    for number in 0..2 {
        layer.send(number);
    }
    assert!(other.poll().is_pending());
    let woken = readers.each_ref().map(Held::is_woken);
    assert_eq!(woken, [true, true, false]);
    // The second reader leaves instead of taking its item, which passes to the third.
    let [first, second, third] = &mut readers;
    assert!(first.poll().is_ready());
    second.0 = Box::pin(layer.receive());
    assert!(third.is_woken() && third.poll().is_ready());
    layer.close();
}

#[tokio::test(start_paused = true)]
async fn a_woken_caller_that_leaves_wakes_the_next() {
    let layer = Layer::new();
    let mut first = Held::new(layer.receive());
    let mut second = Held::new(layer.receive());
    assert!(first.poll().is_pending() && second.poll().is_pending());
    layer.send(1);
    assert!(first.is_woken() && !second.is_woken());
    drop(first);
    assert!(second.is_woken());
    assert!(matches!(second.poll(), Poll::Ready(Ok(1))));
    layer.close();
}

#[tokio::test(start_paused = true)]
async fn closing_wakes_all_callers_and_drops_the_work_at_once() {
    let layer = Layer::new();
    let mut receiving = Held::new(layer.receive());
    let mut other = Held::new(
        layer
            .driver
            .wait(Interest::Own(()), |_| Poll::<Result<()>>::Pending),
    );
    assert!(receiving.poll().is_pending() && other.poll().is_pending());
    assert_eq!(Arc::strong_count(&layer), 2);
    layer.close();
    assert_eq!(Arc::strong_count(&layer), 1, "the work held the other reference");
    assert!(receiving.is_woken() && other.is_woken());
    assert!(matches!(receiving.poll(), Poll::Ready(Err(Error::Closed))));
    assert!(matches!(other.poll(), Poll::Ready(Err(Error::Closed))));
    assert!(matches!(layer.receive().await, Err(Error::Closed)));
}

#[tokio::test(start_paused = true)]
async fn items_wake_only_readers_of_their_kind() {
    let driver = Driver::new();
    let never = |_: &mut Context<'_>| Poll::<Result<()>>::Pending;
    let mut readers = ['a', 'b', 'b'].map(|kind| Held::new(driver.wait(Interest::Items(kind, 1), never)));
    for reader in &mut readers {
        assert!(reader.poll().is_pending());
    }
    driver.notify('b', 1);
    assert_eq!(readers.each_ref().map(Held::is_woken), [false, true, false]);
    driver.notify('c', 1);
    driver.notify('a', 0);
    assert_eq!(readers.each_ref().map(Held::is_woken), [false, true, false]);
    // A reader that leaves without its item passes it to another of its kind.
    let [a, first, second] = &mut readers;
    first.0 = Box::pin(driver.wait(Interest::Own('b'), never));
    assert!(second.is_woken() && !a.is_woken());
    driver.notify('a', 1);
    assert!(a.is_woken());
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_finds_its_item_at_once_does_not_register() {
    let layer = Layer::new();
    layer.send(7);
    let mut receiving = Held::new(layer.receive());
    assert!(matches!(receiving.poll(), Poll::Ready(Ok(7))));
    assert_eq!(layer.driver.0.list().waiting(), 0);
    // The work yielded, and continues with the next caller.
    layer.send(8);
    let mut waiting = Held::new(layer.receive());
    assert!(matches!(waiting.poll(), Poll::Ready(Ok(8))));
    let mut waiting = Held::new(layer.receive());
    assert!(waiting.poll().is_pending());
    assert_eq!(layer.driver.0.list().waiting(), 1);
    drop(waiting);
    assert_eq!(layer.driver.0.list().waiting(), 0);
    layer.close();
}

#[tokio::test(start_paused = true)]
async fn an_item_that_is_stored_during_a_lookup_is_found() {
    let driver = Driver::new();
    driver.start(std::future::pending()).expect("a runtime");
    let (looks, items) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let take = |_: &mut Context<'_>| match items.load(SeqCst) {
        0 => {
            // After the second lookup, which follows the poll of the work.
            if looks.fetch_add(1, SeqCst) == 1 {
                items.store(1, SeqCst);
                driver.notify((), 1);
            }
            Poll::Pending
        }
        _ => Poll::Ready(Ok(())),
    };
    let mut waiting = Held::new(driver.wait(Interest::Items((), 1), take));
    assert!(waiting.poll().is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_failure_goes_to_one_reader_that_finds_no_item() {
    let driver = Driver::new();
    let never = |_: &mut Context<'_>| Poll::<Result<()>>::Pending;
    let mut other = Held::new(driver.wait(Interest::Own('a'), never));
    let mut readers = ['a', 'b'].map(|kind| Held::new(driver.wait(Interest::Items(kind, 1), never)));
    assert!(other.poll().is_pending());
    for reader in &mut readers {
        assert!(reader.poll().is_pending());
    }
    driver.fail(Error::invalid("swarm below", "it is broken"));
    assert!(readers.iter().all(Held::is_woken) && !other.is_woken());
    assert!(other.poll().is_pending());
    let [a, b] = &mut readers;
    assert!(matches!(b.poll(), Poll::Ready(Err(Error::Invalid { .. }))));
    assert!(a.poll().is_pending());
    // A reader with an item does not receive the error.
    driver.fail(Error::invalid("swarm below", "it is broken again"));
    let served = driver.wait(Interest::Items('a', 1), |_| Poll::Ready(Ok(())));
    assert!(served.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn callers_that_waited_before_the_work_started_poll_it() {
    let driver = Driver::new();
    let done = AtomicBool::new(false);
    let take = |_: &mut Context<'_>| {
        if done.load(SeqCst) {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    };
    let mut waiting = Held::new(driver.wait(Interest::Items((), 1), take));
    assert!(waiting.poll().is_pending());
    let polled = Arc::new(AtomicBool::new(false));
    let work = {
        let polled = polled.clone();
        async move { polled.store(true, SeqCst) }
    };
    driver.ensure_started(|| work).expect("a runtime");
    driver
        .ensure_started(|| async { unreachable!("it has begun") })
        .expect("a runtime");
    for _ in 0..4 {
        yield_now().await;
    }
    assert!(waiting.is_woken() && !polled.load(SeqCst));
    assert!(waiting.poll().is_pending());
    assert!(polled.load(SeqCst));
    done.store(true, SeqCst);
    assert!(waiting.poll().is_ready());
    drop(waiting);
    // Work that starts after closing is dropped.
    driver.close();
    let held = Arc::new(());
    let kept = held.clone();
    driver.start(async move { drop(kept) }).expect("a runtime");
    assert_eq!(Arc::strong_count(&held), 1);
}

#[test]
fn work_outside_of_a_runtime_is_refused() {
    let driver = Driver::<()>::new();
    assert!(matches!(driver.start(async {}), Err(Error::Invalid { .. })));
}

/// Readers on several threads that cancel at random, beside senders: every item arrives exactly once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn stress_of_cancelling_readers_on_several_threads() {
    for background in [true, false] {
        stress(&Layer::with_background(background)).await;
    }
}

async fn stress(layer: &Arc<Layer>) {
    const SENDERS: u32 = 4;
    const EACH: u32 = 5_000;
    const SEED: u64 = 3;
    println!("seed {SEED}");
    let received = Arc::new(AtomicUsize::new(0));
    let mut seen = Vec::new();
    let readers: Vec<_> = (0..6)
        .map(|reader| {
            let (layer, received) = (layer.clone(), received.clone());
            let mut rng = StdRng::seed_from_u64(SEED + reader);
            tokio::spawn(async move {
                let mut got = Vec::new();
                loop {
                    let mut receiving = Box::pin(layer.receive());
                    // Polled a few times, then dropped, or awaited.
                    let polls = rng.random_range(0..4);
                    let mut result = Poll::Pending;
                    for _ in 0..polls {
                        result = poll_fn(|cx| Poll::Ready(receiving.as_mut().poll(cx))).await;
                        if result.is_ready() {
                            break;
                        }
                        yield_now().await;
                    }
                    let result = match result {
                        Poll::Ready(result) => result,
                        Poll::Pending if rng.random_range(0..4) == 0 => continue,
                        Poll::Pending => receiving.await,
                    };
                    let Ok(number) = result else { return got };
                    received.fetch_add(1, SeqCst);
                    got.push(number);
                }
            })
        })
        .collect();
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let layer = layer.clone();
            tokio::spawn(async move {
                for number in 0..EACH {
                    layer.send(sender * EACH + number);
                    if number % 64 == 0 {
                        yield_now().await;
                    }
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.expect("no panic");
    }
    let all = (SENDERS * EACH) as usize;
    let done = async {
        while received.load(SeqCst) < all {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(20), done)
        .await
        .expect("every item arrives");
    layer.close();
    for reader in readers {
        seen.extend(reader.await.expect("no panic"));
    }
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..all as u32));
}
