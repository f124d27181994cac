//! The effect of a stack's medium on messages, derived from its text, as input of a conformance profile.

use std::time::Duration;

use p2p::{Error, Packet, Result, Swarm as _};
use tokio::time::timeout;

use super::build::random_key;
use super::grammar::Placed;
use super::read::Piece;
use super::{Layer, StackError, StackText};
use crate::faulty::FaultyConfig;
use crate::memory::MemoryConfig;
use crate::mux::MuxConfig;
use crate::quic::MIN_INNER_MTU;
use crate::udp::UdpConfig;
use crate::{GossipConfig, LinkFaults, MbappConfig, OverlayConfig, P2pkeConfig, QuicConfig};

/// The effect of a stack on messages, as far as its text determines it.
///
/// Losses are those that the text configures, and the likely ones of buffers that a burst fills. `short`
/// messages have up to 64 bytes.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Medium {
    /// The MTU of the stack, in bytes.
    pub mtu: usize,
    /// Maximum probability that a short message is lost.
    pub loss: f64,
    /// Maximum probability that a message of up to the MTU, and up to [`longest`](Self::longest), is lost:
    /// all of its fragments must arrive.
    pub loss_at_mtu: f64,
    /// Length of the longest message that arrives with a probability of at least 30 %, or is lost no more
    /// often than a short one: the MTU, if few fragments are lost.
    pub longest: usize,
    /// The same for requests and responses, whose fragments `mbapp` and `quic` retransmit.
    pub longest_ask: usize,
    /// Whether a message may arrive twice.
    pub duplicates: bool,
    /// Whether a message may arrive with changed bytes: bits are flipped, and no layer above detects it. Such
    /// messages count as lost.
    pub damages: bool,
    /// Maximum time that the configured faults delay a message.
    pub delay: Duration,
    /// How long a call may take, and a message until it has arrived or is counted as lost, where QUIC dials or retransmits; zero
    /// without. On a medium that loses, QUIC doubles its timeout with each retransmission that is lost, and gives up a session that
    /// hears nothing for [`QuicConfig::idle_timeout`]: of nodes that lose 30 % of their packets, one in six has a session that takes
    /// over 20 s once. In an overlay a search for a node that is gone waits for several dials.
    pub recovery: Duration,
    /// Whether a handshake comes before the first message.
    pub handshakes: bool,
    /// Maximum number of messages that wait for a stopped reader, over all layers, for each sending node.
    pub holds: usize,
    /// Laws of the suite that such a stack cannot keep, or groups of them that end in `::`, each with the
    /// reason.
    pub waivers: Vec<(&'static str, &'static str)>,
}

/// Loss from which on laws are not checked: each would have to be repeated thousands of times.
const MOST_LOSS: f64 = 0.95;
/// Probability from which on a message is told again until it arrives; see [`Medium::longest`].
const LIKELY: f64 = 0.3;
/// Minimum probability that a fragmented message arrives if a buffer has no room for a burst of fragments.
const BURST_ARRIVES: f64 = 0.2;
/// Probability that a datagram arrives, below which QUIC's sessions may end: nothing arrives until the idle timeout, ten
/// probe timeouts long. With 30 % loss a law of a long exchange met that once in some hundred stacks, and lost all
/// messages of the session.
const SESSIONS_LAST: f64 = 0.75;
/// Delay from which on laws are not checked: they would take hours.
const MOST_DELAY: Duration = Duration::from_secs(1);
/// Minimum rate of a link on which laws are checked, in bytes per second.
const LEAST_RATE: u64 = 100_000;
/// Maximum header of a fragment in bytes.
const PIECE_HEADER: usize = 16;
/// Dials, one after another, of a search for a node that is gone, at most.
const SEARCH_DIALS: u32 = 12;
/// Bytes of the shortest messages that laws tell apart.
const LEAST_MTU: usize = 16;
/// How long a tell may take that shows whether an allow-list denies it.
const PROBE: Duration = Duration::from_millis(100);
/// Maximum header of `mbapp` in bytes.
const ASK_HEADER: usize = 64;
/// Minimum number of socket buffer bytes that a message takes, when many arrive as one list of segments.
const LEAST_CHARGE: usize = 32;
/// Maximum number of messages that one read of a UDP socket takes from the kernel.
const READ: usize = 1024;

impl StackText {
    /// Computes the effect of this stack's medium on messages. Opens a node at a free port to read the MTUs,
    /// and closes it.
    ///
    /// # Errors
    /// As [`build`](Self::build); and at the layer that makes a check of the laws useless: one that loses nearly everything, delays
    /// for longer than a second, allows none of the nodes, or is an overlay where messages are damaged unnoticed; and at the last
    /// one where it carries less than 16 bytes.
    pub async fn medium(&self) -> Result<Medium, StackError> {
        let mut text = self.apart();
        for placed in &mut text.layers {
            if let Layer::Udp { addr: Some(addr), .. } = &mut placed.layer {
                addr.set_port(0);
            }
        }
        if let Some(denied) = text.denied().await? {
            let reason = "the list allows none of the nodes that a check creates";
            return Err(self.unchecked(denied, reason));
        }
        let mut mtus = Vec::new();
        let key = random_key();
        let node = text.build_recorded(&key, &mut mtus).await?;
        node.stack.close().await;
        self.medium_with(&mtus)
    }

    /// Returns the first list that denies a node of this stack. Each list is on top when it is asked, since a
    /// layer above may delay a message, and report no denial.
    async fn denied(&self) -> Result<Option<&Placed>, StackError> {
        for (index, list) in self.layers.iter().enumerate() {
            if !matches!(list.layer, Layer::Allow(_)) {
                continue;
            }
            let mut text = self.apart();
            text.layers.truncate(index + 1);
            let key = random_key();
            let node = text.build_recorded(&key, &mut Vec::new()).await?;
            let mut denied = false;
            if let Ok(own) = node.stack.local_addr() {
                // A tell that times out was not denied.
                let told = timeout(PROBE, node.stack.tell(&own, Packet::default())).await;
                denied = matches!(told, Ok(Err(Error::Denied { .. })));
            }
            node.stack.close().await;
            if denied {
                return Ok(Some(list));
            }
        }
        Ok(None)
    }

    fn unchecked(&self, placed: &Placed, reason: &str) -> StackError {
        let reason = format!("the laws cannot be checked: {reason}");
        StackError::new(&self.text, placed.at, reason)
    }

    /// Computes the same from the MTUs of the layers.
    pub(super) fn medium_with(&self, mtus: &[usize]) -> Result<Medium, StackError> {
        let mut sum = Sum::new(mtus, self.receive_buffer);
        for (index, placed) in self.layers.iter().enumerate() {
            let refuse = |reason: &str| Err(self.unchecked(placed, reason));
            if sum.medium.damages && matches!(placed.layer, Layer::Kad(_) | Layer::Chord(_)) {
                return refuse("bits of the nodes' requests are flipped, and no layer below detects it");
            }
            if sum.medium.damages && matches!(placed.layer, Layer::Gossip { .. }) {
                return refuse(
                    "messages are damaged, and no layer below detects it: gossipsub takes the neighbour that relayed them for an attacker",
                );
            }
            let is_overlay = matches!(placed.layer, Layer::Kad(_) | Layer::Chord(_));
            if is_overlay && sum.asks_once && sum.arrives(1) < 1.0 {
                return refuse(
                    "requests are lost and sent once, and a search may find no node; mbapp and quic retransmit them",
                );
            }
            if sum.retransmits && matches!(placed.layer, Layer::Quic { .. }) {
                return refuse("handshakes may take longer than QUIC waits, since QUIC below retransmits");
            }
            if matches!(placed.layer, Layer::Quic { .. }) && sum.arrives(MIN_INNER_MTU) < SESSIONS_LAST {
                return refuse("sessions of QUIC end where more than a quarter of the datagrams is lost");
            }
            sum.add(index, &placed.layer);
            if sum.arrives(1) < 1.0 - MOST_LOSS {
                return refuse("nearly every message is lost");
            }
            if sum.medium.delay > MOST_DELAY {
                return refuse("messages take longer than a second");
            }
            if let Layer::Faulty { link, .. } = &placed.layer
                && (1..LEAST_RATE).contains(&link.rate)
            {
                return refuse(&format!(
                    "a link of less than {LEAST_RATE} bytes per second takes minutes for each"
                ));
            }
        }
        if let Some(last) = self.layers.last()
            && sum.medium.mtu < LEAST_MTU
        {
            let most = sum.medium.mtu;
            let reason =
                format!("messages have at most {most} bytes here, and the laws tell some of {LEAST_MTU}");
            return Err(self.unchecked(last, &reason));
        }
        if self.layers.is_empty() {
            return Err(Piece::new(&self.text).error("a stack needs at least a base"));
        }
        Ok(sum.finish())
    }
}

/// The accumulated effect of the layers so far.
#[expect(clippy::struct_excessive_bools, reason = "each is a property of its own")]
struct Sum<'a> {
    mtus: &'a [usize],
    receive_buffer: usize,
    medium: Medium,
    /// Links that lose or corrupt messages.
    links: Vec<Link>,
    /// Whether long messages may find a buffer without room for all of their fragments.
    bursts: bool,
    /// Length of the longest requests and responses that can be expected to arrive.
    longest_ask: usize,
    /// Whether a layer below drops without counting.
    silent: bool,
    /// Whether requests are sent once: those of `mem`, which loses none by itself.
    asks_once: bool,
    /// Whether several messages may be lost as one below.
    packed: bool,
    /// Timeout of a dial, where messages are sent on connections.
    dial_timeout: Option<Duration>,
    /// Whether QUIC is below, and retransmits what is lost below it.
    retransmits: bool,
    /// Layers with asks of their own.
    asking: bool,
}

/// A link that loses or corrupts messages.
struct Link {
    /// Length of a fragment without headers.
    piece: usize,
    /// Probability that a fragment arrives unchanged.
    arrives: f64,
}

impl<'a> Sum<'a> {
    fn new(mtus: &'a [usize], receive_buffer: Option<usize>) -> Self {
        Self {
            mtus,
            receive_buffer: receive_buffer.unwrap_or(UdpConfig::default().receive_buffer),
            medium: Medium {
                mtu: mtus.last().copied().unwrap_or_default(),
                loss: 0.0,
                loss_at_mtu: 0.0,
                longest: 0,
                longest_ask: 0,
                duplicates: false,
                damages: false,
                delay: Duration::ZERO,
                recovery: Duration::ZERO,
                handshakes: false,
                holds: 0,
                waivers: Vec::new(),
            },
            links: Vec::new(),
            bursts: false,
            longest_ask: usize::MAX,
            silent: false,
            asks_once: false,
            dial_timeout: None,
            packed: false,
            retransmits: false,
            asking: false,
        }
    }

    /// Returns the probability that a message of this length arrives unchanged.
    fn arrives(&self, len: usize) -> f64 {
        let crosses = |link: &Link| {
            let pieces = len.div_ceil(link.piece);
            link.arrives.powi(i32::try_from(pieces).unwrap_or(i32::MAX))
        };
        self.links.iter().map(crosses).product()
    }

    /// Returns the length of the longest message, up to `most`, that is likely enough to arrive if it is told
    /// repeatedly.
    fn longest(&self, most: usize) -> usize {
        let least = self.arrives(1).min(LIKELY);
        let (mut arrives, mut beyond) = (1, most.saturating_add(1));
        // The probability decreases with the length.
        while arrives + 1 < beyond {
            let middle = arrives.midpoint(beyond);
            if self.arrives(middle) >= least {
                arrives = middle;
            } else {
                beyond = middle;
            }
        }
        arrives.min(most)
    }

    fn add(&mut self, index: usize, layer: &Layer) {
        match layer {
            Layer::Mem { .. } => {
                self.medium.holds += MemoryConfig::default().messages.items;
                self.asks_once = true;
            }
            Layer::Udp { .. } => {
                // The kernel doubles the requested size.
                self.medium.holds += 2 * self.receive_buffer / LEAST_CHARGE + READ;
                self.silent = true;
            }
            Layer::Custom(base) => {
                let properties = base.properties();
                self.medium.holds += properties.holds;
                self.medium.handshakes = properties.fingerprint.is_some();
                self.dial_timeout = properties.dial_timeout;
            }
            Layer::Faulty { link, .. } => self.faulty(index, link),
            Layer::Frag { .. } => self.bursts |= self.silent,
            Layer::Mbapp { .. } => {
                let config = MbappConfig::default();
                self.medium.holds += config.messages.items + config.batch;
                (self.asking, self.asks_once) = (true, false);
                self.bursts |= self.silent;
                // A lost fragment is retransmitted, so each fragment must be likely to arrive, but not all at
                // once.
                let below = index.checked_sub(1).and_then(|below| self.mtus.get(below));
                let below = below.copied().unwrap_or_default();
                let likely = self.longest(below);
                self.longest_ask = if likely < below {
                    likely.saturating_sub(ASK_HEADER)
                } else {
                    usize::MAX
                };
            }
            Layer::Mux(_) => {
                let config = MuxConfig::default();
                self.medium.holds += config.messages.items + config.batch;
            }
            Layer::P2pke => {
                let config = P2pkeConfig::default();
                self.medium.holds += config.messages.items + config.batch;
                self.medium.handshakes = true;
                self.authenticate();
            }
            Layer::Quic { .. } => {
                let config = QuicConfig::default();
                // A session retransmits lost data, and stops when its reader stops.
                self.medium.holds = config.messages.items + config.max_streams as usize;
                self.medium.handshakes = true;
                self.medium.duplicates = false;
                self.medium.damages = false;
                (self.dial_timeout, self.asks_once) = (Some(config.handshake_timeout), false);
                if self.arrives(1) < 1.0 {
                    self.retransmits = true;
                    // Each probe of the peer that arrives keeps the session for another idle timeout, even if all that this
                    // node sends is lost. The pauses between probes double, and none exceeds the idle timeout, so together
                    // they take less than twice as long; then the session hears nothing for an idle timeout.
                    self.medium.recovery = 3 * config.idle_timeout;
                }
                self.links.clear();
                self.longest_ask = usize::MAX;
                (self.silent, self.bursts) = (false, false);
            }
            Layer::Kad(_) | Layer::Chord(_) => {
                let config = OverlayConfig::default();
                if let Some(dial) = self.dial_timeout {
                    let search = SEARCH_DIALS * dial;
                    self.medium.recovery = self.medium.recovery.max(search);
                }
                self.medium.holds += config.messages.items + config.batch;
                self.medium.handshakes = true;
            }
            Layer::Gossip { .. } => {
                let config = GossipConfig::default();
                // Its driver leaves no messages below; they wait in its inbox, and packed in RPCs in flight.
                self.medium.holds = 4 * config.messages.items;
                self.packed |= self.arrives(1) < 1.0;
                self.medium.handshakes = true;
                self.authenticate();
            }
            Layer::Allow(_) => {}
        }
    }

    /// Adds the effect of a link.
    fn faulty(&mut self, index: usize, link: &LinkFaults) {
        self.medium.duplicates |= link.duplicate > 0.0;
        self.medium.damages |= link.corrupt > 0.0;
        let below = self.mtus.get(index).copied().unwrap_or(usize::MAX);
        self.links.push(Link {
            piece: below.saturating_sub(PIECE_HEADER).max(1),
            arrives: (1.0 - link.loss) * (1.0 - link.corrupt),
        });
        let mut late = link.delay + link.jitter;
        if link.reorder > 0.0 {
            late += link.reorder_by;
        }
        // The messages queued before a message, and the message itself.
        if let Some(millis) = (link.rate_queue as u64 * 1000).checked_div(link.rate) {
            late += Duration::from_millis(millis);
            // A burst of long messages has no room to wait.
            self.bursts = true;
        }
        self.medium.delay += late;
        if !late.is_zero() {
            self.medium.holds += FaultyConfig::default().link_delayed.items;
        }
    }

    /// A layer that authenticates drops corrupted and duplicated messages.
    fn authenticate(&mut self) {
        self.medium.damages = false;
        self.medium.duplicates = false;
    }

    fn finish(mut self) -> Medium {
        self.medium.longest = self.longest(self.medium.mtu);
        self.medium.longest_ask = self.longest_ask.min(self.medium.mtu);
        self.medium.loss = 1.0 - self.arrives(1);
        let at_mtu = self.arrives(self.medium.longest);
        self.medium.loss_at_mtu = 1.0
            - if self.bursts {
                at_mtu.min(BURST_ARRIVES)
            } else {
                at_mtu
            };
        if self.silent {
            self.medium.waivers.push((
                "counters::every_drop_is_counted",
                "the operating system drops messages when its buffer is full, without reporting it",
            ));
        }
        if self.packed {
            self.medium.waivers.push((
                "counters::every_drop_is_counted",
                "an RPC of gossipsub carries several messages, and is counted as one where it is lost",
            ));
        }
        if self.retransmits {
            let why = "retransmissions that are lost take longer than `close` waits for them, and than what they are compared with";
            let laws = RETRANSMITTED.iter().map(|law| (*law, why));
            self.medium.waivers.extend(laws);
        }
        if self.medium.damages {
            let why = "bits are flipped, and no layer above detects it";
            self.medium.waivers.extend(DAMAGED.iter().map(|law| (*law, why)));
            if self.asking {
                self.medium.waivers.push(("ask::", why));
            }
        }
        self.medium
    }
}

/// Laws that expect that messages arrive within seconds.
const RETRANSMITTED: &[&str] = &[
    "ask::a_dropped_request_takes_no_longer_than_an_answer",
    "close::what_was_told_before_close_arrives",
    "close::what_was_answered_before_close_arrives",
];

/// Laws that compare what arrives with what was told.
const DAMAGED: &[&str] = &[
    "tell::a_message_arrives_whole",
    "tell::a_message_arrives_at_most_once",
    "tell::a_cancelled_tell_leaves_whole_or_not_at_all",
    "tell::short_room_is_no_fault",
    "batch::tell_batch_sends_what_tells_would",
    "batch::receive_batch_takes_what_receives_would",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn medium(text: &str, mtus: &[usize]) -> Medium {
        let text: StackText = text.parse().expect("a stack");
        text.medium_with(mtus).expect("a medium")
    }

    fn near(one: f64, other: f64) -> bool {
        (one - other).abs() < 1e-9
    }

    #[test]
    fn losses_multiply_by_the_fragments_of_a_message() {
        let medium = medium("mem/faulty,loss=0.1/frag=4000", &[1016, 1016, 4000]);
        assert!(near(medium.loss, 0.1), "{medium:?}");
        assert!(near(medium.loss_at_mtu, 1.0 - 0.9_f64.powi(4)), "{medium:?}");
        assert_eq!(medium.longest, 4000, "{medium:?}");
    }

    #[test]
    fn messages_that_hardly_ever_arrive_are_not_expected() {
        // All 56 fragments arrive once in 470 million tells; asks retransmit fragments.
        let asking = medium("udp/faulty,loss=0.3/p2pke/mbapp", &[1232, 1232, 1200, 65_536]);
        assert_eq!(asking.longest, 3 * 1216, "{asking:?}");
        assert!(asking.loss_at_mtu < 0.81, "{asking:?}");
        assert_eq!(asking.longest_ask, 65_536, "{asking:?}");
        let pieces = medium(
            "mem/faulty,loss=0.3/frag=65536/mbapp",
            &[1016, 1016, 65_536, 65_536],
        );
        assert!(pieces.longest_ask < 3 * 1000, "{pieces:?}");
        let whole = medium(
            "mem/faulty,loss=0.1/frag=65536/quic",
            &[1016, 1016, 65_536, 1 << 20],
        );
        assert_eq!(
            (whole.longest, whole.longest_ask),
            (1 << 20, 1 << 20),
            "{whole:?}"
        );
    }

    #[test]
    fn corruption_counts_as_loss_and_ends_at_a_layer_that_detects_it() {
        let bare = medium("udp/faulty,corrupt=0.02", &[1232, 1232]);
        assert!(bare.damages && near(bare.loss, 0.02), "{bare:?}");
        let sealed = medium("udp/faulty,corrupt=0.02/p2pke", &[1232, 1232, 1200]);
        assert!(!sealed.damages && near(sealed.loss, 0.02), "{sealed:?}");
        let again = medium("udp/faulty,corrupt=0.02/quic", &[1232, 1232, 1 << 20]);
        assert!(!again.damages && near(again.loss, 0.0), "{again:?}");
    }

    #[test]
    fn a_layer_that_retransmits_takes_as_long_as_its_sessions_last() {
        let lossless = medium("udp/quic/mux=a", &[1232, 1 << 20, 1 << 20]);
        assert!(lossless.recovery.is_zero(), "{lossless:?}");
        let slow = medium("udp/faulty,delay=5/quic", &[1232, 1232, 1 << 20]);
        assert!(slow.recovery.is_zero(), "{slow:?}");
        let lossy = medium("udp/faulty,loss=0.2/quic/mux=a", &[1232, 1232, 1 << 20, 1 << 20]);
        assert_eq!(
            lossy.recovery,
            3 * QuicConfig::default().idle_timeout,
            "{lossy:?}"
        );
        assert!(near(lossy.loss, 0.0), "{lossy:?}");
        let search = medium("udp/quic/kad", &[1232, 1 << 20, 1 << 20]);
        assert!(search.recovery > Duration::from_secs(20), "{search:?}");
        let late = medium("mem/quic/faulty,loss=0.3", &[65_536, 1 << 20, 1 << 20]);
        assert!(late.recovery.is_zero(), "{late:?}");
    }

    #[test]
    fn what_is_under_way_counts() {
        let text = "udp/faulty/mux=a".parse::<StackText>().expect("a stack");
        let text = text.with_receive_buffer(1 << 16);
        let at_once = text.medium_with(&[1232, 1232, 1230]).expect("a medium");
        let text = "udp/faulty,delay=5/mux=a".parse::<StackText>().expect("a stack");
        let text = text.with_receive_buffer(1 << 16);
        let late = text.medium_with(&[1232, 1232, 1230]).expect("a medium");
        assert_eq!(late.holds, at_once.holds + 4096);
        assert_eq!(late.delay, Duration::from_millis(5));
        assert_eq!(at_once.holds, 4096 + READ + 1024 + MuxConfig::default().batch);
    }

    #[test]
    fn a_medium_that_cannot_be_checked_is_refused_at_its_position() {
        for (text, at) in [
            ("mem/faulty,loss=0.99", 4),
            ("mem/faulty,delay=5000/mux=a", 4),
            ("mem/frag/faulty,rate=100", 9),
            ("mem/faulty,corrupt=0.01/kad", 24),
            ("mem/faulty,loss=0.1/chord", 20),
            ("mem/faulty,loss=0.1/quic/quic", 25),
            ("mem/faulty,loss=0.3/quic", 20),
            ("mem/faulty,corrupt=0.01/gossip=t", 24),
            ("mem/faulty,loss=0.2/frag/quic", 25),
        ] {
            let stack: StackText = text.parse().expect("a stack");
            let error = stack.medium_with(&[1000; 4]).expect_err(text);
            assert_eq!(error.at(), at, "{error}");
        }
        let tiny: StackText = "udp,mtu=17/mux=a".parse().expect("a stack");
        let error = tiny.medium_with(&[17, 15]).expect_err("too little");
        assert_eq!(error.at(), 11, "{error}");
        assert!(tiny.medium_with(&[18, 16]).is_ok());
    }
}
