//! The laws alone, on small stacks in memory and under paused time: seconds for all of them.
//!
//! Every layer that has no protocol of its own is under test here with the suite's laws, and with laws of its own that state
//! what this layer adds. The target is what `cargo mutants` runs against; the README has the command.

use std::future::ready;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use p2p::{
    Addr, AskSwarm, BoxAddr, BoxAskSwarm, BoxSwarm, Error, Header, HeaderSwarm, Headroom, Packet, Reason,
    Rejection, SecureSwarm as _, Snapshot, Swarm,
};
use p2p_swarms::allow::{AllowSwarm, Party, Verdict};
use p2p_swarms::map::{EraseSwarm, MapSwarm, Translate};
use p2p_swarms::multi::{MultiAddr, MultiSwarm};
use p2p_swarms::{Faults, LinkFaults, MemoryAddr, MemoryRealm, MemorySwarm, Mux, SwarmExt as _};
use p2p_swarmtest::{Outcome, Plain, Profile, Secure, SecureAsk, Testbed, Unmet};
use tokio::time::{Instant, timeout};

/// How long something may take that happens at once; it is virtual time.
const SOON: Duration = Duration::from_secs(5);
/// After so long without a message, none comes.
const NEVER: Duration = Duration::from_secs(1);

fn profile() -> Profile {
    let profile = Profile {
        holds: 1024,
        ..Profile::default()
    };
    profile.waive(
        "wire::",
        "messages go from node to node in memory, and there is no wire",
    )
}

/// Fails the law unless `holds`.
fn check(holds: bool, what: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(Unmet::Broken(what())) }
}

fn equal<T: PartialEq + std::fmt::Debug>(seen: &T, due: &T, what: &str) -> Outcome {
    check(seen == due, || format!("{what}: {seen:?}, and should be {due:?}"))
}

fn first<A: Addr>(node: &impl Swarm<A>) -> Outcome<A> {
    let addr = node.local_addrs().into_iter().next();
    addr.ok_or_else(|| Unmet::Broken("a node has no address".into()))
}

async fn hears<A: Addr>(node: &impl Swarm<A>, payload: &[u8]) -> Outcome<A> {
    match timeout(SOON, node.receive()).await {
        Ok(message) => {
            let message = message?;
            equal(&&*message.payload, &payload, "what was heard")?;
            Ok(message.src)
        }
        Err(_) => Err(Unmet::Broken(format!("{payload:?} was not heard"))),
    }
}

async fn hears_nothing<A: Addr>(node: &impl Swarm<A>) -> Outcome {
    match timeout(NEVER, node.receive()).await {
        Ok(message) => Err(Unmet::Broken(format!("this was heard: {message:?}"))),
        Err(_) => Ok(()),
    }
}

/// The counters of all layers of this name.
fn counted<A: Addr>(node: &impl Swarm<A>, layer: &str) -> Snapshot {
    let mut sum = Snapshot::default();
    node.visit_counters(&mut |counters| {
        if counters.layer() == layer {
            sum += counters.snapshot();
        }
    });
    sum
}

async fn keeps_all_laws<A: Addr>(bed: Testbed<A>) {
    bed.run().await.assert_ok();
}

/// A testbed of the memory swarm under what `layer` puts on it.
macro_rules! over_memory {
    ($kind:expr, $layer:expr) => {{
        let realm = MemoryRealm::default();
        let layer = $layer;
        Testbed::new($kind, move |count| {
            ready(
                (0..count)
                    .map(|_| layer(realm.open()))
                    .collect::<p2p::Result<Vec<_>>>(),
            )
        })
        .profile(profile())
    }};
}

fn pair() -> (MemorySwarm, MemorySwarm) {
    let realm = MemoryRealm::default();
    (realm.open(), realm.open())
}

#[tokio::test(start_paused = true)]
async fn memory() {
    let realm = MemoryRealm::default();
    let again = realm.clone();
    let bed = Testbed::new(SecureAsk, move |count| {
        ready(Ok((0..count).map(|_| realm.open()).collect::<Vec<_>>()))
    })
    .rebind(move |addr| ready(again.open_at(addr)))
    .profile(profile());
    keeps_all_laws(bed).await;
}

#[tokio::test(start_paused = true)]
async fn boxes() {
    let ask = |swarm| Ok(BoxAskSwarm::new(swarm));
    keeps_all_laws(over_memory!(p2p_swarmtest::Ask, ask)).await;
    let erased = |swarm| Ok(BoxSwarm::new(EraseSwarm::erase(swarm)));
    keeps_all_laws(over_memory!(Plain, erased)).await;
}

#[tokio::test(start_paused = true)]
async fn fragment() {
    let bed = over_memory!(Secure, |swarm: MemorySwarm| Ok(swarm.fragment(256 << 10)));
    let bed = bed.law(
        "fragment::whole_messages_leave_no_more_than_a_spare_buffer",
        "what is held after many whole messages is what was held after the first",
        async |bed| {
            let (one, other) = pair();
            let (from, to) = (one.fragment(256 << 10), other.fragment(256 << 10));
            equal(&to.held(), &0, "bytes held before any message")?;
            let long = vec![7; 200 << 10];
            let mut held = None;
            for _ in 0..bed.amount(50) {
                from.tell(&first(&to)?, from.packet(&long)).await?;
                hears(&to, &long).await?;
                let now = *held.get_or_insert(to.held());
                check(to.held() <= now + (64 << 10), || {
                    format!("{} bytes are held, after {now}", to.held())
                })?;
            }
            Ok(())
        },
    );
    keeps_all_laws(bed).await;
    // Fragments of fragments, of which some are lost.
    let faults = Faults::seeded(3);
    let bed = over_memory!(Secure, move |swarm: MemorySwarm| {
        Ok(swarm.fragment(4096).faulty(faults.clone()).fragment(20_000))
    });
    keeps_all_laws(bed).await;
}

#[tokio::test(start_paused = true)]
async fn mux() {
    let bed = over_memory!(SecureAsk, |swarm| Mux::<_, _>::new(swarm).open("chat"));
    let bed = bed.law(
        "mux::channels_are_apart",
        "a message reaches its channel alone, and one without a channel is counted and refused",
        async |_| {
            let (one, other) = pair();
            let (ours, theirs) = (one.mux(), other.mux());
            let (chat, news) = (ours.open("chat")?, ours.open("news")?);
            let (their_chat, their_other) = (theirs.open("chat")?, theirs.open("other")?);
            check(ours.open("chat").is_err(), || "a channel was opened twice".into())?;
            let to = first(&their_chat)?;
            chat.tell(&to, chat.packet(b"hello")).await?;
            hears(&their_chat, b"hello").await?;
            news.tell(&to, news.packet(b"extra")).await?;
            hears_nothing(&their_other).await?;
            equal(
                &counted(&their_chat, "mux").dropped(Reason::NoChannel),
                &1,
                "messages without a channel",
            )?;
            let asking = timeout(SOON, news.ask(&to, news.packet(b"what?")));
            match tokio::join!(asking, timeout(NEVER, their_chat.receive_ask())) {
                (Ok(Err(Error::Rejected(Rejection::NO_CHANNEL))), Err(_)) => {}
                other => return Err(Unmet::Broken(format!("an ask without a channel was {other:?}"))),
            }
            their_chat.close().await;
            let again = theirs.open("chat")?;
            chat.tell(&to, chat.packet(b"again")).await?;
            hears(&again, b"again").await?;
            Ok(())
        },
    );
    keeps_all_laws(bed).await;
    keeps_all_laws(over_memory!(SecureAsk, |swarm: MemorySwarm| swarm
        .mux_by::<u16>()
        .open(7_u16)))
    .await;
    keeps_all_laws(over_memory!(SecureAsk, |swarm: MemorySwarm| swarm
        .mux_by::<u32>()
        .open(7_u32)))
    .await;
    keeps_all_laws(over_memory!(SecureAsk, |swarm: MemorySwarm| swarm
        .mux_by::<u64>()
        .open(7_u64)))
    .await;
}

#[tokio::test(start_paused = true)]
async fn allow() {
    let bed = over_memory!(SecureAsk, |swarm: MemorySwarm| Ok(swarm.allow(Verdict::Allow)));
    let bed = bed.law(
        "allow::a_denied_node_is_neither_heard_nor_told",
        "messages from and to a denied node are dropped and refused, from the moment on that it is denied",
        async |_| {
            let (one, stranger) = pair();
            let node = AllowSwarm::new(one, Verdict::Deny);
            let (here, there) = (first(&node)?, first(&stranger)?);
            let denied = |result: p2p::Result<()>| match result {
                Err(Error::Denied { .. }) => Ok(()),
                other => Err(Unmet::Broken(format!("telling a denied node was {other:?}"))),
            };
            for round in 1..=2 {
                check(!node.allows(&there), || "a denied node is allowed".into())?;
                denied(node.tell(&there, node.packet(b"hello")).await)?;
                let mut batch = vec![(there, node.packet(b"one")), (there, node.packet(b"two"))];
                let error = node.tell_batch(&mut batch).await.err();
                let seen = error.map(|error| (error.sent, error.refused));
                equal(
                    &seen,
                    &Some((0, 2)),
                    "sent and refused of a batch to a denied node",
                )?;
                stranger.tell(&here, stranger.packet(b"hello")).await?;
                hears_nothing(&node).await?;
                equal(
                    &counted(&node, "allow").dropped(Reason::Denied),
                    &(2 * round - 1),
                    "messages and requests of a denied node",
                )?;
                match timeout(SOON, async {
                    tokio::join!(
                        stranger.ask(&here, stranger.packet(b"?")),
                        timeout(NEVER, node.receive_ask())
                    )
                })
                .await
                {
                    Ok((Err(Error::Rejected(Rejection::DENIED)), Err(_))) => {}
                    other => return Err(Unmet::Broken(format!("an ask of a denied node was {other:?}"))),
                }
                match node.ask(&there, node.packet(b"?")).await {
                    Err(Error::Denied { .. }) => {}
                    other => return Err(Unmet::Broken(format!("asking a denied node was {other:?}"))),
                }
                check(
                    matches!(node.lookup_public_key(&there).await, Err(Error::Denied { .. })),
                    || "the key of a denied node was looked up".into(),
                )?;
                node.set(Party::Addr(there), Verdict::Allow);
                check(node.allows(&there), || "an allowed node is denied".into())?;
                node.tell(&there, node.packet(b"now")).await?;
                hears(&stranger, b"now").await?;
                stranger.tell(&here, stranger.packet(b"too")).await?;
                hears(&node, b"too").await?;
                node.unset(&Party::Addr(there));
            }
            node.set_others(Verdict::Allow);
            node.tell(&there, node.packet(b"all")).await?;
            hears(&stranger, b"all").await?;
            Ok(())
        },
    );
    keeps_all_laws(bed).await;
}

/// Shows only even memory addresses, as half of themselves with an `h` before.
struct Halves;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Half(i64);

impl std::fmt::Display for Half {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "h{}", self.0)
    }
}

impl Addr for Half {}

impl Translate<Half, MemoryAddr> for Halves {
    fn down(&self, addr: &Half) -> p2p::Result<MemoryAddr> {
        let double = addr.0.checked_mul(2);
        let unfit = || Error::addr(&addr.to_string(), 1, "its double does not fit into 64 bits");
        double.map(MemoryAddr::new).ok_or_else(unfit)
    }

    fn up(&self, addr: MemoryAddr) -> Option<Half> {
        (addr.number() % 2 == 0).then(|| Half(addr.number() / 2))
    }

    fn parse(&self, text: &str, _: impl Fn(&str) -> p2p::Result<MemoryAddr>) -> p2p::Result<Half> {
        let digits = text
            .strip_prefix('h')
            .ok_or_else(|| Error::addr(text, 0, "an h was expected"))?;
        let fits = |number: &i64| number.checked_mul(2).is_some() && number.to_string() == digits;
        let number = digits.parse().ok().filter(fits);
        number
            .map(Half)
            .ok_or_else(|| Error::addr(text, 1, "half of a number of 64 bits was expected"))
    }
}

#[tokio::test(start_paused = true)]
async fn map() {
    let realm = MemoryRealm::default();
    let bed = Testbed::new(SecureAsk, move |count| {
        let made = (0..count).map(|_| {
            let even = realm.open();
            // The next number is odd, and nobody's.
            drop(realm.open());
            MapSwarm::new(even, Halves)
        });
        ready(Ok(made.collect::<Vec<_>>()))
    });
    let bed = bed.parallel(1).profile(profile()).law(
        "map::what_has_no_address_is_not_heard",
        "messages and requests of a node that has no address here are dropped and counted",
        async |_| {
            let realm = MemoryRealm::default();
            let (zero, one, two) = (realm.open(), realm.open(), realm.open());
            let (zero, two) = (MapSwarm::new(zero, Halves), MapSwarm::new(two, Halves));
            one.tell(&MemoryAddr::new(0), one.packet(b"odd")).await?;
            hears_nothing(&zero).await?;
            equal(
                &counted(&zero, "map").dropped(Reason::NoAddr),
                &1,
                "messages without an address",
            )?;
            let mut batch = vec![
                (Half(1), zero.packet(b"good")),
                (Half(i64::MAX), zero.packet(b"bad")),
                (Half(1), zero.packet(b"good")),
            ];
            let error = zero.tell_batch(&mut batch).await.err();
            let seen = error.map(|error| (error.sent, error.refused));
            equal(
                &seen,
                &Some((2, 1)),
                "sent and refused of a batch with an address that is none below",
            )?;
            hears(&two, b"good").await?;
            hears(&two, b"good").await?;
            check(
                zero.tell(&Half(i64::MAX), zero.packet(b"bad")).await.is_err(),
                || "an address that is none below was told to".into(),
            )
        },
    );
    keeps_all_laws(bed).await;
    keeps_all_laws(over_memory!(SecureAsk, |swarm: MemorySwarm| Ok(swarm.erase()))).await;
}

type Multi = MultiSwarm<BoxAskSwarm<BoxAddr>>;

fn multi_node(red: &MemoryRealm, blue: &MemoryRealm) -> p2p::Result<Multi> {
    let transport = |realm: &MemoryRealm| BoxAskSwarm::new(EraseSwarm::erase(realm.open()));
    MultiSwarm::new([("red", transport(red)), ("blue", transport(blue))])
}

#[tokio::test(start_paused = true)]
async fn multi() {
    let (red, blue) = (MemoryRealm::default(), MemoryRealm::default());
    let bed = Testbed::new(p2p_swarmtest::Ask, move |count| {
        ready(
            (0..count)
                .map(|_| multi_node(&red, &blue))
                .collect::<p2p::Result<Vec<_>>>(),
        )
    });
    let profile = Profile {
        holds: 2048,
        ..profile()
    };
    let bed = bed.profile(profile).law(
        "multi::the_scheme_chooses_the_transport",
        "a message goes through the transport of its address's scheme",
        async |_| {
            let (red, blue) = (MemoryRealm::default(), MemoryRealm::default());
            let (one, other) = (multi_node(&red, &blue)?, multi_node(&red, &blue)?);
            let mut schemes = Vec::new();
            for to in other.local_addrs() {
                one.tell(&to, one.packet(to.scheme().as_bytes())).await?;
                let src = hears(&other, to.scheme().as_bytes()).await?;
                equal(&src.scheme(), &to.scheme(), "the scheme of the source")?;
                let transport = one.transport(to.scheme());
                check(
                    transport.is_some_and(|transport| counted(transport, "mem").sent == 1),
                    || format!("it did not go through {}", to.scheme()),
                )?;
                schemes.push(to.scheme().to_owned());
            }
            equal(
                &schemes,
                &vec!["red".to_owned(), "blue".to_owned()],
                "the schemes of a node",
            )?;
            let odd = MultiAddr::new("green", first(&other)?.addr().clone());
            check(one.tell(&odd, one.packet(b"?")).await.is_err(), || {
                "an unknown scheme was told to".into()
            })?;
            let text = |text: &str| {
                one.parse_addr(text)
                    .err()
                    .map(|error| error.to_string())
                    .unwrap_or_default()
            };
            let unknown = text("green://1");
            check(
                unknown.contains("at byte 0") && unknown.contains("red, blue"),
                || unknown.clone(),
            )?;
            let odd_inside = text("red://x");
            check(odd_inside.contains("at byte 6"), || odd_inside.clone())?;
            check(text("red").contains("at byte 3"), || text("red"))?;
            let room = one.transport("red").map(Swarm::headroom);
            equal(&Some(one.headroom()), &room, "the room of a packet")?;
            check(one.transport("green").is_none(), || {
                "there is a transport of an unknown scheme".into()
            })?;
            let twice = MultiSwarm::new(
                ["a", "a"].map(|scheme| (scheme, BoxSwarm::new(EraseSwarm::erase(red.open())))),
            );
            check(twice.is_err(), || "one scheme is of two transports".into())
        },
    );
    keeps_all_laws(bed).await;
}

fn link(change: impl FnOnce(&mut LinkFaults)) -> LinkFaults {
    let mut link = LinkFaults::default();
    change(&mut link);
    link
}

/// What arrives of 200 messages over such a link, and what the layer counted.
async fn over(link: LinkFaults) -> Outcome<(Vec<Packet>, Snapshot, Duration)> {
    let (one, other) = pair();
    let faults = Faults::seeded(7);
    faults.set_all(link)?;
    let from = one.faulty(faults.clone());
    let (to, start) = (first(&other)?, Instant::now());
    for number in 0..200_u32 {
        from.tell(&to, from.packet(&number.to_be_bytes())).await?;
    }
    let mut arrived = Vec::new();
    let mut last = start;
    while let Ok(message) = timeout(NEVER, other.receive()).await {
        arrived.push(message?.payload);
        last = Instant::now();
    }
    equal(&from.in_flight(), &0, "messages in flight after all arrived")?;
    Ok((arrived, counted(&from, "faulty"), last - start))
}

#[expect(clippy::too_many_lines, reason = "each fault in turn, and what it does")]
#[tokio::test(start_paused = true)]
async fn faulty() {
    let faults = Faults::seeded(7);
    let bed = over_memory!(SecureAsk, move |swarm: MemorySwarm| Ok(
        swarm.faulty(faults.clone())
    ));
    let bed = bed.law(
        "faulty::a_link_does_what_it_is_told",
        "a link loses, repeats, changes and delays as it is told",
        async |_| {
            let (all, counters, _) = over(LinkFaults::default()).await?;
            equal(
                &(all.len(), counters.sent, counters.dropped_total()),
                &(200, 200, 0),
                "of a link without faults",
            )?;
            let (none, counters, _) = over(link(|link| link.loss = 1.0)).await?;
            equal(
                &(none.len(), counters.dropped(Reason::Lost)),
                &(0, 200),
                "of a link that loses all",
            )?;
            let (half, counters, _) = over(link(|link| link.loss = 0.5)).await?;
            check((60..140).contains(&half.len()), || {
                format!("{} of 200 arrived at a loss of a half", half.len())
            })?;
            equal(
                &(half.len() as u64 + counters.dropped(Reason::Lost)),
                &200,
                "what arrived and was lost",
            )?;
            let (twice, counters, _) = over(link(|link| link.duplicate = 1.0)).await?;
            equal(
                &(twice.len(), counters.duplicated),
                &(400, 200),
                "of a link that repeats all",
            )?;
            let (changed, _, _) = over(link(|link| link.corrupt = 1.0)).await?;
            let same = changed
                .iter()
                .enumerate()
                .filter(|(at, payload)| ***payload == (*at as u32).to_be_bytes()[..]);
            equal(
                &(changed.len(), same.count()),
                &(200, 0),
                "of a link that changes all",
            )?;
            let (late, _, took) = over(link(|link| link.delay = Duration::from_millis(300))).await?;
            check(
                late.len() == 200 && took >= Duration::from_millis(300) && took < Duration::from_millis(400),
                || format!("{} came after {took:?} on a link of 300 ms", late.len()),
            )
        },
    );
    let bed = bed.law(
        "faulty::cut_links_carry_nothing",
        "what is cut or partitioned carries nothing, until it is mended",
        async |_| {
            let (one, other) = pair();
            let faults = Faults::seeded(7);
            let (one, other) = (one.faulty(faults.clone()), other.faulty(faults.clone()));
            let (here, there) = (first(&one)?, first(&other)?);
            let carries = async |there_too: bool, back_too: bool, when: &str| -> Outcome {
                one.tell(&there, one.packet(b"forth")).await?;
                other.tell(&here, other.packet(b"back")).await?;
                let arrived = timeout(NEVER, other.receive()).await.is_ok();
                let back = timeout(NEVER, one.receive()).await.is_ok();
                equal(&(arrived, back), &(there_too, back_too), when)
            };
            carries(true, true, "at first").await?;
            faults.cut(&here, &there);
            carries(false, true, "cut one way").await?;
            equal(
                &counted(&one, "faulty").dropped(Reason::Partitioned),
                &1,
                "messages on a cut link",
            )?;
            faults.mend(&here, &there);
            carries(true, true, "mended").await?;
            faults.partition(&[here], &[there]);
            carries(false, false, "partitioned").await?;
            faults.heal();
            carries(true, true, "healed").await?;
            faults.set_link(&here, &there, link(|link| link.loss = 1.0))?;
            carries(false, true, "one link that loses all").await?;
            faults.reset_link(&here, &there);
            carries(true, true, "reset").await?;
            check(faults.set_all(link(|link| link.loss = 1.5)).is_err(), || {
                "a loss of 1.5 was taken".into()
            })
        },
    );
    keeps_all_laws(bed).await;
    let faults = Faults::seeded(11);
    let rough = link(|link| {
        link.loss = 0.2;
        link.duplicate = 0.1;
        link.reorder = 0.1;
        link.delay = Duration::from_millis(3);
        link.jitter = Duration::from_millis(5);
    });
    assert!(faults.set_all(rough).is_ok());
    let profile = Profile {
        duplicates: true,
        loss: 0.2,
        loss_at_mtu: 0.2,
        ..profile()
    };
    let bed = over_memory!(SecureAsk, move |swarm: MemorySwarm| Ok(
        swarm.faulty(faults.clone())
    ));
    keeps_all_laws(bed.profile(profile)).await;
}

/// Two bytes in front of a message and one behind it.
#[derive(Debug)]
struct Tag;

impl Header for Tag {
    const LAYER: &'static str = "tag";

    fn len(&self) -> usize {
        3
    }

    fn write(&self, packet: &mut Packet) {
        packet.push_front(b"<-");
        packet.push_back(b">");
    }

    fn read(&self, packet: &mut Packet) -> Result<(), Reason> {
        match (packet.pop_front::<2>(), packet.pop_back::<1>()) {
            (Some([b'<', b'-']), Some([b'>'])) => Ok(()),
            _ => Err(Reason::Malformed),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn header() {
    let bed = over_memory!(SecureAsk, |swarm: MemorySwarm| Ok(HeaderSwarm::new(swarm, Tag)));
    let bed = bed.law(
        "header::what_has_no_header_is_dropped",
        "a message without the header is dropped and counted, and a request without it is rejected",
        async |_| {
            let (one, other) = pair();
            let node = HeaderSwarm::new(one, Tag);
            let here = first(&node)?;
            equal(&node.mtu(), &(other.mtu() - 3), "the MTU")?;
            for bad in [&b"x"[..], b"<-x", b"->x>", b""] {
                other.tell(&here, other.packet(bad)).await?;
            }
            other.tell(&here, other.packet(b"<-good>")).await?;
            hears(&node, b"good").await?;
            let seen = counted(&node, "tag");
            equal(
                &(seen.received, seen.delivered, seen.dropped(Reason::Malformed)),
                &(5, 1, 4),
                "what was received, delivered and dropped",
            )?;
            let mut batch = vec![
                (first(&other)?, node.packet(b"one")),
                (first(&other)?, node.packet(b"two")),
            ];
            node.tell_batch(&mut batch)
                .await
                .map_err(|error| Unmet::Broken(error.to_string()))?;
            hears(&other, b"<-one>").await?;
            hears(&other, b"<-two>").await?;
            equal(&counted(&node, "tag").sent, &2, "messages sent")?;
            let asking = timeout(SOON, other.ask(&here, other.packet(b"bad")));
            match tokio::join!(asking, timeout(NEVER, node.receive_ask())) {
                (Ok(Err(Error::Rejected(_))), Err(_)) => Ok(()),
                other => Err(Unmet::Broken(format!(
                    "a request without the header was {other:?}"
                ))),
            }
        },
    );
    keeps_all_laws(bed).await;
}

/// Does the same at random to a packet and to a plain list of bytes.
async fn packets_are_bytes(bed: Testbed<BoxAddr>) -> Outcome {
    use rand::RngExt as _;

    let mut rng = bed.rng();
    for _ in 0..bed.amount(300) {
        let mut bytes: Vec<u8> = (0..rng.random_range(0..80)).map(|_| rng.random()).collect();
        let room = Headroom::new(rng.random_range(0..40), rng.random_range(0..40));
        let mut packet = match rng.random_range(0..3) {
            0 => Packet::new(room, &bytes),
            1 => Packet::from(&bytes[..]),
            _ => Packet::from(bytes.clone()),
        };
        for _ in 0..20 {
            let len = rng.random_range(0..100_usize);
            let cut = len.min(bytes.len());
            match rng.random_range(0..9) {
                0 => {
                    packet.push_front(&bytes.clone());
                    bytes.extend_from_within(..);
                }
                1 => {
                    packet.push_back(b"tail");
                    bytes.extend_from_slice(b"tail");
                }
                2 => {
                    let due = bytes.first_chunk::<3>().copied();
                    equal(&packet.pop_front::<3>(), &due, "the first three bytes")?;
                    bytes.drain(..if due.is_some() { 3 } else { 0 });
                }
                3 => {
                    let due = bytes.last_chunk::<3>().copied();
                    equal(&packet.pop_back::<3>(), &due, "the last three bytes")?;
                    bytes.truncate(bytes.len() - if due.is_some() { 3 } else { 0 });
                }
                4 => {
                    packet.advance(len);
                    bytes.drain(..cut);
                }
                5 => {
                    packet.truncate(len);
                    bytes.truncate(len);
                }
                6 => {
                    let front = packet.split_front(len);
                    equal(&&*front, &&bytes[..cut], "the front part")?;
                    bytes.drain(..cut);
                }
                7 => {
                    packet.detach(room);
                    equal(
                        &packet.room().front,
                        &room.front,
                        "the room in front after it was detached",
                    )?;
                    check(packet.room().back >= room.back, || {
                        "there is less room behind".into()
                    })?;
                }
                _ => {
                    packet.grow_front(2).copy_from_slice(b"up");
                    bytes.splice(..0, *b"up");
                }
            }
            equal(&&*packet, &&bytes[..], "the payload")?;
            let same =
                packet == bytes[..] && packet == packet.clone() && packet.is_empty() == bytes.is_empty();
            check(same && packet.held() >= packet.len(), || {
                "a packet is not what it holds".into()
            })?;
            check(packet.check(bytes.len()).is_ok(), || {
                "a packet does not fit into its length".into()
            })?;
            if let Some(less) = bytes.len().checked_sub(1) {
                check(packet.check(less).is_err(), || "a packet fits into less".into())?;
            }
        }
        let (buffer, start) = packet.clone().into_buffer();
        equal(&buffer.get(start..), &Some(&bytes[..]), "the buffer")?;
        equal(&packet.into_bytes()[..].to_vec(), &bytes, "the bytes")?;
    }
    let (of_bytes, of_text, shorter) = (Packet::from(b"abc"), Packet::from("abc"), Packet::from("ab"));
    check(of_bytes == b"abc" && of_text == b"abc", || {
        "a text is another".into()
    })?;
    check(of_bytes != b"abd" && of_text != shorter, || {
        "two packets are one".into()
    })
}

#[tokio::test(start_paused = true)]
async fn packets_and_servers() {
    let bed = over_memory!(Plain, |swarm: MemorySwarm| Ok(swarm));
    let bed = bed
        .law(
            "packet::a_packet_is_its_bytes",
            "a packet holds what a list of bytes would",
            packets_are_bytes,
        )
        .law(
            "serve::no_more_than_the_limit_at_a_time",
            "a server answers every ask, no more at a time than its limit, until it is closed",
            async |_| {
                let (client, server) = pair();
                let to = first(&server)?;
                let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
                let handler = async |asked: p2p::Asked<MemoryAddr>| {
                    most.fetch_max(now.fetch_add(1, Relaxed) + 1, Relaxed);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    now.fetch_sub(1, Relaxed);
                    if asked.payload == b"bad" {
                        Err(Rejection::BUSY)
                    } else {
                        Ok(asked.payload)
                    }
                };
                let asking = async {
                    let asks = (0..20_u8).map(|number| client.ask(&to, client.packet(&[number])));
                    let answers = futures_util::future::join_all(asks).await;
                    for (number, answer) in (0_u8..).zip(answers) {
                        equal(&&*answer?, &&[number][..], "the answer")?;
                    }
                    match client.ask(&to, client.packet(b"bad")).await {
                        Err(Error::Rejected(Rejection::BUSY)) => {}
                        other => return Err(Unmet::Broken(format!("a rejected ask was {other:?}"))),
                    }
                    server.close().await;
                    Ok(())
                };
                let serving = timeout(Duration::from_mins(1), p2p::serve_asks(&server, 4, handler));
                let (end, answered): (_, Outcome) = tokio::join!(serving, asking);
                answered?;
                check(matches!(end, Ok(Ok(()))), || {
                    format!("serving ended with {end:?}")
                })?;
                equal(&most.load(Relaxed), &4, "asks at a time")
            },
        );
    keeps_all_laws(bed).await;
}

#[tokio::test(start_paused = true)]
async fn a_mux_and_its_channels() {
    let bed = over_memory!(Plain, |swarm: MemorySwarm| Ok(swarm));
    let bed = bed.law(
        "mux::a_mux_closes_all_its_channels",
        "channels live by themselves, and end with their mux",
        async |_| {
            let realm = MemoryRealm::default();
            let (ours, theirs) = (realm.open().mux(), realm.open().mux());
            let names = ["a", "b", "c"];
            let open = |mux: &Mux<_, _>| {
                names
                    .map(|name| mux.open(name))
                    .into_iter()
                    .collect::<p2p::Result<Vec<_>>>()
            };
            let (from, to) = (open(&ours)?, open(&theirs)?);
            let addr = first(&to[0])?;
            // All channels wait at once, and each hears its own.
            let hearing = futures_util::future::join_all(
                to.iter()
                    .zip(names)
                    .map(|(node, name)| hears(node, name.as_bytes())),
            );
            let telling = async {
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                }
                for (node, name) in from.iter().zip(names).rev() {
                    node.tell(&addr, node.packet(name.as_bytes())).await?;
                }
                Ok::<(), Unmet>(())
            };
            let (heard, told) = tokio::join!(hearing, telling);
            told?;
            heard.into_iter().collect::<Outcome<Vec<_>>>()?;
            to[1].close().await;
            from[2].tell(&addr, from[2].packet(b"still")).await?;
            hears(&to[2], b"still").await?;
            let pending = async { to[2].receive().await.err() };
            let closing = async {
                tokio::task::yield_now().await;
                theirs.close().await;
            };
            let (ended, ()) = tokio::join!(timeout(SOON, pending), closing);
            check(matches!(ended, Ok(Some(Error::Closed))), || {
                format!("a channel ended with {ended:?}")
            })?;
            check(matches!(theirs.open("d"), Err(Error::Closed)), || {
                "a closed mux opened a channel".into()
            })?;
            drop((ours, from));
            check(realm.open_at(MemoryAddr::new(0)).is_ok(), || {
                "the swarm below outlives its mux and all channels".into()
            })
        },
    );
    keeps_all_laws(bed).await;
}
