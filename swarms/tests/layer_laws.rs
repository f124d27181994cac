//! The laws alone, on small stacks in memory and under paused time: seconds for all of them.
//!
//! Every layer that has no protocol of its own is under test here with the suite's laws, and with laws of its own that state
//! what this layer adds. The target is what `cargo mutants` runs against; the README has the command.

use std::future::ready;
use std::time::Duration;

use p2p::{
    Addr, AskSwarm, BoxAddr, BoxAskSwarm, BoxSwarm, Error, Packet, Reason, Rejection, SecureSwarm as _,
    Snapshot, Swarm,
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
