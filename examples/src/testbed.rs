//! The testbed of the conformance suite for a stack in text form.

use std::sync::Arc;
use std::time::Duration;

use p2p::{Addr as _, BoxAddr, Error, Swarm as _};
use p2p_libp2p::HostAddr;
use p2p_swarms::stack::{Medium, Stack, StackError, StackNodes, StackText, forged};
use p2p_swarmtest::{Ask, Plain, Profile, Secure, SecureAsk, Testbed, loopback};

/// Returns a testbed of nodes of this stack, with the [`profile`] of its medium.
///
/// Opens a node to determine its capabilities, and closes it.
///
/// # Errors
/// Returns the errors of [`StackText::build`] and [`StackText::medium`].
pub async fn testbed(text: &StackText) -> Result<Testbed<BoxAddr>, StackError> {
    let text = &text.with_loopback(loopback());
    let profile = profile(&text.medium().await?);
    let probe = text.apart().build().await?;
    let bed = bed(text, &probe);
    probe.close().await;
    Ok(bed.profile(profile))
}

/// Creates a testbed of this stack with the capabilities of `probe`, one of its nodes.
fn bed(text: &StackText, probe: &Stack) -> Testbed<BoxAddr> {
    let nodes = Arc::new(StackNodes::new(text.clone()));
    let again = nodes.clone();
    /// Creates nodes, each unwrapped from its variant.
    macro_rules! bed {
        ($kind:ident) => {
            Testbed::new($kind, move |count| {
                let nodes = nodes.clone();
                async move {
                    let made = nodes.open(count).await?.into_iter().map(|node| match node {
                        Stack::$kind(swarm) => Ok(swarm),
                        _ => Err(Error::invalid("stack", "its nodes differ")),
                    });
                    made.collect::<p2p::Result<Vec<_>>>()
                }
            })
        };
    }
    let bed = match probe {
        Stack::Plain(_) => bed!(Plain),
        Stack::Ask(_) => bed!(Ask),
        Stack::Secure(_) => bed!(Secure),
        Stack::SecureAsk(_) => bed!(SecureAsk),
    };
    let bed = bed.rebind(move |addr: BoxAddr| {
        let again = again.clone();
        async move { again.open_again(&addr).await }
    });
    let names_ids = |addr: &BoxAddr| with_id_of(addr, addr).is_some();
    if !probe.local_addrs().first().is_some_and(names_ids) {
        return bed;
    }
    bed.forge(|id_of, place_of| with_id_of(id_of, place_of).unwrap_or_else(|| place_of.clone()))
}

/// Returns the place of one address with the identity of another one, if addresses of this kind contain both.
fn with_id_of(id_of: &BoxAddr, place_of: &BoxAddr) -> Option<BoxAddr> {
    if let (Some(id_of), Some(place_of)) = (
        id_of.downcast_ref::<HostAddr>(),
        place_of.downcast_ref::<HostAddr>(),
    ) {
        let addr = HostAddr::new(id_of.libp2p_id()?, place_of.place().clone());
        return Some(BoxAddr::new(addr));
    }
    forged(place_of, id_of.peer_id()?)
}

/// Returns the profile of nodes on this medium.
///
/// # Panics
/// Panics if the medium waives a law that the suite does not have.
#[must_use]
pub fn profile(medium: &Medium) -> Profile {
    let mut profile = Profile {
        loss: medium.loss,
        loss_at_mtu: medium.loss_at_mtu,
        longest: medium.longest,
        longest_ask: medium.longest_ask,
        duplicates: medium.duplicates,
        damages: medium.damages,
        holds: medium.holds,
        ..Profile::default()
    };
    profile.settle += 2 * medium.delay;
    profile.patience += 4 * medium.delay;
    if medium.handshakes {
        // A handshake precedes the first message, and many run concurrently.
        profile.settle = profile.settle.max(Duration::from_millis(100));
        profile.patience = profile.patience.max(Duration::from_secs(20));
    }
    if medium.loss > 0.0 || medium.loss_at_mtu > 0.0 || medium.damages {
        profile.patience = profile.patience.max(Duration::from_mins(1));
        profile.ask_patience = Duration::from_mins(2);
        profile.limit = Duration::from_mins(4);
    }
    if !medium.recovery.is_zero() {
        profile.patience = profile.patience.max(medium.recovery);
        profile.ask_patience = profile.ask_patience.max(2 * medium.recovery);
        profile.limit = profile.limit.max(4 * medium.recovery);
    }
    for (law, why) in &medium.waivers {
        profile = profile.waive(*law, *why);
    }
    profile
}
