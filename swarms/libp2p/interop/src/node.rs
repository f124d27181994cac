//! Our host, as a test needs it: one link, and an address that another container reaches.

use p2p_formats::x509::PrivateKey;
use p2p_libp2p::{Host, HostAddr, HostEvents};

use crate::Failure;
use crate::link::Link;
use crate::redis::Redis;
use crate::settings::{Role, Settings};

/// Starts a host that has no other link than that of the settings. A listener listens.
///
/// # Errors
/// A text, if the host cannot start.
pub async fn start(settings: &Settings) -> Result<Host, Failure> {
    let mut builder = Host::builder(&PrivateKey::ed25519(&rand::random()));
    if let Link::Tcp(security, muxer) = settings.link {
        builder = builder.security(&[security]).muxers(&[muxer]);
    }
    if settings.role == Role::Listener {
        builder = builder.listen(&settings.link.place(settings.ip))?;
    }
    let host = builder.start().await?;
    if settings.debug {
        tokio::spawn(log(host.events()));
    }
    Ok(host)
}

async fn log(mut events: HostEvents) {
    while let Ok(event) = events.next().await {
        eprintln!("{event:?}");
    }
}

/// Returns the address to publish: the first that is not loopback, which no other container reaches; else the first.
///
/// # Errors
/// A text, if the host does not listen.
pub fn published_addr(host: &Host) -> Result<HostAddr, Failure> {
    let addrs = host.local_addrs();
    let is_loopback = |addr: &HostAddr| {
        let text = addr.to_string();
        text.starts_with("/ip4/127.") || text.starts_with("/ip6/::1/")
    };
    let reachable = addrs.iter().find(|addr| !is_loopback(addr));
    Ok(reachable
        .or(addrs.first())
        .ok_or("the host listens nowhere")?
        .clone())
}

/// Serves until the process is stopped. In the older form, a listener that is not stopped in time fails.
///
/// # Errors
/// A text, after the time of the older form.
pub async fn serve(settings: &Settings) -> Result<(), Failure> {
    match settings.form {
        crate::settings::Form::Current => std::future::pending().await,
        crate::settings::Form::Older => {
            tokio::time::sleep(settings.timeout).await;
            Err(format!("not stopped within {:?}", settings.timeout).into())
        }
    }
}

/// Waits for the listener's address.
///
/// # Errors
/// Those of the server, and a text for an address that cannot be dialled.
pub async fn listener_addr(settings: &Settings) -> Result<String, Failure> {
    let mut redis = Redis::connect(&settings.redis, settings.timeout).await?;
    Ok(redis.wait_for(&settings.key, settings.timeout).await?)
}
