//! Tells and receives.

use super::*;

impl Swarm<Address> for Node {
    async fn tell(&self, dst: &Address, packet: Packet) -> Result<()> {
        if self.0.net.fault.starts_with("a node that is dropped") {
            lock(&self.0.state).next_tell += 1;
        }
        self.0.send(dst, packet).await
    }

    async fn tell_batch(&self, batch: &mut Vec<(Address, Packet)>) -> Result<(), BatchError> {
        let fault = self.0.net.fault;
        let mut outcome = BatchOutcome::default();
        let count = batch.len();
        let destinations: BTreeSet<Address> = batch.iter().map(|(dst, _)| *dst).collect();
        let mut taken: Vec<_> = std::mem::take(batch);
        let mut kept: Option<Packet> = None;
        let mut stopped = false;
        let mut last_error = None;
        let mut by_dst: BTreeMap<Address, usize> = BTreeMap::new();
        for (place, (dst, packet)) in taken.drain(..).enumerate() {
            let packet_len = packet.len();
            let nth = {
                let nth = by_dst.entry(dst).or_default();
                *nth += 1;
                *nth
            };
            match fault {
                "a batch of more than 64 sends its 64th message twice" if place == 64 => {
                    let _ = self.0.send(&dst, kept.clone().unwrap_or_default()).await;
                }
                "a batch to more than 5 destinations forgets the sixth" => {
                    let index = destinations.iter().position(|other| *other == dst);
                    if index == Some(5) {
                        outcome.record(Ok(()));
                        continue;
                    }
                }
                "a batch behind a node that is gone goes nowhere" if stopped => {
                    outcome.record(Ok(()));
                    continue;
                }
                "an empty message ends a batch of more than ten" if packet.is_empty() && count > 10 => {
                    stopped = true;
                }
                "an empty message in a batch is skipped" if packet.is_empty() => {
                    outcome.record(Ok(()));
                    continue;
                }
                "messages of one length in a batch are merged beyond 40"
                    if nth > 40 && packet_len == PLAIN =>
                {
                    outcome.record(Ok(()));
                    continue;
                }
                _ => {}
            }
            if stopped
                && (fault == "an empty message ends a batch of more than ten"
                    || fault == "a batch that is refused stops in the second half")
            {
                outcome.record(Ok(()));
                continue;
            }
            kept = Some(packet.clone());
            if fault == "a batch behind a node that is gone goes nowhere" && self.0.net.find(&dst).is_none() {
                stopped = true;
            }
            let result = self.0.send(&dst, packet).await;
            if fault == "a batch that is refused stops in the second half"
                && result.is_err()
                && place > count / 2
            {
                stopped = true;
            }
            if let Err(error) = &result {
                last_error = Some(match error {
                    Error::MtuExceeded { size, mtu } => Error::MtuExceeded {
                        size: *size,
                        mtu: *mtu,
                    },
                    _ => Error::Closed,
                });
            }
            outcome.record(result);
        }
        if fault == "counters of a batch of more than 32 are one short" && count > 32 {
            // It was counted once too often below.
            lock(&self.0.state).batches += 1;
        }
        match (outcome.finish(), last_error) {
            (Err(mut error), Some(last)) if fault == "the error of a batch is the last one" => {
                error.first = last;
                Err(error)
            }
            (said, _) => said,
        }
    }

    async fn receive(&self) -> Result<Message<Address>> {
        self.0.next().await
    }

    async fn receive_batch(&self, out: &mut Vec<Message<Address>>, max: usize) -> Result<usize> {
        if max == 0 {
            return Ok(0);
        }
        let first = self.0.next().await?;
        let fault = self.0.net.fault;
        let before = out.len();
        if fault == "a buffer that is full is cleared" && out.len() == out.capacity() && out.len() > 3 {
            out.clear();
        }
        let empty = first.payload.is_empty();
        out.push(first);
        if fault == "an empty message ends a batch that is received, and the next is lost" && empty {
            lock(&self.0.state).messages.items.pop_front();
            return Ok(1);
        }
        let max = match fault {
            "legal: a batch that is received is one message" => 1,
            _ => max,
        };
        let mut state = lock(&self.0.state);
        while out.len() < before + max {
            let Some(message) = state.messages.items.pop_front() else {
                break;
            };
            if let Some(mine) = state.by_source.get_mut(&message.src) {
                *mine = mine.saturating_sub(1);
            }
            state.received += 1;
            out.push(message);
        }
        let count = out.len().saturating_sub(before);
        self.0.counters.add_delivered(match fault {
            "delivered messages are counted one short in batches of more than 16" if count > 16 => count - 2,
            _ => count - 1,
        });
        Ok(count)
    }

    fn mtu(&self) -> usize {
        match self.0.net.fault {
            "the MTU is 0 after close" if lock(&self.0.state).closed => 0,
            "the MTU shrinks in a flood" if self.0.check_open().is_ok() && lock(&self.0.state).full => {
                MTU - 1
            }
            _ => MTU,
        }
    }

    fn headroom(&self) -> Headroom {
        Headroom::new(8, 16)
    }

    fn local_addrs(&self) -> Vec<Address> {
        match self.0.net.fault {
            // The other one comes first in all that it tells.
            "legal: a node has two addresses" => vec![self.0.addr, alias(self.0.addr)],
            _ => vec![self.0.addr],
        }
    }

    fn parse_addr(&self, text: &str) -> Result<Address> {
        let at = text
            .find('@')
            .ok_or_else(|| Error::addr(text, text.len(), "an address is id@number"))?;
        let (id, place) = (&text[..at], &text[at + 1..]);
        let id = id.parse().map_err(|error| match error {
            Error::InvalidAddr { at, reason, .. } => Error::addr(text, at, reason),
            other => other,
        })?;
        match place.parse::<u32>() {
            Ok(number) if number.to_string() == place => Ok(Address {
                id,
                place: match self.0.net.fault {
                    "a place is read as 8 bits" => number % 256,
                    _ => number,
                },
            }),
            _ => Err(Error::addr(text, at + 1, "after the @ comes a number")),
        }
    }

    async fn close(&self) {
        let fault = self.0.net.fault;
        let mut freed = std::pin::pin!(self.0.freed.notified());
        freed.as_mut().enable();
        let first = self.0.end();
        match fault {
            "legal: close takes a while" => {
                let node = self.0.clone();
                if first {
                    tokio::spawn(async move {
                        sleep(Duration::from_millis(300)).await;
                        node.free();
                    });
                }
                while !self.0.is_freed() {
                    sleep(Duration::from_millis(10)).await;
                }
            }
            "a second close returns before the address is free" => {
                if first {
                    sleep(Duration::from_millis(3)).await;
                    self.0.free();
                }
            }
            "a second close of a node that told something returns before the address is free" => {
                if first && self.0.counters.snapshot().sent > 0 {
                    sleep(Duration::from_millis(3)).await;
                    self.0.free();
                } else if first {
                    self.0.free();
                }
            }
            "a close that is given up frees nothing" => {
                yield_now().await;
                self.0.free();
            }
            "a close that is given up frees nothing of a node that told something" => {
                if self.0.counters.snapshot().sent > 0 {
                    yield_now().await;
                }
                self.0.free();
            }
            "close waits until its peers have read" => {
                loop {
                    if !first {
                        break;
                    }
                    let waits = {
                        let nodes: Vec<_> = lock(&self.0.net.nodes)
                            .values()
                            .filter_map(Weak::upgrade)
                            .collect();
                        nodes.iter().any(|node| {
                            let state = lock(&node.state);
                            !state.closed
                                && state
                                    .messages
                                    .items
                                    .iter()
                                    .any(|message| message.src == self.0.addr)
                        })
                    };
                    if !waits {
                        break;
                    }
                    sleep(Duration::from_millis(1)).await;
                }
                self.0.free();
            }
            _ => self.0.free(),
        }
    }

    fn visit_counters(&self, visit: &mut dyn FnMut(&Counters)) {
        let fault = self.0.net.fault;
        if fault == "legal: there are no counters" {
            return;
        }
        if fault == "counters are gone after close" && lock(&self.0.state).closed {
            return;
        }
        if fault == "after 300 messages the counters begin anew" && self.0.counters.snapshot().sent > 300 {
            return visit(&Counters::new("own"));
        }
        if fault == "counters of a batch of more than 32 are one short" {
            let true_ones = self.0.counters.snapshot();
            let shown = Counters::new("own");
            let less = lock(&self.0.state).batches;
            shown.add_sent((true_ones.sent as usize).saturating_sub(less));
            shown.add_delivered(true_ones.delivered as usize);
            shown.add_dropped_many(DropReason::QueueFull, true_ones.dropped_total() as usize);
            return visit(&shown);
        }
        visit(&self.0.counters);
    }
}

const PLAIN: usize = 16;
