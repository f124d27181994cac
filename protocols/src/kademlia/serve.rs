//! Serves requests of other nodes, each at once from local state.

use std::time::Duration;

use p2p::{Addr, PeerId};
use rand::RngExt;

use super::codec::{Answer, Request};
use super::engine::Engine;
use super::event::Refusal;
use super::postcard::seconds;
use super::records::Incoming;
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
        let request = match self.validator.admit(from, request) {
            Ok(request) => request,
            Err(challenge) => {
                self.counts.challenged += 1;
                return Ok(challenge.into());
            }
        };
        let served = self.serve(now, from, request);
        self.counts.add_served(&served);
        served
    }

    fn serve(&mut self, now: Duration, from: &A, request: &[u8]) -> Result<Vec<u8>, Refusal> {
        if request.len() > self.rules.config.message {
            return Err(Refusal::Oversize);
        }
        if !self.rules.config.serves {
            return Err(Refusal::Visitor);
        }
        let received = request.len();
        let (id, request) = self.codec.read_request(from, request).ok_or(Refusal::Malformed)?;
        if id == self.own || from.peer_id().is_some_and(|proven| proven != id) {
            return Err(Refusal::FalseId);
        }
        let sender = Contact {
            id,
            addr: from.clone(),
        };
        let proven = self.proves(from, id);
        if proven {
            self.heard(now, &sender, self.codec.senders_serve());
        }
        // An unauthenticated source may be forged: it gets no more bytes than were received in its name.
        let most = if proven {
            self.rules.config.message
        } else {
            received
        };
        let answer = match &request {
            Request::Ping => Answer::Pong,
            Request::FindNode(target) => Answer::Nodes(self.nodes_near(target.id(), id, from)),
            Request::Get(key) => {
                let nodes = self.nodes_near(key.id(), id, from);
                // A record with less than a second left is not returned.
                let record = self.records.get(now, key.id());
                match record.filter(|(_, ttl)| seconds(*ttl) > 0) {
                    Some((value, ttl)) => Answer::Record { ttl, value, nodes },
                    None => Answer::Nodes(nodes),
                }
            }
            Request::Providers(key) => Answer::Providers {
                providers: self.providers.get(now, key.id()).collect(),
                nodes: self.nodes_near(key.id(), id, from),
            },
            Request::Put { .. } | Request::Provide { .. } if !proven => return Err(Refusal::Unproven),
            Request::Put { key, ttl, value } => {
                let record = Incoming {
                    key,
                    value,
                    ttl: *ttl,
                    source: Source::of(&sender),
                    replicate_at: self.replicate_at(now),
                };
                self.counts.evicted += self.records.put(now, &record, &self.rules)?;
                Answer::Kept
            }
            Request::Provide { key, ttl } => {
                let (config, rng) = (&self.rules.config, &mut self.rng);
                let put = self.providers.put(now, *key.id(), sender, *ttl, config, rng);
                self.counts.evicted += put?;
                Answer::Kept
            }
        };
        Ok(self.codec.write_answer(from, &request, answer, most))
    }

    /// Returns the nodes to name to `asker`: without the asker, and without nodes that it
    /// cannot reach from its scope. Each of them has answered a request, except the target itself, which may be a
    /// newcomer that is being pinged.
    fn nodes_near(&self, target: &PeerId, asker: PeerId, at: &A) -> Vec<&Contact<A>> {
        let k = self.rules.config.k;
        let is_of_use = |node: &Contact<A>| node.id != asker && Scope::may_name(at, &node.addr);
        let newcomer = self.newcomer(target).filter(|newcomer| is_of_use(newcomer));
        let nearest = self.table.nearest(target, k, is_of_use, false);
        newcomer.into_iter().chain(nearest).take(k).collect()
    }

    /// Returns the time of a record's next replication. The jitter makes one of the nodes that store a record
    /// the first, and the others need not replicate it.
    pub(super) fn replicate_at(&mut self, now: Duration) -> Duration {
        let jitter = self.rng.random_range(0.75..1.25);
        let wait = self.rules.config.replicate_every;
        now.saturating_add(Duration::try_from_secs_f64(wait.as_secs_f64() * jitter).unwrap_or(wait))
    }
}
