//! Faults of asks, keys and `close` that show rarely.

use std::num::NonZeroU8;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use p2p::{AskSwarm, Error, Packet, Rejection, Request, Respond, Responder, Result, SecureSwarm, Swarm as _};
use p2p_swarmtest::reference::{Address, Key};

use super::fault::{AskFate, Asked, Fate, Fault, SOUND, damaged, one_in};
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
        "ask::an_ask_that_nobody_answers_ends",
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
    close(
        "close::closing_frees_the_address",
        "a node that told something keeps its address",
        "keeps the address of a teller",
    ),
    close(
        "close::closing_frees_an_address_in_use",
        "a node that told something keeps its address",
        "keeps the address of a teller",
    ),
    close(
        "close::dropping_frees_the_address",
        "a dropped node keeps its address",
        "keeps the address",
    ),
    close(
        "close::dropping_frees_an_address_in_use",
        "a dropped node keeps its address",
        "keeps the address",
    ),
    close(
        "close::close_takes_effect_at_its_first_poll",
        "a node that received something closes later",
        "closes later once used",
    ),
    close(
        "close::close_is_idempotent",
        "the third close waits for ever",
        "closes twice",
    ),
    close(
        "close::close_may_be_called_by_many_tasks",
        "the twelfth close waits for ever",
        "closes 11 times",
    ),
    Fault {
        tell: |told| {
            if told.gone && told.index > 1 {
                Fate::Refused(Error::Closed)
            } else {
                Fate::Sound
            }
        },
        ..close(
            "close::a_closed_peer_is_no_closed_swarm",
            "the third tell to a peer that is gone is Closed",
            "",
        )
    },
    Fault {
        tell: |told| {
            if told.gone && told.index > 0 {
                Fate::Lost
            } else {
                Fate::Sound
            }
        },
        ..close(
            "close::a_node_made_again_is_reached_by_others",
            "a peer that was closed is told nothing more",
            "",
        )
    },
    Fault {
        tell: |told| {
            if told.place > 2 && told.batch > 4 {
                Fate::Lost
            } else {
                Fate::Sound
            }
        },
        ..close(
            "close::what_was_told_before_close_arrives",
            "the ends of batches before close are lost",
            "",
        )
    },
];

/// A fault of `close`.
const fn close(law: &'static str, what: &'static str, special: &'static str) -> Fault {
    Fault {
        law,
        what,
        special,
        ..SOUND
    }
}

/// The way back, with a fault.
struct Back {
    inner: Responder,
    fault: &'static Fault,
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
        self.inner.respond(response).await
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
                let before = crate::lock(&self.own.last_response).clone();
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
            AskFate::Refused(error) => Err(error),
        };
        cancelled.0 = None;
        self.own.asking.fetch_sub(1, SeqCst);
        match &outcome {
            Ok(response) => *crate::lock(&self.own.last_response) = Some(response.clone()),
            Err(Error::Rejected(_)) => {
                self.own.rejected.fetch_add(1, SeqCst);
            }
            Err(_) => {}
        }
        outcome
    }

    async fn receive_ask(&self) -> Result<Request<Address>> {
        let (mut src, mut dst, payload, inner) = self.inner.receive_ask().await?.into_parts();
        let index = self.own.requests.fetch_add(1, SeqCst);
        (self.crowd.fault.request)(index, &mut src, &mut dst);
        let fault = self.crowd.fault;
        let back = Back {
            inner,
            fault,
            _serving: self.own.serving.clone(),
        };
        Ok(Request::new(src, dst, payload, back))
    }
}

impl SecureSwarm<Address> for Rare {
    type PublicKey = Key;

    fn public_key(&self) -> Key {
        self.inner.public_key()
    }

    async fn lookup_public_key(&self, addr: &Address) -> Result<Key> {
        self.inner.lookup_public_key(addr).await
    }
}
