//! Nodes of a testbed: new ones, ones on the suite's own wire, and ones in place of others.

use p2p::{Addr, BoxAddr, Error, Result};
use tokio::time::{Instant, timeout};

use super::{Boxed, MTU, Rebind, Restart, Source, Testbed};
use crate::kind::Node;
use crate::report::{Outcome, Unmet};
use crate::wire::{Port, Tap, Wire};

impl<A: Addr> Testbed<A> {
    /// Creates `N` new nodes that can reach each other.
    ///
    /// # Errors
    /// Returns [`Unmet::Broken`] if they cannot be created.
    pub async fn nodes<const N: usize>(&self) -> Outcome<[Node<A>; N]> {
        match &self.source {
            Source::Made(make) => self.made(make(N)).await,
            Source::Over { mtu, .. } => self.on(taps(&Wire::new(*mtu))).await,
        }
    }

    /// Creates `N` new nodes with a sibling each.
    pub(crate) async fn with_siblings<const N: usize>(&self) -> Outcome<[(Node<A>, Node<BoxAddr>); N]> {
        let Some(beside) = &self.beside else {
            return Err(Unmet::Waived(
                "the testbed does not define how to create a sibling".into(),
            ));
        };
        self.made(beside(N)).await
    }

    /// Returns the MTU of the suite's own wire in bytes.
    pub(crate) fn the_wire_mtu(&self) -> usize {
        match &self.source {
            Source::Over { mtu, .. } => *mtu,
            Source::Made(_) => MTU,
        }
    }

    /// Creates nodes as [`nodes`](Self::nodes) does, and returns their wire and ports.
    pub(crate) async fn wired<const N: usize>(&self) -> Outcome<(Wire, [Port; N], [Node<A>; N])> {
        let Source::Over { mtu, .. } = &self.source else {
            return Err(Unmet::Waived(
                "the testbed does not create its nodes on the suite's own wire".into(),
            ));
        };
        let wire = Wire::new(*mtu);
        let taps = taps(&wire);
        let ports = std::array::from_fn(|index| taps[index].port());
        Ok((wire, ports, self.on(taps).await?))
    }

    /// Creates a node on each of these taps.
    pub(crate) async fn on<const N: usize>(&self, taps: [Tap; N]) -> Outcome<[Node<A>; N]> {
        match &self.source {
            Source::Over { make, .. } => self.made(make(taps.into())).await,
            Source::Made(_) => Err(Unmet::Waived(
                "the testbed does not create its nodes on taps".into(),
            )),
        }
    }

    /// Returns [`Unmet::Waived`] if no node can be created with the key of another.
    pub(crate) fn can_restart(&self) -> Outcome<&Restart<A>> {
        self.restart.as_deref().ok_or_else(|| {
            Unmet::Waived("the testbed does not define how to create a node with the key of another".into())
        })
    }

    /// Creates a node on this tap with the key of the node that was at this address.
    pub(crate) async fn restarted(&self, tap: Tap, addr: &A) -> Outcome<Node<A>> {
        let making = self.can_restart()?(tap, addr.clone());
        match timeout(self.profile.patience, making).await {
            Ok(Ok(node)) => Ok(node),
            Ok(Err(error)) => Err(Unmet::Broken(format!(
                "no node was created with the key of {addr}: {}",
                chain(&error)
            ))),
            Err(_) => Err(Unmet::Broken(format!(
                "no node was created with the key of {addr} in time"
            ))),
        }
    }

    async fn made<T, const N: usize>(&self, making: Boxed<Result<Vec<T>>>) -> Outcome<[T; N]> {
        let nodes = match timeout(self.profile.limit, making).await {
            Ok(Ok(nodes)) => nodes,
            Ok(Err(error)) => return Err(Unmet::Broken(format!("no nodes were created: {}", chain(&error)))),
            Err(_) => return Err(Unmet::Broken("no nodes were created in time".into())),
        };
        let made = nodes.len();
        nodes
            .try_into()
            .map_err(|_| Unmet::Broken(format!("asked for {N} nodes, the testbed created {made}")))
    }

    /// Tries once to create a node at the address of a closed one.
    pub(crate) async fn rebound_at_once(&self, addr: &A) -> Outcome<Result<Node<A>>> {
        let making = self.the_rebind()?(addr.clone());
        let made = timeout(self.profile.patience, making).await;
        made.map_err(|_| Unmet::Broken(format!("{addr} cannot be reused")))
    }

    fn the_rebind(&self) -> Outcome<&Rebind<A>> {
        self.rebind.as_deref().ok_or_else(|| {
            Unmet::Waived("the testbed does not define how to create a node at a given address".into())
        })
    }

    /// Creates a node at the address of a closed one, as soon as that is free.
    pub(crate) async fn rebound(&self, addr: &A) -> Outcome<Node<A>> {
        let rebind = self.the_rebind()?;
        let started = Instant::now();
        loop {
            match timeout(self.profile.patience, rebind(addr.clone())).await {
                Ok(Ok(node)) => return Ok(node),
                Ok(Err(error)) if started.elapsed() >= self.profile.patience => {
                    let (waited, error) = (self.profile.patience, chain(&error));
                    return Err(Unmet::Broken(format!(
                        "{addr} is not free after {waited:?}: {error}"
                    )));
                }
                Ok(Err(_)) => tokio::time::sleep(self.profile.settle / 4).await,
                Err(_) => return Err(Unmet::Broken(format!("{addr} cannot be reused"))),
            }
        }
    }

    /// Returns the address with the identity of the first and the place of the second.
    pub(crate) fn forged(&self, id_of: &A, place_of: &A) -> Outcome<A> {
        match &self.forge {
            Some(forge) => Ok(forge(id_of, place_of)?),
            None => Err(Unmet::Waived(
                "the testbed does not define how to create an address with a wrong identity".into(),
            )),
        }
    }
}

/// Opens taps of this wire.
fn taps<const N: usize>(wire: &Wire) -> [Tap; N] {
    std::array::from_fn(|_| wire.open())
}

/// Formats an error with its causes.
pub(crate) fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
