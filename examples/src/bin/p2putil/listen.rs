//! `listen`: prints what arrives, and answers if asked to.

use std::future::pending;

use p2p::{AskSwarm as _, BoxAddr, BoxAskSwarm, Error, Message, Request, Swarm as _};
use p2p_swarms::stack::StackText;
use serde_json::json;

use crate::cli::Listen;
use crate::output::Out;
use crate::{Failure, open};

pub(crate) async fn run(args: Listen, out: Out) -> Result<(), Failure> {
    let text: StackText = args.stack.parse()?;
    let interrupt = interrupt()?;
    tokio::pin!(interrupt);
    let stack = open(&text)?;
    for addr in stack.local_addrs() {
        let addr = addr.to_string();
        out.line(&format!("addr {addr}"), &json!({ "addr": addr }))?;
    }
    let asks = stack.asks();
    loop {
        tokio::select! {
            () = &mut interrupt => break,
            message = stack.receive() => {
                let message = message?;
                out.message("tell", &message)?;
                if args.echo {
                    let mut echo = message.payload;
                    echo.push_front(b"echo:");
                    warn(stack.tell(&message.src, echo).await);
                }
            }
            request = next_ask(asks.as_ref()) => {
                let Request { src, dst, payload, .. } = &request;
                let shown = Message { src: src.clone(), dst: dst.clone(), payload: payload.clone() };
                out.message("ask", &shown)?;
                if args.echo {
                    let mut response = shown.payload;
                    response.reverse();
                    warn(request.respond(response).await);
                }
            }
        }
    }
    stack.close().await;
    Ok(())
}

/// What cannot be answered is the asker's loss; the listener goes on.
fn warn(result: p2p::Result<()>) {
    if let Err(error) = result {
        eprintln!("warning: no answer was sent: {error}");
    }
}

async fn next_ask(asks: Option<&BoxAskSwarm<BoxAddr>>) -> Request<BoxAddr> {
    if let Some(asks) = asks {
        match asks.receive_ask().await {
            Ok(request) => return request,
            // `receive` learns the same and ends the command.
            Err(error) => debug_assert!(matches!(error, Error::Closed)),
        }
    }
    pending().await
}

/// Ends when the user or the system wants this program to end.
#[cfg(unix)]
fn interrupt() -> Result<impl Future<Output = ()>, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Ends when the user wants this program to end.
#[cfg(not(unix))]
fn interrupt() -> Result<impl Future<Output = ()>, Failure> {
    Ok(async {
        drop(tokio::signal::ctrl_c().await);
    })
}
