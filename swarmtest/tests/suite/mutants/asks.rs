//! Faults of `ask` and `receive_ask`.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use p2p::{AskSwarm, Error, Message, Packet, Rejection, Request, Respond, Responder, Result, Swarm as _};
use p2p_swarmtest::reference::Address;
use tokio::sync::oneshot;
use tokio::task::yield_now;

use super::{Crowd, Mutant, Own, damage, lock};

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
            "ask::of_many_asks_each_gets_its_own_response" => {
                own.asking.fetch_add(1, SeqCst);
                let response = self.inner.ask(dst, request).await;
                let others = own.asking.fetch_sub(1, SeqCst) > 20;
                let response = response?;
                let other = lock(&own.stash).replace(response.clone());
                Ok(other.filter(|_| others).unwrap_or(response))
            }
            "ask::a_slow_handler_runs_once" => {
                let again = async {
                    tokio::time::sleep(Duration::from_secs(2)).await;
                    self.inner.ask(dst, request.clone()).await
                };
                tokio::select! { biased; outcome = self.inner.ask(dst, request.clone()) => outcome, outcome = again => outcome }
            }
            "ask::a_late_answer_reaches_no_other_ask" => {
                let (open, late) = oneshot::channel();
                lock(&own.open_asks).push(open);
                let mut cancelled = Cancelled(&self.crowd, Some(request.to_vec()));
                let late = async {
                    match late.await {
                        Ok(response) => Ok(response),
                        Err(_) => pending().await,
                    }
                };
                let outcome = tokio::select! { biased; outcome = late => outcome, outcome = self.inner.ask(dst, request) => outcome };
                cancelled.1 = None;
                outcome
            }
            _ => self.inner.ask(dst, request).await,
        }
    }
}

/// An ask that is remembered when it is cancelled.
struct Cancelled<'a>(&'a Crowd, Option<Vec<u8>>);

impl Drop for Cancelled<'_> {
    fn drop(&mut self) {
        lock(&self.0.cancelled).extend(self.1.take());
    }
}

/// A caller of `receive_ask`.
struct Caller<'a>(&'a AtomicUsize);

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
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
            "ask::an_ask_without_a_response_frees_its_slot" if self.own.rejected.load(SeqCst) >= 60 => {
                return Err(Error::Limit {
                    what: "asks",
                    limit: 60,
                });
            }
            "ask::asks_are_answered_while_tells_flood"
                if self
                    .crowd
                    .known(dst)
                    .is_some_and(|own| own.received.load(SeqCst) > 100) =>
            {
                return Err(late());
            }
            "ask::a_handler_may_ask_back" if Arc::strong_count(&self.own.serving) > 1 => return Err(late()),
            _ => {}
        }
        let (own, len) = (&*self.own, request.len());
        let mut outcome = self.ask_below(dst, request).await;
        match (&mut outcome, self.breaks) {
            (Ok(response), "ask::an_ask_gets_its_response") if (65..=200).contains(&response.len()) => {
                damage(response);
            }
            (Ok(response), "ask::asks_of_every_length_are_answered") if (5..8).contains(&len) => {
                damage(response);
            }
            (Err(Error::Rejected(_)), "ask::an_ask_without_a_response_frees_its_slot") => {
                own.rejected.fetch_add(1, SeqCst);
            }
            (Err(Error::Rejected(why)), "ask::every_code_of_a_rejection_arrives")
                if why.code().get() == 77 =>
            {
                *why = Rejection::DROPPED;
            }
            (Err(Error::Rejected(_)), "ask::a_dropped_request_takes_no_longer_than_an_answer") => {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            (Err(Error::Rejected(_)), "ask::a_server_that_goes_ends_the_asks_of_others")
                if self.crowd.is_gone(dst) =>
            {
                pending::<()>().await;
            }
            (Err(Error::Rejected(why)), "ask::a_rejection_carries_its_code") => *why = Rejection::DROPPED,
            (Err(Error::Unreachable { .. }), "ask::an_unanswered_ask_ends") => pending().await,
            (Err(Error::Closed), "close::a_pending_ask_is_closed") if !was_closed => pending().await,
            _ => {}
        }
        outcome
    }

    async fn receive_ask(&self) -> Result<Request<Address>> {
        let was_closed = self.closed();
        let fussy = self.breaks("ask::every_waiting_receive_ask_is_woken");
        let before = self.own.waiting.fetch_add(usize::from(fussy), SeqCst);
        let caller = fussy.then(|| Caller(&self.own.waiting));
        while fussy
            && before >= 4
            && !self.closed()
            && (self.own.waiting.load(SeqCst) > 2 || Arc::strong_count(&self.own.serving) > 1)
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let received = self.inner.receive_ask().await;
        drop(caller);
        match self.breaks {
            "close::later_receive_asks_are_closed" if was_closed => pending().await,
            "close::a_pending_receive_ask_is_closed" if !was_closed && received.is_err() => pending().await,
            "ask::cancelling_receive_ask_loses_nothing" => yield_now().await,
            _ => {}
        }
        let Request { message, responder } = received?;
        let Message {
            mut src,
            mut dst,
            payload,
        } = message;
        match self.breaks {
            "ask::src_can_be_told_to" => src.place += 1_000_000,
            "ask::dst_is_a_local_address" => dst = src,
            _ => {}
        }
        self.own.asked.store(true, SeqCst);
        let back = Back {
            inner: responder,
            _serving: self.own.serving.clone(),
            closes: self
                .breaks("close::what_was_answered_before_close_arrives")
                .then(|| (self.own.clone(), self.inner.mtu())),
            late: self
                .breaks("ask::a_late_answer_reaches_no_other_ask")
                .then(|| (self.crowd.clone(), src, payload.to_vec())),
            keeps: self
                .breaks("ask::a_dropped_request_is_an_error_at_once")
                .then(|| self.crowd.clone()),
            hides: self
                .breaks("ask::a_response_over_the_mtu_fails_at_both_ends")
                .then(|| self.inner.mtu()),
        };
        Ok(Request::new(Message { src, dst, payload }, back))
    }
}

/// The way back, with faults.
struct Back {
    inner: Responder,
    /// Dropped requests are never answered.
    keeps: Option<Arc<Crowd>>,
    /// A response of more than this many bytes succeeds where it is made although it failed.
    hides: Option<usize>,
    _serving: Arc<()>,
    /// What was accepted is lost where the node is closed then.
    closes: Option<(Arc<Own>, usize)>,
    /// The asker and the request: an answer to an ask that was cancelled goes to another of the asker's.
    late: Option<(Arc<Crowd>, Address, Vec<u8>)>,
}

#[async_trait::async_trait]
impl Respond for Back {
    async fn respond(self: Box<Self>, response: Packet) -> Result<()> {
        if let Some((own, _)) = self.closes.filter(|(_, most)| response.len() <= *most) {
            let inner = self.inner;
            tokio::spawn(async move {
                yield_now().await;
                if !own.closed.load(SeqCst) {
                    let _ = inner.respond(response).await;
                }
            });
            return Ok(());
        }
        if let Some((crowd, asker, request)) = &self.late
            && lock(&crowd.cancelled).contains(request)
            && let Some(own) = crowd.known(asker)
        {
            let mut open = lock(&own.open_asks);
            let mut response = Some(response);
            while let Some(packet) = response.take()
                && !open.is_empty()
            {
                response = open.remove(0).send(packet).err();
            }
            return Ok(());
        }
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
