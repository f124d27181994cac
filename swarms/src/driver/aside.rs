//! Stepping aside, for tasks that have much to do.

use std::future::poll_fn;
use std::mem;
use std::task::Poll;

/// Lets tasks that were woken go on here, while another thread takes on this one: they stand first in this thread's line,
/// where no other thread looks. Tokio's `yield_now` would come back only when they have nothing left to do.
pub(crate) async fn step_aside() {
    let mut stepped = false;
    poll_fn(|cx| {
        if mem::replace(&mut stepped, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
