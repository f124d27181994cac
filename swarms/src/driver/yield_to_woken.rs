//! Yielding to woken tasks, for tasks with much work.

use std::future::poll_fn;
use std::mem;
use std::task::Poll;

/// Yields to tasks that were just woken, which run on this thread, while another thread may take over this
/// task. Woken tasks are first in this thread's LIFO slot, which other threads do not steal from. Tokio's
/// `yield_now` would resume only when the thread has no other work left.
pub(crate) async fn yield_to_woken() {
    let mut yielded = false;
    poll_fn(|cx| {
        if mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
