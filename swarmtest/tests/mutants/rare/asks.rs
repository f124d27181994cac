//! Faults of asks, keys and `close` that show rarely.

use std::sync::atomic::Ordering::SeqCst;

use p2p::{AskSwarm, Packet, Rejection, Request, Respond, Responder, Result, SecureSwarm, Swarm as _};
use p2p_swarmtest::reference::{Address, Key};

use super::fault::{AskFate, Asked, Fault, SOUND, damaged, one_in};
use super::node::Rare;

pub(super) const FAULTS: &[Fault] = &[Fault {
    law: "ask::an_ask_gets_its_response",
    what: "every third response is damaged",
    ask: |asked| {
        if one_in(3, asked.index) {
            AskFate::Damaged
        } else {
            AskFate::Sound
        }
    },
    ..SOUND
}];

/// The way back, with a fault.
struct Back {
    inner: Responder,
    fault: &'static Fault,
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
        let asked = Asked {
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
            AskFate::Refused(error) => Err(error),
        };
        self.own.asking.fetch_sub(1, SeqCst);
        outcome
    }

    async fn receive_ask(&self) -> Result<Request<Address>> {
        let (mut src, mut dst, payload, inner) = self.inner.receive_ask().await?.into_parts();
        let index = self.own.requests.fetch_add(1, SeqCst);
        (self.crowd.fault.request)(index, &mut src, &mut dst);
        let fault = self.crowd.fault;
        Ok(Request::new(src, dst, payload, Back { inner, fault }))
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
