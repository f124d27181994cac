//! The laws of [`Discovery`], which every implementation must keep: run [`check`] on a [`Testbed`] that
//! creates its nodes.
//!
//! Under tokio's paused clock they take no real time, if the medium follows that clock.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use futures_util::stream::{BoxStream, StreamExt as _};
use p2p::PeerId;
use tokio::time::{Instant, sleep, timeout};

use crate::{Addrs, Change, Discovery, Error, MAX_TTL, Node, Topic};

/// Number of nodes that announce concurrently.
const CROWD: usize = 8;

/// A node of a testbed.
#[derive(Clone)]
pub struct Member {
    /// Its id.
    pub id: PeerId,
    /// Its discovery.
    pub discovery: Arc<dyn Discovery>,
    /// The addresses that it announces.
    pub addrs: Addrs,
    /// Other addresses that it can announce instead, if any.
    pub others: Option<Addrs>,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// The delays of a medium.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// The lifetime of announcements in the laws.
    pub ttl: Duration,
    /// Maximum propagation time of a change to other nodes.
    pub propagation: Duration,
    /// Maximum time that an announcement may still be found after its expiry.
    pub staleness: Duration,
}

/// A medium on which nodes find each other.
#[async_trait]
pub trait Testbed: Send + Sync {
    /// Creates a node.
    async fn member(&self) -> Member;

    /// Returns the delays of the medium.
    fn timing(&self) -> Timing;
}

/// A law that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{law}: {why}")]
pub struct Broken {
    /// Its name, one of [`laws`].
    pub law: &'static str,
    /// What was observed instead.
    pub why: String,
}

type LawResult = Result<(), String>;
type Check = for<'a> fn(&'a LawContext<'a>) -> Pin<Box<dyn Future<Output = LawResult> + Send + 'a>>;

/// Lists laws: the name of each, which states it, and its check.
macro_rules! checks {
    ($($name:literal => $check:ident,)*) => {
        &[$(($name, |context| Box::pin($check(context)))),*]
    };
}

/// Every law.
const CHECKS: &[(&str, Check)] = checks! {
    "a node that did not announce is not found" => not_announced,
    "a node that announces is found" => found,
    "topics are separate" => apart,
    "a new announcement replaces the earlier one" => replaced,
    "a repeated announcement restarts the lifetime" => refreshed,
    "an announcement ends with its lifetime" => expired,
    "a node that withdraws is not found, and others are" => withdrawn,
    "no concurrent announcement is lost" => crowd,
    "a watch reports present, new and lost nodes" => watched,
    "a watch reports expired nodes" => watched_expiry,
    "the lifetime of an announcement is bounded" => bounded,
};

/// Returns the names of all laws, in the order in which they are checked.
pub fn laws() -> impl Iterator<Item = &'static str> {
    CHECKS.iter().map(|(name, _)| *name)
}

/// Checks every law, concurrently and each under its own topics.
///
/// # Errors
/// Returns the laws that do not hold.
pub async fn check(testbed: &dyn Testbed) -> Result<(), Vec<Broken>> {
    boxed(testbed).await
}

/// Returns a type-erased future, so that all laws are compiled here, and not in each test that awaits them.
fn boxed<'a>(testbed: &'a dyn Testbed) -> Pin<Box<dyn Future<Output = Result<(), Vec<Broken>>> + Send + 'a>> {
    Box::pin(check_all(testbed))
}

async fn check_all(testbed: &dyn Testbed) -> Result<(), Vec<Broken>> {
    let checks = CHECKS.iter().enumerate().map(async |(number, (law, check))| {
        let context = LawContext { testbed, number };
        let why = check(&context).await.err()?;
        Some(Broken { law, why })
    });
    let broken: Vec<Broken> = join_all(checks).await.into_iter().flatten().collect();
    if broken.is_empty() { Ok(()) } else { Err(broken) }
}

/// One law's view of a testbed.
struct LawContext<'a> {
    testbed: &'a dyn Testbed,
    number: usize,
}

impl LawContext<'_> {
    fn topic(&self, name: &str) -> Topic {
        let text = format!("law-{}-{name}", self.number);
        text.parse().expect("a topic")
    }

    async fn member(&self) -> Member {
        self.testbed.member().await
    }

    /// Returns two members and a topic.
    async fn pair(&self) -> (Member, Member, Topic) {
        (self.member().await, self.member().await, self.topic("a"))
    }

    fn timing(&self) -> Timing {
        self.testbed.timing()
    }

    /// Announces `member`, and waits until `seer` finds it alone.
    async fn announced(&self, member: &Member, seer: &Member, topic: &Topic, ttl: Duration) -> LawResult {
        member.announce(topic, ttl).await?;
        self.sees(seer, topic, &[&member.node()]).await
    }

    /// Waits until `seer` finds exactly these nodes, within the propagation time.
    async fn sees(&self, seer: &Member, topic: &Topic, expected: &[&Node]) -> LawResult {
        self.sees_within(self.timing().propagation, seer, topic, expected)
            .await
    }

    async fn sees_within(
        &self,
        within: Duration,
        seer: &Member,
        topic: &Topic,
        expected: &[&Node],
    ) -> LawResult {
        let mut expected: Vec<&Node> = expected.to_vec();
        expected.sort_unstable();
        let end = Instant::now() + within;
        loop {
            let last = Instant::now() >= end;
            let found = seer.discovery.find(topic).await.map_err(text)?;
            if found.iter().collect::<Vec<_>>() == expected {
                return Ok(());
            }
            if last {
                return Err(format!("expected to find {expected:?}, and found {found:?}"));
            }
            sleep(within / 20).await;
        }
    }
}

impl Member {
    fn node(&self) -> Node {
        Node {
            id: self.id,
            addrs: self.addrs.clone(),
        }
    }

    async fn announce(&self, topic: &Topic, ttl: Duration) -> LawResult {
        self.discovery
            .announce(topic, &self.addrs, ttl)
            .await
            .map_err(text)
    }

    async fn withdraw(&self, topic: &Topic) -> LawResult {
        self.discovery.withdraw(topic).await.map_err(text)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "`map_err` hands it over")]
fn text(error: Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Returns the next change of a watch, which must arrive within the given time.
async fn next(
    watch: &mut BoxStream<'static, crate::Result<Change>>,
    within: Duration,
) -> Result<Change, String> {
    match timeout(within, watch.next()).await {
        Ok(Some(change)) => change.map_err(text),
        Ok(None) => Err("the watch ended".to_owned()),
        Err(_) => Err(format!("the watch reported nothing within {within:?}")),
    }
}

fn expect(change: &Change, expected: &Change) -> LawResult {
    if change == expected {
        return Ok(());
    }
    Err(format!(
        "the watch should report {expected:?}, and reported {change:?}"
    ))
}

async fn not_announced(context: &LawContext<'_>) -> LawResult {
    let a = context.member().await;
    context.sees(&a, &context.topic("a"), &[]).await
}

async fn found(context: &LawContext<'_>) -> LawResult {
    let (a, b, topic) = context.pair().await;
    context.announced(&a, &b, &topic, context.timing().ttl).await?;
    context.sees(&a, &topic, &[&a.node()]).await?;
    b.announce(&topic, context.timing().ttl).await?;
    for seer in [&a, &b] {
        context.sees(seer, &topic, &[&a.node(), &b.node()]).await?;
    }
    Ok(())
}

async fn apart(context: &LawContext<'_>) -> LawResult {
    let (a, b) = (context.member().await, context.member().await);
    let (one, other) = (context.topic("a"), context.topic("b"));
    a.announce(&one, context.timing().ttl).await?;
    b.announce(&other, context.timing().ttl).await?;
    context.sees(&b, &one, &[&a.node()]).await?;
    context.sees(&a, &other, &[&b.node()]).await
}

async fn replaced(context: &LawContext<'_>) -> LawResult {
    let (a, b, topic) = context.pair().await;
    let Some(others) = a.others.clone() else {
        return Ok(());
    };
    context.announced(&a, &b, &topic, context.timing().ttl).await?;
    let mut moved = a.clone();
    moved.addrs = others;
    moved.announce(&topic, context.timing().ttl).await?;
    context.sees(&b, &topic, &[&moved.node()]).await
}

async fn refreshed(context: &LawContext<'_>) -> LawResult {
    let (a, b, topic) = context.pair().await;
    let timing = context.timing();
    let (ttl, delay) = (timing.ttl, timing.propagation + timing.staleness);
    context.announced(&a, &b, &topic, ttl).await?;
    sleep(ttl * 6 / 10).await;
    // A longer lifetime, so that the expiry of the first announcement is over well before that of the second.
    let longer = 2 * (ttl + delay);
    a.announce(&topic, longer).await?;
    sleep(ttl * 6 / 10 + delay).await;
    let found = b.discovery.find(&topic).await.map_err(text)?;
    if found == [a.node()] {
        return Ok(());
    }
    Err(format!("it expired with its first announcement: {found:?}"))
}

async fn expired(context: &LawContext<'_>) -> LawResult {
    let (a, b, topic) = context.pair().await;
    let timing = context.timing();
    let (ttl, delay) = (timing.ttl, timing.propagation + timing.staleness);
    let start = Instant::now();
    context.announced(&a, &b, &topic, ttl).await?;
    if let Some(rest) = (ttl / 2).checked_sub(start.elapsed()) {
        sleep(rest).await;
        let found = b.discovery.find(&topic).await.map_err(text)?;
        if found != [a.node()] {
            return Err(format!("after half of its lifetime this is found: {found:?}"));
        }
    }
    sleep(ttl).await;
    context.sees_within(delay, &b, &topic, &[]).await
}

async fn withdrawn(context: &LawContext<'_>) -> LawResult {
    let (a, b, c) = (
        context.member().await,
        context.member().await,
        context.member().await,
    );
    let (topic, other) = (context.topic("a"), context.topic("b"));
    a.withdraw(&topic).await?;
    for (member, topic) in [(&a, &topic), (&a, &other), (&b, &topic), (&b, &other)] {
        member.announce(topic, 10 * context.timing().ttl).await?;
    }
    context.sees(&c, &topic, &[&a.node(), &b.node()]).await?;
    a.withdraw(&topic).await?;
    context
        .sees_within(
            context.timing().propagation + context.timing().staleness,
            &c,
            &topic,
            &[&b.node()],
        )
        .await?;
    context.sees(&c, &other, &[&a.node(), &b.node()]).await?;
    // The node can announce again.
    a.announce(&topic, context.timing().ttl).await?;
    context.sees(&c, &topic, &[&a.node(), &b.node()]).await
}

async fn crowd(context: &LawContext<'_>) -> LawResult {
    let topic = context.topic("a");
    let mut members = Vec::new();
    for _ in 0..CROWD {
        members.push(context.member().await);
    }
    let ttl = 10 * context.timing().ttl;
    let announced = join_all(members.iter().map(|member| member.announce(&topic, ttl))).await;
    announced.into_iter().collect::<Result<(), _>>()?;
    let nodes: Vec<Node> = members.iter().map(Member::node).collect();
    for seer in &members {
        context
            .sees(seer, &topic, &nodes.iter().collect::<Vec<_>>())
            .await?;
    }
    Ok(())
}

async fn watched(context: &LawContext<'_>) -> LawResult {
    let (a, b, c) = (
        context.member().await,
        context.member().await,
        context.member().await,
    );
    let (topic, ttl) = (context.topic("a"), 10 * context.timing().ttl);
    let within = 2 * (context.timing().propagation + context.timing().staleness);
    a.announce(&topic, ttl).await?;
    context.sees(&c, &topic, &[&a.node()]).await?;
    let mut watch = c.discovery.watch(&topic);
    expect(&next(&mut watch, within).await?, &Change::Found(a.node()))?;
    b.announce(&topic, ttl).await?;
    expect(&next(&mut watch, within).await?, &Change::Found(b.node()))?;
    if let Some(others) = a.others.clone() {
        let mut moved = a.clone();
        moved.addrs = others;
        moved.announce(&topic, ttl).await?;
        expect(&next(&mut watch, within).await?, &Change::Found(moved.node()))?;
    }
    a.withdraw(&topic).await?;
    expect(&next(&mut watch, within).await?, &Change::Lost(a.id))?;
    // Nothing more happens, and the watch does not end.
    match timeout(within, watch.next()).await {
        Err(_) => Ok(()),
        Ok(change) => Err(format!("nothing happened, and the watch reported {change:?}")),
    }
}

async fn watched_expiry(context: &LawContext<'_>) -> LawResult {
    let (a, b, topic) = context.pair().await;
    let timing = context.timing();
    let (ttl, propagation) = (timing.ttl, timing.propagation);
    let mut watch = b.discovery.watch(&topic);
    a.announce(&topic, ttl).await?;
    expect(
        &next(&mut watch, 2 * propagation).await?,
        &Change::Found(a.node()),
    )?;
    expect(
        &next(&mut watch, ttl + timing.staleness + 2 * propagation).await?,
        &Change::Lost(a.id),
    )
}

async fn bounded(context: &LawContext<'_>) -> LawResult {
    let (a, b, topic) = context.pair().await;
    a.announce(&topic, 10 * context.timing().ttl).await?;
    for ttl in [
        Duration::ZERO,
        Duration::from_millis(999),
        MAX_TTL + Duration::from_secs(1),
        Duration::MAX,
    ] {
        match a.discovery.announce(&topic, &a.addrs, ttl).await {
            Err(Error::Invalid { .. }) => {}
            other => {
                return Err(format!(
                    "announcing for {ttl:?} should be an error, and was {other:?}"
                ));
            }
        }
    }
    // The earlier announcement stays.
    context.sees(&b, &topic, &[&a.node()]).await
}
