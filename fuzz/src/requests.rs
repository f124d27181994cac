//! One body for the engines that only ask.

use std::time::Duration;

use p2p::PeerId;
use p2p::engine::RequestEngine;

/// The sender of all requests.
pub const SENDER: PeerId = PeerId::new([1; 32]);

/// Passes `bytes` to an engine as a request, or as the answer to its first 64 requests. `begin` starts
/// operations; it is called before the answers and again after eight of them, with the number of the answer.
pub fn feed<E: RequestEngine<Addr = PeerId>>(
    engine: &mut E,
    as_request: bool,
    bytes: &[u8],
    begin: impl Fn(&mut E, usize),
) {
    let now = Duration::ZERO;
    if as_request {
        // The second time, the request may find state of the first.
        for _ in 0..2 {
            let _ = engine.handle_request(now, &SENDER, bytes);
        }
        return;
    }
    for round in 0..64 {
        if round == 0 || round == 8 {
            begin(engine, round);
        }
        let Some(transmit) = engine.poll_transmit(now) else {
            break;
        };
        engine.handle_answer(now, transmit.id, bytes);
    }
}
