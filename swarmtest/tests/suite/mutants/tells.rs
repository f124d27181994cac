//! Faults of `tell`, `receive`, their batches, addresses, counters and `close`.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use futures_util::FutureExt as _;
use p2p::{BatchError, BatchOutcome, Counters, DropReason, Error, Message, Packet, Result, Swarm};
use p2p_swarmtest::reference::{Address, Node};
use tokio::sync::{Notify, oneshot};
use tokio::task::yield_now;

use super::{Mutant, damage, lock};

/// Messages of this many bytes are those that some faults hit.
const MIDDLE: std::ops::Range<usize> = 65..200;

/// How many messages may wait before some faults show.
pub(crate) const FULL: usize = 64;

/// A caller of `receive` that says so.
struct Waiting<'a> {
    count: &'a AtomicUsize,
    on_cancel: Option<&'a Notify>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, SeqCst);
        if let Some(notify) = self.on_cancel {
            notify.notify_one();
        }
    }
}

/// A tell that sends a part when it is dropped.
struct Unfinished {
    node: Arc<Node>,
    message: Option<(Address, Packet)>,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some((dst, mut packet)) = self.message.take() {
            packet.truncate(packet.len() / 2);
            let _ = self.node.tell(&dst, packet).now_or_never();
        }
    }
}

impl Mutant {
    /// Sends, and keeps the books that faults need.
    async fn send(&self, dst: &Address, packet: Packet) -> Result<()> {
        self.inner.tell(dst, packet).await?;
        *lock(&self.crowd.unread).entry(*dst).or_default() += 1;
        if self.breaks("receive::a_cancelled_caller_passes_its_turn_on") {
            let nodes = lock(&self.crowd.nodes);
            let Some((_, own)) = nodes.get(dst) else {
                return Ok(());
            };
            let mut waiters = lock(&own.waiters);
            while !waiters.is_empty() && waiters.remove(0).send(()).is_err() {}
        }
        Ok(())
    }

    /// Waits for a message in the way that breaks a law, if one about waiting is to be broken.
    async fn next(&self) -> Result<Message<Address>> {
        let own = &*self.own;
        if self.breaks("receive::a_message_goes_to_one_caller") {
            own.waiting.fetch_add(1, SeqCst);
            let waiting = Waiting {
                count: &own.waiting,
                on_cancel: None,
            };
            let message = tokio::select! {
                message = self.inner.receive() => message?,
                message = self.copy() => return Ok(message),
            };
            drop(waiting);
            if own.waiting.load(SeqCst) > 0 {
                lock(&own.copies).push(message.clone());
                own.copied.notify_one();
            }
            return Ok(message);
        }
        if self.breaks("ask::a_held_receive_stalls_no_ask") {
            own.waiting.fetch_add(1, SeqCst);
            let _waiting = Waiting {
                count: &own.waiting,
                on_cancel: None,
            };
            return self.inner.receive().await;
        }
        if self.breaks("receive::every_waiting_caller_is_woken") {
            // Only one waits below; the others wait for a new call, and are not woken when it returns.
            own.called.notify_waiters();
            while own.waiting.load(SeqCst) > 0 && !self.closed() {
                tokio::select! {
                    () = own.called.notified() => {}
                    () = own.closing.notified() => {}
                }
            }
            own.waiting.fetch_add(1, SeqCst);
            let mut waiting = Waiting {
                count: &own.waiting,
                on_cancel: Some(&own.called),
            };
            let message = self.inner.receive().await;
            waiting.on_cancel = None;
            return message;
        }
        if self.breaks("receive::a_cancelled_caller_passes_its_turn_on") {
            loop {
                if let Some(message) = self.inner.receive().now_or_never() {
                    return message;
                }
                let (waiter, woken) = oneshot::channel();
                lock(&own.waiters).push(waiter);
                let _ = woken.await;
            }
        }
        if self.breaks("receive::cancelling_loses_nothing") {
            let message = self.inner.receive().await;
            yield_now().await;
            return message;
        }
        if self.breaks("tell::a_second_flood_keeps_no_more") {
            if let Some(message) = self.inner.receive().now_or_never() {
                return message;
            }
            if let Some(flooded) = lock(&self.crowd.flooded).get_mut(&self.addr) {
                *flooded = true;
            }
            let stashed = lock(&self.crowd.stash).get_mut(&self.addr).and_then(Vec::pop);
            if let Some(message) = stashed {
                return Ok(message);
            }
        }
        if self.breaks("close::close_waits_for_no_call_that_is_held") {
            own.waiting.fetch_add(1, SeqCst);
            let _waiting = Waiting {
                count: &own.waiting,
                on_cancel: None,
            };
            return self.inner.receive().await;
        }
        let was_closed = self.closed();
        match self.inner.receive().await {
            Err(Error::Closed)
                if !was_closed
                    && own.received.load(SeqCst) >= 64
                    && self.breaks("close::closing_in_a_flood_ends_every_call") =>
            {
                pending().await
            }
            Err(Error::Closed) if was_closed && self.breaks("close::later_receives_are_closed") => {
                pending().await
            }
            Err(Error::Closed) if !was_closed && self.breaks("close::a_pending_receive_is_closed") => {
                pending().await
            }
            message => message,
        }
    }

    async fn copy(&self) -> Message<Address> {
        loop {
            self.own.copied.notified().await;
            if let Some(message) = lock(&self.own.copies).pop() {
                return message;
            }
        }
    }
}

impl Swarm<Address> for Mutant {
    #[expect(clippy::too_many_lines, reason = "a line or two for each fault of a tell")]
    async fn tell(&self, dst: &Address, mut packet: Packet) -> Result<()> {
        let (len, most, own) = (packet.len(), self.inner.mtu(), &*self.own);
        let middle = MIDDLE.contains(&len);
        let unread = self.crowd.unread(dst);
        if self.is_lost(dst, &mut packet).await {
            return Ok(());
        }
        match self.breaks {
            "tell::every_length_up_to_the_mtu_arrives" if (110..190).contains(&len) => return Ok(()),
            "tell::a_message_arrives_whole" if middle => damage(&mut packet),
            "tell::tells_of_many_tasks_all_arrive" => {
                lock(&own.slot).replace((*dst, packet));
                yield_now().await;
                let last = lock(&own.slot).take();
                return match last {
                    Some((dst, packet)) => self.send(&dst, packet).await,
                    None => Ok(()),
                };
            }
            "tell::a_message_reaches_its_destination_alone" => {
                let all: Vec<Address> = lock(&self.crowd.nodes).keys().copied().collect();
                for other in all
                    .iter()
                    .filter(|other| all.contains(dst) && ![*dst, self.addr].contains(other))
                {
                    self.inner.tell(other, packet.clone()).await?;
                }
            }
            "tell::a_message_arrives_at_most_once" if middle => {
                self.inner.tell(dst, packet.clone()).await?;
            }
            "tell::a_cancelled_tell_leaves_whole_or_not_at_all" if len >= MIDDLE.end && len < most => {
                let message = Some((*dst, packet));
                let mut unfinished = Unfinished {
                    node: self.inner.clone(),
                    message,
                };
                yield_now().await;
                return match unfinished.message.take() {
                    Some((dst, packet)) => self.send(&dst, packet).await,
                    None => Ok(()),
                };
            }
            "tell::short_room_is_no_fault" if packet.room().front == 0 => damage(&mut packet),
            "tell::over_the_mtu_is_mtu_exceeded" if len > most => {
                return Err(Error::invalid("message", "too long"));
            }
            "tell::over_the_mtu_nothing_is_sent" if len == 2 * most => {
                let refusal = packet.check_mtu(most);
                packet.truncate(most);
                self.send(dst, packet).await?;
                return refusal;
            }
            "tell::exactly_the_mtu_works" if len == most => {
                return Err(Error::MtuExceeded { size: len, mtu: most });
            }
            "tell::an_empty_payload_is_a_message" if len == 0 => return Ok(()),
            "tell::an_error_means_it_did_not_leave" if unread > FULL / 2 => {
                self.send(dst, packet).await?;
                return Err(Error::Limit {
                    what: "messages",
                    limit: FULL / 2,
                });
            }
            "tell::a_tell_never_waits_for_the_reader" => {
                while self.crowd.unread(dst) >= FULL {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            "tell::a_stopped_reader_stalls_no_other" => {
                let unread = lock(&self.crowd.unread);
                if unread.iter().any(|(other, count)| other != dst && *count >= FULL) {
                    return Ok(());
                }
            }
            "addr::a_parsed_address_can_be_told_to" if lock(&own.parsed).contains(dst) => return Ok(()),
            "secure::a_wrong_id_reaches_no_node_beside_the_true_one" => match self.crowd.at(dst.place) {
                Some(there) if there == *dst => {
                    lock(&own.known_true).insert(there);
                }
                Some(there) if lock(&own.known_true).contains(&there) => {
                    return self.send(&there, packet).await;
                }
                _ => {}
            },
            "secure::a_wrong_id_makes_no_node_unreachable" => match self.crowd.at(dst.place) {
                Some(there) if there != *dst => {
                    lock(&own.wronged).insert(there);
                }
                Some(there) if lock(&own.wronged).contains(&there) => return Ok(()),
                _ => {}
            },
            "secure::a_wrong_id_reaches_no_node" => {
                let dst = self.crowd.at(dst.place).unwrap_or(*dst);
                return self.send(&dst, packet).await;
            }
            "close::later_tells_are_closed" if self.closed() => return Ok(()),
            "close::a_closed_peer_is_no_closed_swarm" if self.crowd.is_gone(dst) => {
                return Err(Error::Closed);
            }
            "close::a_node_made_again_is_reached_by_others"
                if self.crowd.is_gone(dst) && own.received.load(SeqCst) > 0 =>
            {
                return Ok(());
            }
            "close::what_was_told_before_close_arrives" => {
                if self.closed() {
                    return Err(Error::Closed);
                }
                packet.check_mtu(most)?;
                let (node, own, dst) = (self.inner.clone(), self.own.clone(), *dst);
                *lock(&self.crowd.unread).entry(dst).or_default() += 1;
                tokio::spawn(async move {
                    yield_now().await;
                    if !own.closed.load(SeqCst) {
                        let _ = node.tell(&dst, packet).await;
                    }
                });
                return Ok(());
            }
            _ => {}
        }
        self.send(dst, packet).await
    }

    async fn tell_batch(&self, batch: &mut Vec<(Address, Packet)>) -> Result<(), BatchError> {
        if self.breaks("receive::a_cancelled_caller_passes_its_turn_on") {
            let mut outcome = BatchOutcome::default();
            for (dst, packet) in batch.drain(..) {
                outcome.record(self.send(&dst, packet).await);
            }
            return outcome.finish();
        }
        if self.breaks("batch::tell_batch_sends_what_tells_would") {
            for (_, packet) in batch.iter_mut() {
                damage(packet);
            }
        }
        let count = batch.len();
        let over = batch
            .iter()
            .position(|(_, packet)| packet.len() > self.inner.mtu());
        if self.breaks("batch::a_refused_message_holds_up_none_behind_it")
            && let Some(over) = over
        {
            batch.truncate(over + 1);
        }
        let first = batch.first().cloned();
        let mut outcome = self.inner.tell_batch(batch).await;
        if let Err(error) = &mut outcome {
            if self.breaks("batch::a_refused_message_holds_up_none_behind_it") {
                error.sent = count - error.refused;
            }
            if self.breaks("batch::tell_batch_says_what_was_refused") {
                (error.sent, error.refused) = (0, count);
            }
        }
        if self.breaks("batch::tell_batch_empties_the_batch") {
            batch.extend(first);
        }
        outcome
    }

    async fn receive(&self) -> Result<Message<Address>> {
        let mut message = self.next().await?;
        let own = &*self.own;
        own.received.fetch_add(1, SeqCst);
        if let Some(unread) = lock(&self.crowd.unread).get_mut(&message.dst) {
            *unread = unread.saturating_sub(1);
        }
        if self.breaks("tell::src_can_be_told_to") {
            message.src.place += 1_000_000;
        }
        if self.breaks("tell::dst_is_a_local_address") {
            message.dst = message.src;
        }
        if self.breaks("secure::src_is_who_it_says") {
            message.src = *lock(&own.first_src).get_or_insert(message.src);
        }
        Ok(message)
    }

    async fn receive_batch(&self, out: &mut Vec<Message<Address>>, max: usize) -> Result<usize> {
        let max = match self.breaks {
            "batch::receive_batch_keeps_to_its_maximum" if max > 0 => max + 2,
            "batch::receive_batch_of_none_returns_at_once" => max.max(1),
            _ => max,
        };
        let mut taken = Vec::new();
        let count = match self.breaks {
            "batch::cancelling_receive_batch_loses_nothing" => {
                let count = self.inner.receive_batch(&mut taken, max).await;
                yield_now().await;
                count?
            }
            _ => self.inner.receive_batch(&mut taken, max).await?,
        };
        if self.breaks("batch::receive_batch_takes_what_receives_would") {
            for message in &mut taken {
                damage(&mut message.payload);
            }
        }
        if self.breaks("batch::receive_batch_appends") {
            out.clear();
        }
        out.append(&mut taken);
        Ok(count)
    }

    fn mtu(&self) -> usize {
        let shrinks = self.breaks("tell::the_mtu_never_changes") && self.own.received.load(SeqCst) > 0;
        self.inner.mtu() - usize::from(shrinks)
    }

    fn local_addrs(&self) -> Vec<Address> {
        self.inner.local_addrs()
    }

    fn parse_addr(&self, text: &str) -> Result<Address> {
        let mut read = self.inner.parse_addr(text);
        if self.breaks("addr::junk_around_an_address_is_not_passed_over") && read.is_err() {
            read = self.inner.parse_addr(text.trim_end_matches(['\0', ';'])).or(read);
        }
        match read {
            Ok(addr) if addr == self.addr && self.breaks("addr::parse_addr_is_the_inverse_of_display") => {
                Err(Error::addr(text, 0, "that is this node"))
            }
            Ok(addr) => {
                lock(&self.own.parsed).insert(addr);
                Ok(addr)
            }
            Err(_) if self.breaks("addr::garbage_is_invalid_addr") => {
                Err(Error::invalid("address", "nonsense"))
            }
            Err(error) => Err(error),
        }
    }

    async fn close(&self) {
        if self.own.closed.swap(true, SeqCst) && self.breaks("close::close_is_idempotent") {
            pending::<()>().await;
        }
        match self.breaks {
            "close::close_takes_effect_at_its_first_poll" => yield_now().await,
            "close::close_may_be_called_by_many_tasks" if self.own.closes.fetch_add(1, SeqCst) >= 8 => {
                pending::<()>().await;
            }
            "close::closing_frees_an_address_in_use" if self.own.asked.load(SeqCst) => return,
            _ => {}
        }
        self.inner.close().await;
        while self.breaks("close::close_waits_for_no_call_that_is_held") && self.own.waiting.load(SeqCst) > 0
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.own.closing.notify_waiters();
        lock(&self.own.waiters).clear();
        let nodes = lock(&self.crowd.nodes);
        if self.breaks("close::closing_closes_no_other_node") && nodes.len() > 2 {
            for node in nodes.values().filter_map(|(node, _)| node.upgrade()) {
                let _ = node.close().now_or_never();
            }
        }
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        self.inner.visit_counters(&mut |counters| {
            let true_ones = counters.snapshot();
            let shown = Counters::new(counters.layer());
            let twice = |law| 1 + usize::from(self.breaks(law));
            shown.add_sent(true_ones.sent as usize * twice("counters::sent_is_what_left"));
            shown.add_duplicated(true_ones.duplicated as usize);
            if self.breaks("counters::they_balance_over_all_nodes") && lock(&self.crowd.nodes).len() == 4 {
                shown.add_duplicated(true_ones.sent as usize / 20);
            }
            shown.add_delivered(
                true_ones.delivered as usize * twice("counters::delivered_is_what_was_received"),
            );
            if !self.breaks("counters::every_drop_is_counted") {
                shown.add_dropped_many(DropReason::QueueFull, true_ones.dropped_total() as usize);
            }
            visit(&shown);
        });
    }
}
