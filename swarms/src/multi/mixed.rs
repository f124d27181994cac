//! A transport with or without asks.

use p2p::{AskSwarm, BoxAddr, BoxAskSwarm, BoxSwarm, Error, Packet, Request, Result, Swarm, pass_through};
use tokio::sync::Semaphore;

/// A transport of a [`MultiSwarm`](super::MultiSwarm) with or without asks.
///
/// Without asks, asking fails with [`Error::Unreachable`], and `receive_ask` waits until the swarm is closed.
///
/// ```
/// use p2p::{BoxAskSwarm, BoxSwarm, Swarm};
/// use p2p_swarms::multi::{MixedSwarm, MultiSwarm};
/// use p2p_swarms::{EraseSwarm, MemorySwarm, UdpSwarm};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> p2p::Result<()> {
/// let mem = BoxAskSwarm::new(EraseSwarm::erase(MemorySwarm::new()));
/// let udp = BoxSwarm::new(EraseSwarm::erase(UdpSwarm::bind(([127, 0, 0, 1], 0).into())?));
/// let node = MultiSwarm::new([("mem", MixedSwarm::from(mem)), ("udp", MixedSwarm::from(udp))])?;
/// assert!(node.local_addrs()[0].to_string().starts_with("mem://"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct MixedSwarm {
    swarm: BoxSwarm<BoxAddr>,
    asks: Option<BoxAskSwarm<BoxAddr>>,
    /// Never has a permit: acquiring one waits until the swarm is closed.
    open: Semaphore,
}

impl From<BoxSwarm<BoxAddr>> for MixedSwarm {
    fn from(swarm: BoxSwarm<BoxAddr>) -> Self {
        Self {
            swarm,
            asks: None,
            open: Semaphore::const_new(0),
        }
    }
}

impl From<BoxAskSwarm<BoxAddr>> for MixedSwarm {
    fn from(swarm: BoxAskSwarm<BoxAddr>) -> Self {
        Self {
            swarm: swarm.clone().into(),
            asks: Some(swarm),
            open: Semaphore::const_new(0),
        }
    }
}

type A = BoxAddr;

impl Swarm<A> for MixedSwarm {
    pass_through!(swarm: tell, tell_batch, receive, receive_batch, mtu, local_addrs, parse_addr, headroom,
        visit_counters);

    async fn close(&self) {
        self.open.close();
        self.swarm.close().await;
    }
}

impl AskSwarm<A> for MixedSwarm {
    async fn ask(&self, dst: &A, request: Packet) -> Result<Packet> {
        match &self.asks {
            Some(asks) => asks.ask(dst, request).await,
            None if self.open.is_closed() => Err(Error::Closed),
            None => Err(Error::unreachable(dst, "this transport does not support asks")),
        }
    }

    async fn receive_ask(&self) -> Result<Request<A>> {
        if let Some(asks) = &self.asks {
            return asks.receive_ask().await;
        }
        drop(self.open.acquire().await);
        Err(Error::Closed)
    }
}
