//! Testbeds: create the nodes under test, and run laws on them.

use std::any::Any;
use std::fmt::{self, Write as _};
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;

use p2p::{Addr, BoxAddr, Error, Result, Swarm};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout};

use crate::erased::typed;
use crate::kind::{Kind, Needs, Node, Plain};
use crate::laws::{LAWS, Law};
use crate::profile::Profile;
use crate::report::{Checked, Outcome, Report, Unmet, Verdict};
use crate::wire::{Port, Tap, Wire};

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Make<A> = dyn Fn(usize) -> Boxed<Result<Vec<Node<A>>>> + Send + Sync;
type Over<A> = dyn Fn(Vec<Tap>) -> Boxed<Result<Vec<Node<A>>>> + Send + Sync;
type Restart<A> = dyn Fn(Tap, A) -> Boxed<Result<Node<A>>> + Send + Sync;
type Rebind<A> = dyn Fn(A) -> Boxed<Result<Node<A>>> + Send + Sync;
type Forge<A> = dyn Fn(&A, &A) -> Result<A> + Send + Sync;
type Beside<A> = dyn Fn(usize) -> Boxed<Result<Vec<(Node<A>, Node<BoxAddr>)>>> + Send + Sync;
type Watch = dyn Fn(&Checked) + Send + Sync;
type Check = dyn Fn(Testbed<BoxAddr>) -> Boxed<Outcome> + Send + Sync;

/// A law of the caller.
#[derive(Clone)]
struct OwnLaw {
    law: Law,
    check: Arc<Check>,
}

/// Default number of concurrent laws; see [`Testbed::parallel`].
const PARALLEL: usize = 16;

/// Default MTU of the wire; see [`Testbed::wire_mtu`].
const MTU: usize = 1400;

/// A swarm under test: how to create connected nodes, what its medium may do, and what else laws need.
/// Cloning is cheap.
pub struct Testbed<A> {
    source: Source<A>,
    has: [bool; 4],
    profile: Arc<Profile>,
    rebind: Option<Arc<Rebind<A>>>,
    restart: Option<Arc<Restart<A>>>,
    forge: Option<Arc<Forge<A>>>,
    beside: Option<Arc<Beside<A>>>,
    watch: Option<Arc<Watch>>,
    parallel: usize,
    /// Laws of the caller, in the order of reports.
    own: Vec<OwnLaw>,
    /// The law that is checked, which determines its random numbers.
    law: &'static str,
}

/// The source of nodes.
enum Source<A> {
    /// Created by the caller on a medium of its own.
    Made(Arc<Make<A>>),
    /// Created by the caller on a wire of the suite.
    Over { make: Arc<Over<A>>, mtu: usize },
}

impl<A> Clone for Source<A> {
    fn clone(&self) -> Self {
        match self {
            Source::Made(make) => Source::Made(make.clone()),
            Source::Over { make, mtu } => Source::Over {
                make: make.clone(),
                mtu: *mtu,
            },
        }
    }
}

impl<A> Clone for Testbed<A> {
    fn clone(&self) -> Self {
        Self {
            source: self.source.clone(),
            has: self.has,
            profile: self.profile.clone(),
            rebind: self.rebind.clone(),
            restart: self.restart.clone(),
            forge: self.forge.clone(),
            beside: self.beside.clone(),
            watch: self.watch.clone(),
            parallel: self.parallel,
            own: self.own.clone(),
            law: self.law,
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
    /// Creates a testbed of the swarms that `make` creates: given a number, that many new nodes, each of
    /// which can tell the others' [`local_addrs`](Swarm::local_addrs) and has received nothing yet.
    ///
    /// Laws run concurrently, each on its own nodes; they may share a medium.
    pub fn new<K, S, F, R>(kind: K, make: F) -> Self
    where
        K: Kind<A, S> + Send + Sync + 'static,
        F: Fn(usize) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Vec<S>>> + Send + 'static,
    {
        let make: Arc<Make<A>> = Arc::new(move |count| nodes(kind, make(count)));
        Self::from(kind, Source::Made(make))
    }

    /// Creates a testbed of the swarms that `make` puts on the suite's own [wire](crate::wire): given some taps,
    /// one node on each, in their order, each with a new key.
    ///
    /// The laws of the group [`wire`](crate::laws::wire), which attack, can only be checked on such a testbed;
    /// on others they are waived. Each law has its own wire.
    ///
    /// ```
    /// use p2p::{Result, SecureSwarm, Swarm, pass_through};
    /// use p2p_swarmtest::wire::{Port, Tap};
    /// use p2p_swarmtest::{Secure, Testbed};
    ///
    /// /// Claims to be secure, and is not.
    /// struct Boaster {
    ///     tap: Tap,
    /// }
    /// # type A = Port;
    /// impl Swarm<Port> for Boaster {
    ///     pass_through!(tap: tell, receive, mtu, local_addrs, parse_addr, close, tell_batch, receive_batch,
    ///         headroom, visit_counters);
    /// }
    ///
    /// impl SecureSwarm<Port> for Boaster {
    ///     type PublicKey = Vec<u8>;
    ///     fn public_key(&self) -> Vec<u8> {
    ///         self.tap.port().to_string().into()
    ///     }
    ///     async fn lookup_public_key(&self, at: &Port) -> Result<Vec<u8>> {
    ///         Ok(at.to_string().into())
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let testbed = Testbed::over(Secure, |taps: Vec<Tap>| async move {
    ///     Ok(taps.into_iter().map(|tap| Boaster { tap }).collect())
    /// });
    /// let report = testbed.run().await;
    /// let broken: Vec<_> = report.failures().map(|checked| checked.law.name).collect();
    /// assert!(broken.contains(&"wire::tells_cannot_be_read_on_the_wire"), "{report}");
    /// # }
    /// ```
    pub fn over<K, S, F, R>(kind: K, make: F) -> Self
    where
        K: Kind<A, S> + Send + Sync + 'static,
        F: Fn(Vec<Tap>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Vec<S>>> + Send + 'static,
    {
        let make: Arc<Over<A>> = Arc::new(move |taps| nodes(kind, make(taps)));
        Self::from(kind, Source::Over { make, mtu: MTU })
    }

    fn from<S>(kind: impl Kind<A, S>, source: Source<A>) -> Self {
        Self {
            has: [Needs::Swarm, Needs::Ask, Needs::Secure, Needs::SecureAsk].map(|needs| kind.has(needs)),
            source,
            profile: Arc::default(),
            rebind: None,
            restart: None,
            forge: None,
            beside: None,
            watch: None,
            parallel: PARALLEL,
            own: Vec::new(),
            law: "",
        }
    }

    /// Sets the MTU of the suite's own wire in bytes. Default: 1400. Without effect on other media.
    #[must_use]
    pub fn wire_mtu(mut self, bytes: usize) -> Self {
        if let Source::Over { mtu, .. } = &mut self.source {
            *mtu = bytes;
        }
        self
    }

    /// Sets what the medium may do, the timeouts, and the waived laws.
    #[must_use]
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = Arc::new(profile);
        self
    }

    /// Sets how to create a node at the address of a closed one. Without it, the laws on freeing an address
    /// are waived, as they are on the suite's own wire.
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

    /// Sets how to create a node with the key of a closed one, on a tap at its port of the suite's own wire,
    /// given that node's address. Without it, and on other media, the laws on restarts are waived.
    ///
    /// ```
    /// use p2p::{Addr, Result, SecureSwarm};
    /// use p2p_swarmtest::wire::Tap;
    /// use p2p_swarmtest::{Secure, Testbed};
    ///
    /// /// Creates a testbed of a secure layer, which `seal` puts on a tap with a new key or that of an address.
    /// fn testbed<A: Addr, S: SecureSwarm<A>>(seal: fn(Tap, Option<A>) -> Result<S>) -> Testbed<A> {
    ///     Testbed::over(Secure, move |taps| async move { taps.into_iter().map(|tap| seal(tap, None)).collect() })
    ///         .restart(Secure, move |tap, addr| async move { seal(tap, Some(addr)) })
    /// }
    /// ```
    #[must_use]
    pub fn restart<K, S, F, R>(mut self, kind: K, restart: F) -> Self
    where
        K: Kind<A, S> + Send + Sync + 'static,
        F: Fn(Tap, A) -> R + Send + Sync + 'static,
        R: Future<Output = Result<S>> + Send + 'static,
    {
        self.restart = Some(Arc::new(move |tap, addr| {
            let swarm = restart(tap, addr);
            Box::pin(async move { Ok(kind.node(swarm.await?)) })
        }));
        self
    }

    /// Sets how to create an address with the identity of the first and the place of the second. Without it,
    /// the laws on addresses with a wrong identity are waived.
    #[must_use]
    pub fn forge(mut self, forge: impl Fn(&A, &A) -> A + Send + Sync + 'static) -> Self {
        self.forge = Some(Arc::new(move |id_of, place_of| Ok(forge(id_of, place_of))));
        self
    }

    /// Sets how to create nodes with a sibling each: a swarm that shares every layer below with the swarm under
    /// test, as another channel of the same mux does. Siblings can tell each other. Laws fill a sibling that does
    /// not receive. Without this, the laws on siblings are waived.
    ///
    /// ```
    /// use p2p_swarmtest::reference::Network;
    /// use p2p_swarmtest::{Plain, Testbed};
    ///
    /// // A simple sibling is a swarm on the same medium; for a mux it would be another of its channels.
    /// let network = Network::default();
    /// let again = network.clone();
    /// let testbed = Testbed::new(Plain, move |count| std::future::ready(Ok(network.nodes(count)))).beside(move |count| {
    ///     let (nodes, siblings) = (again.nodes(count), again.nodes(count));
    ///     std::future::ready(Ok(nodes.into_iter().zip(siblings).collect()))
    /// });
    /// # let _ = testbed;
    /// ```
    #[must_use]
    pub fn beside<S, B, T, F, R>(mut self, make: F) -> Self
    where
        S: Swarm<A>,
        B: Addr,
        T: Swarm<B>,
        F: Fn(usize) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Vec<(S, T)>>> + Send + 'static,
    {
        self.beside = Some(Arc::new(move |count| {
            let making = make(count);
            Box::pin(async move {
                let pairs = making.await?.into_iter();
                Ok(pairs
                    .map(|(node, sibling)| (Plain.node(node), Plain.node(sibling).erase()))
                    .collect())
            })
        }));
        self
    }

    /// Sets a function that is called with each verdict as soon as it is known, in no order.
    #[must_use]
    pub fn watch(mut self, watch: impl Fn(&Checked) + Send + Sync + 'static) -> Self {
        self.watch = Some(Arc::new(watch));
        self
    }

    /// Adds a law of the caller. It is checked together with those of the suite, after them in the report, in a
    /// separate task with the same timeout. A failure reports the seed that replays it.
    ///
    /// `check` gets the testbed, which provides [nodes](Self::nodes), [random numbers](Self::rng) and the
    /// [effort](Self::amount). It returns [`Unmet::Broken`] with the observed and the expected behaviour, or
    /// [`Unmet::Waived`] if it cannot be checked, as [`Node::ask_side`] does for a swarm without asks.
    ///
    /// # Panics
    /// Panics if a law with this name exists, or `name` has no group: the form is `group::law`.
    ///
    /// ```
    /// use p2p::Swarm;
    /// use p2p_swarmtest::reference::{Address, Network};
    /// use p2p_swarmtest::{Plain, Testbed, Unmet};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let network = Network::default();
    /// let testbed: Testbed<Address> = Testbed::new(Plain, move |count| std::future::ready(Ok(network.nodes(count))));
    /// let testbed = testbed.law("order::messages_keep_their_order", "messages arrive in the order of their tells", async |testbed| {
    ///     let [from, to] = testbed.nodes().await?;
    ///     let messages = testbed.amount(20);
    ///     for number in 0..messages {
    ///         from.tell(&to.addr()?, from.packet(&number.to_be_bytes())).await?;
    ///     }
    ///     for number in 0..messages {
    ///         let payload = to.receive().await?.payload;
    ///         if payload != number.to_be_bytes()[..] {
    ///             return Err(Unmet::Broken(format!("message {number} arrived out of order")));
    ///         }
    ///     }
    ///     Ok(())
    /// });
    /// let report = testbed.run().await;
    /// assert_eq!(report.iter().last().map(|checked| checked.law.group()), Some("order"));
    /// report.assert_ok();
    /// # }
    /// ```
    #[must_use]
    pub fn law<F, R>(mut self, name: &'static str, sentence: &'static str, check: F) -> Self
    where
        F: Fn(Testbed<BoxAddr>) -> R + Send + Sync + 'static,
        R: Future<Output = Outcome> + Send + 'static,
    {
        let has_group = name
            .split_once("::")
            .is_some_and(|(group, law)| !group.is_empty() && !law.is_empty());
        assert!(has_group, "the law {name} has no group: the form is group::law");
        let is_new = Law::named(name).is_none() && self.own.iter().all(|own| own.law.name != name);
        assert!(is_new, "a law {name} exists already");
        self.own.push(OwnLaw {
            law: Law {
                name,
                sentence,
                needs: Needs::Swarm,
            },
            check: Arc::new(move |testbed| Box::pin(check(testbed))),
        });
        self
    }

    /// Returns the laws of a run, in the order of its report: those of the suite that apply to this kind of
    /// swarm, then the caller's.
    pub fn laws(&self) -> impl Iterator<Item = &Law> {
        let own = self.own.iter().map(|own| &own.law);
        LAWS.iter().filter(|law| self.applies(law)).chain(own)
    }

    /// Sets the number of laws that are checked concurrently (at least one).
    #[must_use]
    pub fn parallel(mut self, laws: usize) -> Self {
        self.parallel = laws.max(1);
        self
    }

    /// Returns whether this law applies to swarms of this kind.
    pub fn applies(&self, law: &Law) -> bool {
        self.has[law.needs as usize]
    }

    /// Checks every law that applies to this kind of swarm. Needs a tokio runtime with time.
    ///
    /// A swarm that panics or hangs fails the law in question; one that blocks the thread blocks the runtime.
    pub async fn run(&self) -> Report {
        self.erase().check_all().await
    }

    /// Checks one law. Needs a tokio runtime with time.
    pub async fn check(&self, law: &Law) -> Checked {
        self.erase().check_one(*law).await
    }

    /// Returns the same testbed with erased addresses, the only type that laws are compiled for.
    pub(crate) fn erase(&self) -> Testbed<BoxAddr> {
        let source = match self.source.clone() {
            Source::Made(make) => Source::Made(Arc::new(move |count| erased_nodes(make(count)))),
            Source::Over { make, mtu } => {
                let make: Arc<Over<BoxAddr>> = Arc::new(move |taps| erased_nodes(make(taps)));
                Source::Over { make, mtu }
            }
        };
        let rebind = self.rebind.clone().map(|rebind| -> Arc<Rebind<BoxAddr>> {
            Arc::new(move |addr| match typed(&addr) {
                Ok(addr) => {
                    let making = rebind(addr);
                    Box::pin(async move { Ok(making.await?.erase()) })
                }
                Err(error) => Box::pin(ready(Err(error))),
            })
        });
        let restart = self.restart.clone().map(|restart| -> Arc<Restart<BoxAddr>> {
            Arc::new(move |tap, addr| match typed(&addr) {
                Ok(addr) => {
                    let making = restart(tap, addr);
                    Box::pin(async move { Ok(making.await?.erase()) })
                }
                Err(error) => Box::pin(ready(Err(error))),
            })
        });
        let forge = self.forge.clone().map(|forge| -> Arc<Forge<BoxAddr>> {
            Arc::new(move |id_of, place_of| Ok(BoxAddr::new(forge(&typed(id_of)?, &typed(place_of)?)?)))
        });
        let beside = self.beside.clone().map(|beside| -> Arc<Beside<BoxAddr>> {
            Arc::new(move |count| {
                let making = beside(count);
                Box::pin(async move {
                    let made = making.await?.into_iter();
                    Ok(made.map(|(node, sibling)| (node.erase(), sibling)).collect())
                })
            })
        });
        Testbed {
            source,
            has: self.has,
            profile: Arc::new(self.profile.as_run()),
            rebind,
            restart,
            forge,
            beside,
            watch: self.watch.clone(),
            parallel: self.parallel,
            own: self.own.clone(),
            law: self.law,
        }
    }

    /// Returns what the medium may do, and the timeouts.
    pub fn the_profile(&self) -> &Profile {
        &self.profile
    }

    /// Scales an amount of which a law does `normal` by default: to a tenth in a quick run, to ten times in a
    /// strict one.
    pub fn amount(&self, normal: usize) -> usize {
        self.profile.effort.amount(normal)
    }

    /// Returns a generator of random numbers for the law that is checked, seeded by [`Profile::seed`] and the
    /// law's name: the same numbers each time. All random choices of a law come from it, so that a failure
    /// can be replayed.
    pub fn rng(&self) -> StdRng {
        // FNV-1a: the name's hash must be the same on every machine and in every version.
        let name = self.law.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
        });
        StdRng::seed_from_u64(name ^ self.profile.seed)
    }

    /// Creates `N` new nodes that can reach each other.
    ///
    /// # Errors
    /// Returns [`Unmet::Broken`] if they cannot be created.
    pub async fn nodes<const N: usize>(&self) -> Outcome<[Node<A>; N]> {
        match &self.source {
            Source::Made(make) => self.made(make(N)).await,
            Source::Over { mtu, .. } => self.on(taps(&Wire::new(*mtu))).await,
        }
    }

    /// Creates `N` new nodes with a sibling each.
    pub(crate) async fn with_siblings<const N: usize>(&self) -> Outcome<[(Node<A>, Node<BoxAddr>); N]> {
        let Some(beside) = &self.beside else {
            return Err(Unmet::Waived(
                "the testbed does not define how to create a sibling".into(),
            ));
        };
        self.made(beside(N)).await
    }

    /// Returns the MTU of the suite's own wire in bytes.
    pub(crate) fn the_wire_mtu(&self) -> usize {
        match &self.source {
            Source::Over { mtu, .. } => *mtu,
            Source::Made(_) => MTU,
        }
    }

    /// Creates nodes as [`nodes`](Self::nodes) does, and returns their wire and ports.
    pub(crate) async fn wired<const N: usize>(&self) -> Outcome<(Wire, [Port; N], [Node<A>; N])> {
        let Source::Over { mtu, .. } = &self.source else {
            return Err(Unmet::Waived(
                "the testbed does not create its nodes on the suite's own wire".into(),
            ));
        };
        let wire = Wire::new(*mtu);
        let taps = taps(&wire);
        let ports = std::array::from_fn(|index| taps[index].port());
        Ok((wire, ports, self.on(taps).await?))
    }

    /// Creates a node on each of these taps.
    pub(crate) async fn on<const N: usize>(&self, taps: [Tap; N]) -> Outcome<[Node<A>; N]> {
        match &self.source {
            Source::Over { make, .. } => self.made(make(taps.into())).await,
            Source::Made(_) => Err(Unmet::Waived(
                "the testbed does not create its nodes on taps".into(),
            )),
        }
    }

    /// Returns [`Unmet::Waived`] if no node can be created with the key of another.
    pub(crate) fn can_restart(&self) -> Outcome<&Restart<A>> {
        self.restart.as_deref().ok_or_else(|| {
            Unmet::Waived("the testbed does not define how to create a node with the key of another".into())
        })
    }

    /// Creates a node on this tap with the key of the node that was at this address.
    pub(crate) async fn restarted(&self, tap: Tap, addr: &A) -> Outcome<Node<A>> {
        let making = self.can_restart()?(tap, addr.clone());
        match timeout(self.profile.patience, making).await {
            Ok(Ok(node)) => Ok(node),
            Ok(Err(error)) => Err(Unmet::Broken(format!(
                "no node was created with the key of {addr}: {}",
                chain(&error)
            ))),
            Err(_) => Err(Unmet::Broken(format!(
                "no node was created with the key of {addr} in time"
            ))),
        }
    }

    async fn made<T, const N: usize>(&self, making: Boxed<Result<Vec<T>>>) -> Outcome<[T; N]> {
        let nodes = match timeout(self.profile.limit, making).await {
            Ok(Ok(nodes)) => nodes,
            Ok(Err(error)) => return Err(Unmet::Broken(format!("no nodes were created: {}", chain(&error)))),
            Err(_) => return Err(Unmet::Broken("no nodes were created in time".into())),
        };
        let made = nodes.len();
        nodes
            .try_into()
            .map_err(|_| Unmet::Broken(format!("asked for {N} nodes, the testbed created {made}")))
    }

    /// Tries once to create a node at the address of a closed one.
    pub(crate) async fn rebound_at_once(&self, addr: &A) -> Outcome<Result<Node<A>>> {
        let making = self.the_rebind()?(addr.clone());
        let made = timeout(self.profile.patience, making).await;
        made.map_err(|_| Unmet::Broken(format!("{addr} cannot be reused")))
    }

    fn the_rebind(&self) -> Outcome<&Rebind<A>> {
        self.rebind.as_deref().ok_or_else(|| {
            Unmet::Waived("the testbed does not define how to create a node at a given address".into())
        })
    }

    /// Creates a node at the address of a closed one, as soon as that is free.
    pub(crate) async fn rebound(&self, addr: &A) -> Outcome<Node<A>> {
        let rebind = self.the_rebind()?;
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
                Err(_) => return Err(Unmet::Broken(format!("{addr} cannot be reused"))),
            }
        }
    }

    /// Returns the address with the identity of the first and the place of the second.
    pub(crate) fn forged(&self, id_of: &A, place_of: &A) -> Outcome<A> {
        match &self.forge {
            Some(forge) => Ok(forge(id_of, place_of)?),
            None => Err(Unmet::Waived(
                "the testbed does not define how to create an address with a wrong identity".into(),
            )),
        }
    }
}

impl Testbed<BoxAddr> {
    async fn check_all(&self) -> Report {
        let laws: Vec<Law> = self.laws().copied().collect();
        let mut checked: Vec<Option<Checked>> = vec![None; laws.len()];
        let mut waiting = laws.into_iter().enumerate();
        let mut running = JoinSet::new();
        loop {
            while running.len() < self.parallel
                && let Some((index, law)) = waiting.next()
            {
                let testbed = self.clone();
                running.spawn(async move { (index, testbed.check_one(law).await) });
            }
            match running.join_next().await {
                Some(Ok((index, done))) => checked[index] = Some(done),
                // `check_one` catches the panics of laws; the remaining case is a runtime that shuts down.
                Some(Err(_)) => {}
                None => break,
            }
        }
        Report::new(checked.into_iter().flatten().collect())
    }

    pub(crate) async fn check_one(&self, law: Law) -> Checked {
        let started = Instant::now();
        let mut verdict = match self.profile.waiver(&law) {
            Some(why) => Verdict::Waived(why.to_owned()),
            None => self.guarded(law.name).await,
        };
        if let Verdict::Failed(how) = &mut verdict {
            let seed = self.profile.seed;
            // Writing to a string does not fail.
            let _ = write!(how, " (seed {seed}; SWARMTEST_SEED={seed} replays it)");
        }
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

    /// Returns the caller's own laws.
    pub(crate) fn own_laws(&self) -> Vec<Law> {
        self.own.iter().map(|own| own.law).collect()
    }

    /// Runs a law in a separate task, so that a panic or a hang ends there.
    async fn guarded(&self, law: &'static str) -> Verdict {
        let mut task = JoinSet::new();
        let testbed = Self { law, ..self.clone() };
        task.spawn(match self.own.iter().find(|own| own.law.name == law) {
            Some(own) => (own.check)(testbed),
            None => crate::laws::start(law, testbed),
        });
        let limit = self.profile.limit;
        match timeout(limit, task.join_next()).await {
            Ok(Some(Ok(outcome))) => outcome.into(),
            Ok(Some(Err(error))) => Verdict::Failed(panic_text(error)),
            Ok(None) => Verdict::Failed("its task has ended".into()),
            Err(_) => Verdict::Failed(format!("it did not end within {} s", limit.as_secs_f64())),
        }
    }
}

/// Erases the addresses of nodes, when they are created.
fn erased_nodes<A: Addr>(making: Boxed<Result<Vec<Node<A>>>>) -> Boxed<Result<Vec<Node<BoxAddr>>>> {
    Box::pin(async move { Ok(making.await?.into_iter().map(Node::erase).collect()) })
}

/// Opens taps of this wire.
fn taps<const N: usize>(wire: &Wire) -> [Tap; N] {
    std::array::from_fn(|_| wire.open())
}

/// Wraps the swarms as nodes of this kind, when they are created.
fn nodes<A, K, S, R>(kind: K, swarms: R) -> Boxed<Result<Vec<Node<A>>>>
where
    K: Kind<A, S> + Send + 'static,
    R: Future<Output = Result<Vec<S>>> + Send + 'static,
    A: Addr,
{
    Box::pin(async move { Ok(swarms.await?.into_iter().map(|swarm| kind.node(swarm)).collect()) })
}

/// Checks every law of this kind on the swarms that `make` creates; see [`Testbed`] for further settings.
pub async fn run<A, K, S, F, R>(kind: K, profile: Profile, make: F) -> Report
where
    A: Addr,
    K: Kind<A, S> + Send + Sync + 'static,
    F: Fn(usize) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Vec<S>>> + Send + 'static,
{
    Testbed::new(kind, make).profile(profile).run().await
}

/// Formats an error with its causes.
pub(crate) fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Returns the message of a task that ended without a result.
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
