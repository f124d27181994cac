//! Recursive lookups: each node passes the request on to the next, and the last answers the first.

use std::time::Duration;

use p2p::{Addr, PeerId};

use super::engine::{Engine, Purpose};
use super::wire::Ask;
use crate::overlay::Contact;

/// Somebody's recursive lookup.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) token: u64,
    pub(super) key: PeerId,
    /// Nodes on the way from the origin to this one, with this one.
    pub(super) hops: u8,
    pub(super) origin: String,
    /// Who did not take it.
    pub(super) tried: Vec<PeerId>,
}

impl<A: Addr> Engine<A> {
    /// Passes a recursive lookup on, or tells its origin who succeeds the key.
    pub(super) fn pass_on(&mut self, now: Duration, mut route: Route) {
        let step = self.step(&route.key, 0, self.rules.config.nearer);
        let mut nearer = step.nearer.into_iter();
        let tries_left = route.tried.len() < self.rules.config.nearer;
        let next = nearer.find(|node| tries_left && !route.tried.contains(&node.id));
        if let Some(next) = next {
            let ask = Ask::Route {
                token: route.token,
                key: *route.key.as_bytes(),
                hops: route.hops.saturating_add(1),
                origin: route.origin.as_str().into(),
            };
            let request = super::wire::Message::new(*self.table.own.as_bytes(), ask).emit();
            self.routes += 1;
            route.tried.push(next.id);
            return self.send(now, next.addr, Some(next.id), request, Purpose::Route(route));
        }
        let Some(origin) = (self.rules.parse)(&route.origin) else {
            return;
        };
        let successors = self.room().tell_of_all(&step.owners);
        if step.mine || !successors.is_empty() {
            let routed = Ask::Routed {
                token: route.token,
                hops: route.hops,
                mine: step.mine,
                successors,
            };
            self.routes += 1;
            self.ask(now, &origin, None, routed, Purpose::Routed);
        }
    }

    /// A recursive lookup of this node's came back.
    pub(super) fn routed(&mut self, now: Duration, token: u64, hops: u8, owners: Vec<Contact<A>>) {
        let found = self.ops.iter().find(|(_, op)| op.waits_for_route(token));
        let Some((&id, _)) = found else { return };
        let Some(mut op) = self.ops.remove(&id) else {
            return;
        };
        op.hops = usize::from(hops);
        self.add_owners(&mut op, owners);
        self.advance(now, id, op);
    }
}
