//! Testbeds: create the nodes under test, and run laws on them.

mod checking;
mod erasing;
mod making;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use p2p::{Addr, BoxAddr, Result, Swarm};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

pub use self::checking::run;
pub(crate) use self::making::chain;
use crate::kind::{Kind, Needs, Node, Plain};
use crate::laws::{LAWS, Law};
use crate::profile::Profile;
use crate::report::{Checked, Outcome};
use crate::wire::Tap;

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
    /// [effort](Self::amount). It returns [`Unmet::Broken`](crate::Unmet::Broken) with the observed and the expected behaviour, or
    /// [`Unmet::Waived`](crate::Unmet::Waived) if it cannot be checked, as [`Node::ask_side`] does for a swarm without asks.
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
