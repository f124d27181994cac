//! Asks over datagrams beside bare round trips: `name=… ours=… peer=… ratio=…`, alternating, medians of nine
//! rounds.
//!
//! `ours` and `peer` are microseconds per round trip, or thousands of asks per second. The peer is the swarm
//! below alone, with a tell in each direction.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream;
use p2p::{AskSwarm as _, Request, Swarm as _};
use p2p_swarms::{MbappSwarm, SwarmExt as _, UdpSwarm};

const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(300);
const PAYLOAD: [u8; 64] = [7; 64];

type Asking = MbappSwarm<SocketAddr, UdpSwarm>;

fn bind() -> UdpSwarm {
    UdpSwarm::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("loopback is there")
}

/// Microseconds of one tell in each direction, both ends in one thread.
async fn tells(here: &UdpSwarm, there: &UdpSwarm) -> f64 {
    let (home, dst) = (here.local_addrs()[0], there.local_addrs()[0]);
    let begun = Instant::now();
    let mut count = 0_u32;
    while begun.elapsed() < ROUND {
        let back = async {
            let message = there.receive().await.expect("open");
            there.tell(&home, message.payload).await.expect("room");
        };
        let forth = async {
            here.tell(&dst, here.packet(&PAYLOAD)).await.expect("room");
            here.receive().await.expect("open");
        };
        tokio::join!(back, forth);
        count += 1;
    }
    begun.elapsed().as_secs_f64() * 1e6 / f64::from(count)
}

/// Microseconds per ask, with this many in flight, both ends in one thread.
async fn asks(here: &Asking, there: &Asking, in_flight: usize) -> f64 {
    let at_there = there.local_addrs()[0];
    let begun = Instant::now();
    let serving = async {
        loop {
            let Request { message, responder } = there.receive_ask().await.expect("open");
            responder.respond(message.payload).await.expect("room");
        }
    };
    let asking = async {
        stream::repeat(())
            .take_while(|()| std::future::ready(begun.elapsed() < ROUND))
            .map(|()| here.ask(&at_there, here.packet(&PAYLOAD)))
            .buffer_unordered(in_flight)
            .map(|response| response.expect("an answer"))
            .count()
            .await
    };
    let count = tokio::select! {
        count = asking => count,
        () = serving => unreachable!("serving never ends"),
    };
    let count = u32::try_from(count).expect("a round is short");
    begun.elapsed().as_secs_f64() * 1e6 / f64::from(count)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let (here, there) = (bind(), bind());
        let (asker, server) = (bind().mbapp(64 << 10), bind().mbapp(64 << 10));
        let (mut bare, mut one, mut many) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            bare.push(tells(&here, &there).await);
            one.push(asks(&asker, &server, 1).await);
            many.push(asks(&asker, &server, 64).await);
        }
        let (bare, one, many) = (median(bare), median(one), median(many));
        println!(
            "name=ask_round_trip_us ours={one:.2} peer={bare:.2} ratio={:.2}",
            one / bare
        );
        println!(
            "name=asks_64_in_flight_thousands ours={:.0} peer={:.0} ratio={:.2}",
            1e3 / many,
            1e3 / bare,
            bare / many
        );
    });
}
