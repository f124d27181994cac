//! Exports the counters of a stack through the [`metrics`] facade.
//!
//! Layers count in atomics of their own ([`p2p::Counters`]), so a message pays nothing for metrics.
//! [`export`] copies the counters whenever the program needs them, for example when its metrics are scraped.
//!
//! Deliberately absent: a task that exports by itself, and a recorder.

use metrics::{Label, counter};
use p2p::{Addr, DropReason, Swarm};

/// Exports the counters of every layer of `swarm` to the current recorder.
///
/// The counters `p2p_sent_total`, `p2p_received_total`, `p2p_delivered_total`, `p2p_duplicated_total` and
/// `p2p_dropped_total` count messages. Their labels are `node` as given here, `layer`, `depth` in the stack
/// (0 is the outermost layer), and for drops the `reason`.
pub fn export<A: Addr>(swarm: &impl Swarm<A>, node: &str) {
    let mut depth = 0_usize;
    swarm.visit_counters(&mut |counters| {
        let now = counters.snapshot();
        let labels = vec![
            Label::new("node", node.to_owned()),
            Label::from_static_parts("layer", counters.layer()),
            Label::new("depth", depth.to_string()),
        ];
        counter!("p2p_sent_total", labels.clone()).absolute(now.sent);
        counter!("p2p_received_total", labels.clone()).absolute(now.received);
        counter!("p2p_delivered_total", labels.clone()).absolute(now.delivered);
        counter!("p2p_duplicated_total", labels.clone()).absolute(now.duplicated);
        for reason in DropReason::ALL {
            let mut labels = labels.clone();
            labels.push(Label::from_static_parts("reason", reason.as_str()));
            counter!("p2p_dropped_total", labels).absolute(now.dropped(reason));
        }
        depth += 1;
    });
}
