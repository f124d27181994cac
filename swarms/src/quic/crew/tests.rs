//! No task stalls, in any order of waiting, polling, cancelling and leaving.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use p2p::{Error, Packet};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::*;
use crate::inbox::Limits;

const MEMBERS: usize = 24;
const ITEMS: usize = 2000;

struct Field {
    crew: Crew,
    inboxes: [Inbox<Packet>; 2],
    taken: AtomicUsize,
}

const KINDS: [Kind; 2] = [Kind::Message, Kind::Ask];

impl Field {
    fn new() -> Arc<Self> {
        let limits = Limits {
            items: usize::MAX,
            bytes: usize::MAX,
            copy_below: 0,
        };
        let field = Arc::new(Self {
            crew: Crew::default(),
            inboxes: [(); 2].map(|()| Inbox::new(limits)),
            taken: AtomicUsize::new(0),
        });
        let background = field.clone();
        tokio::spawn(async move { background.crew.background().await });
        field
    }

    /// Adds a task that moves messages from a channel into the inbox of a kind.
    fn member(self: &Arc<Self>, kind: usize) -> mpsc::UnboundedSender<Packet> {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let field = self.clone();
        self.crew.join(async move {
            while let Some(item) = receiver.recv().await {
                field.inboxes[kind].push(item).expect("room");
                field.crew.notify(KINDS[kind]);
            }
        });
        sender
    }

    async fn take(&self, kind: usize) -> Result<Packet> {
        let take = |inbox: &Inbox<Packet>| inbox.try_pop();
        let item = self.crew.wait(KINDS[kind], &self.inboxes[kind], take).await?;
        self.taken.fetch_add(1, SeqCst);
        Ok(item)
    }

    fn close(&self) {
        for inbox in &self.inboxes {
            inbox.close();
        }
        self.crew.close();
    }
}

/// Reads until the set is closed, and cancels some calls.
async fn read(field: Arc<Field>, kind: usize, seed: u64) {
    for turn in seed.. {
        let patience = Duration::from_micros(turn * 7919 % 300);
        let taken = match turn % 3 {
            0 => field.take(kind).await,
            _ => match tokio::time::timeout(patience, field.take(kind)).await {
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
    let field = Field::new();
    let senders: Vec<_> = (0..MEMBERS).map(|member| field.member(member % 2)).collect();
    let mut tasks = JoinSet::new();
    for reader in 0..readers {
        tasks.spawn(read(field.clone(), reader % 2, reader as u64));
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
        while field.taken.load(SeqCst) < MEMBERS * ITEMS {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let all = tokio::time::timeout(Duration::from_mins(1), all).await;
    let taken = field.taken.load(SeqCst);
    assert!(
        all.is_ok(),
        "{taken} of {} were taken: a reader was not woken",
        MEMBERS * ITEMS
    );
    field.close();
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
    let field = Field::new();
    let mut readers = JoinSet::new();
    for _ in 0..2 {
        let field = field.clone();
        readers.spawn(async move { field.take(0).await.map(drop) });
    }
    tokio::task::yield_now().await;
    for _ in 0..2 {
        field.inboxes[0].push(Packet::from(b"item")).expect("room");
    }
    field.crew.notify(Kind::Message);
    let both = async { while readers.join_next().await.is_some() {} };
    let both = tokio::time::timeout(Duration::from_secs(10), both).await;
    assert!(both.is_ok(), "the second reader was not woken");
}

#[tokio::test]
async fn tasks_make_progress_without_readers() {
    let field = Field::new();
    let sender = field.member(0);
    for _ in 0..100 {
        sender.send(Packet::from(b"item")).expect("the task exists");
    }
    while field.inboxes[0].len() < 100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn closing_drops_every_task_and_accepts_no_further_one() {
    let field = Field::new();
    let sender = field.member(0);
    tokio::task::yield_now().await;
    field.close();
    assert!(sender.is_closed());
    assert!(field.member(1).is_closed());
    assert!(matches!(field.take(0).await, Err(Error::Closed)));
}

#[tokio::test(start_paused = true)]
async fn a_woken_reader_that_does_not_poll_blocks_no_other() {
    let field = Field::new();
    let sender = field.member(1);
    let other = |field: Arc<Field>| tokio::spawn(async move { field.take(1).await });
    let mut waiting = other(field.clone());
    tokio::task::yield_now().await;
    // It registered last, so it is woken first.
    let mut held = Box::pin(field.take(0));
    assert!(
        poll_fn(|cx| Poll::Ready(held.as_mut().poll(cx)))
            .await
            .is_pending()
    );
    for _ in 0..3 {
        sender.send(Packet::from(b"item")).expect("the task exists");
        let taken = tokio::time::timeout(3 * GRACE, waiting).await;
        assert!(taken.is_ok_and(|taken| taken.is_ok_and(|item| item.is_ok())));
        waiting = other(field.clone());
        tokio::task::yield_now().await;
    }
    // No other reader waits: the background polls.
    waiting.abort();
    tokio::task::yield_now().await;
    sender.send(Packet::from(b"item")).expect("the task exists");
    tokio::time::sleep(3 * GRACE).await;
    assert_eq!(field.inboxes[1].len(), 1);
    // A reader that polls again is woken again.
    let last = field.member(0);
    tokio::time::sleep(3 * GRACE).await;
    assert!(
        poll_fn(|cx| Poll::Ready(held.as_mut().poll(cx)))
            .await
            .is_pending()
    );
    last.send(Packet::from(b"item")).expect("the task exists");
    assert_eq!(held.await.expect("open"), b"item");
    field.close();
}
