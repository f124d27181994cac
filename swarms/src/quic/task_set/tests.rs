//! No task stalls, in any order of waiting, polling, cancelling and leaving.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use p2p::{Error, Packet};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::*;
use crate::driver::{GRACE, Mailbox};
use crate::inbox::Limits;

const TASKS: usize = 24;
const ITEMS: usize = 2000;

struct Harness {
    set: TaskSet,
    mailboxes: [Mailbox<Packet>; 2],
    taken: AtomicUsize,
}

const KINDS: [Kind; 2] = [Kind::Message, Kind::Ask];

impl Harness {
    fn new() -> Arc<Self> {
        let limits = Limits {
            items: usize::MAX,
            bytes: usize::MAX,
            copy_below: 0,
        };
        Arc::new(Self {
            set: TaskSet::start().expect("a runtime"),
            mailboxes: [(); 2].map(|()| Mailbox::new(limits)),
            taken: AtomicUsize::new(0),
        })
    }

    /// Adds a task that moves messages from a channel into the inbox of a kind.
    fn task(self: &Arc<Self>, kind: usize) -> mpsc::UnboundedSender<Packet> {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let harness = self.clone();
        self.set.spawn(async move {
            while let Some(item) = receiver.recv().await {
                let mut items = VecDeque::from([item]);
                harness.mailboxes[kind].deliver(harness.set.driver(), KINDS[kind], &mut items);
            }
        });
        sender
    }

    async fn take(&self, kind: usize) -> Result<Packet> {
        let item = self.mailboxes[kind].pop(self.set.driver(), KINDS[kind]).await?;
        self.taken.fetch_add(1, SeqCst);
        Ok(item)
    }

    fn close(&self) {
        for mailbox in &self.mailboxes {
            mailbox.close();
        }
        self.set.close();
    }
}

/// Reads until the set is closed, and cancels some wakers.
async fn read(harness: Arc<Harness>, kind: usize, seed: u64) {
    for turn in seed.. {
        let patience = Duration::from_micros(turn * 7919 % 300);
        let taken = match turn % 3 {
            0 => harness.take(kind).await,
            _ => match tokio::time::timeout(patience, harness.take(kind)).await {
                Ok(taken) => taken,
                Err(_) => continue,
            },
        };
        if matches!(taken, Err(Error::Closed)) {
            return;
        }
    }
}

async fn everything_is_taken(readers: usize) {
    let harness = Harness::new();
    let senders: Vec<_> = (0..TASKS).map(|task| harness.task(task % 2)).collect();
    let mut tasks = JoinSet::new();
    for reader in 0..readers {
        tasks.spawn(read(harness.clone(), reader % 2, reader as u64));
    }
    for sender in senders {
        tasks.spawn(async move {
            for item in 0..ITEMS {
                sender.send(Packet::from(b"item")).expect("the task exists");
                if item % 64 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        });
    }
    let all = async {
        while harness.taken.load(SeqCst) < TASKS * ITEMS {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let all = tokio::time::timeout(Duration::from_mins(1), all).await;
    let taken = harness.taken.load(SeqCst);
    assert!(
        all.is_ok(),
        "{taken} of {} were taken: a reader was not woken",
        TASKS * ITEMS
    );
    harness.close();
    let ended = async { while tasks.join_next().await.is_some() {} };
    let ended = tokio::time::timeout(Duration::from_secs(20), ended).await;
    assert!(ended.is_ok(), "a reader was not woken by closing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_wake_up_is_lost_between_readers_that_come_and_go() {
    for readers in [2, 3, 16] {
        everything_is_taken(readers).await;
    }
}

#[tokio::test]
async fn no_wake_up_is_lost_in_one_thread() {
    everything_is_taken(5).await;
}

#[tokio::test]
async fn a_reader_that_takes_one_of_two_items_wakes_another_for_the_other() {
    let harness = Harness::new();
    let mut readers = JoinSet::new();
    for _ in 0..2 {
        let harness = harness.clone();
        readers.spawn(async move { harness.take(0).await.map(drop) });
    }
    tokio::task::yield_now().await;
    let items = [(); 2].map(|()| Packet::from(b"item"));
    harness.mailboxes[0].extend(harness.set.driver(), Kind::Message, items);
    let both = async { while readers.join_next().await.is_some() {} };
    let both = tokio::time::timeout(Duration::from_secs(10), both).await;
    assert!(both.is_ok(), "the second reader was not woken");
}

#[tokio::test]
async fn tasks_make_progress_without_readers() {
    let harness = Harness::new();
    let sender = harness.task(0);
    for _ in 0..100 {
        sender.send(Packet::from(b"item")).expect("the task exists");
    }
    while harness.mailboxes[0].len() < 100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn closing_drops_every_task_and_accepts_no_further_one() {
    let harness = Harness::new();
    let sender = harness.task(0);
    tokio::task::yield_now().await;
    harness.close();
    assert!(sender.is_closed());
    assert!(harness.task(1).is_closed());
    assert!(matches!(harness.take(0).await, Err(Error::Closed)));
}

#[tokio::test(start_paused = true)]
async fn a_woken_reader_that_does_not_poll_blocks_no_other() {
    let harness = Harness::new();
    let sender = harness.task(1);
    let other = |harness: Arc<Harness>| tokio::spawn(async move { harness.take(1).await });
    let mut waiting = other(harness.clone());
    tokio::task::yield_now().await;
    let mut held = Box::pin(harness.take(0));
    assert!(
        poll_fn(|cx| Poll::Ready(held.as_mut().poll(cx)))
            .await
            .is_pending()
    );
    for _ in 0..3 {
        sender.send(Packet::from(b"item")).expect("the task exists");
        let taken = tokio::time::timeout(3 * GRACE, waiting).await;
        assert!(taken.is_ok_and(|taken| taken.is_ok_and(|item| item.is_ok())));
        waiting = other(harness.clone());
        tokio::task::yield_now().await;
    }
    // No other reader waits: the background polls.
    waiting.abort();
    tokio::task::yield_now().await;
    sender.send(Packet::from(b"item")).expect("the task exists");
    tokio::time::sleep(3 * GRACE).await;
    assert_eq!(harness.mailboxes[1].len(), 1);
    // A reader that polls again is woken again.
    let last = harness.task(0);
    tokio::time::sleep(3 * GRACE).await;
    assert!(
        poll_fn(|cx| Poll::Ready(held.as_mut().poll(cx)))
            .await
            .is_pending()
    );
    last.send(Packet::from(b"item")).expect("the task exists");
    assert_eq!(held.await.expect("open"), b"item");
    harness.close();
}
