//! The transport test: the dialler connects to the listener, pings it once, and prints two times.

use tokio::time::{Instant, timeout};

use crate::Failure;
use crate::node;
use crate::redis::Redis;
use crate::report::Latency;
use crate::settings::{Role, Settings};

/// The line that the dialler writes to standard error before the agent of a listener which identified itself.
pub const IDENTIFIED: &str = "identified the peer: ";

/// Runs the test's side of this process; a dialler prints its result on standard output.
///
/// # Errors
/// A text that says what failed, after which the process exits with a code that is not 0.
pub async fn run(settings: &Settings) -> Result<(), Failure> {
    let host = node::start(settings).await?;
    match settings.role {
        Role::Listener => {
            let mut redis = Redis::connect(&settings.redis, settings.timeout).await?;
            let addr = node::published_addr(&host)?.to_string();
            redis.push(&settings.key, &addr).await?;
            eprintln!("listening at {addr}");
            node::serve(settings).await
        }
        Role::Dialler => {
            let addr = node::listener_addr(settings).await?.parse()?;
            let measure = async {
                let began = Instant::now();
                let ping = host.pinger(&addr).await?.ping().await?;
                Ok::<_, Failure>(Latency {
                    handshake_plus_one_rtt: began.elapsed(),
                    ping,
                })
            };
            let latency = timeout(settings.timeout, measure).await;
            let latency = latency.map_err(|_| format!("not measured within {:?}", settings.timeout))??;
            // Not part of the test, but of interest: what the peer is.
            match timeout(settings.timeout, host.identify(&addr)).await {
                Ok(Ok(identified)) => eprintln!("{IDENTIFIED}{}", identified.agent),
                Ok(Err(error)) => eprintln!("not identified: {error}"),
                Err(_) => eprintln!("not identified in time"),
            }
            print!("{}", latency.text(settings.form));
            host.close().await;
            Ok(())
        }
    }
}
