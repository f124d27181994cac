//! Ping (libp2p specification, ping): 32 random bytes that the peer sends back, again and again on one stream.

use std::io;
use std::time::Duration;

use p2p::{Error, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

use crate::addr::HostAddr;
use crate::host::Host;
use crate::stream::{Stream, failed};

/// The protocol id of ping.
pub const PING: &str = "/ipfs/ping/1.0.0";

/// Length of a ping in bytes.
const LEN: usize = 32;
/// Timeout of a ping, and of the silence between two pings of a peer: go sends one every 10 to 30 seconds.
const TIMEOUT: Duration = Duration::from_mins(1);

/// A stream for pings to one peer. Dropping it resets the stream.
#[derive(Debug)]
pub struct Pinger(Stream);

impl Host {
    /// Opens a stream for pings, on the connection with the peer or on a new one.
    ///
    /// # Errors
    /// Those of [`open`](Host::open).
    pub async fn pinger(&self, addr: &HostAddr) -> Result<Pinger> {
        Ok(Pinger(self.open(addr, &[PING]).await?))
    }
}

impl Pinger {
    /// Sends a ping, and returns its round-trip time.
    ///
    /// # Errors
    /// [`Error::TimedOut`] after 60 seconds, [`Error::Unreachable`] if the stream ends, [`Error::Invalid`] if the
    /// peer sends other bytes back. The stream is of no further use.
    pub async fn ping(&mut self) -> Result<Duration> {
        let sent: [u8; LEN] = rand::random();
        let began = Instant::now();
        let exchange = async {
            self.0.write_all(&sent).await?;
            self.0.flush().await?;
            let mut back = [0; LEN];
            self.0.read_exact(&mut back).await?;
            io::Result::Ok(back)
        };
        match timeout(TIMEOUT, exchange).await {
            Ok(Ok(back)) if back == sent => Ok(began.elapsed()),
            Ok(Ok(_)) => Err(Error::invalid("ping", "the peer sent other bytes back")),
            Ok(Err(error)) => Err(failed(self.0.peer(), &error)),
            Err(_) => Err(Error::TimedOut {
                doing: "waiting for a ping",
                limit: TIMEOUT,
            }),
        }
    }
}

/// Sends pings of a peer back until it ends the stream or is silent for a minute.
pub(crate) async fn serve(mut stream: Stream) {
    let mut ping = [0; LEN];
    while let Ok(Ok(_)) = timeout(TIMEOUT, stream.read_exact(&mut ping)).await {
        let echo = async {
            stream.write_all(&ping).await?;
            stream.flush().await
        };
        if !matches!(timeout(TIMEOUT, echo).await, Ok(Ok(()))) {
            return;
        }
    }
    // The peer ended its half, or broke off.
    let _ = stream.shutdown().await;
}
