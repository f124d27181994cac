//! Signals that end this program.

use crate::Failure;

/// Completes when the user or the system asks this program to end.
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

/// Completes when the user asks this program to end.
#[cfg(not(unix))]
pub(crate) fn interrupt() -> Result<impl Future<Output = ()>, Failure> {
    Ok(async {
        drop(tokio::signal::ctrl_c().await);
    })
}
