//! Nodes on a wire that always read, and a ledger of what was sent, with which every arrival is compared.

use std::collections::BTreeMap;
use std::time::Duration;

use p2p::{Addr, AskSwarm as _, Message, Packet, SecureSwarm as _, Swarm as _};
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, timeout};

use crate::harness::{Again, PLAIN, broken, ensure, number, numbered_payload, reversed};
use crate::kind::Node;
use crate::report::{Outcome, Unmet};
use crate::testbed::Testbed;
use crate::wire::{Datagram, Port, Wire};

/// Number of datagrams that are injected before the nodes get time to process them.
const AT_ONCE: usize = 32;

/// Nodes on a wire, and the payloads that they sent.
pub(in crate::laws) struct WireHarness<'a, A> {
    pub(in crate::laws) testbed: &'a Testbed<A>,
    pub(in crate::laws) wire: Wire,
    pub(in crate::laws) ports: Vec<Port>,
    pub(in crate::laws) nodes: Vec<Node<A>>,
    pub(in crate::laws) addrs: Vec<A>,
    pub(in crate::laws) rng: StdRng,
    /// Whether arrivals must be correct. Laws of the time after an attack only check that messages arrive.
    pub(in crate::laws) strict: bool,
    said: BTreeMap<u32, Said>,
    tasks: JoinSet<()>,
    surface: mpsc::UnboundedSender<Surfaced<A>>,
    surfaced: mpsc::UnboundedReceiver<Surfaced<A>>,
}

/// The use of one payload.
struct Said {
    from: usize,
    to: usize,
    payload: Vec<u8>,
    asked: bool,
    surfaced: usize,
}

/// An ask that waits for its response. Dropping it cancels the ask.
pub(in crate::laws) struct Asking {
    request: Vec<u8>,
    outcome: JoinSet<p2p::Result<Packet>>,
}

/// A message or a request that a node received.
struct Surfaced<A> {
    at: usize,
    src: A,
    payload: Packet,
    asked: bool,
}

impl<'a, A: Addr> WireHarness<'a, A> {
    /// Creates `N` nodes that read their messages and answer their asks from now on.
    pub(in crate::laws) async fn new<const N: usize>(testbed: &'a Testbed<A>) -> Outcome<Self> {
        let (wire, ports, nodes) = testbed.wired::<N>().await?;
        let (surface, surfaced) = mpsc::unbounded_channel();
        let mut harness = Self {
            testbed,
            wire,
            ports: Vec::new(),
            nodes: Vec::new(),
            addrs: Vec::new(),
            rng: testbed.rng(),
            strict: true,
            said: BTreeMap::new(),
            tasks: JoinSet::new(),
            surface,
            surfaced,
        };
        for (port, node) in ports.into_iter().zip(nodes) {
            harness.add(port, node)?;
        }
        Ok(harness)
    }

    fn add(&mut self, port: Port, node: Node<A>) -> Outcome<usize> {
        let at = self.nodes.len();
        self.addrs.push(node.addr()?);
        self.ports.push(port);
        self.read_at(at, &node);
        self.nodes.push(node);
        Ok(at)
    }

    /// Reads messages and answers asks of the node at this index from now on.
    fn read_at(&mut self, at: usize, node: &Node<A>) {
        let (surface, reader) = (self.surface.clone(), node.clone());
        self.tasks.spawn(async move {
            while let Ok(message) = reader.receive().await {
                let (src, payload) = (message.src, message.payload);
                let asked = false;
                let _ = surface.send(Surfaced {
                    at,
                    src,
                    payload,
                    asked,
                });
            }
        });
        if let Ok(asks) = node.ask_side() {
            let (surface, asks) = (self.surface.clone(), asks.clone());
            self.tasks.spawn(async move {
                while let Ok(request) = asks.receive_ask().await {
                    let (Message { src, payload, .. }, back) = (request.message, request.responder);
                    let answer = reversed(&payload);
                    let asked = true;
                    let _ = surface.send(Surfaced {
                        at,
                        src,
                        payload,
                        asked,
                    });
                    // The asker observes errors of this call.
                    let _ = back.respond(Packet::from(answer)).await;
                }
            });
        }
    }

    /// Closes a node and puts one with the same key at its port, which takes its index here.
    pub(in crate::laws) async fn restart(&mut self, at: usize) -> Outcome {
        // Other laws check how long closing takes; the port is taken from it anyway.
        let _ = timeout(self.testbed.patience(), self.nodes[at].close()).await;
        let tap = self.wire.open_at(self.ports[at]);
        let node = self.testbed.restarted(tap, &self.addrs[at]).await?;
        ensure!(
            self.nodes[at].secure_side()?.public_key() == node.secure_side()?.public_key(),
            "a node that the testbed created again has another key"
        );
        self.read_at(at, &node);
        self.nodes[at] = node;
        Ok(())
    }

    /// Closes a node and puts one with another key at its port.
    pub(in crate::laws) async fn usurp(&mut self, at: usize) -> Outcome<usize> {
        // Other laws check how long closing takes; the port is taken from it anyway.
        let _ = timeout(self.testbed.patience(), self.nodes[at].close()).await;
        let port = self.ports[at];
        let [impostor] = self.testbed.on([self.wire.open_at(port)]).await?;
        let (one, other) = (&self.nodes[at], &impostor);
        ensure!(
            one.secure_side()?.public_key() != other.secure_side()?.public_key(),
            "two nodes that the testbed created have the same key"
        );
        self.add(port, impostor)
    }

    /// Returns whether the nodes ask.
    pub(in crate::laws) fn asks(&self) -> bool {
        self.nodes.iter().all(|node| node.ask_side().is_ok())
    }

    /// Returns an unused payload of `from` to `to`.
    fn say(&mut self, from: usize, to: usize, len: usize, asked: bool) -> Vec<u8> {
        let number = self.said.len() as u32;
        let said = Said {
            from,
            to,
            payload: numbered_payload(number, len),
            asked,
            surfaced: 0,
        };
        self.said.entry(number).or_insert(said).payload.clone()
    }

    /// Tells a payload once. The result does not matter, and it is awaited no longer than the arrival of a
    /// message.
    pub(in crate::laws) async fn tell(&mut self, from: usize, to: usize, len: usize) {
        let packet = Packet::from(self.say(from, to, len, false));
        let _ = timeout(
            self.testbed.settle(),
            self.nodes[from].tell(&self.addrs[to], packet),
        )
        .await;
    }

    /// Asks with a payload, in a task.
    pub(in crate::laws) fn asking(&mut self, from: usize, to: usize, len: usize) -> Outcome<Asking> {
        let request = self.say(from, to, len, true);
        let (asks, dst) = (self.nodes[from].ask_side()?.clone(), self.addrs[to].clone());
        let packet = Packet::from(request.as_slice());
        let mut outcome = JoinSet::new();
        outcome.spawn(async move { asks.ask(&dst, packet).await });
        Ok(Asking { request, outcome })
    }

    /// Compares the response, if one arrives within `limit`, and returns whether it did; then cancels the
    /// ask.
    pub(in crate::laws) async fn answered(&self, mut asking: Asking, limit: Duration) -> Outcome<bool> {
        let Ok(Some(Ok(Ok(response)))) = timeout(limit, asking.outcome.join_next()).await else {
            return Ok(false);
        };
        ensure!(
            response == *reversed(&asking.request).as_slice(),
            "an ask got a response that was not sent to it ({})",
            self.seed()
        );
        Ok(true)
    }

    /// Asks with a payload, and compares the response; returns whether one arrived within `limit`.
    pub(in crate::laws) async fn ask(
        &mut self,
        from: usize,
        to: usize,
        len: usize,
        limit: Duration,
    ) -> Outcome<bool> {
        let asking = self.asking(from, to, len)?;
        self.answered(asking, limit).await
    }

    /// Asks until a response arrives.
    pub(in crate::laws) async fn is_answered(&mut self, from: usize, to: usize) -> Outcome {
        let mut again = self.testbed.again_round_trip(PLAIN);
        while again.next() {
            if self
                .ask(from, to, PLAIN, self.testbed.the_profile().ask_patience)
                .await?
            {
                return self.settle().await;
            }
        }
        broken!("of {} asks none was answered ({})", again.times, self.seed())
    }

    /// Tells payloads until one arrives.
    pub(in crate::laws) async fn reach(&mut self, from: usize, to: usize) -> Outcome {
        let mut again: Again = self.testbed.again(PLAIN);
        while again.next() {
            let first = self.said.len() as u32;
            self.tell(from, to, PLAIN).await;
            self.look(self.testbed.settle(), |harness| {
                harness.surfaced_since(first, from, to)
            })
            .await?;
            if self.surfaced_since(first, from, to) {
                return Ok(());
            }
        }
        broken!(
            "{} messages were told, and none arrived ({})",
            again.times,
            self.seed()
        )
    }

    fn surfaced_since(&self, first: u32, from: usize, to: usize) -> bool {
        let mut since = self.said.range(first..).map(|(_, said)| said);
        since.any(|said| said.surfaced > 0 && (said.from, said.to) == (from, to))
    }

    /// Compares all arrivals so far.
    pub(in crate::laws) async fn read(&mut self) -> Outcome {
        yield_now().await;
        self.look(Duration::ZERO, |_| false).await
    }

    /// Compares arrivals until there are no further ones.
    pub(in crate::laws) async fn settle(&mut self) -> Outcome {
        self.look(self.testbed.settle(), |_| false).await
    }

    /// Compares arrivals until `enough`, or until there was none for `quiet`.
    async fn look(&mut self, quiet: Duration, enough: impl Fn(&Self) -> bool) -> Outcome {
        while !enough(self) {
            match timeout(quiet, self.surfaced.recv()).await {
                Ok(Some(surfaced)) => self.compare(surfaced).await?,
                Ok(None) | Err(_) => break,
            }
        }
        Ok(())
    }

    /// Checks that an arrival was sent with these bits, to this node, in this way, by the node that it names.
    async fn compare(&mut self, surfaced: Surfaced<A>) -> Outcome {
        if !self.strict {
            let known = number(&surfaced.payload).and_then(|number| self.said.get_mut(&number));
            if let Some(said) = known.filter(|said| said.to == surfaced.at && !surfaced.asked) {
                said.surfaced += 1;
            }
            return Ok(());
        }
        let Surfaced {
            at,
            src,
            payload,
            asked,
        } = surfaced;
        let (seed, what) = (self.seed(), if asked { "request" } else { "message" });
        let known = number(&payload).and_then(|number| self.said.get_mut(&number));
        let Some(said) = known.filter(|said| said.asked == asked) else {
            broken!(
                "a {what} of {} bytes arrived that was never sent ({seed})",
                payload.len()
            );
        };
        ensure!(
            payload == *said.payload.as_slice(),
            "a {what} of {} bytes arrived changed, with {} bytes ({seed})",
            said.payload.len(),
            payload.len()
        );
        ensure!(
            at == said.to,
            "a {what} to {} arrived at another node ({seed})",
            self.addrs[said.to]
        );
        said.surfaced += 1;
        let from = said.from;
        let named = match (src.peer_id(), self.addrs[from].peer_id()) {
            (Some(named), Some(sent)) => named == sent,
            _ => self.has_key_of(at, &src, from).await?,
        };
        ensure!(
            named,
            "a {what} of {} names {src} as its source ({seed})",
            self.addrs[from]
        );
        Ok(())
    }

    /// Returns whether the node at `src` has this node's key, as far as that is known.
    async fn has_key_of(&self, reader: usize, src: &A, from: usize) -> Outcome<bool> {
        let keys = self.nodes[reader].secure_side()?;
        let found = timeout(self.testbed.settle(), keys.lookup_public_key(src)).await;
        let sent = self.nodes[from].secure_side()?.public_key();
        Ok(!matches!(found, Ok(Ok(found)) if found != sent))
    }

    /// Returns [`Unmet::Broken`] if a payload arrived more than once.
    pub(in crate::laws) fn at_most_once(&self) -> Outcome {
        for said in self.said.values() {
            ensure!(
                said.surfaced <= 1,
                "a {} surfaced {} times ({})",
                if said.asked { "request" } else { "message" },
                said.surfaced,
                self.seed()
            );
        }
        Ok(())
    }

    /// Returns [`Unmet::Waived`] if addresses name no identity: then no node can be mistaken for another.
    pub(in crate::laws) fn names_ids(&self) -> Outcome {
        if self.addrs.iter().all(|addr| addr.peer_id().is_some()) {
            return Ok(());
        }
        Err(Unmet::Waived("its addresses name no identity".into()))
    }

    /// Injects datagrams that no node sent, a few at a time.
    pub(in crate::laws) async fn inject(&mut self, datagrams: impl IntoIterator<Item = Datagram>) -> Outcome {
        self.put(datagrams).await;
        self.settle().await
    }

    /// Does the same as [`inject`](Self::inject), without waiting for arrivals.
    pub(in crate::laws) async fn put(&mut self, datagrams: impl IntoIterator<Item = Datagram>) {
        let mut datagrams = datagrams.into_iter().peekable();
        while datagrams.peek().is_some() {
            let some: Vec<Datagram> = datagrams.by_ref().take(AT_ONCE).collect();
            let ports: Vec<Port> = some.iter().map(|datagram| datagram.dst).collect();
            for datagram in some {
                self.wire.inject(datagram);
            }
            // Packets that no node takes off the wire are lost to this law, and not a fault.
            let taken = async {
                while ports.iter().any(|port| self.wire.waiting(*port) > 0) {
                    sleep(Duration::from_millis(1)).await;
                }
            };
            yield_now().await;
            let _ = timeout(self.testbed.settle(), taken).await;
        }
    }

    pub(in crate::laws) fn seed(&self) -> String {
        format!("seed {}", self.testbed.the_profile().seed)
    }
}
