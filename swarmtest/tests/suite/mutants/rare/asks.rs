//! Faults of asks, keys and `close` that show rarely.

use std::num::NonZeroU8;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use p2p::{AskSwarm, Error, Packet, Rejection, Request, Respond, Responder, Result, SecureSwarm, Swarm as _};
use p2p_swarmtest::reference::Address;
use tokio::task::yield_now;

use super::fault::{AskFate, Asked, Fault, LookFate, Looked, SOUND, damaged, one_in};
use super::node::Rare;

/// A fault of asks.
const fn ask(law: &'static str, what: &'static str, ask: fn(&Asked<'_>) -> AskFate) -> Fault {
    Fault {
        law,
        what,
        ask,
        ..SOUND
    }
}

fn limit() -> AskFate {
    AskFate::Refused(Error::Limit {
        what: "asks",
        limit: 64,
    })
}

fn late() -> AskFate {
    AskFate::Refused(Error::TimedOut {
        doing: "an ask",
        limit: Duration::ZERO,
    })
}

/// This fate where a condition holds.
fn when(condition: bool, fate: AskFate) -> AskFate {
    if condition { fate } else { AskFate::Sound }
}

pub(super) const FAULTS: &[Fault] = &[
    ask(
        "ask::responses_are_never_mixed_up",
        "one response in 50 is another's, where several asks are under way",
        |asked| when(asked.under_way > 2 && one_in(50, asked.index), AskFate::Swapped),
    ),
    ask(
        "ask::the_handler_runs_at_most_once",
        "one ask in 100 is asked twice",
        |asked| when(one_in(100, asked.index), AskFate::Twice),
    ),
    ask(
        "ask::a_dropped_request_is_an_error_at_once",
        "one dropped request in 40 is never answered",
        |asked| when(one_in(40, asked.index), AskFate::Endless),
    ),
    ask(
        "ask::a_request_over_the_mtu_is_refused",
        "a request of twice the MTU is refused otherwise",
        |asked| when(asked.request.len() == 2 * asked.mtu, late()),
    ),
    ask(
        "ask::a_request_over_the_mtu_is_refused",
        "a request of 2 to the 16th bytes and more is refused otherwise",
        |asked| when(asked.request.len() > 1 << 16, late()),
    ),
    Fault {
        hides: |len, mtu| len > 2 * mtu,
        ..ask(
            "ask::a_response_over_the_mtu_fails_at_both_ends",
            "a response of more than twice the MTU succeeds where it is made",
            |_| AskFate::Sound,
        )
    },
    Fault {
        request: |index, src, _| {
            if one_in(20, index) {
                src.place += 1_000_000;
            }
        },
        ..ask(
            "ask::src_can_be_told_to",
            "one request in 20 names a source that is nowhere",
            |_| AskFate::Sound,
        )
    },
    Fault {
        request: |index, src, dst| {
            if one_in(20, index) {
                *dst = *src;
            }
        },
        ..ask(
            "ask::dst_is_a_local_address",
            "one request in 20 names its source as its destination",
            |_| AskFate::Sound,
        )
    },
    ask(
        "ask::a_slow_handler_holds_up_no_other",
        "while eight wait, others time out",
        // Those that wait have the number 0, behind four bytes.
        |asked| when(asked.under_way >= 8 && asked.request.get(4) != Some(&0), late()),
    ),
    ask(
        "ask::a_stopped_reader_of_tells_stalls_no_ask",
        "longer asks of a node that does not read time out",
        |asked| when(asked.unread > 40 && asked.request.len() > 500, late()),
    ),
    ask(
        "ask::a_held_receive_stalls_no_ask",
        "from the tenth ask on, a receive that is held stalls asks",
        |asked| when(asked.waiting > 0 && asked.index >= 10, late()),
    ),
    Fault {
        ask_holds: |index| usize::from(one_in(25, index)),
        ..ask(
            "ask::cancelling_receive_ask_loses_nothing",
            "one receive_ask in 25 loses its request when it is cancelled late",
            |_| AskFate::Sound,
        )
    },
    Fault {
        special: "wakes eight",
        ..ask(
            "ask::every_waiting_receive_ask_is_woken",
            "of callers of receive_ask that wait at the same time, eight are woken",
            |_| AskFate::Sound,
        )
    },
    ask(
        "ask::an_ask_gets_its_response",
        "every third response is damaged",
        |asked| when(one_in(3, asked.index), AskFate::Damaged),
    ),
    ask(
        "ask::of_many_asks_each_gets_its_own_response",
        "one response in 50 is another's",
        |asked| when(one_in(50, asked.index), AskFate::Swapped),
    ),
    ask(
        "ask::of_many_asks_each_gets_its_own_response",
        "after 256 asks responses are another's",
        |asked| when(asked.index > 256 && asked.index % 7 == 0, AskFate::Swapped),
    ),
    ask(
        "ask::of_many_asks_each_gets_its_own_response",
        "over 40 under way, responses are another's",
        |asked| when(asked.under_way > 40, AskFate::Swapped),
    ),
    ask(
        "ask::of_many_asks_each_gets_its_own_response",
        "one ask in 100 is asked twice",
        |asked| when(one_in(100, asked.index), AskFate::Twice),
    ),
    ask(
        "ask::of_many_asks_each_gets_its_own_response",
        "one response in 200 is damaged",
        |asked| when(one_in(200, asked.index), AskFate::Damaged),
    ),
    Fault {
        request: |index, src, _| {
            if one_in(100, index) {
                src.place += 1;
            }
        },
        ..ask(
            "ask::of_many_asks_each_gets_its_own_response",
            "one request in 100 names another source",
            |_| AskFate::Sound,
        )
    },
    Fault {
        request: |index, src, dst| {
            if one_in(100, index) {
                *dst = *src;
            }
        },
        ..ask(
            "ask::of_many_asks_each_gets_its_own_response",
            "one request in 100 names another destination",
            |_| AskFate::Sound,
        )
    },
    ask(
        "ask::of_many_asks_each_gets_its_own_response",
        "after 300 asks there is never room again",
        |asked| when(asked.index > 300, limit()),
    ),
    ask(
        "ask::asks_of_every_length_are_answered",
        "responses to requests of 253 bytes are damaged",
        |asked| when(asked.request.len() == 253, AskFate::Damaged),
    ),
    ask(
        "ask::asks_of_every_length_are_answered",
        "one ask in 50 times out",
        |asked| when(one_in(50, asked.index), late()),
    ),
    ask(
        "ask::asks_of_every_length_are_answered",
        "requests of 1 byte are asked twice and damaged",
        |asked| {
            when(
                asked.request.len() == 1 || asked.request.len() + 1 == asked.mtu,
                late(),
            )
        },
    ),
    ask(
        "ask::an_ask_without_a_response_frees_its_slot",
        "after 100 rejected asks there is no room",
        |asked| when(asked.rejected > 100, limit()),
    ),
    Fault {
        code: |code| match code.code().get() {
            255 => Rejection::DROPPED,
            _ => code,
        },
        ..ask(
            "ask::every_code_of_a_rejection_arrives",
            "code 255 arrives as 1",
            |_| AskFate::Sound,
        )
    },
    Fault {
        code: |code| match NonZeroU8::new(code.code().get() & 0x7f) {
            Some(code) => Rejection::new(code),
            None => code,
        },
        ..ask(
            "ask::every_code_of_a_rejection_arrives",
            "codes lose their first bit",
            |_| AskFate::Sound,
        )
    },
    ask(
        "ask::a_dropped_request_takes_no_longer_than_an_answer",
        "one rejection in 20 comes late",
        |asked| when(asked.index % 20 == 8, AskFate::Late(Duration::from_millis(400))),
    ),
    ask(
        "ask::a_slow_handler_runs_once",
        "an ask that takes 5 s is asked again",
        |_| AskFate::TwiceAfter(Duration::from_secs(5)),
    ),
    ask(
        "ask::a_late_answer_reaches_no_other_ask",
        "after 20 cancelled asks responses are another's",
        |asked| when(asked.cancelled > 20, AskFate::Swapped),
    ),
    ask(
        "ask::a_late_answer_reaches_no_other_ask",
        "after 130 cancelled asks there is no room",
        |asked| when(asked.cancelled > 130, limit()),
    ),
    ask(
        "ask::a_server_that_goes_ends_the_asks_of_others",
        "every second ask of a node that goes never ends",
        |asked| when(asked.index % 2 == 1, AskFate::Endless),
    ),
    ask(
        "ask::asks_are_answered_while_tells_flood",
        "asks of a node that was told 500 messages time out",
        |asked| when(asked.told > 500, late()),
    ),
    ask(
        "ask::a_handler_may_ask_back",
        "from the tenth ask on, no handler may ask",
        |asked| when(asked.serving && asked.index > 9, late()),
    ),
    ask(
        "ask::a_cancelled_ask_frees_its_slot",
        "every cancelled ask but one in ten frees its slot",
        |asked| when(asked.cancelled > 150, limit()),
    ),
    ask(
        "ask::an_unanswered_ask_ends",
        "asks of a node that is gone never end",
        |asked| when(asked.gone, AskFate::Endless),
    ),
    ask(
        "ask::a_rejection_carries_its_code",
        "a code of 200 and more arrives as 1",
        |_| AskFate::Recoded(200),
    ),
    ask(
        "ask::empty_works_both_ways",
        "empty requests are answered late with nothing but a byte",
        |asked| when(asked.request.is_empty(), late()),
    ),
    ask(
        "ask::exactly_the_mtu_works_both_ways",
        "requests that fill the MTU time out",
        |asked| when(asked.request.len() == asked.mtu, late()),
    ),
];

/// The way back, with a fault.
struct Back {
    inner: Responder,
    fault: &'static Fault,
    mtu: usize,
    closed: Arc<AtomicBool>,
    /// Answers of this node before.
    answers: Arc<AtomicUsize>,
    _serving: Arc<()>,
}

/// An ask that is counted when it is cancelled.
struct Cancelled<'a>(Option<&'a AtomicUsize>);

impl Drop for Cancelled<'_> {
    fn drop(&mut self) {
        self.0.map(|count| count.fetch_add(1, SeqCst));
    }
}

#[async_trait::async_trait]
impl Respond for Back {
    async fn respond(self: Box<Self>, response: Packet) -> Result<()> {
        let hides = (self.fault.hides)(response.len(), self.mtu);
        let before = self.answers.fetch_add(1, SeqCst);
        if self.fault.special == "sends the fourth answer later" && before % 4 == 3 {
            let (inner, closed) = (self.inner, self.closed);
            tokio::spawn(async move {
                yield_now().await;
                if !closed.load(SeqCst) {
                    let _ = inner.respond(response).await;
                }
            });
            return Ok(());
        }
        let outcome = self.inner.respond(response).await;
        if hides { Ok(()) } else { outcome }
    }

    fn reject(self: Box<Self>, why: Rejection) {
        self.inner.reject((self.fault.code)(why));
    }
}

impl AskSwarm<Address> for Rare {
    async fn ask(&self, dst: &Address, request: Packet) -> Result<Packet> {
        let mut cancelled = Cancelled(Some(&self.own.cancelled));
        let asked = Asked {
            rejected: self.own.rejected.load(SeqCst),
            cancelled: self.own.cancelled.load(SeqCst),
            serving: Arc::strong_count(&self.own.serving) > 1,
            gone: self.crowd.is_gone(dst),
            told: self.crowd.told(dst),
            unread: self.crowd.unread(dst),
            waiting: self.own.waiting.load(SeqCst),
            own_closed: self.own.closed.load(SeqCst),
            index: self.own.asks.fetch_add(1, SeqCst),
            under_way: self.own.asking.fetch_add(1, SeqCst),
            request: &request,
            mtu: self.inner.mtu(),
        };
        let fate = (self.crowd.fault.ask)(&asked);
        let outcome = match fate {
            AskFate::Sound => self.inner.ask(dst, request).await,
            AskFate::Damaged => {
                let response = self.inner.ask(dst, request).await;
                response.map(|response| Packet::from(&damaged(&response)[..]))
            }
            AskFate::Twice => {
                let (first, second) = (self.inner.ask(dst, request.clone()), self.inner.ask(dst, request));
                tokio::select! { biased; outcome = first => outcome, outcome = second => outcome }
            }
            AskFate::TwiceAfter(time) => {
                let again = async {
                    tokio::time::sleep(time).await;
                    self.inner.ask(dst, request.clone()).await
                };
                let first = self.inner.ask(dst, request.clone());
                tokio::select! { biased; outcome = first => outcome, outcome = again => outcome }
            }
            AskFate::Swapped => {
                let response = self.inner.ask(dst, request).await;
                let before = crate::mutants::lock(&self.own.last_response).clone();
                response.map(|response| before.unwrap_or(response))
            }
            AskFate::Late(by) => {
                let outcome = self.inner.ask(dst, request).await;
                tokio::time::sleep(by).await;
                outcome
            }
            AskFate::Recoded(from) => match self.inner.ask(dst, request).await {
                Err(Error::Rejected(why)) if why.code().get() >= from => {
                    Err(Error::Rejected(Rejection::DROPPED))
                }
                outcome => outcome,
            },
            AskFate::Endless => match self.inner.ask(dst, request).await {
                Err(error) if !matches!(error, Error::Closed) => std::future::pending().await,
                outcome => outcome,
            },
            AskFate::Open => match self.inner.ask(dst, request).await {
                Err(Error::Closed) => std::future::pending().await,
                outcome => outcome,
            },
            AskFate::Refused(error) => Err(error),
        };
        cancelled.0 = None;
        self.own.asking.fetch_sub(1, SeqCst);
        match &outcome {
            Ok(response) => *crate::mutants::lock(&self.own.last_response) = Some(response.clone()),
            Err(Error::Rejected(_)) => {
                self.own.rejected.fetch_add(1, SeqCst);
            }
            Err(_) => {}
        }
        outcome
    }

    async fn receive_ask(&self) -> Result<Request<Address>> {
        let own = &self.own;
        let before = own.waiting_asks.fetch_add(1, SeqCst);
        let _waiting = Counted(&own.waiting_asks);
        let special = self.crowd.fault.special;
        if special == "wakes eight" && before >= 8 {
            return std::future::pending().await;
        }
        let was_closed = own.closed.load(SeqCst);
        let request = match self.inner.receive_ask().await {
            Err(Error::Closed) if was_closed => {
                let late = own.late_asks.fetch_add(1, SeqCst);
                if special == "the sixth receive after close hangs" && late == 5 {
                    return std::future::pending().await;
                }
                return Err(Error::Closed);
            }
            Err(Error::Closed) if special == "closes forty receives" && before >= 40 => {
                return std::future::pending().await;
            }
            request => request?,
        };
        let Request {
            mut message,
            responder: inner,
        } = request;
        let index = own.requests.fetch_add(1, SeqCst);
        (self.crowd.fault.request)(index, &mut message.src, &mut message.dst);
        let fault = self.crowd.fault;
        let back = Back {
            inner,
            fault,
            mtu: self.inner.mtu(),
            closed: own.closed.clone(),
            answers: own.answers.clone(),
            _serving: own.serving.clone(),
        };
        let request = Request::new(message, back);
        for _ in 0..(fault.ask_holds)(index) {
            yield_now().await;
        }
        Ok(request)
    }
}

/// A call that is under way.
struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl SecureSwarm<Address> for Rare {
    type PublicKey = Vec<u8>;

    fn public_key(&self) -> Vec<u8> {
        if self.crowd.fault.special == "has one key of seven" {
            return vec![self.addr.place.rem_euclid(7) as u8];
        }
        self.inner.public_key().as_ref().to_vec()
    }

    async fn lookup_public_key(&self, addr: &Address) -> Result<Vec<u8>> {
        let looked = Looked {
            index: self.own.looks.fetch_add(1, SeqCst),
            of_all: self.crowd.looks.fetch_add(1, SeqCst),
            under_way: self.own.looking.fetch_add(1, SeqCst),
            unread: self.crowd.unread(addr),
            there: self.crowd.there(addr),
            own_closed: self.own.closed.load(SeqCst),
        };
        let _looking = Counted(&self.own.looking);
        let addr = match (self.crowd.fault.look)(&looked) {
            LookFate::Sound => *addr,
            LookFate::Own => return Ok(self.public_key()),
            LookFate::Of(other) => other,
            LookFate::Cached => return Ok(addr.id.as_bytes().to_vec()),
            LookFate::Open => match self.inner.lookup_public_key(addr).await {
                Err(Error::Closed) => return std::future::pending().await,
                outcome => return outcome.map(|key| key.as_ref().to_vec()),
            },
            LookFate::Refused(error) => return Err(error),
        };
        let found = self.inner.lookup_public_key(&addr).await;
        found.map(|key| key.as_ref().to_vec())
    }
}
