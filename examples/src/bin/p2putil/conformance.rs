//! `conformance`: the laws of a swarm, checked on a stack.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use p2p::{BoxAddr, Swarm as _};
use p2p_swarms::stack::{Layer, Stack, StackText};
use p2p_swarmtest::{Ask, LAWS, Plain, Profile, Secure, SecureAsk, Testbed, Verdict};
use serde_json::json;

use crate::cli::Conformance;
use crate::output::Out;
use crate::{Failure, open};

pub(crate) async fn run(args: Conformance, out: Out) -> Result<(), Failure> {
    let text: StackText = args.stack.parse()?;
    let stack = open(&text)?;
    let profile = profile(&text, stack.mtu())?;
    let bed = testbed(&text, &stack).profile(profile);
    stack.close().await;
    drop(stack);

    let rebind = text.clone();
    let bar = ProgressBar::new(LAWS.iter().filter(|law| bed.applies(law)).count() as u64);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} laws  {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let watched = bar.clone();
    let bed = bed
        .rebind(move |addr: BoxAddr| {
            let again = rebind.build_at(&addr).map_err(p2p::Error::from);
            async move { again }
        })
        .watch(move |checked| {
            watched.set_message(checked.law.name);
            watched.inc(1);
        });
    let report = bed.run().await;
    bar.finish_and_clear();

    for checked in &report {
        let (verdict, why) = match &checked.verdict {
            Verdict::Passed => ("passed", ""),
            Verdict::Failed(how) => ("failed", how.as_str()),
            Verdict::Waived(why) => ("waived", why.as_str()),
        };
        let object = json!({
            "law": checked.law.name, "verdict": verdict, "why": why,
            "secs": checked.took.as_secs_f64(),
        });
        out.line(&checked.to_string(), &object)?;
    }
    let (failed, waived) = (report.failures().count(), report.waived().count());
    let passed = report.iter().count() - failed - waived;
    out.line(
        &format!("{passed} passed, {failed} failed, {waived} waived"),
        &json!({ "passed": passed, "failed": failed, "waived": waived }),
    )?;
    if failed > 0 {
        return Err(Failure::Failed(format!("{text} breaks {failed} laws")));
    }
    Ok(())
}

/// How to make nodes of this stack, with what it can do.
fn testbed(text: &StackText, stack: &Stack) -> Testbed<BoxAddr> {
    /// Makes nodes with `text`, each taken out of its enum.
    macro_rules! bed {
        ($kind:expr, $variant:ident) => {{
            let text = text.clone();
            Testbed::new($kind, move |count| {
                let made = (0..count).map(|_| match text.build()? {
                    Stack::$variant(swarm) => Ok(swarm),
                    _ => Err(p2p::Error::invalid("stack", "its nodes differ")),
                });
                let made = made.collect::<p2p::Result<Vec<_>>>();
                async move { made }
            })
        }};
    }
    match stack {
        Stack::Plain(_) => bed!(Plain, Plain),
        Stack::Ask(_) => bed!(Ask, Ask),
        Stack::Secure(_) => bed!(Secure, Secure),
        Stack::SecureAsk(_) => bed!(SecureAsk, SecureAsk),
    }
}

/// What the medium of this stack may do, as far as its text says.
fn profile(text: &StackText, mtu: usize) -> Result<Profile, Failure> {
    let mut profile = Profile::default();
    let mut arrives = 1.0;
    let mut arrives_at_mtu = 1.0;
    let layers: Vec<&Layer> = text.layers().collect();
    for (index, layer) in layers.iter().enumerate() {
        let Layer::Faulty { link, .. } = layer else {
            continue;
        };
        profile.duplicates |= link.duplicate > 0.0;
        arrives *= 1.0 - link.loss;
        // The longest message crosses this layer in so many pieces.
        let below: Vec<String> = layers.iter().take(index + 1).map(ToString::to_string).collect();
        let piece = open(&below.join("/").parse()?)?.mtu();
        let pieces = mtu.div_ceil(piece.saturating_sub(16).max(1));
        arrives_at_mtu *= (1.0 - link.loss).powi(i32::try_from(pieces).unwrap_or(i32::MAX));
        let late = 2 * (link.delay + link.jitter)
            + if link.reorder > 0.0 {
                2 * link.reorder_by
            } else {
                Duration::ZERO
            };
        profile.settle += late;
        profile.patience += late * 4;
    }
    profile.loss = 1.0 - arrives;
    profile.loss_at_mtu = 1.0 - arrives_at_mtu;
    if matches!(layers.first(), Some(Layer::Udp { .. })) {
        // What the system's buffer for a socket holds of short messages, and what it drops of long ones.
        profile.holds += 8192;
        if layers.iter().any(|layer| matches!(layer, Layer::Frag { .. })) {
            profile.loss_at_mtu = profile.loss_at_mtu.max(0.2);
        }
        profile = profile.waive(
            "counters::every_drop_is_counted",
            "the system drops where its buffer is full, and tells nobody",
        );
    }
    Ok(profile)
}
