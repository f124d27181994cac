//! First fragments from spoofed sources: memory stays within the budget, as a counting allocator shows.
//!
//! The file has one test, so that no other code allocates meanwhile.

use std::alloc::System;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use cap::Cap;
use p2p::{Error, Headroom, Message, Packet, Result, Swarm};
use p2p_protocols::fragment::Limits;
use p2p_swarms::{FragmentConfig, FragmentSwarm};
use tokio::sync::Notify;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

const PACKETS: u64 = 60_000;
const BUDGET: usize = 8 << 20;

/// A medium on which every message has a new source, and no message is ever complete.
#[derive(Default)]
struct Flood {
    sent: AtomicU64,
    /// Notified when all packets were received.
    over: Notify,
}

impl Flood {
    /// The first of 255 fragments, of 0 to 1200 bytes; every fourth packet is the second fragment of an
    /// earlier message.
    fn packet(&self) -> Option<Message<SocketAddr>> {
        let number = self.sent.fetch_add(1, Ordering::Relaxed);
        if number >= PACKETS {
            return None;
        }
        let (message, part) = if number % 4 == 3 {
            (number - 1, 1)
        } else {
            (number, 0)
        };
        let mixed = message.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
        let src = SocketAddr::from(([mixed[0], mixed[1], mixed[2], mixed[3]], u16::from(mixed[4])));
        let len = if number.is_multiple_of(3) {
            0
        } else {
            number as usize % 1200
        };
        let mut payload = Packet::new(Headroom::new(8, 0), &vec![0; len]);
        payload.push_front(&[mixed[5] & 0x7f, part, 0xff, 1]);
        Some(Message {
            src,
            dst: src,
            payload,
        })
    }
}

impl Swarm<SocketAddr> for Flood {
    async fn tell(&self, _: &SocketAddr, _: Packet) -> Result<()> {
        Ok(())
    }
    async fn receive(&self) -> Result<Message<SocketAddr>> {
        let Some(message) = self.packet() else {
            self.over.notify_one();
            return std::future::pending().await;
        };
        Ok(message)
    }
    fn mtu(&self) -> usize {
        1232
    }
    fn local_addrs(&self) -> Vec<SocketAddr> {
        Vec::new()
    }
    fn parse_addr(&self, text: &str) -> Result<SocketAddr> {
        text.parse()
            .map_err(|_| Error::addr(text, 0, "not a socket address"))
    }
    async fn close(&self) {}
}

#[test]
fn first_fragments_from_spoofed_sources_stay_within_the_budget() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let config = FragmentConfig {
            reassembly: Limits {
                bytes: BUDGET,
                source_bytes: 1 << 20,
                ..Limits::default()
            },
            ..FragmentConfig::default()
        };
        let before = ALLOCATOR.allocated();
        let peak_before = ALLOCATOR.max_allocated();
        let swarm = FragmentSwarm::with_config(Flood::default(), config);
        tokio::select! {
            message = swarm.receive() => panic!("no message is complete: {message:?}"),
            () = swarm.inner().over.notified() => {}
        }
        let held = swarm.held();
        let peak = ALLOCATOR.max_allocated();
        assert!(peak > peak_before, "the flood determines the peak");
        assert!(
            held > BUDGET / 2,
            "{held} bytes charged: the flood did not fill the budget"
        );
        assert!(peak - before < BUDGET, "{} bytes held at the peak", peak - before);
        println!(
            "name=frag_flood budget={BUDGET} charged={held} peak={}",
            peak - before
        );
    });
}
