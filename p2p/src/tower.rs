//! [`AskSwarm::ask`] as a [`tower_service::Service`].

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use crate::{Addr, AskSwarm, Error, Packet, Result};

/// A service that asks: its request is `(destination, request)`, its response is the ask's response.
///
/// `poll_ready` always returns ready. For backpressure, wrap it in a concurrency limit or a load shedder of
/// `tower`.
pub struct AskService<A, S> {
    swarm: Arc<S>,
    addr: PhantomData<fn() -> A>,
}

impl<A, S> AskService<A, S> {
    /// Creates a service that sends its requests through `swarm`.
    pub fn new(swarm: Arc<S>) -> Self {
        Self {
            swarm,
            addr: PhantomData,
        }
    }
}

impl<A, S> Clone for AskService<A, S> {
    fn clone(&self) -> Self {
        Self::new(self.swarm.clone())
    }
}

impl<A, S> fmt::Debug for AskService<A, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AskService")
    }
}

impl<A: Addr, S: AskSwarm<A>> Service<(A, Packet)> for AskService<A, S> {
    type Response = Packet;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Packet>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (dst, request): (A, Packet)) -> Self::Future {
        let swarm = self.swarm.clone();
        Box::pin(async move { swarm.ask(&dst, request).await })
    }
}
