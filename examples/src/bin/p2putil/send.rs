//! `tell` and `ask`: one message, one request.

use std::io::{self, Read as _};
use std::time::Duration;

use p2p::{AskSwarm as _, DropReason, Packet, Swarm};
use p2p_swarms::stack::{Stack, StackText};
use serde_json::json;
use tokio::time::timeout;

use crate::cli::{Ask, Tell};
use crate::output::{Out, print, write};
use crate::{Failure, closing, parse, reach, with_causes};

/// How long to wait for a message that a layer delays.
const LEAVING: Duration = Duration::from_mins(1);

pub(crate) async fn tell(args: Tell, out: Out) -> Result<(), Failure> {
    let text = parse(&args.stack)?;
    let stack = text.visiting().build_with(&args.key.read(&text)?).await?;
    closing(&stack, tell_from(&text, &stack, args, out)).await
}

async fn tell_from(text: &StackText, stack: &Stack, args: Tell, out: Out) -> Result<(), Failure> {
    let addr = stack.parse_addr(&args.addr)?;
    let packet = payload(&args.text, stack)?;
    let size = packet.len();
    packet.check_mtu(stack.mtu())?;
    reach(text, stack, &addr).await?;
    stack.tell(&addr, packet).await?;
    // A message that is still delayed is lost.
    drop(timeout(LEAVING, text.settled()).await);
    if is_nowhere(stack) {
        let why = "in this process, and memory swarms do not reach other processes";
        return Err(Failure::Failed(format!("no node is at {addr} {why}")));
    }
    out.line(
        &format!("told {addr} {size} bytes"),
        &json!({ "event": "told", "dst": addr.to_string(), "size": size }),
    )?;
    if let Some(secs) = args.wait {
        match timeout(Duration::from_secs_f64(secs), stack.receive()).await {
            Ok(message) => out.message("tell", &message?)?,
            Err(_) => return Err(Failure::Failed(format!("no message arrived within {secs} s"))),
        }
    }
    Ok(())
}

pub(crate) async fn ask(args: Ask, out: Out) -> Result<(), Failure> {
    let text = parse(&args.stack)?;
    text.check_asks()?;
    let stack = text.visiting().build_with(&args.key.read(&text)?).await?;
    closing(&stack, ask_from(&text, &stack, args, out)).await
}

async fn ask_from(text: &StackText, stack: &Stack, args: Ask, out: Out) -> Result<(), Failure> {
    let Some(asks) = stack.asks() else {
        return Err(Failure::Usage(format!("{text} does not support asks")));
    };
    let addr = asks.parse_addr(&args.addr)?;
    let request = payload(&args.text, stack)?;
    let limit = Duration::from_secs_f64(args.timeout);
    let Ok(response) = timeout(limit, asks.ask(&addr, request)).await else {
        return Err(Failure::Failed(format!(
            "no response arrived within {} s",
            args.timeout
        )));
    };
    // An error in the response is not a usage error.
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

/// Returns the argument, or standard input, as a packet.
fn payload(text: &str, stack: &Stack) -> Result<Packet, Failure> {
    Ok(stack.packet(&input(text, stack.mtu())?))
}

/// The same as bytes. Reads at most one byte more than `most`, which is enough to know that the input does
/// not fit.
pub(crate) fn input(text: &str, most: usize) -> Result<Vec<u8>, Failure> {
    if text != "-" {
        return Ok(text.as_bytes().to_vec());
    }
    let most = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    let mut input = Vec::new();
    io::stdin().lock().take(most).read_to_end(&mut input)?;
    Ok(input)
}

/// Returns whether a memory swarm had no receiver for the message.
fn is_nowhere(stack: &Stack) -> bool {
    let mut dropped = 0;
    stack.visit_counters(&mut |counters| {
        if counters.layer() == "mem" {
            dropped += counters.snapshot().dropped(DropReason::NoPeer);
        }
    });
    dropped > 0
}
