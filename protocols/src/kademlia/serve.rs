//! Serves requests of other nodes, each at once from local state.

use std::borrow::Cow;
use std::time::Duration;

use p2p::{Addr, PeerId};
use rand::RngExt;

use super::config::FRAME;
use super::engine::Engine;
use super::event::Refusal;
use super::operation::seconds;
use super::records::Incoming;
use super::wire::{Answer, Ask, MAX_ADDR, Message, Node};
use crate::overlay::{Contact, Scope, Source};

impl<A: Addr> Engine<A> {
    /// Serves a request. Returns the answer.
    ///
    /// An unknown sender is pinged if there is a place for it. A sender that is known at another address is
    /// pinged there.
    ///
    /// # Errors
    /// See [`Refusal`]. Nothing of a refused request is kept.
    pub fn handle_request(&mut self, now: Duration, from: &A, request: &[u8]) -> Result<Vec<u8>, Refusal> {
        let own = *self.own.as_bytes();
        let request = match self.validator.admit(from, request) {
            Ok(request) => request,
            Err(challenge) => {
                self.counts.challenged += 1;
                return Ok(challenge.into());
            }
        };
        let served = self.serve(now, from, request).map(|answer| {
            let bytes = answer.estimate();
            Message::new(own, answer).emit_within(bytes)
        });
        self.counts.add_served(&served);
        served
    }

    fn serve(&mut self, now: Duration, from: &A, request: &[u8]) -> Result<Answer<'_>, Refusal> {
        if request.len() > self.rules.config.message {
            return Err(Refusal::Oversize);
        }
        if !self.rules.config.serves {
            return Err(Refusal::Visitor);
        }
        let message = Message::<Ask<'_>>::parse(request).ok_or(Refusal::Malformed)?;
        let id = PeerId::new(message.from);
        if id == self.own || from.peer_id().is_some_and(|proven| proven != id) {
            return Err(Refusal::FalseId);
        }
        let sender = Contact {
            id,
            addr: from.clone(),
        };
        let proven = self.proves(from, id);
        let unsure = if proven {
            self.silent.remove(&sender);
            self.table.heard(now, &sender, &self.rules.config)
        } else {
            None
        };
        match unsure {
            Some(newcomer) if newcomer == sender => self.check_newcomer(now, newcomer),
            Some(unsure) => self.check(now, unsure),
            None => {}
        }
        // An unauthenticated source may be forged: it gets no more bytes than were received in its name.
        let most = if proven {
            self.rules.config.message
        } else {
            request.len()
        };
        let room = most.saturating_sub(FRAME);
        match message.body {
            Ask::Ping => Ok(Answer::Pong),
            Ask::FindNode(target) => Ok(Answer::Nodes(self.nodes_near(
                &PeerId::new(target),
                id,
                from,
                room,
            ))),
            Ask::Get(key) => {
                let key = PeerId::new(key);
                let record = self.records.get(now, &key);
                // A record with less than a second left is not returned.
                let record = record.filter(|(value, ttl)| seconds(*ttl) > 0 && value.len() <= room);
                let room = room - record.map_or(0, |(value, _)| value.len());
                let nodes = self.nodes_near(&key, id, from, room);
                Ok(match record {
                    None => Answer::Nodes(nodes),
                    Some((value, ttl)) => Answer::Record {
                        ttl: seconds(ttl),
                        value,
                        nodes,
                    },
                })
            }
            Ask::Providers(key) => {
                let key = PeerId::new(key);
                let nodes = self.nodes_near(&key, id, from, room / 2);
                let providers = within(room / 2, self.providers.get(now, &key).filter_map(node));
                Ok(Answer::Providers { providers, nodes })
            }
            Ask::Put { .. } | Ask::Provide { .. } if !proven => Err(Refusal::Unproven),
            Ask::Put { key, ttl, value } => {
                let record = Incoming {
                    key: PeerId::new(key),
                    value,
                    ttl: Duration::from_secs(ttl.into()),
                    source: Source::of(&sender),
                    replicate_at: self.replicate_at(now),
                };
                self.counts.evicted += self.records.put(now, &record, &self.rules)?;
                Ok(Answer::Kept)
            }
            Ask::Provide { key, ttl } => {
                let (key, ttl) = (PeerId::new(key), Duration::from_secs(ttl.into()));
                let config = &self.rules.config;
                self.counts.evicted += self.providers.put(now, key, sender, ttl, config, &mut self.rng)?;
                Ok(Answer::Kept)
            }
        }
    }

    /// Returns the nodes to name to `asker`, up to `room` bytes: without the asker, and without nodes that it
    /// cannot reach from its scope. Each of them has answered a request, except the target itself, which may be a
    /// newcomer that is being pinged.
    fn nodes_near(&self, target: &PeerId, asker: PeerId, at: &A, room: usize) -> Vec<Node<'static>> {
        let k = self.rules.config.k;
        let is_of_use = |node: &Contact<A>| node.id != asker && Scope::may_name(at, &node.addr);
        let newcomer = self.newcomer(target).filter(|newcomer| is_of_use(newcomer));
        let nearest = self.table.nearest(target, k, is_of_use, false);
        within(room, newcomer.into_iter().chain(nearest).take(k).filter_map(node))
    }

    /// Returns the time of a record's next replication. The jitter makes one of the nodes that store a record
    /// the first, and the others need not replicate it.
    pub(super) fn replicate_at(&mut self, now: Duration) -> Duration {
        let jitter = self.rng.random_range(0.75..1.25);
        let wait = self.rules.config.replicate_every;
        now.saturating_add(Duration::try_from_secs_f64(wait.as_secs_f64() * jitter).unwrap_or(wait))
    }
}

/// Returns the longest prefix of `nodes` that fits into `room` bytes.
fn within(mut room: usize, nodes: impl Iterator<Item = Node<'static>>) -> Vec<Node<'static>> {
    let fitting = nodes.take_while(|node| {
        let left = room.checked_sub(node.len());
        room = left.unwrap_or(0);
        left.is_some()
    });
    fitting.collect()
}

fn node<A: Addr>(contact: &Contact<A>) -> Option<Node<'static>> {
    let addr = contact.addr.to_string();
    (addr.len() <= MAX_ADDR).then(|| Node {
        id: *contact.id.as_bytes(),
        addr: Cow::Owned(addr),
    })
}
