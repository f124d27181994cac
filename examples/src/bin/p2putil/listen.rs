//! `listen`: prints received messages, and answers them on request.

use std::future::pending;

use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::FuturesUnordered;
use p2p::{AskSwarm as _, BoxAddr, BoxAskSwarm, Error, Message, Request, Swarm as _};
use p2p_swarms::stack::{Overlay, Stack, StackNode};
use serde_json::json;

use crate::cli::Listen;
use crate::interrupt::interrupt;
use crate::output::{Out, complain};
use crate::{Failure, closing, parse};

/// Maximum number of answers in flight; nothing is received beyond it.
const MOST_ANSWERS: usize = 256;

pub(crate) async fn run(args: Listen, out: Out) -> Result<(), Failure> {
    let text = parse(&args.stack)?;
    let key = args.key.read(&text)?;
    let interrupt = interrupt()?;
    tokio::pin!(interrupt);
    let node = tokio::select! {
        () = &mut interrupt => return Ok(()),
        node = text.build_node(&key) => node?,
    };
    let announcing = args.announce.open(&node.stack.local_addrs(), &key)?;
    let served = tokio::select! {
        served = serve(&node, args.echo, interrupt, out) => served,
        () = announcing.keep() => Ok(()),
    };
    announcing.withdraw().await;
    served
}

/// Prints a node's addresses, and received messages until `interrupt` completes.
pub(crate) async fn serve(
    node: &StackNode,
    echoes: bool,
    interrupt: impl Future<Output = ()> + Unpin,
    out: Out,
) -> Result<(), Failure> {
    closing(&node.stack, serve_on(node, echoes, interrupt, out)).await
}

async fn serve_on(
    node: &StackNode,
    echoes: bool,
    mut interrupt: impl Future<Output = ()> + Unpin,
    out: Out,
) -> Result<(), Failure> {
    let stack = &node.stack;
    for addr in stack.local_addrs() {
        let addr = addr.to_string();
        out.line(&format!("addr {addr}"), &json!({ "addr": addr }))?;
    }
    for addr in node.overlays.iter().flat_map(Overlay::bootstraps) {
        let addr = addr.to_string();
        out.line(&format!("bootstrap {addr}"), &json!({ "bootstrap": addr }))?;
    }
    let asks = stack.asks();
    // Answers are sent concurrently: an unreachable peer does not delay others.
    let mut answers: FuturesUnordered<BoxFuture<'_, ()>> = FuturesUnordered::new();
    loop {
        let has_room = answers.len() < MOST_ANSWERS;
        tokio::select! {
            () = &mut interrupt => break,
            Some(()) = answers.next() => {}
            message = stack.receive(), if has_room => {
                let message = message?;
                out.message("tell", &message)?;
                if echoes {
                    answers.push(echo(stack, message).boxed());
                }
            }
            request = next_ask(asks.as_ref()), if has_room => {
                out.message("ask", &request.message)?;
                if echoes {
                    answers.push(reverse(request).boxed());
                }
            }
        }
    }
    Ok(())
}

/// Answers a tell with the same payload behind `echo:`.
async fn echo(stack: &Stack, message: Message<BoxAddr>) {
    let mut echo = message.payload;
    echo.push_front(b"echo:");
    warn(stack.tell(&message.src, echo).await);
}

/// Answers an ask with its bytes in reverse.
async fn reverse(request: Request<BoxAddr>) {
    let mut response = request.message.payload.clone();
    response.reverse();
    warn(request.respond(response).await);
}

/// A failed answer is the asker's loss; the listener continues.
fn warn(result: p2p::Result<()>) {
    if let Err(error) = result {
        complain(&format!("warning: the answer was not sent: {error}"));
    }
}

async fn next_ask(asks: Option<&BoxAskSwarm<BoxAddr>>) -> Request<BoxAddr> {
    if let Some(asks) = asks {
        match asks.receive_ask().await {
            Ok(request) => return request,
            // `receive` returns the same error and ends the command.
            Err(error) => debug_assert!(matches!(error, Error::Closed)),
        }
    }
    pending().await
}
