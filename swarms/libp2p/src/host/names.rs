//! Names in addresses: they are resolved, and their addresses are dialled like those of a peer.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use multiaddr::Multiaddr;
use p2p::Error;
use p2p_protocols::dial::{Action, Config, DialAddr, DialError, Dialer, Event, Failure, Transport};
use p2p_protocols::overlay::Scope;
use tokio::time::{Instant, sleep_until};

use super::engines::{Destination, Failed};
use crate::addr::Target;

/// Addresses of one name that are tried.
const NAME_ADDRS: usize = 4;

/// Returns up to four addresses of a name that may be dialled.
pub(super) async fn resolve(to: &Destination, target: Target) -> Result<Vec<SocketAddr>, Failed> {
    let Target::Dns { name, port, ip6 } = target else {
        return Ok(Vec::new());
    };
    let found = tokio::net::lookup_host((name.as_str(), port)).await;
    let found = found.map_err(|error| {
        let unreachable = Error::unreachable(&to.place, error.to_string());
        Failed::new(Failure::Io(error.kind()), unreachable)
    })?;
    Ok(found
        .filter(|addr| may_dial(addr, ip6, to.is_chosen))
        .take(NAME_ADDRS)
        .collect())
}

/// Returns whether an address of a name is dialled: it is of the wanted kind, and not in a network of this host, where a
/// name that a peer chose would lead it.
fn may_dial(addr: &SocketAddr, ip6: Option<bool>, is_chosen: bool) -> bool {
    let is_wanted = ip6.is_none_or(|ip6| addr.is_ipv6() == ip6);
    is_wanted && (is_chosen || Scope::of_ip(addr.ip()) == Scope::Global)
}

/// Dials the addresses of a place until one is connected, in the order of the [dialer](p2p_protocols::dial) and with its
/// head starts. An attempt that takes too long goes on while others do.
///
/// # Errors
/// The last failure, or at once one that concerns all addresses: [`Failure::Denied`].
pub(super) async fn dial_each<F>(
    place: &Multiaddr,
    transport: Transport,
    addrs: Vec<SocketAddr>,
    config: Config,
    dial: impl Fn(SocketAddr) -> F,
) -> Result<(), Failed>
where
    F: Future<Output = Result<(), Failed>>,
{
    let addrs = addrs.into_iter().map(|addr| DialAddr {
        addr,
        transport,
        ip: Some(addr.ip()),
        port: addr.port(),
        is_relayed: false,
    });
    let started = Instant::now();
    // One dial, which is not repeated: nothing in it is random, and it is never full.
    let mut dialer = Dialer::new(config, 0);
    let _ = dialer.dial(Duration::ZERO, &(), addrs);
    let (mut attempts, mut last) = (FuturesUnordered::new(), None);
    loop {
        while let Some(action) = dialer.poll_action() {
            if let Action::Start { attempt, addr, .. } = action {
                let dialled = dial(addr);
                attempts.push(async move { (attempt, dialled.await) });
            }
        }
        if let Some(Event::Failed { error, .. }) = dialer.poll_event() {
            return Err(last.unwrap_or_else(|| failed(place, &error)));
        }
        let due = started + dialer.poll_timeout().unwrap_or(config.dial_timeout);
        tokio::select! {
            biased;
            Some((attempt, dialled)) = attempts.next() => match dialled {
                Err(failed) if !matches!(failed.failure, Failure::Denied) => {
                    dialer.handle_failed(started.elapsed(), attempt, failed.failure);
                    last = Some(failed);
                }
                dialled => return dialled,
            },
            () = sleep_until(due) => dialer.handle_timeout(started.elapsed()),
        }
    }
}

/// Returns the failure of a dial of which no attempt has reported one.
fn failed(place: &Multiaddr, error: &DialError<SocketAddr>) -> Failed {
    let attempts = match error {
        DialError::Failed { attempts } | DialError::TimedOut { attempts, .. } => &attempts[..],
        _ => &[],
    };
    let not_found = Failure::Io(std::io::ErrorKind::NotFound);
    let failure = attempts.last().map_or(not_found, |(_, failure)| *failure);
    Failed::new(failure, Error::unreachable(place, error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::pending;
    use std::io::ErrorKind;

    use super::*;

    const SILENT: &str = "[2001:db8::1]:80";
    const REFUSING: &str = "[2001:db8::2]:80";
    const DENIED: &str = "[2001:db8::3]:80";
    const LISTENING: &str = "198.51.100.1:80";

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    /// Dials addresses of a name. Returns the result, those that were tried, and the time that it took.
    async fn dialled(addrs: &[&str]) -> (Result<(), Failed>, Vec<String>, Duration) {
        let (tried, began) = (RefCell::new(Vec::new()), Instant::now());
        let dial = async |to: SocketAddr| {
            tried.borrow_mut().push(to.to_string());
            let failure = match to {
                to if to == addr(SILENT) => pending().await,
                to if to == addr(REFUSING) => Failure::Io(ErrorKind::ConnectionRefused),
                to if to == addr(DENIED) => Failure::Denied,
                _ => return Ok(()),
            };
            Err(Failed::new(failure, Error::unreachable(&to, "no")))
        };
        let place = "/dns/example.com/tcp/80".parse().expect("a multiaddr");
        let addrs = addrs.iter().map(|text| addr(text)).collect();
        let dialled = dial_each(&place, Transport::Tcp, addrs, Config::default(), dial).await;
        (dialled, tried.into_inner(), began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_does_not_answer_delays_the_next_one_by_its_head_start() {
        // By the order of the dialer IPv6 comes first.
        let (dialled, tried, took) = dialled(&[LISTENING, SILENT]).await;
        dialled.expect("a connection");
        assert_eq!(tried, [SILENT, LISTENING]);
        assert_eq!(took, Config::default().public_delay);
    }

    #[tokio::test(start_paused = true)]
    async fn after_an_address_that_fails_the_next_one_is_tried_at_once() {
        let (dialled, tried, took) = dialled(&[REFUSING, LISTENING]).await;
        dialled.expect("a connection");
        assert_eq!(tried, [REFUSING, LISTENING]);
        assert_eq!(took, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_failure_is_reported_and_a_denied_connection_at_once() {
        let (none, tried, _) = dialled(&[]).await;
        let failure = none.expect_err("no address").failure;
        assert_eq!((failure, tried.len()), (Failure::Io(ErrorKind::NotFound), 0));

        let (refused, _, _) = dialled(&[REFUSING]).await;
        let failure = refused.expect_err("no listener").failure;
        assert_eq!(failure, Failure::Io(ErrorKind::ConnectionRefused));

        let (silent, _, took) = dialled(&[SILENT]).await;
        let limit = Config::default().public_timeout;
        assert_eq!(silent.expect_err("silence").failure, Failure::TimedOut(limit));
        assert_eq!(took, limit);

        let (denied, tried, _) = dialled(&[DENIED, LISTENING]).await;
        assert_eq!(denied.expect_err("a refusal").failure, Failure::Denied);
        assert_eq!(tried, [DENIED]);
    }

    #[test]
    fn a_name_that_a_peer_chose_leads_into_no_network_of_this_host() {
        for (text, is_dialled) in [
            ("127.0.0.1:80", false),
            ("[::1]:80", false),
            ("10.0.0.1:80", false),
            ("[::ffff:192.168.0.1]:80", false),
            ("198.51.100.1:80", true),
            ("[2001:db8::1]:80", true),
        ] {
            assert_eq!(may_dial(&addr(text), None, false), is_dialled, "{text}");
            assert!(may_dial(&addr(text), None, true), "{text}");
        }
        assert!(may_dial(&addr("127.0.0.1:80"), Some(false), true));
        assert!(!may_dial(&addr("127.0.0.1:80"), Some(true), true));
    }
}
