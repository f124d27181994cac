//! Messages longer than the MTU below: complete or not at all, each to one reader, within bounds.

use std::sync::Arc;
use std::time::Duration;

use p2p::{DropReason, Error, Packet, Swarm};
use p2p_swarms::memory::{MemoryAddr, MemoryConfig, MemoryRealm, MemorySwarm};
use p2p_swarms::{Faults, FragmentSwarm, LinkFaults, SwarmExt as _};
use p2p_swarmtest::Secure;

use crate::{counted as layer, keeps_all_laws, over_memory};

type Frag = FragmentSwarm<MemoryAddr, MemorySwarm>;

fn realm(mtu: usize) -> MemoryRealm {
    MemoryRealm::new(MemoryConfig {
        mtu,
        ..MemoryConfig::default()
    })
}

fn pair(inner_mtu: usize, mtu: usize) -> (Frag, Frag) {
    let realm = realm(inner_mtu);
    (Frag::new(realm.open(), mtu), Frag::new(realm.open(), mtu))
}

fn addr(swarm: &Frag) -> MemoryAddr {
    swarm.inner().local_addr()
}

fn payload(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + seed) as u8).collect()
}

#[tokio::test(start_paused = true)]
async fn long_messages_keep_all_laws() {
    keeps_all_laws(over_memory!(Secure, |swarm: MemorySwarm| Ok(
        swarm.fragment(256 << 10)
    )))
    .await;
    let twice = |swarm: MemorySwarm| Ok(swarm.fragment(4096).fragment(20_000));
    keeps_all_laws(over_memory!(Secure, twice)).await;
}

type Refuses = fn(&[u8]) -> bool;

/// Refuses to send certain messages.
struct Picky {
    inner: MemorySwarm,
    refuses: Refuses,
}

type A = MemoryAddr;

impl Swarm<A> for Picky {
    p2p::pass_through!(inner: receive, receive_batch, mtu, local_addrs, parse_addr, close);

    async fn tell(&self, dst: &A, packet: Packet) -> p2p::Result<()> {
        if (self.refuses)(&packet) {
            return Err(Error::unreachable(dst, "refused by the test"));
        }
        self.inner.tell(dst, packet).await
    }
}

#[tokio::test]
async fn every_length_up_to_the_mtu_arrives_whole_and_one_more_byte_is_refused() {
    let (a, b) = pair(100, 400);
    for len in (0..=400).step_by(25).chain([84, 85, 86, 169, 170, 171, 399]) {
        let sent = payload(len, len);
        a.tell(&addr(&b), a.packet(&sent)).await.expect("it fits");
        let message = b.receive().await.expect("open");
        assert_eq!((message.src, &*message.payload), (addr(&a), &*sent));
    }
    let refused = a.tell(&addr(&b), a.packet(&payload(401, 0))).await;
    assert!(matches!(refused, Err(Error::MtuExceeded { size: 401, mtu: 400 })));
}

#[tokio::test]
async fn the_mtu_is_the_content_of_255_fragments() {
    let (a, b) = pair(100, usize::MAX);
    assert_eq!(a.mtu(), 255 * 85);
    let frame = a.packet(b"").room();
    assert_eq!((frame.front, frame), (7, a.headroom()));
    let sent = payload(a.mtu(), 3);
    a.tell(&addr(&b), Packet::from(&*sent)).await.expect("it fits");
    assert_eq!(b.receive().await.expect("open").payload, *sent);
}

#[tokio::test]
async fn a_batch_arrives_as_messages_and_in_batches() {
    let (a, b) = pair(100, 4000);
    let sent: Vec<_> = (0..50).map(|at| payload(at * 13, at)).collect();
    let mut batch: Vec<_> = sent.iter().map(|sent| (addr(&b), a.packet(sent))).collect();
    batch.push((addr(&b), a.packet(&payload(4001, 0))));
    let error = a
        .tell_batch(&mut batch)
        .await
        .expect_err("the last one is too long");
    assert_eq!((error.sent, error.refused, batch.len()), (50, 1, 0));
    let mut received = Vec::new();
    while received.len() < sent.len() {
        let before = received.len();
        let count = b.receive_batch(&mut received, 7).await.expect("open");
        assert!((1..=7).contains(&count) && received.len() == before + count);
    }
    let mut received: Vec<_> = received.iter().map(|message| message.payload.to_vec()).collect();
    received.sort();
    let mut sent = sent;
    sent.sort();
    assert_eq!(received, sent);
    let counts = [layer(&a, "frag"), layer(&b, "frag")];
    assert_eq!([counts[0].sent, counts[1].received, counts[1].delivered], [50; 3]);
    let pieces = [layer(&a, "frag-piece"), layer(&b, "frag-piece")];
    assert_eq!(pieces[0].sent, pieces[1].delivered);
}

#[tokio::test]
async fn an_untaken_message_goes_to_the_next_receiver() {
    let (a, b) = pair(100, 4000);
    for seed in 0..10 {
        a.tell(&addr(&b), a.packet(&payload(3, seed)))
            .await
            .expect("it fits");
    }
    for seed in 0..10 {
        assert_eq!(b.receive().await.expect("open").payload, *payload(3, seed));
    }
    assert_eq!(layer(&b, "frag").delivered, 10);
}

#[tokio::test]
async fn untaken_messages_are_returned_in_batches_of_at_most_the_maximum() {
    let (a, b) = pair(100, 4000);
    let (mut next, mut seen) = (0_u8, 0_u8);
    for max in [1, 2, 3, 8, 40] {
        for _ in 0..50 {
            a.tell(&addr(&b), a.packet(&[next])).await.expect("it fits");
            next += 1;
        }
        // Receives all, and takes one.
        assert_eq!(b.receive().await.expect("open").payload, &[seen]);
        let mut out = Vec::new();
        while out.len() < 49 {
            let before = out.len();
            let due = max.min(49 - before);
            assert_eq!(b.receive_batch(&mut out, max).await.expect("open"), due);
            assert_eq!(out.len(), before + due);
            assert_eq!(
                layer(&b, "frag").delivered,
                u64::from(seen) + 1 + out.len() as u64
            );
        }
        for message in &out {
            seen += 1;
            assert_eq!(message.payload, &[seen]);
        }
        seen += 1;
    }
    let mut out = Vec::new();
    assert_eq!(b.receive_batch(&mut out, 0).await.expect("at once"), 0);
}

/// The longest of them fills its fragment.
#[tokio::test]
async fn an_unfragmented_message_keeps_its_buffer_in_both_directions() {
    let (a, b) = pair(100, 1000);
    for len in [0, 1, 84, 85] {
        let packet = a.packet(&payload(len, 1));
        let at = packet.as_ptr();
        a.tell(&addr(&b), packet).await.expect("it fits");
        assert_eq!(b.receive().await.expect("open").payload.as_ptr(), at);
        let packet = a.packet(&payload(len, 1));
        let at = packet.as_ptr();
        a.tell_batch(&mut vec![(addr(&b), packet)])
            .await
            .expect("it fits");
        assert_eq!(b.receive().await.expect("open").payload.as_ptr(), at);
    }
}

#[tokio::test]
async fn a_message_counts_as_sent_if_a_fragment_of_it_was_sent() {
    let realm = realm(100);
    let to = realm.open().local_addr();
    let refusals: [(Refuses, [u64; 2]); 3] = [
        (|_| false, [1, 4]),
        (|fragment| fragment[1] > 1, [1, 2]),
        (|_| true, [0, 0]),
    ];
    for (refuses, due) in refusals {
        let a = FragmentSwarm::new(
            Picky {
                inner: realm.open(),
                refuses,
            },
            1000,
        );
        let told = a.tell(&to, a.packet(&payload(300, 1))).await;
        assert_eq!(told.is_ok(), due == [1, 4], "{told:?}");
        assert_eq!([layer(&a, "frag").sent, layer(&a, "frag-piece").sent], due);
    }
}

#[tokio::test(start_paused = true)]
async fn messages_with_reordered_fragments_arrive_whole() {
    let jitter = Duration::from_millis(20);
    let faults = Faults::seeded(7);
    let link = LinkFaults {
        jitter,
        ..LinkFaults::default()
    };
    faults.set_all(link).expect("in range");
    let realm = realm(100);
    let [a, b] =
        [realm.open(), realm.open()].map(|node| FragmentSwarm::new(node.faulty(faults.clone()), 1000));
    let to = b.inner().inner().local_addr();
    let mut sent: Vec<_> = (0..100).map(|at| payload(200 + at, at)).collect();
    for payload in &sent {
        a.tell(&to, a.packet(payload)).await.expect("it fits");
    }
    let mut received = Vec::new();
    for _ in 0..sent.len() {
        let message = tokio::time::timeout(crate::SOON, b.receive()).await;
        let message = message.expect("it arrives").expect("open");
        received.push(message.payload.to_vec());
    }
    assert_ne!(received, sent, "some messages were reordered");
    received.sort();
    sent.sort();
    assert_eq!(received, sent);
}

#[tokio::test]
async fn a_partly_sent_message_does_not_affect_later_ones() {
    let realm = realm(100);
    let b = FragmentSwarm::new(realm.open(), 1000);
    let inner = realm.open();
    let a = FragmentSwarm::new(
        Picky {
            inner,
            refuses: |fragment| fragment.ends_with(b"last"),
        },
        1000,
    );
    for len in [300, 400, 200, 300] {
        let mut cut = payload(len, 1);
        cut.extend(b"last");
        assert!(a.tell(&addr(&b), a.packet(&cut)).await.is_err());
        for seed in 0..3 {
            let sent = payload(len + 20, seed);
            a.tell(&addr(&b), a.packet(&sent)).await.expect("it fits");
            assert_eq!(b.receive().await.expect("open").payload, *sent);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_message_goes_to_one_of_many_receivers_even_if_some_are_cancelled() {
    let (a, b) = pair(100, 1000);
    let (b, total) = (Arc::new(b), 2000_usize);
    let to = addr(&b);
    let readers: Vec<_> = (0..4)
        .map(|reader| {
            let b = b.clone();
            tokio::spawn(async move {
                let mut got = Vec::new();
                loop {
                    let cancel = async {
                        for _ in 0..reader {
                            tokio::task::yield_now().await;
                        }
                        if reader == 0 {
                            std::future::pending::<()>().await;
                        }
                    };
                    tokio::select! {
                        message = b.receive() => match message {
                            Ok(message) => got.push(message.payload.to_vec()),
                            Err(_) => return got,
                        },
                        () = cancel => tokio::task::yield_now().await,
                    }
                }
            })
        })
        .collect();
    for number in 0..total {
        let mut sent = (number as u32).to_be_bytes().to_vec();
        sent.resize(4 + number % 300, 0);
        a.tell(&to, a.packet(&sent)).await.expect("it fits");
        // No more in flight than the inbox below holds.
        while layer(&*b, "frag").delivered + 100 < number as u64 {
            tokio::task::yield_now().await;
        }
    }
    while layer(&*b, "frag").delivered < total as u64 {
        tokio::task::yield_now().await;
    }
    b.close().await;
    let mut got = Vec::new();
    for reader in readers {
        got.extend(reader.await.expect("no reader panicked"));
    }
    let mut numbers: Vec<_> = got.iter().map(|bytes| bytes[..4].to_vec()).collect();
    numbers.sort();
    numbers.dedup();
    assert_eq!((numbers.len(), got.len()), (total, total));
}

#[tokio::test(start_paused = true)]
async fn an_incomplete_message_expires_while_a_reader_waits() {
    let realm = realm(100);
    let (raw, b) = (realm.open(), Frag::new(realm.open(), 1000));
    raw.tell(&addr(&b), Packet::from(&[0, 0, 2, 9]))
        .await
        .expect("it fits");
    let mut out = Vec::new();
    for _ in 0..2 {
        let soon = tokio::time::timeout(Duration::from_millis(1), b.receive_batch(&mut out, 9)).await;
        assert!(soon.is_err(), "an incomplete message was delivered: {soon:?}");
    }
    assert!((1..1000).contains(&b.held()), "{} bytes", b.held());
    let waited = tokio::time::timeout(Duration::from_mins(1), b.receive()).await;
    assert!(waited.is_err());
    let counts = layer(&b, "frag");
    assert_eq!((counts.received, counts.dropped(DropReason::Expired)), (1, 1));
    assert_eq!(layer(&b, "frag-piece").dropped(DropReason::Expired), 1);
    assert_eq!(b.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_incomplete_message_expires_while_no_caller_receives() {
    let realm = realm(100);
    let (raw, b) = (realm.open(), Frag::new(realm.open(), 1000));
    let tell = async |id| {
        let told = raw.tell(&addr(&b), Packet::from(&[id, 0, 2, 9])).await;
        told.expect("it fits");
    };
    let receive = async || {
        let received = tokio::time::timeout(Duration::from_millis(1), b.receive()).await;
        assert!(received.is_err(), "no message is whole: {received:?}");
    };
    receive().await;
    // Without a caller and without an incomplete message, what arrives waits below.
    tell(0).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(b.held(), 0);
    receive().await;
    assert!((1..1000).contains(&b.held()), "{} bytes", b.held());
    // Beside an incomplete message nothing waits below.
    tell(1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(layer(&b, "frag").received, 2);
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(layer(&b, "frag").dropped(DropReason::Expired), 2);
    assert_eq!(b.held(), 0);
}

#[tokio::test]
async fn malformed_fragments_are_counted_and_harmless() {
    let realm = realm(100);
    let (raw, b) = (realm.open(), Frag::new(realm.open(), 1000));
    for bytes in [&[][..], &[0xff; 20], &[0, 1, 1], &[0, 0, 0], &[0, 0, 1, 7]] {
        raw.tell(&addr(&b), Packet::from(bytes)).await.expect("it fits");
    }
    assert_eq!(b.receive().await.expect("open").payload, [7][..]);
    assert_eq!(layer(&b, "frag-piece").dropped(DropReason::Malformed), 4);
}

#[tokio::test]
async fn closing_wakes_receivers_and_drops_incomplete_messages() {
    let realm = realm(100);
    let (raw, b) = (realm.open(), Arc::new(Frag::new(realm.open(), 1000)));
    raw.tell(&addr(&b), Packet::from(&[0, 0, 2, 9]))
        .await
        .expect("it fits");
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let b = b.clone();
            tokio::spawn(async move { b.receive().await })
        })
        .collect();
    while b.held() == 0 {
        tokio::task::yield_now().await;
    }
    b.close().await;
    b.close().await;
    for reader in readers {
        let woken = reader.await.expect("no reader panicked");
        assert!(matches!(woken, Err(Error::Closed)));
    }
    assert!(matches!(b.receive().await, Err(Error::Closed)));
    let told = b.tell(&addr(&b), Packet::default()).await;
    assert!(matches!(told, Err(Error::Closed)));
    assert_eq!(layer(&*b, "frag").dropped(DropReason::Closed), 1);
}

#[tokio::test]
async fn a_refusal_below_is_an_error() {
    let (a, b) = pair(100, 1000);
    a.inner().close().await;
    for len in [3, 300] {
        let told = a.tell(&addr(&b), a.packet(&payload(len, 0))).await;
        assert!(matches!(told, Err(Error::Closed)));
    }
    assert_eq!((layer(&a, "frag").sent, layer(&a, "frag-piece").sent), (0, 0));
}
