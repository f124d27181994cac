//! Selects the session to evict for a new one.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use p2p::{Addr, PeerId};
use p2p_protocols::overlay::Prefix;

use super::QuicConfig;
use super::session::Session;
use super::sessions::Sessions;

/// Maximum numbers of sessions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quotas {
    total: usize,
    /// Inbound sessions; the rest is for peers that this node dials.
    inbound: usize,
    /// Inbound sessions of one identity, and of one public network.
    of_id: usize,
    of_prefix: usize,
}

impl Quotas {
    pub(super) fn of(config: &QuicConfig) -> Self {
        let total = config.max_sessions;
        Self {
            total,
            inbound: total - total / 4,
            of_id: config.max_sessions_per_id.min(total / 4).max(2),
            of_prefix: config.max_sessions_per_prefix.min(total / 2).max(2),
        }
    }

    /// Returns the session to evict for `new`, if one must be; `None` if one must be and none can.
    #[expect(
        clippy::option_option,
        reason = "the outer one is failure, and `?` passes it on"
    )]
    pub(super) fn make_room<A: Addr>(
        self,
        sessions: &Sessions<A>,
        new: &Session<A>,
    ) -> Option<Option<Arc<Session<A>>>> {
        let inbound = sessions.all().filter(|session| !session.outbound);
        let inbound: Vec<_> = inbound.collect();
        if !new.outbound {
            let of_id = of_those(&inbound, |session| session.peer.id == new.peer.id);
            if of_id.len() >= self.of_id {
                return least_useful(&of_id, true).map(Some);
            }
            if let prefix @ Some(_) = Prefix::of(&new.peer.addr) {
                let of_prefix = of_those(&inbound, |session| Prefix::of(&session.peer.addr) == prefix);
                if of_prefix.len() >= self.of_prefix {
                    return least_useful(&of_prefix, true).map(Some);
                }
            }
            if inbound.len() >= self.inbound {
                return least_useful(&inbound, false).map(Some);
            }
        }
        if sessions.len() >= self.total {
            let all = || sessions.all().collect::<Vec<_>>();
            return least_useful(&inbound, new.outbound)
                .or_else(|| least_useful(&all(), new.outbound))
                .map(Some);
        }
        Some(None)
    }

    /// Returns whether there is, or can be made, room for `pending` inbound sessions.
    pub(super) fn admit<A: Addr>(self, sessions: &Sessions<A>, pending: usize) -> bool {
        let free = self.total.saturating_sub(sessions.len());
        if pending <= free.min(self.inbound.saturating_sub(sessions.len())) {
            return true;
        }
        let inbound = sessions.all().filter(|session| !session.outbound);
        let (mut of_all, mut counts) = (0, counts(sessions.all()));
        let mut can_go = 0;
        for session in inbound {
            of_all += 1;
            let others = counts.entry(session.peer.id).or_default();
            if can_make_room(session, *others, false) {
                can_go += 1;
                *others -= 1;
            }
        }
        pending <= free.min(self.inbound.saturating_sub(of_all)) + can_go
    }
}

fn of_those<'a, A: Addr>(
    sessions: &[&'a Arc<Session<A>>],
    pick: impl Fn(&Session<A>) -> bool,
) -> Vec<&'a Arc<Session<A>>> {
    sessions.iter().copied().filter(|session| pick(session)).collect()
}

/// Returns the least useful of these sessions, if one can be evicted. New inbound sessions stay, unless the
/// peer has others, or `forced`.
fn least_useful<A: Addr>(sessions: &[&Arc<Session<A>>], forced: bool) -> Option<Arc<Session<A>>> {
    let counts = counts(sessions.iter().copied());
    let of_id = |session: &Session<A>| counts.get(&session.peer.id).copied().unwrap_or(0);
    let candidates = sessions.iter().copied();
    candidates
        .filter(|session| can_make_room(session, of_id(session), forced))
        .min_by_key(|session| {
            let usage = (session.is_fresh(), session.usage.last());
            (session.outbound, Reverse(of_id(session)), usage)
        })
        .cloned()
}

fn can_make_room<A: Addr>(session: &Session<A>, of_id: usize, forced: bool) -> bool {
    !session.is_busy() && (forced || of_id > 1 || !session.is_fresh())
}

fn counts<'a, A: Addr>(sessions: impl Iterator<Item = &'a Arc<Session<A>>>) -> HashMap<PeerId, usize> {
    let mut counts = HashMap::new();
    for session in sessions {
        *counts.entry(session.peer.id).or_default() += 1;
    }
    counts
}
