//! Testbeds with erased addresses.

use std::future::ready;
use std::sync::Arc;

use p2p::{Addr, BoxAddr, Result};

use super::{Beside, Boxed, Forge, Over, Rebind, Restart, Source, Testbed};
use crate::erased::typed;
use crate::kind::Node;

impl<A: Addr> Testbed<A> {
    /// Returns the same testbed with erased addresses, the only type that laws are compiled for.
    pub(crate) fn erase(&self) -> Testbed<BoxAddr> {
        let source = match self.source.clone() {
            Source::Made(make) => Source::Made(Arc::new(move |count| erased_nodes(make(count)))),
            Source::Over { make, mtu } => {
                let make: Arc<Over<BoxAddr>> = Arc::new(move |taps| erased_nodes(make(taps)));
                Source::Over { make, mtu }
            }
        };
        let rebind = self.rebind.clone().map(|rebind| -> Arc<Rebind<BoxAddr>> {
            Arc::new(move |addr| match typed(&addr) {
                Ok(addr) => {
                    let making = rebind(addr);
                    Box::pin(async move { Ok(making.await?.erase()) })
                }
                Err(error) => Box::pin(ready(Err(error))),
            })
        });
        let restart = self.restart.clone().map(|restart| -> Arc<Restart<BoxAddr>> {
            Arc::new(move |tap, addr| match typed(&addr) {
                Ok(addr) => {
                    let making = restart(tap, addr);
                    Box::pin(async move { Ok(making.await?.erase()) })
                }
                Err(error) => Box::pin(ready(Err(error))),
            })
        });
        let forge = self.forge.clone().map(|forge| -> Arc<Forge<BoxAddr>> {
            Arc::new(move |id_of, place_of| Ok(BoxAddr::new(forge(&typed(id_of)?, &typed(place_of)?)?)))
        });
        let beside = self.beside.clone().map(|beside| -> Arc<Beside<BoxAddr>> {
            Arc::new(move |count| {
                let making = beside(count);
                Box::pin(async move {
                    let made = making.await?.into_iter();
                    Ok(made.map(|(node, sibling)| (node.erase(), sibling)).collect())
                })
            })
        });
        Testbed {
            source,
            has: self.has,
            profile: Arc::new(self.profile.as_run()),
            rebind,
            restart,
            forge,
            beside,
            watch: self.watch.clone(),
            parallel: self.parallel,
            own: self.own.clone(),
            law: self.law,
        }
    }
}

/// Erases the addresses of nodes, when they are created.
fn erased_nodes<A: Addr>(making: Boxed<Result<Vec<Node<A>>>>) -> Boxed<Result<Vec<Node<BoxAddr>>>> {
    Box::pin(async move { Ok(making.await?.into_iter().map(Node::erase).collect()) })
}
