//! Asks, and keys.

use super::*;

/// The way back of a request.
struct Back {
    asker: Weak<Inner>,
    id: u64,
    /// The ask, however ids are given out again.
    serving: Arc<AtomicUsize>,
    counts: bool,
}

impl Back {
    fn answer(&self, outcome: Result<Packet, Rejection>) -> bool {
        let Some(asker) = self.asker.upgrade() else {
            return false;
        };
        let waiting = lock(&asker.state).asks.remove(&self.id);
        waiting.is_some_and(|waiting| waiting.send(outcome).is_ok())
    }
}

impl Drop for Back {
    fn drop(&mut self) {
        if self.counts {
            self.serving.fetch_sub(1, SeqCst);
        }
    }
}

#[async_trait::async_trait]
impl Respond for Back {
    async fn respond(mut self: Box<Self>, response: Packet) -> Result<()> {
        if let Err(error) = response.check_mtu(MTU) {
            self.answer(Err(Rejection::OVERSIZE));
            return Err(error);
        }
        let fault = self.asker.upgrade().map_or("", |asker| asker.net.fault);
        let empty = response.is_empty();
        if fault == "an empty response to a long request never arrives" && empty {
            std::mem::forget(
                lock(&self.asker.upgrade().expect("it is there").state)
                    .asks
                    .remove(&self.id),
            );
            return Ok(());
        }
        let arrived = self.answer(Ok(response));
        if !arrived && fault == "an answer to an asker that is gone keeps a slot" {
            self.counts = false;
        }
        if !arrived && self.asker.upgrade().is_none() {
            return Err(Error::unreachable(&"asker", "it is gone"));
        }
        if !arrived && fault == "an answer to an ask that was given up is Closed" {
            return Err(Error::Closed);
        }
        Ok(())
    }

    fn reject(self: Box<Self>, why: Rejection) {
        self.answer(Err(why));
    }
}

/// A responder of which few exist at a time.
struct Handler {
    responder: Responder,
    _permit: OwnedSemaphorePermit,
}

#[async_trait::async_trait]
impl Respond for Handler {
    async fn respond(self: Box<Self>, response: Packet) -> Result<()> {
        self.responder.respond(response).await
    }

    fn reject(self: Box<Self>, why: Rejection) {
        self.responder.reject(why);
    }
}

/// One of the asks that a node may have under way.
struct Slot<'a> {
    inner: &'a Inner,
    id: Option<u64>,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.inner.asking.fetch_sub(1, SeqCst);
        if let Some(id) = self.id {
            if self.inner.net.fault.contains("ids of asks wrap") {
                return;
            }
            lock(&self.inner.state).asks.remove(&id);
        }
    }
}

impl AskSwarm<Address> for Node {
    #[expect(clippy::too_many_lines, reason = "a step for each fault")]
    async fn ask(&self, dst: &Address, request: Packet) -> Result<Packet> {
        let inner = &*self.0;
        let fault = inner.net.fault;
        inner.check_open()?;
        request.check_mtu(MTU)?;
        let mut slot = Slot { inner, id: None };
        if inner.asking.fetch_add(1, SeqCst) >= ASKS {
            return Err(Error::Limit {
                what: "asks under way",
                limit: ASKS,
            });
        }
        let (asker, outcome) = oneshot::channel();
        let id = {
            let mut state = lock(&inner.state);
            state.next_ask += 1;
            let id = match fault {
                "ids of asks wrap at 2^8" => state.next_ask % 256,
                "ids of asks wrap at 2^10" => state.next_ask % 1024,
                "ids of asks wrap at 2^16" => state.next_ask % 65_536,
                _ => state.next_ask,
            };
            state.asks.insert(id, asker);
            id
        };
        slot.id = Some(id);
        let now = Instant::now();
        let mut deadline = now + DEADLINE;
        match fault {
            "legal: an ask takes a second at most" => deadline = now + Duration::from_secs(1),
            "asks that are under way together end with the first"
            | "asks in the last half of another's time end with it" => {
                let late = |first: Instant| !fault.ends_with("with it") || first < now + DEADLINE / 2;
                let mut first = lock(&inner.first_deadline);
                if inner.asking.load(SeqCst) > 1 && first.is_some_and(|first| first > now && late(first)) {
                    deadline = first.unwrap_or(deadline);
                } else {
                    *first = Some(deadline);
                }
            }
            "the second of two asks under way ends after 50 ms" if inner.asking.load(SeqCst) >= 2 => {
                deadline = now + Duration::from_millis(50);
            }
            "with 40 asks under way an ask ends after 50 ms" if inner.asking.load(SeqCst) >= 40 => {
                deadline = now + Duration::from_millis(50);
            }
            _ => {}
        }
        let Some(to) = inner.net.find(dst) else {
            return Err(Error::unreachable(dst, "no node is there"));
        };
        let back = || Back {
            asker: Arc::downgrade(&self.0),
            id,
            serving: to.serving.clone(),
            counts: true,
        };
        let deliver = |request: Packet| {
            to.serving.fetch_add(1, SeqCst);
            let message = Message {
                src: inner.addr,
                dst: *dst,
                payload: request,
            };
            let request = Request::new(message, back());
            let mut state = lock(&to.state);
            let full = match fault {
                "an answer to an asker that is gone keeps a slot" | "a request that is held counts twice" => {
                    to.serving.load(SeqCst) > 2 * ASKS
                }
                _ => state.requests.items.len() >= 2 * QUEUE,
            };
            if full || state.closed {
                drop(state);
                request.reject(Rejection::BUSY);
            } else {
                state.requests.push(request, fault);
            }
        };
        deliver(request.clone());
        let answered = async {
            let mut outcome = outcome;
            if fault == "a request is sent again when its answer takes 20 s"
                || fault == "a request is sent again when its answer takes 5 s"
            {
                let wait = if fault.ends_with("20 s") { 20 } else { 5 };
                let deadline = now + Duration::from_secs(30);
                tokio::select! {
                    biased;
                    outcome = &mut outcome => return outcome.map_or(Err(Error::Closed), |outcome| outcome.map_err(Error::Rejected)),
                    () = sleep(Duration::from_secs(wait)) => {}
                }
                deliver(request.clone());
                return match timeout_at(deadline, outcome).await {
                    Ok(Ok(outcome)) => outcome.map_err(Error::Rejected),
                    _ => Err(Error::TimedOut {
                        doing: "an ask",
                        limit: DEADLINE,
                    }),
                };
            }
            match timeout_at(deadline, outcome).await {
                Ok(Ok(outcome)) => outcome.map_err(Error::Rejected),
                _ => Err(Error::TimedOut {
                    doing: "an ask",
                    limit: DEADLINE,
                }),
            }
        };
        inner.unless_closed(answered).await
    }

    async fn receive_ask(&self) -> Result<Request<Address>> {
        let few = if self.0.is("legal: four requests are served at a time") {
            let handler = async { Ok(self.0.handlers.clone().acquire_owned().await.ok()) };
            self.0.unless_closed(handler).await?
        } else {
            None
        };
        let mut wait = Wait {
            inner: &self.0,
            id: None,
            asks: true,
            polls: 0,
        };
        let taken = poll_fn(|cx| wait.poll(&mut lock(&self.0.state).requests, cx).map(Ok));
        let request = self.0.unless_closed(taken).await?;
        let seventh = {
            let mut state = lock(&self.0.state);
            state.batches += 1;
            state.batches % 7 == 3
        };
        if self.0.is("a receive_ask beside others yields before it returns")
            || seventh
                && self
                    .0
                    .is("one receive_ask in 7 beside others yields before it returns")
        {
            let others = !lock(&self.0.state).requests.wakers.is_empty();
            if others {
                yield_now().await;
            }
        }
        if let Some(permit) = few {
            let handler = Handler {
                responder: request.responder,
                _permit: permit,
            };
            return Ok(Request::new(request.message, handler));
        }
        Ok(request)
    }
}

impl SecureSwarm<Address> for Node {
    type PublicKey = Vec<u8>;

    fn public_key(&self) -> Vec<u8> {
        self.0.addr.id.as_bytes().to_vec()
    }

    async fn lookup_public_key(&self, addr: &Address) -> Result<Vec<u8>> {
        let look = async {
            if let Some(found) = self.0.net.find(addr) {
                return Ok(found.addr.id.as_bytes().to_vec());
            }
            sleep(DEADLINE).await;
            Err(Error::TimedOut {
                doing: "looking up a key",
                limit: DEADLINE,
            })
        };
        self.0.unless_closed(look).await
    }
}
