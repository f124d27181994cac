//! Channels over one swarm: separate, each with its own lifetime.

use std::future::{Future, poll_fn, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use p2p::{AskSwarm, DropReason, Error, Packet, Rejection, Swarm};
use p2p_protocols::mux::{Channel, Name, Varint};
use p2p_swarms::inbox::Limits;
use p2p_swarms::memory::{MemoryAddr, MemoryConfig, MemoryRealm, MemorySwarm};
use p2p_swarms::{Mux, MuxConfig, MuxSwarm, SwarmExt as _};
use p2p_swarmtest::{SecureAsk, Testbed};
use tokio::time::timeout;

use crate::{counted as layer, over_memory};

type Chan<C = Name> = MuxSwarm<MemoryAddr, MemorySwarm, C>;

fn pair<C: Channel>(config: MuxConfig) -> [Mux<MemoryAddr, MemorySwarm, C>; 2] {
    let realm = MemoryRealm::new(MemoryConfig::default());
    [realm.open(), realm.open()].map(|node| Mux::with_config(node, config))
}

fn names() -> [Mux<MemoryAddr, MemorySwarm>; 2] {
    pair(MuxConfig::default())
}

fn addr<C: Channel>(channel: &Chan<C>) -> MemoryAddr {
    channel.inner().local_addr()
}

async fn tell<C: Channel>(from: &Chan<C>, to: &Chan<C>, text: &str) {
    let packet = from.packet(text.as_bytes());
    from.tell(&addr(to), packet).await.expect("it fits");
}

async fn hears<C: Channel>(channel: &Chan<C>, text: &str) {
    let message = channel.receive().await.expect("open");
    assert_eq!(message.payload, *text.as_bytes(), "on {}", channel.channel());
}

/// A testbed of one channel, and of two channels of the same mux for the laws on siblings.
fn channels<C: Channel>(chat: impl Into<C>, other: impl Into<C>) -> Testbed<MemoryAddr> {
    let (chat, other) = (chat.into(), other.into());
    let own = chat.clone();
    let bed = over_memory!(SecureAsk, move |swarm: MemorySwarm| swarm
        .mux_by::<C>()
        .open(own.clone()));
    bed.beside(move |count| {
        let realm = MemoryRealm::default();
        let pairs = (0..count).map(|_| {
            let mux = realm.open().mux_by::<C>();
            Ok((mux.open(chat.clone())?, mux.open(other.clone())?))
        });
        ready(pairs.collect())
    })
}

#[tokio::test(start_paused = true)]
async fn channels_of_every_kind_keep_all_laws() {
    for report in [
        channels::<Name>("chat", "files").run().await,
        channels::<u16>(7_u16, 8_u16).run().await,
        channels::<u64>(7_u64, 1_u64 << 40).run().await,
    ] {
        report.assert_ok();
        let waived: Vec<_> = report.waived().map(|checked| checked.law.name).collect();
        assert!(
            !waived.contains(&"tell::a_full_sibling_stalls_nothing"),
            "{report}"
        );
    }
}

#[tokio::test]
async fn a_frame_on_the_wire_is_as_recorded() {
    let realm = MemoryRealm::new(MemoryConfig::default());
    let (raw, node) = (realm.open(), realm.open());
    let channel = Mux::new(node).open("foo-channel").expect("the first");
    channel
        .tell(&raw.local_addr(), channel.packet(b"hello"))
        .await
        .expect("it fits");
    let frame = raw.receive().await.expect("open").payload;
    assert_eq!(frame, b"\x0bfoo-channelhello");
    raw.tell(&addr(&channel), Packet::from(b"\x0bfoo-channelback"))
        .await
        .expect("it fits");
    hears(&channel, "back").await;
}

#[tokio::test]
async fn every_kind_of_channel_carries_its_own_messages() {
    async fn carries<C: Channel>(one: impl Into<C>, two: impl Into<C>) {
        let [a, b] = pair::<C>(MuxConfig::default());
        let (one, two) = (one.into(), two.into());
        let a = [one.clone(), two.clone()].map(|channel| a.open(channel).expect("not open"));
        let b = [one, two].map(|channel| b.open(channel).expect("not open"));
        tell(&a[1], &b[1], "two").await;
        tell(&a[0], &b[0], "one").await;
        hears(&b[0], "one").await;
        hears(&b[1], "two").await;
    }
    carries::<Name>("", "chat").await;
    carries::<u16>(0_u16, u16::MAX).await;
    carries::<u32>(0_u32, u32::MAX).await;
    carries::<u64>(0_u64, u64::MAX).await;
    carries::<Varint>(0, u64::MAX).await;
}

#[tokio::test]
async fn an_overlong_channel_number_is_the_same_channel() {
    let realm = MemoryRealm::new(MemoryConfig::default());
    let (raw, node) = (realm.open(), realm.open());
    let mux = Mux::<_, _, Varint>::with_config(node, MuxConfig::default());
    let channel = mux.open(0).expect("the first");
    raw.tell(&addr(&channel), Packet::from(b"\x80\x00x"))
        .await
        .expect("it fits");
    hears(&channel, "x").await;
}

#[tokio::test]
async fn the_mtu_is_that_below_minus_the_header_of_the_channel() {
    let [a, b] = names();
    let name = "n".repeat(200);
    let (a, b) = (
        a.open(&name).expect("the first"),
        b.open(&name).expect("the first"),
    );
    assert_eq!(a.mtu(), (64 << 10) - 202);
    assert_eq!(a.packet(b"").room().front, 202);
    let longest = vec![1; a.mtu()];
    a.tell(&addr(&b), a.packet(&longest)).await.expect("it fits");
    assert_eq!(b.receive().await.expect("open").payload, *longest);
    let refused = a.tell(&addr(&b), Packet::from(vec![1; a.mtu() + 1])).await;
    assert!(matches!(refused, Err(Error::MtuExceeded { .. })));
    // A name that leaves no byte for a payload is valid; a longer one is not.
    let realm = MemoryRealm::new(MemoryConfig {
        mtu: 5,
        ..MemoryConfig::default()
    });
    let mux = Mux::new(realm.open());
    for (name, mtu) in [
        ("abc", Some(1)),
        ("abcd", Some(0)),
        ("abcde", None),
        ("abcdefgh", None),
    ] {
        match mux.open(name) {
            Ok(channel) => assert_eq!(Some(channel.mtu()), mtu),
            Err(error) => assert!(mtu.is_none() && matches!(error, Error::Invalid { .. }), "{error}"),
        }
    }
}

#[tokio::test]
async fn no_more_channels_are_open_than_the_limit() {
    let config = MuxConfig {
        channels: 2,
        ..MuxConfig::default()
    };
    let [mux, _] = pair::<Name>(config);
    let _one = mux.open("one").expect("the first");
    let two = mux.open("two").expect("the second");
    let full = mux.open("three");
    assert!(matches!(full, Err(Error::Limit { limit: 2, .. })), "{full:?}");
    drop(two);
    mux.open("three").expect("there is room again");
}

#[tokio::test]
async fn an_unread_channel_does_not_affect_others() {
    let config = MuxConfig {
        messages: Limits {
            items: 10,
            ..Limits::default()
        },
        ..MuxConfig::default()
    };
    let [a, b] = pair::<Name>(config);
    let (slow, fast) = (a.open("slow").expect("new"), a.open("fast").expect("new"));
    let (slow_to, fast_to) = (b.open("slow").expect("new"), b.open("fast").expect("new"));
    for _ in 0..50 {
        tell(&slow, &slow_to, "unread").await;
        tell(&fast, &fast_to, "read").await;
        hears(&fast_to, "read").await;
    }
    let counts = layer(&slow_to, "mux");
    assert_eq!(
        (
            counts.received,
            counts.delivered,
            counts.dropped(DropReason::QueueFull)
        ),
        (100, 50, 40)
    );
    for _ in 0..10 {
        hears(&slow_to, "unread").await;
    }
}

#[tokio::test]
async fn messages_without_a_channel_and_invalid_frames_are_counted() {
    let [a, b] = names();
    let a = ["known", "unknown"].map(|name| a.open(name).expect("new"));
    let b = b.open("known").expect("new");
    tell(&a[1], &b, "no channel").await;
    a[0].inner()
        .tell(&addr(&b), Packet::from(b"\x7fshort"))
        .await
        .expect("it fits");
    tell(&a[0], &b, "delivered").await;
    hears(&b, "delivered").await;
    let counts = layer(&b, "mux");
    assert_eq!(
        (
            counts.dropped(DropReason::NoChannel),
            counts.dropped(DropReason::Malformed)
        ),
        (1, 1)
    );
    assert_eq!(counts.received, counts.delivered + counts.dropped_total());
}

#[tokio::test]
async fn a_channel_is_open_once_and_can_be_reopened_after_close_or_drop() {
    let [a, b] = names();
    let (from, other) = (a.open("chat").expect("new"), b.open("other").expect("new"));
    let to = b.open("chat").expect("new");
    assert!(matches!(b.open("chat"), Err(Error::Invalid { .. })));
    to.close().await;
    to.close().await;
    assert!(matches!(to.receive().await, Err(Error::Closed)));
    assert!(matches!(
        to.tell(&addr(&to), Packet::default()).await,
        Err(Error::Closed)
    ));
    let again = b.open("chat").expect("closed");
    // Dropping the closed handle must not close the new one.
    drop(to);
    tell(&from, &again, "again").await;
    hears(&again, "again").await;
    drop(again);
    let third = b.open("chat").expect("dropped");
    tell(&from, &third, "third").await;
    hears(&third, "third").await;
    let elsewhere = a.open("other").expect("new");
    tell(&elsewhere, &other, "unharmed").await;
    hears(&other, "unharmed").await;
}

#[tokio::test]
async fn closing_a_channel_wakes_its_reader_and_another_polls() {
    let [a, b] = names();
    let from = a.open("stays").expect("new");
    let (goes, stays) = (
        Arc::new(b.open("goes").expect("new")),
        b.open("stays").expect("new"),
    );
    let driver = tokio::spawn({
        let goes = goes.clone();
        async move { goes.receive().await }
    });
    tokio::task::yield_now().await;
    let to = addr(&stays);
    let waiting = tokio::spawn(async move { stays.receive().await });
    tokio::task::yield_now().await;
    goes.close().await;
    assert!(matches!(driver.await.expect("no panic"), Err(Error::Closed)));
    from.tell(&to, from.packet(b"hello")).await.expect("it fits");
    assert_eq!(waiting.await.expect("no panic").expect("open").payload, b"hello");
}

#[tokio::test]
async fn closing_the_mux_closes_its_channels_and_the_swarm_below() {
    let [a, _b] = names();
    let channels = ["one", "two"].map(|name| Arc::new(a.open(name).expect("new")));
    let readers = channels
        .clone()
        .map(|channel| tokio::spawn(async move { channel.receive().await }));
    tokio::task::yield_now().await;
    let asking = channels
        .clone()
        .map(|channel| tokio::spawn(async move { channel.receive_ask().await }));
    tokio::task::yield_now().await;
    a.close().await;
    for reader in readers {
        assert!(matches!(reader.await.expect("no panic"), Err(Error::Closed)));
    }
    for reader in asking {
        assert!(matches!(reader.await.expect("no panic"), Err(Error::Closed)));
    }
    assert!(matches!(a.open("three"), Err(Error::Closed)));
    assert!(matches!(a.inner().receive().await, Err(Error::Closed)));
}

#[tokio::test]
async fn the_swarm_below_is_dropped_with_the_last_handle() {
    let realm = MemoryRealm::new(MemoryConfig::default());
    let (raw, mux) = (realm.open(), Mux::new(realm.open()));
    let channel = mux.open("last").expect("new");
    drop(mux);
    let to = addr(&channel);
    channel
        .tell(&raw.local_addr(), channel.packet(b"still here"))
        .await
        .expect("it fits");
    drop(channel);
    assert!(matches!(
        raw.ask(&to, Packet::default()).await,
        Err(Error::Unreachable { .. })
    ));
}

/// Readers start work in the background, which holds a handle as well.
#[tokio::test(start_paused = true)]
async fn a_swarm_that_was_read_from_is_dropped_with_the_last_handle() {
    let realm = MemoryRealm::new(MemoryConfig::default());
    for close_first in [false, true] {
        let mux = Mux::new(realm.open());
        let other_handle = mux.clone();
        let channels = ["one", "two"].map(|name| mux.open(name).expect("new"));
        let at = addr(&channels[0]);
        for channel in &channels {
            assert!(poll_once(&mut Box::pin(channel.receive())).await.is_pending());
            assert!(poll_once(&mut Box::pin(channel.receive_ask())).await.is_pending());
        }
        drop(mux);
        let [one, two] = channels;
        drop(one);
        drop(other_handle);
        two.tell(&at, two.packet(b"self")).await.expect("still open");
        hears(&two, "self").await;
        if close_first {
            two.close().await;
        }
        drop(two);
        realm.open_at(at).expect("the address is free");
    }
}

/// Each reader is a task of its own, and waits before a message arrives.
#[tokio::test(start_paused = true)]
async fn each_message_wakes_the_reader_of_its_channel() {
    let [a, b] = names();
    let kinds = ["a", "b", "c", "d", "e"];
    let from = kinds.map(|name| a.open(name).expect("new"));
    let to = kinds.map(|name| Arc::new(b.open(name).expect("new")));
    let at = addr(&to[0]);
    for round in 0..50 {
        let readers = to.clone().map(|channel| {
            tokio::spawn(async move {
                let name = channel.channel().to_string();
                timeout(Duration::from_millis(1), hears(&channel, &name)).await
            })
        });
        tokio::task::yield_now().await;
        let mut batch = Vec::new();
        for at_channel in 0..5 {
            // In a different order each time, singly or as one batch below.
            let channel = &from[(at_channel * 2 + round) % 5];
            if round % 2 == 0 {
                tell(channel, &to[0], &channel.channel().to_string()).await;
            } else {
                let name = channel.channel().to_string();
                batch.push((at, Packet::from(format!("\u{1}{name}{name}").as_str())));
            }
        }
        a.inner().tell_batch(&mut batch).await.expect("told");
        for reader in readers {
            let heard = reader.await.expect("no panic");
            heard.expect("it is woken at once, not by the periodic check");
        }
    }
}

/// The same for requests: all wait at once, and are answered before anything else happens.
#[tokio::test(start_paused = true)]
async fn each_request_wakes_the_reader_of_its_channel() {
    let [a, b] = names();
    let kinds = ["a", "b", "c"];
    let from = kinds.map(|name| a.open(name).expect("new"));
    let to = kinds.map(|name| Arc::new(b.open(name).expect("new")));
    let at = addr(&to[0]);
    for round in 0..30 {
        let readers = to.clone().map(|channel| {
            tokio::spawn(async move {
                let request = channel.receive_ask().await.expect("open");
                let name = channel.channel().to_string();
                assert_eq!(request.message.payload, *name.as_bytes());
                request
                    .respond(Packet::from(&*name))
                    .await
                    .expect("the asker is waiting");
            })
        });
        tokio::task::yield_now().await;
        for at_channel in 0..3 {
            let name = kinds[(at_channel * 2 + round) % 3];
            let channel = &from[(at_channel * 2 + round) % 3];
            let asked = timeout(Duration::from_millis(1), channel.ask(&at, Packet::from(name))).await;
            let answer = asked.expect("its reader is woken at once");
            assert_eq!(answer.expect("answered"), *name.as_bytes());
        }
        for reader in readers {
            reader.await.expect("no panic");
        }
    }
}

#[tokio::test]
async fn asks_go_to_their_channel_and_responses_have_no_header() {
    let [a, b] = names();
    let a = ["one", "two"].map(|name| a.open(name).expect("new"));
    let b = ["one", "two"].map(|name| b.open(name).expect("new"));
    let to = addr(&b[0]);
    let serve = async {
        // The second channel is asked first, so the reader of the first passes the request on.
        for (channel, text) in [(&b[0], "to one"), (&b[1], "to two")] {
            let request = channel.receive_ask().await.expect("open");
            assert_eq!(request.message.payload, *text.as_bytes());
            request
                .respond(Packet::from("yes"))
                .await
                .expect("the asker is waiting");
        }
    };
    let (two, one, ()) = tokio::join!(
        a[1].ask(&to, a[1].packet(b"to two")),
        a[0].ask(&to, a[0].packet(b"to one")),
        serve
    );
    assert_eq!(
        [one.expect("answered"), two.expect("answered")],
        [Packet::from("yes"), Packet::from("yes")]
    );
    assert_eq!(layer(&b[0], "mux-ask").delivered, 2);
}

#[tokio::test]
async fn an_ask_to_an_unknown_channel_is_rejected_at_once() {
    let [a, b] = names();
    let (a, b) = (a.open("unknown").expect("new"), b.open("known").expect("new"));
    let to = addr(&b);
    let asked = tokio::select! {
        asked = a.ask(&to, Packet::from("hello")) => asked,
        request = b.receive_ask() => panic!("not ours: {request:?}"),
    };
    assert!(matches!(asked, Err(Error::Rejected(Rejection::NO_CHANNEL))));
    assert_eq!(layer(&b, "mux-ask").dropped(DropReason::NoChannel), 1);
}

#[tokio::test]
async fn closing_a_channel_ends_its_asks() {
    let [a, b] = names();
    let (a, b) = (
        Arc::new(a.open("chat").expect("new")),
        b.open("chat").expect("new"),
    );
    let to = addr(&b);
    let asking = tokio::spawn({
        let a = a.clone();
        async move { a.ask(&to, Packet::from("hello")).await }
    });
    let _request = b.receive_ask().await.expect("open");
    a.close().await;
    assert!(matches!(asking.await.expect("no panic"), Err(Error::Closed)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_concurrently_read_channels_receive_everything() {
    const CHANNELS: u16 = 16;
    const EACH: u32 = 500;
    let [a, b] = pair::<u16>(MuxConfig::default());
    let to = b.inner().local_addr();
    let readers: Vec<_> = (0..CHANNELS)
        .map(|number| {
            let channel = b.open(number).expect("new");
            tokio::spawn(async move {
                let mut sum = 0;
                let mut got = Vec::new();
                while sum < EACH {
                    sum += channel.receive_batch(&mut got, 3).await.expect("open") as u32;
                }
                assert!(
                    got.drain(..)
                        .all(|message| message.payload == &number.to_be_bytes())
                );
                channel
            })
        })
        .collect();
    let channels: Vec<_> = (0..CHANNELS).map(|number| a.open(number).expect("new")).collect();
    let watch = b.open(u16::MAX).expect("new");
    for _ in 0..EACH {
        for channel in &channels {
            let packet = channel.packet(&channel.channel().to_be_bytes());
            channel.tell(&to, packet).await.expect("it fits");
        }
        // The queue below holds 1024.
        tokio::task::yield_now().await;
        while layer(&channels[0], "mux").sent > layer(&watch, "mux").received + 500 {
            tokio::task::yield_now().await;
        }
    }
    for reader in readers {
        reader.await.expect("it received everything");
    }
}

/// A program that awaits something long in one branch of a `select!` does not poll the `receive` of another
/// branch.
#[tokio::test(start_paused = true)]
async fn an_unpolled_receive_of_one_channel_blocks_no_other() {
    let [a, b] = names();
    let a = ["held", "read"].map(|name| a.open(name).expect("new"));
    let b = ["held", "read"].map(|name| b.open(name).expect("new"));
    let mut held = Box::pin(b[0].receive());
    let mut held_ask = Box::pin(b[0].receive_ask());
    assert!(poll_once(&mut held).await.is_pending());
    assert!(poll_once(&mut held_ask).await.is_pending());
    for _ in 0..3 {
        tell(&a[1], &b[1], "to the other").await;
        let heard = timeout(Duration::from_secs(1), hears(&b[1], "to the other")).await;
        assert!(heard.is_ok(), "the unpolled receive blocks messages of the other");
        let to = addr(&b[1]);
        let serve = async {
            let request = b[1].receive_ask().await.expect("open");
            request
                .respond(Packet::from("yes"))
                .await
                .expect("the asker is waiting");
        };
        let asked = async { tokio::join!(a[1].ask(&to, Packet::from("hello")), serve).0 };
        let asked = timeout(Duration::from_secs(1), asked).await;
        let answer = asked.expect("the unpolled receive blocks no requests of the other");
        assert_eq!(answer.expect("answered"), b"yes");
    }
    // The message for the unpolled receive waits for it.
    tell(&a[0], &b[0], "to the held one").await;
    let message = timeout(Duration::from_secs(1), held)
        .await
        .expect("it has arrived");
    assert_eq!(message.expect("open").payload, b"to the held one");
}

async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx))).await
}
