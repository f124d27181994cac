//! Closes that continue when their callers give up.

use std::future::{Future, poll_fn};
use std::task::Poll;

use tokio::runtime::Handle;

/// Runs the rest of a close, in a task if it does not complete at once. If the caller gives up, the task
/// continues, so that the swarm below is closed all the same.
pub async fn finish_close(rest: impl Future<Output = ()> + Send + 'static) {
    let mut rest = Box::pin(rest);
    if poll_fn(|cx| Poll::Ready(rest.as_mut().poll(cx).is_ready())).await {
        return;
    }
    match Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn(rest).await),
        Err(_) => rest.await,
    }
}
