//! What a fault is: hooks that see a call, and say what becomes of it.

#![allow(
    dead_code,
    reason = "what faults see is the same for each, and not each looks at all of it"
)]

use std::time::Duration;

use p2p::{BatchError, Error, Message, Packet, Rejection, Result};
use p2p_swarmtest::reference::{Address, Config};

/// A fault: what the hooks of [`SOUND`], which change nothing, are replaced by.
pub(crate) struct Fault {
    /// The law that finds it.
    pub(crate) law: &'static str,
    /// What is wrong, for the message of a failed test.
    pub(crate) what: &'static str,
    /// What the medium is like.
    pub(crate) medium: fn(Config) -> Config,
    /// What becomes of a message that is told, alone or in a batch.
    pub(crate) tell: fn(&Told<'_>) -> Fate,
    /// What becomes of a whole batch before it is told: it may be changed.
    pub(crate) batch: fn(&mut Vec<(Address, Packet)>),
    /// What a batch of so many messages says.
    pub(crate) batch_says: fn(usize, Result<(), BatchError>) -> Result<(), BatchError>,
    /// What is left in a batch of so many messages.
    pub(crate) batch_leaves: fn(usize) -> usize,
    /// What becomes of a message that is received, alone or in a batch.
    pub(crate) receive: fn(&Received, &mut Message<Address>) -> Got,
    /// How often a receive yields while it holds a message, which it loses when it is cancelled then.
    pub(crate) holds: fn(&Received) -> usize,
    /// The maximum that `receive_batch` keeps to: of calls so far, the buffer's length, and the maximum given.
    pub(crate) max: fn(usize, usize, usize) -> usize,
    /// Messages at the front of the buffer that `receive_batch` throws away: of its length and of what was received.
    pub(crate) forgets: fn(usize, usize) -> usize,
    /// The MTU: of messages received so far, and the true one.
    pub(crate) mtu: fn(usize, usize) -> usize,
    /// What is read of a text: of calls so far, the text, and the true result.
    pub(crate) parse: fn(usize, &str, Result<Address>) -> Result<Address>,
    /// What the counters show of the true sums: sent, delivered, duplicated and dropped.
    pub(crate) count: fn([usize; 4]) -> [usize; 4],
    /// What becomes of an ask.
    pub(crate) ask: fn(&Asked<'_>) -> AskFate,
    /// What becomes of a request that is received: of requests so far, and the source and the destination.
    pub(crate) request: fn(usize, &mut Address, &mut Address),
    /// The code that a rejection carries.
    pub(crate) code: fn(Rejection) -> Rejection,
    /// Whether a response succeeds where it is made although it failed: of its length and the MTU.
    pub(crate) hides: fn(usize, usize) -> bool,
    /// How often `receive_ask` yields while it holds a request, which it drops when it is cancelled then: of requests so far.
    pub(crate) ask_holds: fn(usize) -> usize,
    /// What becomes of a lookup.
    pub(crate) look: fn(&Looked) -> LookFate,
    /// A fault that has code of its own in the node, by a name.
    pub(crate) special: &'static str,
}

/// What a fault sees of a message that is told.
#[expect(clippy::struct_excessive_bools, reason = "each is a condition of its own")]
pub(crate) struct Told<'a> {
    /// Messages that this node told before.
    pub(crate) index: usize,
    /// Messages that all nodes told this destination before.
    pub(crate) to_dst: usize,
    /// Nodes that told this destination, this one included.
    pub(crate) senders: usize,
    /// Messages that wait at the destination.
    pub(crate) unread: usize,
    /// Messages in the same batch, 1 for a tell.
    pub(crate) batch: usize,
    /// The place in the batch.
    pub(crate) place: usize,
    pub(crate) src: Address,
    pub(crate) dst: Address,
    /// Some other node than these two.
    pub(crate) other: Option<Address>,
    pub(crate) payload: &'a [u8],
    pub(crate) mtu: usize,
    /// Messages of the same payload told before by this node.
    pub(crate) same: usize,
    /// Whether the destination is closed or gone.
    pub(crate) gone: bool,
    /// Messages that wait at some other node than the destination, at most.
    pub(crate) others_unread: usize,
    /// Whether the packet came without room in front.
    pub(crate) tight: bool,
    /// Whether the destination was read by `parse_addr`.
    pub(crate) parsed: bool,
    /// How often the destination's queue was full and then empty.
    pub(crate) floods: usize,
    /// Messages that wait at a sibling, at most.
    pub(crate) siblings_unread: usize,
    /// Nodes that are closed or gone.
    pub(crate) closed: usize,
    /// Whether this node is closed.
    pub(crate) own_closed: bool,
    /// The node at the destination's place, where the destination names another.
    pub(crate) there: Option<Address>,
    /// Messages that this node told wrong identities at the destination's place.
    pub(crate) wronged: usize,
}

/// What becomes of a message that is told.
pub(crate) enum Fate {
    Sound,
    Lost,
    Twice,
    Changed(Vec<u8>),
    Also(Address),
    Refused(Error),
    SentAndRefused(Error),
    Late(Duration),
    /// Kept for the reader beside its queue.
    Stashed,
    /// Waits until the destination has room.
    Waits,
    /// Yields so often before it is sent, and sends a part when it is dropped then.
    Partial(usize),
}

/// What a fault sees of a message that is received.
pub(crate) struct Received {
    /// Messages that this node received before.
    pub(crate) index: usize,
    /// Whether it was taken by `receive_batch`, and its maximum.
    pub(crate) batch: Option<usize>,
    /// Messages that were received in the same call before.
    pub(crate) place: usize,
    /// Callers of receive that wait at the same time.
    pub(crate) waiting: usize,
    /// The sender of the message before.
    pub(crate) last_src: Option<Address>,
    pub(crate) mtu: usize,
}

/// What becomes of a message that is received.
pub(crate) enum Got {
    Sound,
    Lost,
    Twice,
}

/// What a fault sees of an ask.
pub(crate) struct Asked<'a> {
    /// Asks that this node made before.
    pub(crate) index: usize,
    /// Asks of this node that are under way.
    pub(crate) under_way: usize,
    pub(crate) request: &'a [u8],
    pub(crate) mtu: usize,
    /// Asks of this node that were rejected.
    pub(crate) rejected: usize,
    /// Asks of this node that were cancelled.
    pub(crate) cancelled: usize,
    /// Whether this node holds requests that it has not answered.
    pub(crate) serving: bool,
    /// Whether the destination is closed or gone.
    pub(crate) gone: bool,
    /// Messages that all nodes told the destination.
    pub(crate) told: usize,
    /// Messages that wait at the destination.
    pub(crate) unread: usize,
    /// Callers of receive that wait at this node.
    pub(crate) waiting: usize,
    /// Whether this node is closed.
    pub(crate) own_closed: bool,
}

/// What a fault sees of a lookup.
pub(crate) struct Looked {
    /// Lookups of this node before, and of all nodes.
    pub(crate) index: usize,
    pub(crate) of_all: usize,
    /// Lookups of this node that are under way.
    pub(crate) under_way: usize,
    /// Messages that wait at the node that is looked up.
    pub(crate) unread: usize,
    /// The node at that place, where the address names another.
    pub(crate) there: Option<Address>,
    /// Whether this node is closed.
    pub(crate) own_closed: bool,
}

/// What becomes of a lookup.
pub(crate) enum LookFate {
    Sound,
    /// It gives this node's own key.
    Own,
    /// It gives the key of another address.
    Of(Address),
    /// It gives the key that would be found if this node were open.
    Cached,
    /// It goes on where this node closes.
    Open,
    Refused(Error),
}

/// What becomes of an ask.
pub(crate) enum AskFate {
    Sound,
    /// The response has its last byte changed.
    Damaged,
    /// It is asked twice.
    Twice,
    /// It is asked again after so long, whether or not it is answered.
    TwiceAfter(Duration),
    /// It gets the response of the ask before.
    Swapped,
    /// Its outcome comes so much later.
    Late(Duration),
    /// It fails where it is refused, at last, with what the asker takes for a code of its own.
    Recoded(u8),
    /// It never ends where it fails.
    Endless,
    /// It goes on where this node closes.
    Open,
    Refused(Error),
}

/// No fault.
pub(crate) const SOUND: Fault = Fault {
    law: "tell::a_message_arrives_whole",
    what: "nothing",
    medium: |config| config,
    tell: |_| Fate::Sound,
    batch: |_| {},
    batch_says: |_, says| says,
    batch_leaves: |_| 0,
    receive: |_, _| Got::Sound,
    holds: |_| 0,
    max: |_, _, max| max,
    forgets: |_, _| 0,
    mtu: |_, mtu| mtu,
    parse: |_, _, read| read,
    count: |sums| sums,
    ask: |_| AskFate::Sound,
    request: |_, _, _| {},
    code: |code| code,
    hides: |_, _| false,
    ask_holds: |_| 0,
    look: |_| LookFate::Sound,
    special: "",
};

/// Whether this is one of every `n`, not in step with powers of two.
pub(crate) fn one_in(n: usize, index: usize) -> bool {
    index % n == n * 2 / 3
}

/// The payload with one bit of its last byte changed.
pub(crate) fn damaged(payload: &[u8]) -> Vec<u8> {
    let mut bytes = payload.to_vec();
    crate::mutants::damage(&mut bytes);
    bytes
}
