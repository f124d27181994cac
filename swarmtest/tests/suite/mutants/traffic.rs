//! Faults of `tell` that depend on what was told before, to whom, and what it holds.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use p2p::{Message, Packet};
use p2p_swarmtest::reference::Address;
use tokio::task::yield_now;

use super::tells::FULL;
use super::{Mutant, damage, lock};

impl Mutant {
    /// Whether a fault of this kind loses a message; others hold it up or change it.
    pub(crate) async fn is_lost(&self, dst: &Address, packet: &mut Packet) -> bool {
        let (len, own, unread) = (packet.len(), &*self.own, self.crowd.unread(dst));
        let (crowd, turn) = (lock(&self.crowd.nodes).len(), own.told.fetch_add(1, SeqCst) + 1);
        match self.breaks {
            "tell::a_destination_that_is_gone_delays_no_other" if self.crowd.is_closed(dst) => {
                own.telling_gone.fetch_add(1, SeqCst);
                tokio::time::sleep(Duration::from_millis(300)).await;
                own.telling_gone.fetch_sub(1, SeqCst);
            }
            "tell::a_destination_that_is_gone_delays_no_other" => {
                // The other call may begin a moment later.
                yield_now().await;
                while own.telling_gone.load(SeqCst) > 0 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
            "tell::a_full_sibling_stalls_nothing" => {
                let siblings = lock(&self.crowd.siblings).clone();
                if siblings
                    .iter()
                    .any(|other| other != dst && self.crowd.unread(other) >= FULL)
                {
                    return true;
                }
            }
            "tell::telling_a_stopped_reader_takes_no_longer" if unread >= FULL => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            "tell::a_second_flood_keeps_no_more"
                if unread >= FULL && *lock(&self.crowd.flooded).entry(*dst).or_insert(false) =>
            {
                let mut stash = lock(&self.crowd.stash);
                let stash = stash.entry(*dst).or_default();
                if stash.len() < FULL {
                    stash.push(Message {
                        src: self.addr,
                        dst: *dst,
                        payload: packet.clone(),
                    });
                    return true;
                }
            }
            "tell::messages_arrive_again_after_a_flood" => {
                let mut flooded = lock(&self.crowd.flooded);
                if unread >= FULL {
                    flooded.insert(*dst, true);
                }
                // Floods are of messages of this length.
                if flooded.contains_key(dst) && len != 16 {
                    return true;
                }
            }
            "contents::any_content_of_any_length_arrives_whole"
                if len > 8 && packet.iter().all(|byte| *byte == 0) =>
            {
                damage(packet);
            }
            "contents::every_byte_arrives_whole" if packet[..] == [b'\n'] => return true,
            "contents::what_looks_like_a_header_arrives_whole" if packet.starts_with(b"SSH-2") => {
                return true;
            }
            // Fewer messages than these are told by any other law that holds so few nodes.
            "exchange::a_long_exchange_keeps_every_message" if crowd == 4 && turn.is_multiple_of(40) => {
                return true;
            }
            "exchange::two_nodes_exchange_thousands" if turn > 200 && crowd == 2 && len < 257 => {
                return true;
            }
            "exchange::many_senders_are_told_apart" if crowd == 8 && turn.is_multiple_of(25) => {
                return true;
            }
            _ => {}
        }
        false
    }
}
