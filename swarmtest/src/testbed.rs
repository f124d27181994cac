//! Makes the nodes that laws look at, and runs laws on them.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use p2p::{Addr, Error, Result, Swarm};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout};

use crate::kind::{Kind, Needs, Node, Plain};
use crate::laws::{LAWS, Law};
use crate::profile::Profile;
use crate::report::{Checked, Outcome, Report, Unmet, Verdict};

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Make<A> = dyn Fn(usize) -> Boxed<Result<Vec<Node<A>>>> + Send + Sync;
type Rebind<A> = dyn Fn(A) -> Boxed<Result<Node<A>>> + Send + Sync;
type Forge<A> = dyn Fn(&A, &A) -> A + Send + Sync;
type Watch = dyn Fn(&Checked) + Send + Sync;

/// Laws under way at a time, unless [`Testbed::parallel`] says otherwise.
const PARALLEL: usize = 16;

/// A swarm to be tested: how to make connected nodes of it, what its medium may do, and what else the
/// laws need. Cloning is cheap.
pub struct Testbed<A> {
    make: Arc<Make<A>>,
    has: [bool; 3],
    profile: Arc<Profile>,
    rebind: Option<Arc<Rebind<A>>>,
    forge: Option<Arc<Forge<A>>>,
    watch: Option<Arc<Watch>>,
    parallel: usize,
}

impl<A> Clone for Testbed<A> {
    fn clone(&self) -> Self {
        Self {
            make: self.make.clone(),
            has: self.has,
            profile: self.profile.clone(),
            rebind: self.rebind.clone(),
            forge: self.forge.clone(),
            watch: self.watch.clone(),
            parallel: self.parallel,
        }
    }
}

impl<A> fmt::Debug for Testbed<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Testbed")
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

impl<A: Addr> Testbed<A> {
    /// A testbed of the swarms that `make` makes: given a number, that many fresh nodes, each of which can
    /// tell to the others' [`local_addrs`](Swarm::local_addrs) and has received nothing yet.
    ///
    /// Laws run side by side, each on nodes of its own; they may share a medium.
    pub fn new<K, S, F, R>(kind: K, make: F) -> Self
    where
        K: Kind<A, S> + Send + Sync + 'static,
        F: Fn(usize) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Vec<S>>> + Send + 'static,
    {
        Self {
            has: [Needs::Swarm, Needs::Ask, Needs::Secure].map(|needs| kind.has(needs)),
            make: Arc::new(move |count| {
                let swarms = make(count);
                Box::pin(async move { Ok(swarms.await?.into_iter().map(|swarm| kind.node(swarm)).collect()) })
            }),
            profile: Arc::default(),
            rebind: None,
            forge: None,
            watch: None,
            parallel: PARALLEL,
        }
    }

    /// What the medium may do, how long to wait, and what is waived.
    #[must_use]
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = Arc::new(profile);
        self
    }

    /// How to make a node at the address of one that is gone. Without it, the laws on freeing an address are
    /// waived.
    #[must_use]
    pub fn rebind<S, F, R>(mut self, rebind: F) -> Self
    where
        S: Swarm<A>,
        F: Fn(A) -> R + Send + Sync + 'static,
        R: Future<Output = Result<S>> + Send + 'static,
    {
        self.rebind = Some(Arc::new(move |addr| {
            let swarm = rebind(addr);
            Box::pin(async move { Ok(Plain.node(swarm.await?)) })
        }));
        self
    }

    /// How to make an address with the identity of the first and the place of the second. Without it, the
    /// laws on addresses with a wrong identity are waived.
    #[must_use]
    pub fn forge(mut self, forge: impl Fn(&A, &A) -> A + Send + Sync + 'static) -> Self {
        self.forge = Some(Arc::new(forge));
        self
    }

    /// Calls `watch` with each verdict as soon as it is there, in no order.
    #[must_use]
    pub fn watch(mut self, watch: impl Fn(&Checked) + Send + Sync + 'static) -> Self {
        self.watch = Some(Arc::new(watch));
        self
    }

    /// How many laws are checked side by side (at least one).
    #[must_use]
    pub fn parallel(mut self, laws: usize) -> Self {
        self.parallel = laws.max(1);
        self
    }

    /// Whether this law is one for swarms of this kind.
    pub fn applies(&self, law: &Law) -> bool {
        self.has[law.needs as usize]
    }

    /// Checks every law that applies to this kind of swarm. Needs a tokio runtime with time.
    ///
    /// A swarm that panics or hangs fails the law in question; one that blocks the thread takes the
    /// runtime with it.
    pub async fn run(&self) -> Report {
        let laws: Vec<&'static Law> = LAWS.iter().filter(|law| self.applies(law)).collect();
        let mut checked: Vec<Option<Checked>> = vec![None; laws.len()];
        let mut waiting = laws.into_iter().enumerate();
        let mut running = JoinSet::new();
        loop {
            while running.len() < self.parallel
                && let Some((index, law)) = waiting.next()
            {
                let bed = self.clone();
                running.spawn(async move { (index, bed.check(law).await) });
            }
            match running.join_next().await {
                Some(Ok((index, done))) => checked[index] = Some(done),
                // `check` catches the panics of laws; what is left is a runtime that shuts down.
                Some(Err(_)) => {}
                None => break,
            }
        }
        Report::new(checked.into_iter().flatten().collect())
    }

    /// Checks one law. Needs a tokio runtime with time.
    pub async fn check(&self, law: &'static Law) -> Checked {
        let started = Instant::now();
        let verdict = match self.profile.waiver(law) {
            Some(why) => Verdict::Waived(why.to_owned()),
            None => self.guarded(law).await,
        };
        let checked = Checked {
            law,
            verdict,
            took: started.elapsed(),
        };
        if let Some(watch) = &self.watch {
            watch(&checked);
        }
        checked
    }

    /// Runs a law in a task of its own, so that a panic or a hang ends there.
    async fn guarded(&self, law: &'static Law) -> Verdict {
        let mut task = JoinSet::new();
        task.spawn(crate::laws::start(law.name, self.clone()));
        let limit = self.profile.limit;
        match timeout(limit, task.join_next()).await {
            Ok(Some(Ok(outcome))) => outcome.into(),
            Ok(Some(Err(error))) => Verdict::Failed(panic_text(error)),
            Ok(None) => Verdict::Failed("its task is gone".into()),
            Err(_) => Verdict::Failed(format!("it did not end within {limit:?}")),
        }
    }

    /// What the medium may do, and how long to wait.
    pub fn the_profile(&self) -> &Profile {
        &self.profile
    }

    /// `N` fresh nodes that can reach one another.
    ///
    /// # Errors
    /// [`Unmet::Broken`] if they cannot be made.
    pub async fn nodes<const N: usize>(&self) -> Outcome<[Node<A>; N]> {
        let made = timeout(self.profile.limit, (self.make)(N)).await;
        let nodes = match made {
            Ok(Ok(nodes)) => nodes,
            Ok(Err(error)) => return Err(Unmet::Broken(format!("no nodes were made: {}", chain(&error)))),
            Err(_) => return Err(Unmet::Broken("no nodes were made in time".into())),
        };
        let made = nodes.len();
        nodes
            .try_into()
            .map_err(|_| Unmet::Broken(format!("asked for {N} nodes, the testbed made {made}")))
    }

    /// A node at the address of one that is gone, as soon as that is free.
    pub(crate) async fn rebound(&self, addr: &A) -> Outcome<Node<A>> {
        let Some(rebind) = &self.rebind else {
            return Err(Unmet::Waived(
                "the testbed does not say how to make a node at a given address".into(),
            ));
        };
        let started = Instant::now();
        loop {
            match timeout(self.profile.patience, rebind(addr.clone())).await {
                Ok(Ok(node)) => return Ok(node),
                Ok(Err(error)) if started.elapsed() >= self.profile.patience => {
                    let (waited, error) = (self.profile.patience, chain(&error));
                    return Err(Unmet::Broken(format!(
                        "{addr} is not free after {waited:?}: {error}"
                    )));
                }
                Ok(Err(_)) => tokio::time::sleep(self.profile.settle / 4).await,
                Err(_) => return Err(Unmet::Broken(format!("{addr} cannot be taken again"))),
            }
        }
    }

    /// The address with the identity of the first and the place of the second.
    pub(crate) fn forged(&self, id_of: &A, place_of: &A) -> Outcome<A> {
        match &self.forge {
            Some(forge) => Ok(forge(id_of, place_of)),
            None => Err(Unmet::Waived(
                "the testbed does not say how to put a wrong identity into an address".into(),
            )),
        }
    }
}

/// Checks every law of this kind on the swarms that `make` makes; see [`Testbed`] for what else can be set.
pub async fn run<A, K, S, F, R>(kind: K, profile: Profile, make: F) -> Report
where
    A: Addr,
    K: Kind<A, S> + Send + Sync + 'static,
    F: Fn(usize) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Vec<S>>> + Send + 'static,
{
    Testbed::new(kind, make).profile(profile).run().await
}

/// An error with its causes.
pub(crate) fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// What a task that ended without a result said.
fn panic_text(error: JoinError) -> String {
    let text = |payload: Box<dyn Any + Send>| match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => payload
            .downcast::<&str>()
            .map_or_else(|_| "(no text)".into(), |text| (*text).to_owned()),
    };
    match error.try_into_panic() {
        Ok(payload) => format!("panicked: {}", text(payload)),
        Err(error) => error.to_string(),
    }
}
