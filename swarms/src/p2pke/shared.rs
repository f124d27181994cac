//! What the callers of one swarm and its background share: the engine under a lock, and the paths beside it.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use p2p::{Addr, BatchError, BatchOutcome, Counters, Error, Message, Packet, PeerId, Reason, Result, Swarm};
use p2p_formats::x509::PrivateKey;
use p2p_protocols::p2pke::{self, DataPath, Endpoint, Event, Local, Sealed, wire};
use tokio::time::Instant;

use super::{MIN_INNER_MTU, P2pkeConfig};
use crate::KeyAddr;
use crate::driver::{Clock, Driven, Driver, Pulled};
use crate::inbox::{self, Inbox, Queued};
use crate::turn::{Driving, Wait};

const LAYER: &str = "p2pke";

/// Sessions that a message tries to leave in: one that was just made may be over when its teller runs again.
const ATTEMPTS: usize = 3;

/// One clock for all nodes of the process, so that a node which is made again never says an earlier time than before.
static CLOCK: LazyLock<Clock> = LazyLock::new(|| {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Clock::new(
        Instant::from_std(std::time::Instant::now()),
        unix.unwrap_or_default(),
    )
});

pub(super) struct Shared<A: Addr, S> {
    pub(super) driver: Driver<A, S>,
    pub(super) config: P2pkeConfig,
    pub(super) mtu: usize,
    pub(super) inbox: Inbox<Message<KeyAddr<A>>>,
    pub(super) messages: Counters,
    pub(super) handshakes: Counters,
    local: Arc<Local>,
    /// Whom each address leads to. Written under the engine's lock, and read without it.
    paths: RwLock<HashMap<A, Arc<DataPath>>>,
    state: Mutex<State<A>>,
    /// Emptied by the last batch, for the next.
    spare: Mutex<Vec<(A, Packet)>>,
}

struct State<A> {
    /// Gone once the swarm is closed.
    endpoint: Option<Endpoint<A>>,
    /// Those who wait for a session, by where.
    waiting: HashMap<A, Vec<Waiter>>,
}

struct Waiter {
    expected: PeerId,
    slot: Arc<Inbox<Opened>>,
}

/// How a handshake ended that somebody waits for.
#[derive(Debug)]
pub(super) struct Opened {
    path: Result<Arc<DataPath>>,
    nothing: Packet,
}

impl Queued for Opened {
    fn payload(&self) -> &Packet {
        &self.nothing
    }
    fn payload_mut(&mut self) -> &mut Packet {
        &mut self.nothing
    }
}

/// What calls of the engine led to, to be done behind its lock.
struct Effects<A> {
    to_send: Vec<(A, Packet)>,
    /// Handshakes that ended, and who waits for that.
    ended: Vec<(Waiter, Result<Arc<DataPath>>)>,
    /// The timer rings sooner than before.
    sooner: bool,
}

impl<A> Default for Effects<A> {
    fn default() -> Self {
        Self {
            to_send: Vec::new(),
            ended: Vec::new(),
            sooner: false,
        }
    }
}

/// One batch on its way up.
struct Landing<A> {
    now: Duration,
    /// The path of the last message, as messages of one peer follow one another.
    last: Option<(A, Arc<DataPath>)>,
    effects: Effects<A>,
    data: usize,
    handshakes: usize,
}

impl<A: Addr, S: Swarm<A>> Shared<A, S> {
    pub(super) fn new(inner: S, key: &PrivateKey, config: P2pkeConfig) -> Result<Self> {
        let mtu = inner.mtu();
        if mtu < MIN_INNER_MTU {
            let reason = format!("P2PKE needs an MTU of {MIN_INNER_MTU} bytes below, and there are {mtu}");
            return Err(Error::invalid("inner swarm", reason));
        }
        let local = Arc::new(config.local(key)?);
        let endpoint = Endpoint::new(local.clone(), &mut rand::rng());
        Ok(Self {
            driver: Driver::new(inner, *CLOCK),
            mtu: (mtu - wire::OVERHEAD).min(wire::MAX_MESSAGE),
            inbox: Inbox::new(config.messages),
            messages: Counters::new(LAYER),
            handshakes: Counters::new("p2pke-handshake"),
            local,
            paths: RwLock::default(),
            state: Mutex::new(State {
                endpoint: Some(endpoint),
                waiting: HashMap::new(),
            }),
            spare: Mutex::default(),
            config,
        })
    }

    pub(super) fn local(&self) -> &Local {
        &self.local
    }

    pub(super) fn id(&self) -> PeerId {
        self.local.id()
    }

    pub(super) fn sessions(&self) -> usize {
        self.paths.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn state(&self) -> MutexGuard<'_, State<A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, addr: &A) -> Option<Arc<DataPath>> {
        let paths = self.paths.read().unwrap_or_else(PoisonError::into_inner);
        paths.get(addr).cloned()
    }

    /// Seals a message if there is a session with its destination. Says whether a new one is due, or nothing, and the
    /// packet is as it was.
    pub(super) fn seal(&self, dst: &KeyAddr<A>, packet: &mut Packet) -> Option<bool> {
        let paths = self.paths.read().unwrap_or_else(PoisonError::into_inner);
        let path = paths.get(&dst.addr).filter(|path| path.peer() == dst.id)?;
        let sealed = path.seal(self.driver.now(), packet).ok()?;
        Some(sealed == Sealed::RenewalDue)
    }

    /// Seals the messages of a batch that can leave now, and gives back the others.
    #[expect(clippy::type_complexity, reason = "two batches")]
    pub(super) fn seal_batch(
        self: &Arc<Self>,
        batch: &mut Vec<(KeyAddr<A>, Packet)>,
        outcome: &mut BatchOutcome,
    ) -> (Vec<(A, Packet)>, Vec<(KeyAddr<A>, Packet)>) {
        let now = self.driver.now();
        let mut sealed = std::mem::take(&mut *self.spare.lock().unwrap_or_else(PoisonError::into_inner));
        let mut late = Vec::new();
        let mut last: Option<(KeyAddr<A>, Option<Arc<DataPath>>)> = None;
        let mut renew: Option<A> = None;
        for (dst, mut packet) in batch.drain(..) {
            if let Err(error) = packet.check(self.mtu) {
                outcome.refused(1, error);
                continue;
            }
            let path = match &last {
                Some((to, path)) if *to == dst => path,
                _ => {
                    let path = self.path(&dst.addr).filter(|path| path.peer() == dst.id);
                    &last.insert((dst.clone(), path)).1
                }
            };
            match path.as_ref().map(|path| path.seal(now, &mut packet)) {
                Some(Ok(due)) => {
                    if due == Sealed::RenewalDue && renew.as_ref() != Some(&dst.addr) {
                        self.renew(&dst.addr);
                        renew = Some(dst.addr.clone());
                    }
                    sealed.push((dst.addr, packet));
                }
                Some(Err(_)) | None => late.push((dst, packet)),
            }
        }
        (sealed, late)
    }

    pub(super) fn keep(&self, mut sealed: Vec<(A, Packet)>) {
        sealed.clear();
        *self.spare.lock().unwrap_or_else(PoisonError::into_inner) = sealed;
    }

    /// Sends what is sealed.
    pub(super) async fn send(self: &Arc<Self>, dst: &KeyAddr<A>, packet: Packet, renew: bool) -> Result<()> {
        if renew {
            self.renew(&dst.addr);
        }
        self.driver.inner.tell(&dst.addr, packet).await?;
        self.messages.sent(1);
        Ok(())
    }

    pub(super) async fn send_batch(&self, sealed: &mut Vec<(A, Packet)>, outcome: &mut BatchOutcome) {
        let count = sealed.len();
        let result = self.driver.inner.tell_batch(sealed).await;
        self.messages
            .sent(result.as_ref().map_or_else(|error| error.sent, |()| count));
        outcome.record_batch(count, result);
    }

    /// Sends messages to one peer with which there was no session.
    pub(super) async fn tell_late(
        self: &Arc<Self>,
        dst: KeyAddr<A>,
        mut packets: Vec<Packet>,
    ) -> (usize, Result<(), BatchError>) {
        let count = packets.len();
        let mut outcome = BatchOutcome::default();
        let ready = match self.is_here(&dst) {
            Ok(true) => {
                for packet in packets {
                    self.loop_back(&dst, packet);
                }
                return (count, Ok(()));
            }
            Ok(false) => self.seal_late(&dst, &mut packets).await,
            Err(error) => Err(error),
        };
        match ready {
            Ok(renew) => {
                if renew {
                    self.renew(&dst.addr);
                }
                let mut sealed = packets
                    .into_iter()
                    .map(|packet| (dst.addr.clone(), packet))
                    .collect();
                self.send_batch(&mut sealed, &mut outcome).await;
            }
            Err(error) => outcome.refused(count, error),
        }
        (count, outcome.finish())
    }

    /// Waits for a session with a peer and seals messages in it.
    pub(super) async fn seal_late(
        self: &Arc<Self>,
        dst: &KeyAddr<A>,
        packets: &mut [Packet],
    ) -> Result<bool> {
        let mut packets = packets.iter_mut().peekable();
        let (mut renew, mut last) = (false, p2pke::Error::NoSession);
        for _ in 0..ATTEMPTS {
            let path = self.session(dst).await?;
            let now = self.driver.now();
            while let Some(packet) = packets.peek_mut() {
                match path.seal(now, packet) {
                    Ok(sealed) => renew |= sealed == Sealed::RenewalDue,
                    Err(error) => {
                        last = error;
                        break;
                    }
                }
                packets.next();
            }
            if packets.peek().is_none() {
                return Ok(renew);
            }
        }
        Err(self.error(dst, &last))
    }

    /// Whether `dst` is this node.
    pub(super) fn is_here(&self, dst: &KeyAddr<A>) -> Result<bool> {
        self.driver.check_open()?;
        Ok(dst.id == self.id() && self.driver.inner.local_addrs().contains(&dst.addr))
    }

    /// A message of this node to itself.
    pub(super) fn loop_back(&self, dst: &KeyAddr<A>, payload: Packet) {
        self.messages.sent(1);
        self.messages.received(1);
        self.put(vec![Message {
            src: dst.clone(),
            dst: dst.clone(),
            payload,
        }]);
        // Whoever drives may be the one who wants it.
        self.driver.nudge();
    }

    /// Puts messages into the inbox.
    fn put(&self, messages: Vec<Message<KeyAddr<A>>>) {
        let put = self.inbox.extend(messages);
        for message in put.refused {
            self.messages.dropped_at(put.reason, &message.src);
        }
    }

    /// The path to a peer; makes a session where there is none.
    pub(super) async fn session(self: &Arc<Self>, peer: &KeyAddr<A>) -> Result<Arc<DataPath>> {
        let (waiting, mut to_send) = match self.connect(peer)? {
            Connect::Ready(path) => return Ok(path),
            Connect::Wait(waiting, to_send) => (waiting, to_send),
        };
        if !to_send.is_empty() {
            // What the swarm below says of the hello is what it would say of the message.
            let sent = self.driver.inner.tell_batch(&mut to_send).await;
            sent.map_err(|error| error.first)?;
        }
        let opened = match self.driver.turn.drive_or_pop(&waiting.slot).await? {
            Wait::Item(opened) => opened,
            Wait::Drive(mut driving) => loop {
                self.driver.pull(&mut driving, self.config.batch).await?;
                self.land_up_to(&mut driving, 0, |_| {});
                if let Some(opened) = waiting.slot.try_pop()? {
                    break opened;
                }
            },
        };
        opened.path
    }

    fn connect(self: &Arc<Self>, peer: &KeyAddr<A>) -> Result<Connect<'_, A, S>> {
        let mut effects = Effects::default();
        let mut state = self.state();
        let endpoint = state.endpoint.as_mut().ok_or(Error::Closed)?;
        let connected = endpoint.connect(self.driver.now(), &peer.addr, Some(peer.id), &mut rand::rng());
        let waiting = state.join(self, peer);
        self.settle(&mut state, &mut effects);
        drop(state);
        let to_send = std::mem::take(&mut effects.to_send);
        self.handshakes.sent(to_send.len());
        self.carry_out(effects);
        match connected {
            Ok(Some(path)) => Ok(Connect::Ready(path)),
            Ok(None) => Ok(Connect::Wait(waiting, to_send)),
            Err(error) => Err(self.error(peer, &error)),
        }
    }

    /// Begins to replace the session at an address, which is still good.
    fn renew(self: &Arc<Self>, addr: &A) {
        let mut effects = Effects::default();
        let mut state = self.state();
        let Some(endpoint) = &mut state.endpoint else {
            return;
        };
        if let Err(error) = endpoint.renew(self.driver.now(), addr, &mut rand::rng()) {
            tracing::debug!(layer = LAYER, peer = %addr, %error, "no renewal");
        }
        self.settle(&mut state, &mut effects);
        drop(state);
        self.carry_out(effects);
    }

    /// Takes over what the engine has to say after a call.
    fn settle(&self, state: &mut State<A>, effects: &mut Effects<A>) {
        let State { endpoint, waiting } = state;
        let Some(endpoint) = endpoint else { return };
        while let Some((addr, event)) = endpoint.poll_event() {
            match event {
                Event::Established(path) => {
                    tracing::debug!(layer = LAYER, peer = %path.peer(), %addr, "session established");
                    let waiters = waiters_for(waiting, &addr, path.peer());
                    effects
                        .ended
                        .extend(waiters.map(|waiter| (waiter, Ok(path.clone()))));
                    self.set_path(addr, Some(path));
                }
                Event::Changed(path) => self.set_path(addr, Some(path)),
                Event::Expired => {
                    tracing::debug!(layer = LAYER, %addr, "session expired");
                    self.set_path(addr, None);
                }
                Event::Failed { expected, error } => {
                    tracing::debug!(layer = LAYER, peer = ?expected, %addr, %error, "no session");
                    if let Some(id) = expected {
                        let peer = KeyAddr::new(id, addr);
                        let waiters = waiters_for(waiting, &peer.addr, id);
                        let failed = waiters.map(|waiter| (waiter, Err(self.error(&peer, &error))));
                        effects.ended.extend(failed);
                    }
                }
            }
        }
        effects
            .to_send
            .extend(std::iter::from_fn(|| endpoint.poll_transmit()));
        effects.sooner |= self.driver.arm(endpoint.poll_timeout());
    }

    /// Does what calls of the engine led to.
    fn carry_out(self: &Arc<Self>, effects: Effects<A>) {
        if effects.sooner {
            self.driver.nudge();
        }
        for (waiter, path) in effects.ended {
            waiter.answer(path);
        }
        self.handshakes.sent(effects.to_send.len());
        Driver::send_detached(self, effects.to_send);
    }

    fn set_path(&self, addr: A, path: Option<Arc<DataPath>>) {
        let mut paths = self.paths.write().unwrap_or_else(PoisonError::into_inner);
        match path {
            Some(path) => drop(paths.insert(addr, path)),
            None => drop(paths.remove(&addr)),
        }
    }

    /// What an error of the engine means to whoever tells `peer`.
    fn error(&self, peer: &KeyAddr<A>, error: &p2pke::Error) -> Error {
        match error {
            p2pke::Error::Denied => Error::denied(peer),
            p2pke::Error::TimedOut => Error::TimedOut {
                doing: "the handshake with the peer",
                limit: self.config.engine.handshake_timeout,
            },
            p2pke::Error::Full => Error::Limit {
                what: "channels",
                limit: self.config.engine.channels,
            },
            other => Error::unreachable(peer, other.to_string()),
        }
    }

    /// Drives until there are messages for the caller; returns how many `out` got.
    pub(super) async fn receive(
        self: &Arc<Self>,
        mut driving: Driving<'_, Pulled<A>>,
        max: usize,
        batch: usize,
        mut out: impl FnMut(Message<KeyAddr<A>>),
    ) -> Result<usize> {
        loop {
            self.driver.pull(&mut driving, batch).await?;
            let count = self.land_up_to(&mut driving, max, &mut out);
            if count > 0 {
                return Ok(count);
            }
            if let Some(message) = self.inbox.try_pop()? {
                self.messages.delivered(1);
                out(message);
                return Ok(1);
            }
        }
    }

    /// Opens what was pulled and looks at the timer. Up to `max` messages go to `out`, the others into the inbox;
    /// returns how many `out` got. Never waits.
    fn land_up_to(
        self: &Arc<Self>,
        pulled: &mut Pulled<A>,
        max: usize,
        mut out: impl FnMut(Message<KeyAddr<A>>),
    ) -> usize {
        let mut landing = Landing {
            now: self.driver.now(),
            last: None,
            effects: Effects::default(),
            data: 0,
            handshakes: 0,
        };
        let (mut count, mut surplus) = (0, Vec::new());
        for message in pulled.messages.drain(..) {
            let Some(opened) = self.open(&mut landing, message) else {
                continue;
            };
            if count < max {
                count += 1;
                out(opened);
            } else {
                surplus.push(opened);
            }
        }
        self.messages.received(landing.data);
        self.messages.delivered(count);
        self.handshakes.received(landing.handshakes);
        if !surplus.is_empty() {
            self.put(surplus);
        }
        if self.driver.is_due(landing.now) {
            let mut state = self.state();
            if let Some(endpoint) = &mut state.endpoint {
                endpoint.handle_timeout(landing.now, &mut rand::rng());
            }
            self.settle(&mut state, &mut landing.effects);
        }
        // The caller drives, and sets the timer before it waits.
        landing.effects.sooner = false;
        self.carry_out(landing.effects);
        count
    }

    /// Opens a message with the path of its source, or gives it to the engine.
    fn open(&self, landing: &mut Landing<A>, message: Message<A>) -> Option<Message<KeyAddr<A>>> {
        let Message {
            src,
            dst,
            mut payload,
        } = message;
        if landing.last.as_ref().is_none_or(|(addr, _)| *addr != src) {
            landing.last = self.path(&src).map(|path| (src.clone(), path));
        }
        let opened = match &landing.last {
            Some((_, path)) => path.open(landing.now, &mut payload).map(|()| path.peer()),
            None => Err(p2pke::Error::Unexpected),
        };
        let opened = match opened {
            Err(p2pke::Error::Unexpected) => return self.handle(landing, src, dst, payload),
            opened => opened,
        };
        landing.data += 1;
        match opened {
            Ok(peer) => Some(Message {
                src: KeyAddr::new(peer, src),
                dst: KeyAddr::new(self.id(), dst),
                payload,
            }),
            Err(error) => {
                dropped(&self.messages, &src, &error);
                None
            }
        }
    }

    /// Gives the engine what no path opens: handshake messages, and data of those without a path.
    fn handle(
        &self,
        landing: &mut Landing<A>,
        src: A,
        dst: A,
        packet: Packet,
    ) -> Option<Message<KeyAddr<A>>> {
        let handshake = wire::is_handshake(&packet);
        let counters = if handshake {
            landing.handshakes += 1;
            &self.handshakes
        } else {
            landing.data += 1;
            &self.messages
        };
        let handled = {
            let mut state = self.state();
            let endpoint = state.endpoint.as_mut()?;
            let handled = endpoint.handle(landing.now, &src, packet, &mut rand::rng());
            self.settle(&mut state, &mut landing.effects);
            handled
        };
        // The path may be another one now.
        landing.last = None;
        match handled {
            Ok(None) => {
                counters.delivered(1);
                None
            }
            Ok(Some((peer, payload))) => Some(Message {
                src: KeyAddr::new(peer, src),
                dst: KeyAddr::new(self.id(), dst),
                payload,
            }),
            Err(error) => {
                dropped(counters, &src, &error);
                None
            }
        }
    }

    /// Forgets the sessions with those peers that `pick` picks.
    pub(super) fn disconnect(&self, pick: impl Fn(&PeerId) -> bool) -> usize {
        let (mut count, mut waiters) = (0, Vec::new());
        let mut state = self.state();
        let State { endpoint, waiting } = &mut *state;
        let Some(endpoint) = endpoint else { return 0 };
        let mut paths = self.paths.write().unwrap_or_else(PoisonError::into_inner);
        for (addr, _) in paths.extract_if(|_, path| pick(&path.peer())) {
            count += 1;
            endpoint.disconnect(&addr);
            // A handshake with somebody else there is over, too.
            waiters.extend(
                waiting
                    .remove(&addr)
                    .unwrap_or_default()
                    .into_iter()
                    .map(|waiter| (addr.clone(), waiter)),
            );
        }
        drop((paths, state));
        for (addr, waiter) in waiters {
            let peer = KeyAddr::new(waiter.expected, addr);
            waiter.answer(Err(Error::unreachable(&peer, "its address was disconnected")));
        }
        count
    }

    /// Fails everybody who waits, now and later, and forgets all keys.
    pub(super) fn close(&self) {
        let waiting = {
            let mut state = self.state();
            state.endpoint = None;
            std::mem::take(&mut state.waiting)
        };
        let paths = std::mem::take(&mut *self.paths.write().unwrap_or_else(PoisonError::into_inner));
        drop(paths);
        for waiter in waiting.into_values().flatten() {
            waiter.slot.close();
        }
        self.messages.dropped_many(Reason::Closed, self.inbox.close());
        self.driver.close();
    }
}

impl<A: Addr, S: Swarm<A>> Driven<A> for Shared<A, S> {
    type Inner = S;

    fn driver(&self) -> &Driver<A, S> {
        &self.driver
    }

    fn counters(&self) -> &Counters {
        &self.handshakes
    }

    fn batch(&self) -> usize {
        self.config.batch
    }

    fn land(self: &Arc<Self>, pulled: &mut Pulled<A>) {
        self.land_up_to(pulled, 0, |_| {});
    }
}

/// What asking the engine for a session led to.
enum Connect<'a, A: Addr, S: Swarm<A>> {
    Ready(Arc<DataPath>),
    /// There will be one, or an error; these packets are to be sent for it.
    Wait(Waiting<'a, A, S>, Vec<(A, Packet)>),
}

/// A place among those who wait for a session, given up when it is dropped.
struct Waiting<'a, A: Addr, S: Swarm<A>> {
    shared: &'a Shared<A, S>,
    addr: A,
    slot: Arc<Inbox<Opened>>,
}

impl<A: Addr, S: Swarm<A>> Drop for Waiting<'_, A, S> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        if let Some(waiters) = state.waiting.get_mut(&self.addr) {
            waiters.retain(|waiter| !Arc::ptr_eq(&waiter.slot, &self.slot));
            if waiters.is_empty() {
                state.waiting.remove(&self.addr);
            }
        }
    }
}

impl<A: Addr> State<A> {
    fn join<'a, S: Swarm<A>>(&mut self, shared: &'a Shared<A, S>, peer: &KeyAddr<A>) -> Waiting<'a, A, S> {
        let slot = Arc::new(Inbox::new(inbox::Limits {
            items: 1,
            bytes: usize::MAX,
            copy_below: 0,
        }));
        let waiters = self.waiting.entry(peer.addr.clone()).or_default();
        waiters.push(Waiter {
            expected: peer.id,
            slot: slot.clone(),
        });
        let addr = peer.addr.clone();
        Waiting { shared, addr, slot }
    }
}

impl Waiter {
    fn answer(self, path: Result<Arc<DataPath>>) {
        let nothing = Packet::default();
        // Its only item; a slot that is closed needs none.
        drop(self.slot.push(Opened { path, nothing }));
    }
}

/// Takes out those who wait for `peer` at `addr`.
fn waiters_for<A: Addr>(
    waiting: &mut HashMap<A, Vec<Waiter>>,
    addr: &A,
    peer: PeerId,
) -> impl Iterator<Item = Waiter> {
    let (found, others) = waiting
        .remove(addr)
        .unwrap_or_default()
        .into_iter()
        .partition::<Vec<_>, _>(|waiter| waiter.expected == peer);
    if !others.is_empty() {
        waiting.insert(addr.clone(), others);
    }
    found.into_iter()
}

/// Counts and traces a packet that the engine refused.
fn dropped(counters: &Counters, src: &impl Addr, error: &p2pke::Error) {
    let reason = error.reason();
    counters.dropped_many(reason, 1);
    tracing::trace!(layer = counters.layer(), reason = reason.as_str(), peer = %src, %error, "dropped");
}

/// Messages by their destination, in the order of the first of each.
pub(super) fn batch_by_peer<A: Addr>(batch: Vec<(KeyAddr<A>, Packet)>) -> Vec<(KeyAddr<A>, Vec<Packet>)> {
    let mut places = HashMap::new();
    let mut groups: Vec<(KeyAddr<A>, Vec<Packet>)> = Vec::new();
    for (dst, packet) in batch {
        let place = *places.entry(dst.clone()).or_insert(groups.len());
        match groups.get_mut(place) {
            Some((_, packets)) => packets.push(packet),
            None => groups.push((dst, vec![packet])),
        }
    }
    groups
}
