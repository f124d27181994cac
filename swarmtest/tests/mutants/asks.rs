//! Faults of `ask` and `receive_ask`.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use p2p::{AskSwarm, Error, Packet, Rejection, Request, Respond, Responder, Result, Swarm as _};
use p2p_swarmtest::reference::Address;
use tokio::task::yield_now;

use crate::{Crowd, Mutant, damage, lock};

fn late() -> Error {
    Error::TimedOut {
        doing: "an ask",
        limit: Duration::ZERO,
    }
}

impl Mutant {
    /// Asks in the way that breaks a law, if one about several asks is to be broken.
    async fn ask_below(&self, dst: &Address, request: Packet) -> Result<Packet> {
        let own = &*self.own;
        match self.breaks {
            "ask::the_handler_runs_at_most_once" => {
                let (first, second) = (self.inner.ask(dst, request.clone()), self.inner.ask(dst, request));
                tokio::select! { biased; outcome = first => outcome, outcome = second => outcome }
            }
            "ask::a_cancelled_ask_frees_its_slot" => {
                if own.asking.fetch_add(1, SeqCst) >= 100 {
                    return Err(Error::Limit {
                        what: "asks",
                        limit: 100,
                    });
                }
                let outcome = self.inner.ask(dst, request).await;
                own.asking.fetch_sub(1, SeqCst);
                outcome
            }
            "ask::a_slow_handler_holds_up_no_other" => {
                let _turn = own.turn.lock().await;
                self.inner.ask(dst, request).await
            }
            "ask::a_held_receive_stalls_no_ask" => {
                while own.waiting.load(SeqCst) > 0 && !self.closed() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                self.inner.ask(dst, request).await
            }
            "ask::responses_are_never_mixed_up" => {
                own.asking.fetch_add(1, SeqCst);
                let response = self.inner.ask(dst, request).await;
                let others = own.asking.fetch_sub(1, SeqCst) > 1;
                let response = response?;
                let other = lock(&own.stash).replace(response.clone());
                Ok(other.filter(|_| others).unwrap_or(response))
            }
            _ => self.inner.ask(dst, request).await,
        }
    }
}

impl AskSwarm<Address> for Mutant {
    async fn ask(&self, dst: &Address, request: Packet) -> Result<Packet> {
        let (len, most, was_closed) = (request.len(), self.inner.mtu(), self.closed());
        match self.breaks {
            "ask::a_request_over_the_mtu_is_refused" if len > most => {
                return Err(Error::invalid("request", "too long"));
            }
            "ask::exactly_the_mtu_works_both_ways" if len == most => {
                return Err(Error::MtuExceeded { size: len, mtu: most });
            }
            "ask::empty_works_both_ways" if len == 0 => return Err(Error::invalid("request", "empty")),
            "ask::a_stopped_reader_of_tells_stalls_no_ask" if self.crowd.unread(dst) > 64 => {
                return Err(late());
            }
            "close::later_asks_are_closed" if was_closed => return Err(late()),
            _ => {}
        }
        let mut outcome = self.ask_below(dst, request).await;
        match (&mut outcome, self.breaks) {
            (Ok(response), "ask::an_ask_gets_its_response") if (65..=200).contains(&response.len()) => {
                damage(response);
            }
            (Err(Error::Rejected(why)), "ask::a_rejection_carries_its_code") => *why = Rejection::DROPPED,
            (Err(Error::Unreachable { .. }), "ask::an_ask_that_nobody_answers_ends") => pending().await,
            (Err(Error::Closed), "close::a_pending_ask_is_closed") if !was_closed => pending().await,
            _ => {}
        }
        outcome
    }

    async fn receive_ask(&self) -> Result<Request<Address>> {
        let was_closed = self.closed();
        let received = self.inner.receive_ask().await;
        match self.breaks {
            "close::later_receive_asks_are_closed" if was_closed => pending().await,
            "close::a_pending_receive_ask_is_closed" if !was_closed && received.is_err() => pending().await,
            "ask::cancelling_receive_ask_loses_nothing" => yield_now().await,
            _ => {}
        }
        let (mut src, mut dst, payload, back) = received?.into_parts();
        match self.breaks {
            "ask::src_can_be_told_to" => src.place += 1_000_000,
            "ask::dst_is_a_local_address" => dst = src,
            _ => {}
        }
        let back = Back {
            inner: back,
            keeps: self
                .breaks("ask::a_dropped_request_is_an_error_at_once")
                .then(|| self.crowd.clone()),
            hides: self
                .breaks("ask::a_response_over_the_mtu_fails_at_both_ends")
                .then(|| self.inner.mtu()),
        };
        Ok(Request::new(src, dst, payload, back))
    }
}

/// The way back, with faults.
struct Back {
    inner: Responder,
    /// Dropped requests are never answered.
    keeps: Option<Arc<Crowd>>,
    /// Who responds with more than this many bytes does not learn that it failed.
    hides: Option<usize>,
}

#[async_trait::async_trait]
impl Respond for Back {
    async fn respond(self: Box<Self>, response: Packet) -> Result<()> {
        let hidden = self.hides.is_some_and(|most| response.len() > most);
        let outcome = self.inner.respond(response).await;
        if hidden { Ok(()) } else { outcome }
    }

    fn reject(self: Box<Self>, why: Rejection) {
        match self.keeps {
            Some(crowd) if why == Rejection::DROPPED => lock(&crowd.never_answered).push(self.inner),
            _ => self.inner.reject(why),
        }
    }
}
