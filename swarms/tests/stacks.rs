//! Every order of up to three layers, over memory and over UDP, keeps the laws.
//!
//! The orders are generated, including repetitions: 258 over each base. `cargo test` checks every twelfth with
//! little effort, another twelfth for each `SWARMTEST_STACKS_SEED`. To check all of them, as thoroughly as
//! `SWARMTEST_EFFORT` says:
//!
//! ```sh
//! SWARMTEST_STACKS=all SWARMTEST_EFFORT=normal cargo test --workspace --test stacks
//! ```

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use p2p::{Addr, BoxAddr, BoxSecureAskSwarm, BoxSecureSwarm, BoxSwarm, Error, PeerId, Result, Swarm};
use p2p_protocols::fragment::chunk;
use p2p_protocols::mux::Name;
use p2p_swarms::allow::{AllowSwarm, Policy, Rule};
use p2p_swarms::faulty::FaultyConfig;
use p2p_swarms::inbox::Limits;
use p2p_swarms::map::Translate;
use p2p_swarms::memory::MemoryConfig;
use p2p_swarms::mux::MuxConfig;
use p2p_swarms::udp::UdpConfig;
use p2p_swarms::{
    EraseSwarm, Faults, FaultySwarm, FragmentConfig, FragmentSwarm, LinkFaults, MapSwarm, MemoryAddr,
    MemoryRealm, MultiSwarm, Mux, UdpSwarm,
};
use p2p_swarmtest::{Effort, Plain, Profile, Report, Secure, SecureAsk, Testbed, loopback};
use tokio::task::JoinSet;

/// Maximum number of layers of a stack.
const DEEPEST: usize = 3;
/// One in this many stacks is checked, unless all are.
const SAMPLE: usize = 12;
/// Stacks that are checked concurrently.
const AT_ONCE: usize = 8;
/// Probability that a faulty layer loses a message.
const LOSS: f64 = 0.02;
/// Bounds of each queue of a stack: small, since some laws fill them.
const QUEUE: Limits = Limits {
    items: 256,
    bytes: 4 << 20,
    copy_below: 0,
};
/// Maximum number of messages that wait in the kernel, with the small buffer that these tests request.
const KERNEL: usize = 1024;
/// Fragments of a message of the MTU of a fragmenting layer.
const PARTS: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Layer {
    Faulty,
    Frag,
    Mux,
    Map,
    Allow,
    Multi,
}

const LAYERS: [Layer; 6] = [
    Layer::Faulty,
    Layer::Frag,
    Layer::Mux,
    Layer::Map,
    Layer::Allow,
    Layer::Multi,
];

#[derive(Clone, Copy, Debug)]
enum Base {
    Mem,
    Udp,
}

/// A base and the layers on it, the lowest first.
#[derive(Clone, Debug)]
struct Shape {
    base: Base,
    layers: Vec<Layer>,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.base)?;
        self.layers.iter().try_for_each(|layer| write!(f, "/{layer:?}"))
    }
}

/// Every sequence of one to [`DEEPEST`] layers.
fn orders() -> Vec<Vec<Layer>> {
    let mut all: Vec<Vec<Layer>> = vec![Vec::new()];
    let mut from = 0;
    for _ in 0..DEEPEST {
        let to = all.len();
        for index in from..to {
            for layer in LAYERS {
                let mut longer = all[index].clone();
                longer.push(layer);
                all.push(longer);
            }
        }
        from = to;
    }
    all.remove(0);
    all
}

/// A node with the capabilities that its layers pass on.
enum Node {
    Plain(BoxSwarm<BoxAddr>),
    Secure(BoxSecureSwarm<BoxAddr>),
    SecureAsk(BoxSecureAskSwarm<BoxAddr>),
}

/// Adds a layer to a node; the result has the capabilities that the layer passes on.
macro_rules! layer {
    ($node:expr, $inner:ident => $made:expr) => {
        match $node {
            Node::Plain($inner) => Node::Plain(BoxSwarm::new($made)),
            Node::Secure($inner) => Node::Secure(BoxSecureSwarm::new($made)),
            Node::SecureAsk($inner) => Node::SecureAsk(BoxSecureAskSwarm::new($made)),
        }
    };
}

macro_rules! each {
    ($node:expr, $swarm:ident => $call:expr) => {
        match $node {
            Node::Plain($swarm) => $call,
            Node::Secure($swarm) => $call,
            Node::SecureAsk($swarm) => $call,
        }
    };
}

/// An address with a leading mark: the address type of the map layer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Marked(BoxAddr);

impl fmt::Display for Marked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "~{}", self.0)
    }
}

impl Addr for Marked {
    fn peer_id(&self) -> Option<PeerId> {
        self.0.peer_id()
    }
}

struct Mark;

impl Translate<Marked, BoxAddr> for Mark {
    fn down(&self, addr: &Marked) -> Result<BoxAddr> {
        Ok(addr.0.clone())
    }
    fn up(&self, addr: BoxAddr) -> Option<Marked> {
        Some(Marked(addr))
    }
    fn parse(&self, text: &str, below: impl Fn(&str) -> Result<BoxAddr>) -> Result<Marked> {
        let inner = text
            .strip_prefix('~')
            .ok_or_else(|| Error::addr(text, 0, "expected a mark"))?;
        below(inner).map(Marked).map_err(|error| match error {
            Error::InvalidAddr { at, reason, .. } => Error::addr(text, at + 1, reason),
            other => other,
        })
    }
}

/// The shared state of one stack's nodes, and their addresses.
struct Ground {
    shape: Shape,
    realm: MemoryRealm,
    spare: MemoryRealm,
    /// The address of this stack's sockets.
    loopback: IpAddr,
    faults: Faults<BoxAddr>,
    places: Mutex<HashMap<BoxAddr, BoxAddr>>,
}

impl Ground {
    fn new(shape: Shape) -> Self {
        let link = LinkFaults {
            loss: LOSS,
            reorder: 0.1,
            reorder_by: Duration::from_millis(2),
            ..LinkFaults::default()
        };
        // Lost asks fail soon, so that the laws repeat them soon.
        let config = FaultyConfig {
            seed: 7,
            link,
            ask_timeout: Duration::from_millis(200),
            link_delayed: QUEUE,
            ..FaultyConfig::default()
        };
        Self {
            shape,
            realm: MemoryRealm::new(MemoryConfig {
                messages: QUEUE,
                asks: QUEUE,
                ..MemoryConfig::default()
            }),
            spare: MemoryRealm::default(),
            loopback: loopback(),
            faults: Faults::new(config).expect("within their ranges"),
            places: Mutex::default(),
        }
    }

    /// Opens a node, at `addr` if that is given.
    fn open(&self, addr: Option<&BoxAddr>) -> Result<Node> {
        let place = addr.and_then(|addr| self.places.lock().expect("no panics").get(addr).cloned());
        let mut node = match self.shape.base {
            Base::Mem => {
                let place = place.as_ref().and_then(BoxAddr::downcast_ref::<MemoryAddr>);
                let node = place.map_or_else(|| Ok(self.realm.open()), |place| self.realm.open_at(*place))?;
                Node::SecureAsk(BoxSecureAskSwarm::new(EraseSwarm::erase(node)))
            }
            Base::Udp => {
                let place = place.as_ref().and_then(Addr::socket_addr);
                let mut config = UdpConfig::default();
                config.receive_buffer = 256 << 10;
                let addr = place.unwrap_or(SocketAddr::new(self.loopback, 0));
                let node = UdpSwarm::with_config(addr, config)?;
                Node::Plain(BoxSwarm::new(EraseSwarm::erase(node)))
            }
        };
        let place = each!(&node, swarm => swarm.local_addrs().swap_remove(0));
        for layer in &self.shape.layers {
            node = self.put(*layer, node)?;
        }
        let top = each!(&node, swarm => swarm.local_addrs().swap_remove(0));
        self.places.lock().expect("no panics").insert(top, place);
        Ok(node)
    }

    fn put(&self, layer: Layer, below: Node) -> Result<Node> {
        Ok(match layer {
            Layer::Faulty => layer!(below, inner => FaultySwarm::new(inner, self.faults.clone())),
            // A fragmenting layer does not pass asks on.
            Layer::Frag => match below {
                Node::Plain(inner) => Node::Plain(BoxSwarm::new(fragment(inner))),
                Node::Secure(inner) => Node::Secure(BoxSecureSwarm::new(fragment(inner))),
                Node::SecureAsk(inner) => Node::Secure(BoxSecureSwarm::new(fragment(inner))),
            },
            Layer::Mux => layer!(below, inner => {
                let config = MuxConfig { messages: QUEUE, asks: QUEUE, ..MuxConfig::default() };
                Mux::<_, _, Name>::with_config(inner, config).open("channel")?
            }),
            Layer::Map => {
                layer!(below, inner => EraseSwarm::erase(MapSwarm::new(inner, Mark)))
            }
            Layer::Allow => layer!(below, inner => {
                let allow = AllowSwarm::new(inner, Policy::Allow);
                allow.set(Rule::Peer(PeerId::ZERO), Policy::Deny);
                allow
            }),
            Layer::Multi => {
                let spare = EraseSwarm::erase(self.spare.open());
                match below {
                    Node::Plain(inner) => {
                        let multi = MultiSwarm::new([("main", inner), ("spare", BoxSwarm::new(spare))])?;
                        Node::Plain(BoxSwarm::new(EraseSwarm::erase(multi)))
                    }
                    Node::Secure(inner) => {
                        let multi =
                            MultiSwarm::new([("main", inner), ("spare", BoxSecureSwarm::new(spare))])?;
                        Node::Secure(BoxSecureSwarm::new(EraseSwarm::erase(multi)))
                    }
                    Node::SecureAsk(inner) => {
                        let multi =
                            MultiSwarm::new([("main", inner), ("spare", BoxSecureAskSwarm::new(spare))])?;
                        Node::SecureAsk(BoxSecureAskSwarm::new(EraseSwarm::erase(multi)))
                    }
                }
            }
        })
    }
}

fn fragment<S: Swarm<BoxAddr>>(inner: S) -> FragmentSwarm<BoxAddr, S> {
    let config = FragmentConfig {
        mtu: PARTS * chunk(inner.mtu()),
        messages: QUEUE,
        ..FragmentConfig::default()
    };
    FragmentSwarm::with_config(inner, config)
}

/// What the medium of this stack may do.
fn profile(shape: &Shape) -> Profile {
    let (mut short, mut long, mut parts) = (1.0, 1.0, 1);
    for layer in shape.layers.iter().rev() {
        match layer {
            Layer::Frag => parts *= PARTS,
            Layer::Faulty => {
                short *= 1.0 - LOSS;
                long *= (1.0 - LOSS).powi(i32::try_from(parts).expect("a few"));
            }
            _ => {}
        }
    }
    let profile = Profile {
        effort: Effort::Quick,
        loss: 1.0 - short,
        loss_at_mtu: 1.0 - long,
        // Each layer has at most one queue, including that of messages in flight, and the base one more.
        holds: (DEEPEST + 1) * QUEUE.items
            + if matches!(shape.base, Base::Udp) {
                KERNEL
            } else {
                0
            },
        ..Profile::default()
    };
    match shape.base {
        Base::Mem => profile.waive("wire::", "messages move between nodes in memory, without a wire"),
        Base::Udp => profile.waive(
            "counters::every_drop_is_counted",
            "the kernel drops messages when its buffer is full, without reporting it",
        ),
    }
}

/// Runs the suite on one stack.
async fn check(shape: Shape) -> Report {
    let ground = Arc::new(Ground::new(shape.clone()));
    let probe = ground.open(None).expect("opens");
    macro_rules! run {
        ($kind:ident, $capability:ident) => {{
            let (make, rebind) = (ground.clone(), ground.clone());
            let open = move |ground: &Ground, addr: Option<&BoxAddr>| match ground.open(addr)? {
                Node::$capability(swarm) => Ok(swarm),
                _ => Err(Error::invalid(
                    "stack",
                    "its capabilities differ from those of the first of its kind",
                )),
            };
            let made = move |count| std::future::ready((0..count).map(|_| open(&make, None)).collect());
            let again = move |addr| std::future::ready(open(&rebind, Some(&addr)));
            Testbed::new($kind, made)
                .rebind(again)
                .profile(profile(&shape))
                .run()
                .await
        }};
    }
    match probe {
        Node::Plain(_) => run!(Plain, Plain),
        Node::Secure(_) => run!(Secure, Secure),
        Node::SecureAsk(_) => run!(SecureAsk, SecureAsk),
    }
}

/// Which stacks are checked: the one with this number out of each group of this size.
fn sample() -> (usize, usize) {
    if std::env::var("SWARMTEST_STACKS").is_ok_and(|which| which == "all") {
        return (1, 0);
    }
    let seed = std::env::var("SWARMTEST_STACKS_SEED").unwrap_or_else(|_| "13".into());
    let seed: usize = seed.parse().expect("SWARMTEST_STACKS_SEED is a number");
    println!("every {SAMPLE}th stack, seed {seed}");
    (SAMPLE, seed % SAMPLE)
}

/// Runs the suite on the stacks of the sample over `base` whose number modulo `of` is `rest`.
async fn check_all(base: Base, rest: usize, of: usize) {
    let (every, chosen) = sample();
    let mut shapes = orders()
        .into_iter()
        .skip(rest)
        .step_by(of)
        .skip(chosen)
        .step_by(every)
        .map(|layers| Shape { base, layers });
    let mut running = JoinSet::new();
    let (mut stacks, mut failures) = (0, Vec::new());
    loop {
        while running.len() < AT_ONCE
            && let Some(shape) = shapes.next()
        {
            running.spawn(async move { (shape.clone(), check(shape).await) });
        }
        let Some(done) = running.join_next().await else {
            break;
        };
        let (shape, report) = done.expect("a stack can be checked");
        stacks += 1;
        assert!(report.iter().count() > 0, "no law was checked on {shape}");
        if !report.is_ok() {
            let broken: Vec<String> = report.failures().map(ToString::to_string).collect();
            failures.push(format!("{shape}\n  {}", broken.join("\n  ")));
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {stacks} stacks fail:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[test]
fn all_orders_are_generated() {
    let orders = orders();
    assert_eq!(orders.len(), 6 + 6 * 6 + 6 * 6 * 6);
    for (index, order) in orders.iter().enumerate() {
        assert!(!orders[..index].contains(order), "{order:?} occurs twice");
    }
}

#[tokio::test(start_paused = true)]
async fn every_stack_over_memory_keeps_the_laws_first_half() {
    check_all(Base::Mem, 0, 2).await;
}

#[tokio::test(start_paused = true)]
async fn every_stack_over_memory_keeps_the_laws_second_half() {
    check_all(Base::Mem, 1, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_stack_over_udp_keeps_the_laws() {
    check_all(Base::Udp, 0, 1).await;
}
