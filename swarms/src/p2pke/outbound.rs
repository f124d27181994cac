//! The send path: seals with the data path of the destination, without the engine's lock, or waits for a
//! session.

use std::sync::Arc;

use p2p::{Addr, BatchError, BatchOutcome, Message, Packet, Result, Swarm};
use p2p_protocols::hash::HashMap;
use p2p_protocols::p2pke::{self, DataPath, Sealed};

use super::shared::{ATTEMPTS, Shared};
use crate::KeyAddr;

/// Messages with their destinations.
pub(super) type Batch<A> = Vec<(A, Packet)>;

impl<A: Addr, S: Swarm<A>> Shared<A, S> {
    pub(super) async fn tell(self: &Arc<Self>, dst: &KeyAddr<A>, mut packet: Packet) -> Result<()> {
        packet.check_mtu(self.mtu)?;
        let sealed = self.with_path(&dst.addr, |path| {
            let sealed = (path.peer() == dst.id).then(|| path.seal(self.timer.now(), &mut packet));
            sealed.and_then(Result::ok)
        });
        let sealed = match sealed.flatten() {
            Some(sealed) => sealed,
            None if self.is_here(dst)? => {
                self.loop_back(dst, packet);
                return Ok(());
            }
            None => self.seal_late(dst, std::slice::from_mut(&mut packet)).await?,
        };
        if sealed == Sealed::RekeyDue {
            self.rekey(&dst.addr);
        }
        self.inner.tell(&dst.addr, packet).await?;
        self.messages.add_sent(1);
        Ok(())
    }

    /// Takes the messages from `batch` that can be sent now, sealed; messages that need a handshake stay.
    fn seal_batch(self: &Arc<Self>, batch: &mut Batch<KeyAddr<A>>, outcome: &mut BatchOutcome) -> Batch<A> {
        let now = self.timer.now();
        let mut sealed = std::mem::take(&mut *self.batch_buffer.lock());
        let mut late = Vec::new();
        // Messages to one peer usually follow one another.
        let mut last: Option<(KeyAddr<A>, Option<Arc<DataPath>>)> = None;
        let mut rekeyed = false;
        for (dst, mut packet) in batch.drain(..) {
            if let Err(error) = packet.check_mtu(self.mtu) {
                outcome.add_refused(1, error);
                continue;
            }
            let path = match &last {
                Some((to, path)) if *to == dst => path,
                _ => {
                    rekeyed = false;
                    let path = self.path(&dst.addr).filter(|path| path.peer() == dst.id);
                    &last.insert((dst.clone(), path)).1
                }
            };
            match path.as_ref().map(|path| path.seal(now, &mut packet)) {
                Some(Ok(due)) => {
                    if due == Sealed::RekeyDue && !std::mem::replace(&mut rekeyed, true) {
                        self.rekey(&dst.addr);
                    }
                    sealed.push((dst.addr, packet));
                }
                Some(Err(_)) | None => late.push((dst, packet)),
            }
        }
        batch.append(&mut late);
        sealed
    }

    /// Sends the messages that can be sent now; returns those that need a session, by peer.
    pub(super) async fn tell_ready(
        self: &Arc<Self>,
        batch: &mut Batch<KeyAddr<A>>,
        outcome: &mut BatchOutcome,
    ) -> Vec<(KeyAddr<A>, Vec<Packet>)> {
        let mut sealed = self.seal_batch(batch, outcome);
        let late = by_peer(batch.drain(..));
        self.send(&mut sealed, outcome).await;
        sealed.clear();
        *self.batch_buffer.lock() = sealed;
        late
    }

    async fn send(&self, sealed: &mut Batch<A>, outcome: &mut BatchOutcome) {
        self.messages.add_sent(outcome.tell(&self.inner, sealed).await);
    }

    /// Waits for a session with a peer, then sends messages to it; returns their number.
    pub(super) async fn tell_late(
        self: &Arc<Self>,
        dst: KeyAddr<A>,
        mut packets: Vec<Packet>,
    ) -> (usize, Result<(), BatchError>) {
        let count = packets.len();
        let mut outcome = BatchOutcome::default();
        let sealed = match self.is_here(&dst) {
            Ok(true) => {
                for packet in packets {
                    self.loop_back(&dst, packet);
                }
                return (count, Ok(()));
            }
            Ok(false) => self.seal_late(&dst, &mut packets).await,
            Err(error) => Err(error),
        };
        match sealed {
            Ok(sealed) => {
                if sealed == Sealed::RekeyDue {
                    self.rekey(&dst.addr);
                }
                let packets = packets.into_iter();
                let mut sealed = packets.map(|packet| (dst.addr.clone(), packet)).collect();
                self.send(&mut sealed, &mut outcome).await;
            }
            Err(error) => outcome.add_refused(count, error),
        }
        (count, outcome.finish())
    }

    /// Waits for a session with a peer and seals messages in it.
    async fn seal_late(self: &Arc<Self>, dst: &KeyAddr<A>, packets: &mut [Packet]) -> Result<Sealed> {
        let mut packets = packets.iter_mut().peekable();
        let (mut rekey, mut last) = (Sealed::Fresh, p2pke::Error::NoSession);
        for _ in 0..ATTEMPTS {
            let path = self.session(dst).await?;
            let now = self.timer.now();
            while let Some(packet) = packets.peek_mut() {
                match path.seal(now, packet) {
                    Ok(Sealed::Fresh) => {}
                    Ok(Sealed::RekeyDue) => rekey = Sealed::RekeyDue,
                    Err(error) => {
                        last = error;
                        break;
                    }
                }
                packets.next();
            }
            if packets.peek().is_none() {
                return Ok(rekey);
            }
        }
        Err(self.error(dst, &last, None))
    }

    /// Returns whether `dst` is this node.
    fn is_here(&self, dst: &KeyAddr<A>) -> Result<bool> {
        self.check_open()?;
        Ok(dst.id == self.id() && self.inner.local_addrs().contains(&dst.addr))
    }

    /// Delivers a message of this node to itself.
    fn loop_back(&self, dst: &KeyAddr<A>, payload: Packet) {
        self.messages.add_sent(1);
        self.messages.add_received(1);
        let message = Message {
            src: dst.clone(),
            dst: dst.clone(),
            payload,
        };
        let put = self.mailbox.extend(&self.driver, (), [message]);
        for message in put.refused {
            self.messages.add_dropped_from(put.reason, &message.src);
        }
    }
}

/// Groups messages by destination, in the order of the first message of each.
fn by_peer<A: Addr>(batch: impl Iterator<Item = (KeyAddr<A>, Packet)>) -> Vec<(KeyAddr<A>, Vec<Packet>)> {
    let mut places = HashMap::default();
    let mut groups: Vec<(KeyAddr<A>, Vec<Packet>)> = Vec::new();
    for (dst, packet) in batch {
        let place = *places.entry(dst.clone()).or_insert(groups.len());
        match groups.get_mut(place) {
            Some((_, packets)) => packets.push(packet),
            None => groups.push((dst, vec![packet])),
        }
    }
    groups
}
