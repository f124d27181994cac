//! The perf test: the dialler measures throughput in both directions and latency by the perf protocol, and prints quartiles.

use std::time::Duration;

use p2p_libp2p::{Host, HostAddr};
use tokio::time::{Instant, timeout};

use crate::Failure;
use crate::node;
use crate::redis::Redis;
use crate::report::Samples;
use crate::settings::{Role, Settings};

/// Timeout of one measurement: the harness's own is two hours for all of them.
const LIMIT: Duration = Duration::from_mins(10);

/// What the dialler measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measurements {
    /// Bytes of an upload. Default: 1 GiB.
    pub upload_bytes: u64,
    /// Bytes of a download. Default: 1 GiB.
    pub download_bytes: u64,
    /// Number of uploads. Default: 10.
    pub uploads: u32,
    /// Number of downloads. Default: 10.
    pub downloads: u32,
    /// Number of exchanges of one byte. Default: 100.
    pub latencies: u32,
}

impl Measurements {
    /// Reads what to measure from variables.
    ///
    /// # Errors
    /// A text that names the variable that is no number.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let number = |name: &str, default: u64| match variable(name).filter(|value| !value.is_empty()) {
            None => Ok(default),
            Some(value) => value
                .parse()
                .map_err(|_| format!("{name} is {value:?}, and must be a number")),
        };
        let count = |name: &str, default: u64| {
            let count = number(name, default)?;
            u32::try_from(count).map_err(|_| format!("{name} is {count}, more than {}", u32::MAX))
        };
        Ok(Self {
            upload_bytes: number("UPLOAD_BYTES", 1 << 30)?,
            download_bytes: number("DOWNLOAD_BYTES", 1 << 30)?,
            uploads: count("UPLOAD_ITERATIONS", 10)?,
            downloads: count("DOWNLOAD_ITERATIONS", 10)?,
            latencies: count("LATENCY_ITERATIONS", 100)?,
        })
    }
}

/// Runs the test's side of this process; a dialler prints its result on standard output.
///
/// # Errors
/// A text that says what failed, after which the process exits with a code that is not 0.
pub async fn run(settings: &Settings) -> Result<(), Failure> {
    let host = node::start(settings).await?;
    match settings.role {
        Role::Listener => {
            host.serve_perf()?;
            let mut redis = Redis::connect(&settings.redis, settings.timeout).await?;
            let addr = node::published_addr(&host)?.to_string();
            redis.set(&settings.key, &addr).await?;
            eprintln!("listening at {addr}");
            node::serve(settings).await
        }
        Role::Dialler => {
            let measurements = Measurements::read(|name| std::env::var(name).ok())?;
            let addr = node::listener_addr(settings).await?.parse()?;
            host.connect(&addr).await?;
            print!("{}", measure(&host, &addr, measurements).await?);
            host.close().await;
            Ok(())
        }
    }
}

async fn measure(host: &Host, addr: &HostAddr, of: Measurements) -> Result<String, Failure> {
    let seconds = async |count: u32, up: u64, down: u64| {
        let mut seconds = Vec::new();
        for _ in 0..count {
            let began = Instant::now();
            let measured = timeout(LIMIT, host.perf(addr, up, down)).await;
            measured.map_err(|_| format!("a measurement took longer than {LIMIT:?}"))??;
            seconds.push(began.elapsed().as_secs_f64().max(1e-9));
        }
        Ok::<_, Failure>(seconds)
    };
    #[expect(
        clippy::cast_precision_loss,
        reason = "more than 2^53 bytes are not measured exactly"
    )]
    let gbps = |bytes: u64, seconds: Vec<f64>| {
        let rates = seconds
            .into_iter()
            .map(|seconds| bytes as f64 * 8.0 / seconds / 1e9);
        rates.collect::<Vec<_>>()
    };
    let uploads = gbps(of.upload_bytes, seconds(of.uploads, of.upload_bytes, 0).await?);
    let downloads = gbps(
        of.download_bytes,
        seconds(of.downloads, 0, of.download_bytes).await?,
    );
    let latencies = seconds(of.latencies, 1, 1)
        .await?
        .into_iter()
        .map(|seconds| seconds * 1e3);
    Ok([
        Samples::new(of.uploads, uploads).section("upload", "Gbps", 2),
        Samples::new(of.downloads, downloads).section("download", "Gbps", 2),
        Samples::new(of.latencies, latencies.collect()).section("latency", "ms", 3),
    ]
    .join("\n"))
}
