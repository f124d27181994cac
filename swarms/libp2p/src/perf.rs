//! Perf (libp2p specification, perf): measures how fast bytes arrive in each direction on one stream.
//!
//! The client writes the number of bytes that it wants, 8 bytes, big endian, then its own bytes, and ends its
//! half; the server reads to the end, writes as many bytes as the client wants, and ends its half.
//!
//! # Limits
//! A host does not serve perf unless [`Host::serve_perf`] is called, since any peer may then ask it for as many bytes
//! as it has time for.

use std::io;
use std::time::Duration;

use p2p::{Error, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::Instant;

use crate::addr::HostAddr;
use crate::host::Host;
use crate::stream::{Stream, failed};

/// The protocol id of perf.
pub const PERF: &str = "/perf/1.0.0";

/// Bytes that are written and read at once.
const CHUNK: usize = 64 << 10;

/// The result of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerfReport {
    /// Time from the first byte written until the server began to answer.
    pub upload: Duration,
    /// Time from the server's first byte until its last one.
    pub download: Duration,
}

impl Host {
    /// Serves perf to any peer.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is served already.
    pub fn serve_perf(&self) -> Result<()> {
        self.handle(PERF, async |stream: Stream| {
            // A client that breaks off measures nothing.
            let _ = serve(stream).await;
        })
    }

    /// Sends `upload` bytes to a peer and receives `download` bytes from it, on one stream.
    ///
    /// # Errors
    /// Those of [`open`](Host::open), [`Error::Unreachable`] if the stream ends early, and [`Error::Invalid`] if the
    /// server sends another number of bytes.
    pub async fn perf(&self, addr: &HostAddr, upload: u64, download: u64) -> Result<PerfReport> {
        let mut stream = self.open(addr, &[PERF]).await?;
        let measured = measure(&mut stream, upload, download).await;
        let (report, received) = measured.map_err(|error| failed(addr, &error))?;
        if received != download {
            let reason = format!("it sent {received} bytes where {download} were wanted");
            return Err(Error::invalid("answer of the server", reason));
        }
        Ok(report)
    }
}

async fn measure(stream: &mut Stream, upload: u64, download: u64) -> io::Result<(PerfReport, u64)> {
    let began = Instant::now();
    stream.write_all(&download.to_be_bytes()).await?;
    write(stream, upload).await?;
    stream.shutdown().await?;
    let mut chunk = vec![0; CHUNK];
    let mut received = stream.read(&mut chunk).await? as u64;
    let uploaded = Instant::now();
    while received <= download {
        match stream.read(&mut chunk).await? {
            0 => break,
            more => received += more as u64,
        }
    }
    let report = PerfReport {
        upload: uploaded - began,
        download: uploaded.elapsed(),
    };
    Ok((report, received))
}

async fn serve(mut stream: Stream) -> io::Result<()> {
    let wanted = stream.read_u64().await?;
    let mut chunk = vec![0; CHUNK];
    while stream.read(&mut chunk).await? > 0 {}
    write(&mut stream, wanted).await?;
    stream.shutdown().await
}

async fn write(stream: &mut Stream, mut count: u64) -> io::Result<()> {
    let zeros = vec![0; CHUNK];
    while count > 0 {
        let len = usize::try_from(count).unwrap_or(CHUNK).min(CHUNK);
        stream.write_all(zeros.get(..len).unwrap_or_default()).await?;
        count -= len as u64;
    }
    Ok(())
}
