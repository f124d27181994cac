use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use p2p::{Headroom, Packet};

use super::*;

/// A waker that counts its wake-ups.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Wakes {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// A reader: its future, and how often it was woken.
struct Reader<F> {
    wait: Pin<Box<F>>,
    wakes: Arc<Wakes>,
}

impl<F: Future> Reader<F> {
    /// Creates a reader that is already waiting.
    fn waiting(wait: F) -> Self {
        let mut reader = Self {
            wait: Box::pin(wait),
            wakes: Arc::default(),
        };
        assert!(reader.poll().is_pending());
        reader
    }

    fn poll(&mut self) -> Poll<F::Output> {
        let waker = Waker::from(self.wakes.clone());
        self.wait.as_mut().poll(&mut Context::from_waker(&waker))
    }
}

fn ready<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("had to wait"),
    }
}

fn inbox(items: usize) -> Inbox<Packet> {
    Inbox::new(Limits {
        items,
        ..Limits::default()
    })
}

fn packets(texts: &[&str]) -> Vec<Packet> {
    texts.iter().map(|text| Packet::from(*text)).collect()
}

#[test]
fn items_are_popped_in_the_order_of_pushing() {
    let inbox = inbox(10);
    inbox.push(Packet::from("1")).unwrap();
    assert_eq!(inbox.extend(packets(&["2", "3", "4"])).accepted, 3);
    assert_eq!(ready(inbox.pop()).unwrap(), b"1");
    let mut out = packets(&["0"]);
    assert_eq!(ready(inbox.pop_batch(&mut out, 0)).unwrap(), 0);
    assert_eq!(ready(inbox.pop_batch(&mut out, 2)).unwrap(), 2);
    assert_eq!(out, packets(&["0", "2", "3"]));
    assert_eq!(ready(inbox.pop_batch(&mut out, 9)).unwrap(), 1);
    assert!(inbox.is_empty());
    assert_eq!(inbox.held(), 0);
}

#[test]
fn a_full_inbox_returns_new_items() {
    let inbox = inbox(2);
    let put = inbox.extend(packets(&["1", "2", "3", "4"]));
    assert_eq!(
        (put.accepted, put.refused, put.reason),
        (2, packets(&["3", "4"]), DropReason::QueueFull)
    );
    let refused = inbox.push(Packet::from("5")).unwrap_err();
    assert_eq!(
        (refused.items, refused.reason),
        (packets(&["5"]), DropReason::QueueFull)
    );
    ready(inbox.pop()).unwrap();
    inbox.push(Packet::from("6")).unwrap();
}

#[test]
fn items_are_charged_the_memory_that_they_hold() {
    let inbox = Inbox::new(Limits {
        bytes: 10_000,
        ..Limits::default()
    });
    // Few bytes in a large buffer are charged the buffer.
    let large = || {
        let mut packet = Packet::with_capacity(Headroom::default(), 6000);
        packet.push_back(&[1; 1000]);
        packet
    };
    inbox.push(large()).unwrap();
    assert!((6000..7000).contains(&inbox.held()));
    // An item that does not fit does not block a smaller one behind it.
    let put = inbox.extend([large(), Packet::from(vec![2; 1000])]);
    assert_eq!(
        (put.accepted, put.refused.len(), put.reason),
        (1, 1, DropReason::QueueFull)
    );
    assert_eq!(ready(inbox.pop()).unwrap()[0], 1);
    assert_eq!(ready(inbox.pop()).unwrap()[0], 2);
    assert_eq!(inbox.held(), 0);
    assert!(
        inbox.push(Packet::from(vec![0; 10_001])).is_err(),
        "never over the bound"
    );
}

#[test]
fn small_packets_that_must_wait_are_copied_out_of_their_buffer() {
    let inbox = inbox(10);
    let mut buffer = Packet::from(vec![9; 60_000]);
    let small = buffer.split_front(100);
    let large = buffer.split_front(10_000);
    let (small_at, large_at) = (small.as_ptr(), large.as_ptr());
    inbox.push(small).unwrap();
    inbox.push(large).unwrap();
    assert_ne!(ready(inbox.pop()).unwrap().as_ptr(), small_at);
    assert_eq!(ready(inbox.pop()).unwrap().as_ptr(), large_at);

    // An item that a reader waits for is passed on uncopied.
    let mut reader = Reader::waiting(inbox.pop());
    let small = buffer.split_front(100);
    let at = small.as_ptr();
    inbox.push(small).unwrap();
    let Poll::Ready(Ok(packet)) = reader.poll() else {
        panic!("not there")
    };
    assert_eq!(packet.as_ptr(), at);
}

#[test]
fn a_batch_is_one_wake_up_and_a_reader_that_leaves_items_wakes_the_next() {
    let inbox = inbox(10);
    let mut readers: Vec<_> = (0..3).map(|_| Reader::waiting(inbox.pop())).collect();
    inbox.extend(packets(&["1", "2"]));
    let woken = |readers: &[Reader<_>]| readers.iter().map(|one| one.wakes.count()).collect::<Vec<_>>();
    assert_eq!(woken(&readers), [1, 0, 0]);
    assert!(matches!(readers[0].poll(), Poll::Ready(Ok(item)) if item == b"1"));
    assert_eq!(woken(&readers), [1, 1, 0]);
    assert!(matches!(readers[1].poll(), Poll::Ready(Ok(item)) if item == b"2"));
    assert_eq!(woken(&readers), [1, 1, 0], "nothing is left for the third");
}

#[test]
fn a_refused_item_wakes_no_reader() {
    let inbox = inbox(0);
    let reader = Reader::waiting(inbox.pop());
    inbox.push(Packet::from("1")).unwrap_err();
    assert_eq!(inbox.extend(packets(&["2"])).accepted, 0);
    assert_eq!(reader.wakes.count(), 0);
}

#[test]
fn a_cancelled_reader_loses_neither_item_nor_wake_up() {
    let inbox = inbox(10);
    // Cancelled before an item arrived: its entry is removed.
    let cancelled = Reader::waiting(inbox.pop());
    let mut second = Reader::waiting(inbox.pop());
    let mut third = Reader::waiting(inbox.pop());
    drop(cancelled);
    inbox.push(Packet::from("1")).unwrap();
    assert_eq!((second.wakes.count(), third.wakes.count()), (1, 0));
    // Cancelled after it was woken: the next reader is woken.
    drop(second);
    assert_eq!(third.wakes.count(), 1);
    assert!(matches!(third.poll(), Poll::Ready(Ok(item)) if item == b"1"));
    second = Reader::waiting(inbox.pop());
    inbox.push(Packet::from("2")).unwrap();
    assert!(matches!(second.poll(), Poll::Ready(Ok(item)) if item == b"2"));
}

#[test]
fn a_reader_that_moved_to_another_task_is_woken_there() {
    let inbox = inbox(10);
    let mut reader = Reader::waiting(inbox.pop());
    let before = std::mem::take(&mut reader.wakes);
    assert!(reader.poll().is_pending());
    inbox.push(Packet::from("1")).unwrap();
    assert_eq!((before.count(), reader.wakes.count()), (0, 1));
}

#[test]
fn a_woken_reader_that_finds_nothing_waits_again() {
    let inbox = inbox(10);
    let mut reader = Reader::waiting(inbox.pop());
    inbox.push(Packet::from("1")).unwrap();
    assert_eq!(inbox.try_pop().unwrap(), Some(Packet::from("1")));
    assert!(reader.poll().is_pending());
    inbox.push(Packet::from("2")).unwrap();
    assert_eq!(reader.wakes.count(), 2);
    assert!(reader.poll().is_ready());
    assert_eq!(inbox.try_pop().unwrap(), None);
}

#[test]
fn close_wakes_all_readers_refuses_all_items_and_counts_waiting_ones_once() {
    let inbox = inbox(10);
    let mut readers: Vec<_> = (0..3).map(|_| Reader::waiting(inbox.pop())).collect();
    assert_eq!(inbox.close(), 0);
    for reader in &mut readers {
        assert_eq!(reader.wakes.count(), 1);
        assert!(matches!(reader.poll(), Poll::Ready(Err(Error::Closed))));
    }
    assert_eq!(
        inbox.push(Packet::from("x")).unwrap_err().reason,
        DropReason::Closed
    );
    let put = inbox.extend(packets(&["x", "y"]));
    assert_eq!(
        (put.accepted, put.refused.len(), put.reason),
        (0, 2, DropReason::Closed)
    );
    assert!(matches!(
        ready(inbox.pop_batch(&mut Vec::new(), 1)),
        Err(Error::Closed)
    ));

    let inbox = self::inbox(10);
    inbox.extend(packets(&["1", "2"]));
    assert_eq!((inbox.close(), inbox.close()), (2, 0));
    assert!(matches!(inbox.try_pop(), Err(Error::Closed)));
    assert_eq!((inbox.len(), inbox.held(), inbox.is_closed()), (0, 0, true));
}

#[test]
fn removed_items_are_returned_and_the_rest_keeps_its_order() {
    let inbox = inbox(10);
    inbox.extend(packets(&["1", "22", "3", "44"]));
    assert_eq!(inbox.remove(|packet| packet.len() == 2), packets(&["22", "44"]));
    let mut out = Vec::new();
    ready(inbox.pop_batch(&mut out, 9)).unwrap();
    assert_eq!(out, packets(&["1", "3"]));
    assert_eq!(inbox.held(), 0);
}

/// Readers that are cancelled at any moment, on several threads: a lost wake-up would hang, a lost or
/// duplicated item would change the sum.
#[test]
fn under_load_each_item_reaches_exactly_one_reader() {
    const ITEMS: u64 = 20_000;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .build()
        .unwrap();
    let inbox = Arc::new(inbox(64));
    let readers: Vec<_> = (0..4)
        .map(|which| {
            let inbox = inbox.clone();
            runtime.spawn(async move {
                let mut sum = 0;
                let mut out = Vec::new();
                loop {
                    let got = tokio::select! {
                        biased;
                        got = inbox.pop_batch(&mut out, which + 1) => got,
                        () = tokio::task::yield_now() => continue,
                    };
                    if got.is_err() {
                        return sum;
                    }
                    sum += out
                        .drain(..)
                        .map(|packet: Packet| u64::from_be_bytes(packet[..].try_into().unwrap()))
                        .sum::<u64>();
                }
            })
        })
        .collect();
    // One more reader that is never cancelled, so that only wake-ups drive it.
    let patient = runtime.spawn({
        let inbox = inbox.clone();
        async move {
            let mut sum = 0;
            while let Ok(packet) = inbox.pop().await {
                sum += u64::from_be_bytes(packet[..].try_into().unwrap());
            }
            sum
        }
    });
    let total = runtime.block_on(async {
        for count in 1..=ITEMS {
            let mut item = Packet::from(&count.to_be_bytes());
            while let Err(mut refused) = inbox.push(item) {
                item = refused.items.remove(0);
                tokio::task::yield_now().await;
            }
        }
        while !inbox.is_empty() {
            tokio::task::yield_now().await;
        }
        inbox.close();
        let mut total = patient.await.unwrap();
        for reader in readers {
            total += reader.await.unwrap();
        }
        total
    });
    assert_eq!(total, ITEMS * (ITEMS + 1) / 2);
}

/// Returns a packet of `len` bytes from a receive buffer, and the rest of the buffer.
fn received(len: usize) -> (Packet, bytes::BytesMut) {
    let mut buffer = bytes::BytesMut::zeroed(BUFFER);
    let packet = Packet::from(buffer.split_to(len));
    buffer.clear();
    (packet, buffer)
}

const BUFFER: usize = 64 << 10;

#[test]
fn waiting_messages_hold_little_more_than_they_are_charged() {
    for len in [300, 1200, 4000] {
        let inbox = Inbox::new(Limits::default());
        let mut buffers = Vec::new();
        for _ in 0..1024 {
            let (packet, buffer) = received(len);
            buffers.push(buffer);
            if inbox.push(packet).is_err() {
                break;
            }
        }
        assert!(inbox.len() > 800, "{} of {len} bytes", inbox.len());
        let pinned = buffers
            .iter_mut()
            .map(|buffer| usize::from(!buffer.try_reclaim(BUFFER)));
        let pinned = pinned.sum::<usize>() * BUFFER;
        assert!(
            pinned <= Limits::default().bytes + BUFFER,
            "{pinned} bytes for {len}"
        );
    }
}

#[test]
fn packets_that_own_their_buffers_are_never_copied() {
    let limits = Limits {
        copy_below: 0,
        ..Limits::default()
    };
    let inbox = Inbox::new(limits);
    let mut at = Vec::new();
    for _ in 0..200 {
        let packet = Packet::from(vec![7; 100]);
        at.push(packet.as_ptr());
        inbox.push(packet).expect("room");
    }
    for at in at {
        assert_eq!(inbox.try_pop().expect("open").expect("an item").as_ptr(), at);
    }
}
