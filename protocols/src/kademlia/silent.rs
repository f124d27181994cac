//! Addresses at which a node did not answer a short time ago.
//!
//! Other nodes name a node that has left until they notice it. Without this memory each lookup waits for such a
//! node again, for the timeout of a request.

use std::collections::VecDeque;
use std::time::Duration;

use p2p::{Addr, PeerId};

use crate::overlay::Contact;

/// Maximum number of contacts that are remembered; at the limit, the oldest is forgotten.
const MOST: usize = 64;

/// The contacts that did not answer lately, the oldest first.
#[derive(Debug)]
pub(super) struct Silent<A> {
    contacts: VecDeque<(Duration, Contact<A>)>,
}

impl<A: Addr> Silent<A> {
    pub(super) fn new() -> Self {
        Self {
            contacts: VecDeque::new(),
        }
    }

    /// Records that a contact did not answer.
    pub(super) fn add(&mut self, now: Duration, contact: &Contact<A>) {
        self.remove(contact);
        if self.contacts.len() >= MOST {
            self.contacts.pop_front();
        }
        self.contacts.push_back((now, contact.clone()));
    }

    /// Records that a contact has sent a message.
    pub(super) fn remove(&mut self, contact: &Contact<A>) {
        self.contacts.retain(|(_, other)| other != contact);
    }

    /// Forgets the contacts that have been silent for `pause`.
    pub(super) fn expire(&mut self, now: Duration, pause: Duration) {
        let is_old = |(since, _): &(Duration, Contact<A>)| now.saturating_sub(*since) >= pause;
        while self.contacts.front().is_some_and(is_old) {
            self.contacts.pop_front();
        }
    }

    /// Returns whether a lookup of `target` leaves a contact out. It always tries the target itself.
    pub(super) fn leaves_out(&self, target: &PeerId, contact: &Contact<A>) -> bool {
        contact.id != *target && self.contacts.iter().any(|(_, other)| other == contact)
    }
}
