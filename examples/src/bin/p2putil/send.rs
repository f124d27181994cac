//! `tell` and `ask`: one message, one request.

use std::io::{self, Read as _};
use std::time::Duration;

use p2p::{AskSwarm as _, Packet, Reason, Swarm};
use p2p_swarms::stack::{Stack, StackText};
use serde_json::json;
use tokio::time::timeout;

use crate::cli::{Ask, Tell};
use crate::output::{Out, print, write};
use crate::{Failure, closing, reach, with_causes};

/// How long a message may take to leave a layer that delays it.
const LEAVING: Duration = Duration::from_mins(1);

pub(crate) async fn tell(args: Tell, out: Out) -> Result<(), Failure> {
    let text: StackText = args.stack.parse()?;
    let stack = text.visiting().build_with(&args.key.read(&text)?).await?;
    closing(&stack, tell_from(&text, &stack, args, out)).await
}

async fn tell_from(text: &StackText, stack: &Stack, args: Tell, out: Out) -> Result<(), Failure> {
    let addr = stack.parse_addr(&args.addr)?;
    let packet = payload(&args.text, stack)?;
    let size = packet.len();
    packet.check(stack.mtu())?;
    reach(text, stack, &addr).await?;
    stack.tell(&addr, packet).await?;
    // What still does not leave is the medium's loss.
    drop(timeout(LEAVING, text.settled()).await);
    if is_nowhere(stack) {
        let why = "in this process, which a memory swarm does not leave";
        return Err(Failure::Failed(format!("nobody is at {addr} {why}")));
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
    Ok(())
}

pub(crate) async fn ask(args: Ask, out: Out) -> Result<(), Failure> {
    let text: StackText = args.stack.parse()?;
    text.check_asks()?;
    let stack = text.visiting().build_with(&args.key.read(&text)?).await?;
    closing(&stack, ask_from(&text, &stack, args, out)).await
}

async fn ask_from(text: &StackText, stack: &Stack, args: Ask, out: Out) -> Result<(), Failure> {
    let Some(asks) = stack.asks() else {
        return Err(Failure::Usage(format!("{text} has no asks")));
    };
    let addr = asks.parse_addr(&args.addr)?;
    let request = payload(&args.text, stack)?;
    let limit = Duration::from_secs_f64(args.timeout);
    let Ok(response) = timeout(limit, asks.ask(&addr, request)).await else {
        return Err(Failure::Failed(format!(
            "no response came within {} s",
            args.timeout
        )));
    };
    // Nothing that comes back makes a right use a wrong one.
    let response = response.map_err(|error| Failure::Failed(with_causes(&error)))?;
    if out.is_json() {
        let text = String::from_utf8_lossy(&response);
        let object =
            json!({ "event": "response", "src": addr.to_string(), "size": response.len(), "text": text });
        print(&object.to_string())?;
    } else {
        write(&[&response, &b"\n"[..]].concat())?;
    }
    Ok(())
}

/// What the argument says, or standard input.
fn payload(text: &str, stack: &Stack) -> Result<Packet, Failure> {
    Ok(stack.packet(&input(text, stack.mtu())?))
}

/// The same as bytes. Of what is longer than `most`, one byte more is read: enough to know that it does not fit.
pub(crate) fn input(text: &str, most: usize) -> Result<Vec<u8>, Failure> {
    if text != "-" {
        return Ok(text.as_bytes().to_vec());
    }
    let most = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    let mut input = Vec::new();
    io::stdin().lock().take(most).read_to_end(&mut input)?;
    Ok(input)
}

/// Whether a memory swarm had nobody to give the message to.
fn is_nowhere(stack: &Stack) -> bool {
    let mut dropped = 0;
    stack.visit_counters(&mut |counters| {
        if counters.layer() == "mem" {
            dropped += counters.snapshot().dropped(Reason::NoPeer);
        }
    });
    dropped > 0
}
