//! The wish of the user or the system that this program ends.

use crate::Failure;

/// Ends when the user or the system wants this program to end.
#[cfg(unix)]
pub(crate) fn interrupt() -> Result<impl Future<Output = ()>, Failure> {
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
pub(crate) fn interrupt() -> Result<impl Future<Output = ()>, Failure> {
    Ok(async {
        drop(tokio::signal::ctrl_c().await);
    })
}
