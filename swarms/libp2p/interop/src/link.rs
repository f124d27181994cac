//! What connects two peers: a transport, and over TCP a secure channel and a muxer.

use std::fmt;

use p2p_libp2p::{Muxer, Security};

/// Returns the harness's name of a muxer.
fn muxer_name(muxer: Muxer) -> &'static str {
    match muxer {
        Muxer::Yamux => "yamux",
        Muxer::Mplex => "mplex",
    }
}

/// The transport, secure channel and muxer of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Link {
    /// QUIC version 1, which has its own secure channel and streams.
    Quic,
    /// TCP with this secure channel and this muxer.
    Tcp(Security, Muxer),
}

impl Link {
    /// All links, in the order of the table.
    pub const ALL: [Self; 5] = [
        Self::Quic,
        Self::Tcp(Security::Noise, Muxer::Yamux),
        Self::Tcp(Security::Tls, Muxer::Yamux),
        Self::Tcp(Security::Noise, Muxer::Mplex),
        Self::Tcp(Security::Tls, Muxer::Mplex),
    ];

    /// Returns the link with these names of the harness; QUIC has neither a secure channel nor a muxer of its own.
    ///
    /// # Errors
    /// A text that says which name is missing or unknown.
    pub fn of_names(transport: &str, security: Option<&str>, muxer: Option<&str>) -> Result<Self, String> {
        match transport {
            "quic-v1" => return Ok(Self::Quic),
            "tcp" => {}
            other => return Err(format!("the transport is {other:?}, and must be quic-v1 or tcp")),
        }
        let security = match security {
            Some("noise") => Security::Noise,
            Some("tls") => Security::Tls,
            other => return Err(unknown("secure channel", other, "noise or tls")),
        };
        let muxer = match muxer {
            Some("yamux") => Muxer::Yamux,
            Some("mplex") => Muxer::Mplex,
            other => return Err(unknown("muxer", other, "yamux or mplex")),
        };
        Ok(Self::Tcp(security, muxer))
    }

    /// Returns the harness's names of transport, secure channel and muxer.
    pub fn names(self) -> (&'static str, Option<&'static str>, Option<&'static str>) {
        match self {
            Self::Quic => ("quic-v1", None, None),
            Self::Tcp(Security::Noise, muxer) => ("tcp", Some("noise"), Some(muxer_name(muxer))),
            Self::Tcp(Security::Tls, muxer) => ("tcp", Some("tls"), Some(muxer_name(muxer))),
        }
    }

    /// Returns the multiaddr at which a node with this link listens, on a free port.
    pub fn place(self, ip: std::net::IpAddr) -> String {
        let ip = match ip {
            std::net::IpAddr::V4(ip) => format!("/ip4/{ip}"),
            std::net::IpAddr::V6(ip) => format!("/ip6/{ip}"),
        };
        match self {
            Self::Quic => format!("{ip}/udp/0/quic-v1"),
            Self::Tcp(..) => format!("{ip}/tcp/0"),
        }
    }
}

fn unknown(what: &str, found: Option<&str>, expected: &str) -> String {
    match found {
        Some(found) => format!("the {what} is {found:?}, and must be {expected}"),
        None => format!("TCP needs a {what}: {expected}"),
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transport, security, muxer) = self.names();
        f.write_str(transport)?;
        for part in [security, muxer].into_iter().flatten() {
            write!(f, ", {part}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_link_are_those_that_it_is_made_of() {
        for link in Link::ALL {
            let (transport, security, muxer) = link.names();
            assert_eq!(Link::of_names(transport, security, muxer), Ok(link));
        }
    }

    #[test]
    fn an_unknown_or_missing_name_is_named() {
        let error = |transport, security, muxer| Link::of_names(transport, security, muxer).unwrap_err();
        assert!(error("webrtc", None, None).contains("\"webrtc\""));
        assert!(error("tcp", None, Some("yamux")).contains("secure channel"));
        assert!(error("tcp", Some("noise"), Some("spdy")).contains("\"spdy\""));
    }
}
