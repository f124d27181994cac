//! `tell` and `ask`: one message, one request.

use std::io::{self, Read as _, Write as _};
use std::time::Duration;

use p2p::{AskSwarm as _, Counters, Packet, Reason, Swarm};
use p2p_swarms::stack::{Stack, StackText};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use crate::cli::{Ask, Tell};
use crate::output::{Out, print};
use crate::{Failure, open};

/// How long a message may take to leave a layer that delays it.
const LEAVING: Duration = Duration::from_mins(1);

pub(crate) async fn tell(args: Tell, out: Out) -> Result<(), Failure> {
    let stack = open(&args.stack.parse()?)?;
    let addr = stack.parse_addr(&args.addr)?;
    let packet = payload(&args.text, &stack)?;
    let size = packet.len();
    stack.tell(&addr, packet).await?;
    left(&stack).await;
    if dropped(&stack, Reason::NoPeer) > 0 {
        let hint = match stack_base(&args.stack) {
            "mem" => " in this process, which a memory swarm does not leave",
            _ => "",
        };
        return Err(Failure::Failed(format!("nobody is at {addr}{hint}")));
    }
    out.line(
        &format!("told {addr} {size} bytes"),
        &json!({ "event": "told", "dst": addr.to_string(), "size": size }),
    )?;
    if let Some(secs) = args.wait {
        match timeout(Duration::from_secs_f64(secs), stack.receive()).await {
            Ok(message) => out.message("tell", &message?)?,
            Err(_) => return Err(Failure::Failed(format!("no message came within {secs} s"))),
        }
    }
    stack.close().await;
    Ok(())
}

pub(crate) async fn ask(args: Ask, out: Out) -> Result<(), Failure> {
    let text: StackText = args.stack.parse()?;
    text.check_asks()?;
    let stack = open(&text)?;
    let Some(asks) = stack.asks() else {
        return Err(Failure::Usage(format!("{text} has no asks")));
    };
    let addr = asks.parse_addr(&args.addr)?;
    let request = payload(&args.text, &stack)?;
    let limit = Duration::from_secs_f64(args.timeout);
    let Ok(response) = timeout(limit, asks.ask(&addr, request)).await else {
        return Err(Failure::Failed(format!("no response came within {limit:?}")));
    };
    let response = response?;
    if out.is_json() {
        let text = String::from_utf8_lossy(&response);
        let object =
            json!({ "event": "response", "src": addr.to_string(), "size": response.len(), "text": text });
        print(&object.to_string())?;
    } else {
        let mut stdout = io::stdout().lock();
        stdout.write_all(&response)?;
        stdout.write_all(b"\n")?;
        stdout.flush()?;
    }
    stack.close().await;
    Ok(())
}

/// What the argument says, or standard input.
fn payload(text: &str, stack: &Stack) -> Result<Packet, Failure> {
    if text != "-" {
        return Ok(stack.packet(text.as_bytes()));
    }
    // One byte more than fits is enough to know that it does not.
    let most = u64::try_from(stack.mtu()).unwrap_or(u64::MAX).saturating_add(1);
    let mut input = Vec::new();
    io::stdin().lock().take(most).read_to_end(&mut input)?;
    Ok(stack.packet(&input))
}

fn stack_base(text: &str) -> &str {
    text.split(['/', '=', ',']).next().unwrap_or_default()
}

fn dropped(stack: &Stack, reason: Reason) -> u64 {
    let mut dropped = 0;
    stack.visit_counters(&mut |counters| dropped += counters.snapshot().dropped(reason));
    dropped
}

/// Waits until nothing is held back any more by a layer that delays.
async fn left(stack: &Stack) {
    let deadline = Instant::now() + LEAVING;
    loop {
        let mut held = false;
        stack.visit_counters(&mut |counters: &Counters| {
            if counters.layer() == "faulty" {
                let now = counters.snapshot();
                held |= now.sent + now.duplicated > now.delivered + now.dropped_total();
            }
        });
        if !held || Instant::now() > deadline {
            return;
        }
        sleep(Duration::from_millis(2)).await;
    }
}
