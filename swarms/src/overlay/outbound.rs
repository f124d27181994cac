//! The send path: directly to the known address of a node, or over relays if it does not answer there.

use std::pin::pin;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use p2p::{
    Addr, AskSwarm, BatchError, BatchOutcome, BoxAskSwarm, Error, Packet, PeerId, Result, SecureSwarm, Swarm,
};
use p2p_protocols::overlay::Route;

use super::OverlaySwarm;
use super::router::Router;
use crate::driver::Interest;

impl<A: Addr, S: AskSwarm<A>, R: Router<A>> OverlaySwarm<A, S, R> {
    /// Returns the swarm of relayed messages; it exists if a route over relays was found.
    fn relay(&self, dst: &PeerId) -> Result<&BoxAskSwarm<PeerId>> {
        let relay = self.relay.as_ref();
        relay.ok_or_else(|| Error::unreachable(dst, "relaying is not enabled"))
    }

    pub(super) async fn tell_one(&self, dst: &PeerId, mut packet: Packet) -> Result<()> {
        let core = &*self.core;
        packet.check_mtu(core.mtu)?;
        if *dst == core.id {
            return core.loop_back(packet);
        }
        let told = match core.route(dst).await? {
            Route::Direct(addr) => {
                core.header(dst).push(&mut packet);
                core.inner.tell(&addr, packet).await
            }
            Route::Relayed(_) => self.relay(dst)?.tell(dst, packet).await,
        };
        match &told {
            Ok(()) => core.tells.add_sent(1),
            Err(error) => core.failed(dst, error),
        }
        told
    }

    pub(super) async fn tell_many(&self, batch: &mut Vec<(PeerId, Packet)>) -> Result<(), BatchError> {
        let core = &*self.core;
        let mut outcome = BatchOutcome::default();
        let (mut below, mut others) = (self.batch_buffer.take(), Vec::new());
        for (dst, mut packet) in batch.drain(..) {
            if let Err(error) = packet.check_mtu(core.mtu) {
                outcome.add_refused(1, error);
                continue;
            }
            match core.known(&dst) {
                Some(Route::Direct(addr)) if dst != core.id => {
                    core.header(&dst).push(&mut packet);
                    below.push((addr, packet));
                }
                _ => others.push((dst, packet)),
            }
        }
        core.tells.add_sent(outcome.tell(&core.inner, &mut below).await);
        self.batch_buffer.give(below);
        // Lookups of several nodes run concurrently.
        let others = others.into_iter();
        let mut telling: FuturesUnordered<_> = others
            .map(|(dst, packet)| async move { self.tell_one(&dst, packet).await })
            .collect();
        while let Some(told) = telling.next().await {
            outcome.record(told);
        }
        outcome.finish()
    }

    pub(super) async fn ask_one(&self, dst: &PeerId, mut request: Packet) -> Result<Packet> {
        let core = &*self.core;
        request.check_mtu(core.mtu)?;
        if *dst == core.id {
            core.check_open()?;
            return Err(Error::unreachable(dst, "a node cannot ask itself"));
        }
        let answer = match core.route(dst).await? {
            Route::Direct(addr) => {
                core.header(dst).push(&mut request);
                core.asks.add_sent(1);
                let mut asking = pin!(core.inner.ask(&addr, request));
                core.driver
                    .wait(Interest::Own(()), |cx| asking.as_mut().poll(cx))
                    .await
            }
            Route::Relayed(_) => {
                core.asks.add_sent(1);
                let mut asking = pin!(self.relay(dst)?.ask(dst, request));
                core.driver
                    .wait(Interest::Own(()), |cx| asking.as_mut().poll(cx))
                    .await
            }
        };
        if let Err(error) = &answer {
            core.failed(dst, error);
        }
        answer
    }
}

impl<A: Addr, S: AskSwarm<A> + SecureSwarm<A>, R: Router<A>> OverlaySwarm<A, S, R> {
    pub(super) async fn look_up_key(&self, dst: &PeerId) -> Result<S::PublicKey> {
        let core = &*self.core;
        if *dst == core.id {
            core.check_open()?;
            return Ok(core.inner.public_key());
        }
        match core.route(dst).await? {
            Route::Direct(addr) => {
                let mut looking = pin!(core.inner.lookup_public_key(&addr));
                core.driver
                    .wait(Interest::Own(()), |cx| looking.as_mut().poll(cx))
                    .await
            }
            Route::Relayed(_) => Err(Error::unreachable(
                dst,
                "the node is reached over relays, and the swarm below cannot look up its key",
            )),
        }
    }
}
