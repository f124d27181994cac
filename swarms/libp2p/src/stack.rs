//! The word `libp2p` of stacks as text: a host whose swarm is the base.
//!
//! `libp2p[=MULTIADDR[;MULTIADDR…]][,protocol=/name/version]` listens at these places, by default at
//! `/ip4/127.0.0.1/udp/0/quic-v1`, and makes a [`HostSwarm`](crate::HostSwarm) for this protocol, by default
//! [`DEFAULT_PROTOCOL`]. Nodes have asks and keys; their addresses are multiaddrs that end with `/p2p/ID`.
//!
//! ```
//! use p2p::Swarm;
//! use p2p_libp2p::stack::Libp2pWord;
//! use p2p_swarms::stack::Grammar;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let grammar = Grammar::default().with_base(Libp2pWord)?;
//! let text = grammar.parse("libp2p=/ip4/127.0.0.1/tcp/0,protocol=/my-app/1.0.0/mux=chat")?;
//! let (alice, bob) = (text.build().await?, text.build().await?);
//! alice.tell(&bob.local_addr()?, alice.packet(b"hello")).await?;
//! assert_eq!(bob.receive().await?.payload, b"hello");
//! # Ok(())
//! # }
//! ```
//!
//! # Slashes
//! A multiaddr contains `/`, which also separates layers. A value that begins with `/` is read like this, in this word and
//! in the layers above, such as the addresses of `kad=`:
//!
//! - A multiaddr ends before the first part that is not the name of a multiaddr protocol. Of a protocol with a value, the
//!   next part is the value, whatever it is: `/dns4/mux/tcp/1` is one address.
//! - The value of `protocol=` ends with its first part that begins with a digit, its version. An id without a version
//!   cannot be written in a stack.
//!
//! So no name of a layer changes how a text is read.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use multiaddr::Protocol;
use p2p::{BoxAddr, BoxSecureAskSwarm, Error, Result};
use p2p_formats::x509::PrivateKey;
use p2p_swarms::EraseSwarm;
use p2p_swarms::stack::{Arguments, Base, BaseProperties, BaseWord, Stack, StackError, Value};

use crate::addr::HostAddr;
use crate::config::HostConfig;
use crate::host::{Host, place_to_listen};
use crate::key::fingerprint;
use crate::swarm::HostSwarmConfig;

/// The protocol of a stack that names none.
pub const DEFAULT_PROTOCOL: &str = "/p2p-swarm/1.0.0";

/// The place of a stack that names none.
const DEFAULT_PLACE: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
/// Maximum number of places of one stack.
const MAX_PLACES: usize = 16;
/// Maximum length of a protocol id in bytes: room for what a swarm appends to it.
const MAX_PROTOCOL: usize = 500;

/// The word `libp2p`; see the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct Libp2pWord;

impl BaseWord for Libp2pWord {
    fn word(&self) -> &'static str {
        "libp2p"
    }

    fn parse(&self, arguments: &mut Arguments<'_, '_>) -> Result<Arc<dyn Base>, StackError> {
        let mut places = Vec::new();
        if let Some(list) = arguments.argument("a multiaddr, such as /ip4/127.0.0.1/tcp/0")? {
            for place in list.items() {
                if places.len() == MAX_PLACES {
                    return Err(place.error(0, format!("at most {MAX_PLACES} places are allowed")));
                }
                place_to_listen(place.text()).map_err(|error| at_value(place, error))?;
                places.push(place.text().into());
            }
        }
        let protocol = arguments.option("protocol").map(protocol).transpose()?;
        Ok(Arc::new(Libp2pBase { places, protocol }))
    }

    fn addr_len(&self, text: &str) -> usize {
        multiaddr_len(text)
    }

    fn option_len(&self, option: &str, text: &str) -> usize {
        if option == "protocol" {
            protocol_len(text)
        } else {
            multiaddr_len(text)
        }
    }
}

fn at_value(value: Value<'_>, error: Error) -> StackError {
    match error {
        Error::InvalidAddr { at, reason, .. } => value.error(at, reason),
        other => value.error(0, other.to_string()),
    }
}

fn protocol(value: Value<'_>) -> Result<Box<str>, StackError> {
    let text = value.text();
    if text.is_empty() || protocol_len(text) != text.len() {
        let reason = "expected a protocol id whose last part is its version, such as /my-app/1.0.0";
        return Err(value.error(0, reason));
    }
    if text.len() > MAX_PROTOCOL {
        return Err(value.error(0, format!("a protocol id has at most {MAX_PROTOCOL} bytes here")));
    }
    Ok(text.into())
}

/// Returns the part of `text` in front of the next option or item of a list.
fn value_of(text: &str) -> &str {
    text.split([',', ';']).next().unwrap_or_default()
}

/// Returns the length of the multiaddr at the start of `text`, which may be invalid: it ends before the first part that
/// is not the name of a protocol.
fn multiaddr_len(text: &str) -> usize {
    let Some(rest) = value_of(text).strip_prefix('/') else {
        return 0;
    };
    let (mut parts, mut len) = (rest.split('/').peekable(), 0);
    while parts.peek().is_some() {
        // The parser takes the name and the value, if the protocol has one.
        let mut taken = 0;
        let parsed = Protocol::from_str_parts(parts.by_ref().inspect(|part| taken += 1 + part.len()));
        if let Err(multiaddr::Error::UnknownProtocolString(_)) = parsed {
            break;
        }
        len += taken;
    }
    len
}

/// Returns the length of the protocol id at the start of `text`, or zero: it ends with the first part that begins with a
/// digit.
fn protocol_len(text: &str) -> usize {
    let mut len = 0;
    let Some(rest) = value_of(text).strip_prefix('/') else {
        return 0;
    };
    for part in rest.split('/') {
        len += 1 + part.len();
        if part.is_empty() || part.contains('=') {
            return 0;
        }
        if part.starts_with(|first: char| first.is_ascii_digit()) {
            return len;
        }
    }
    0
}

/// A host of a stack text.
#[derive(Debug)]
struct Libp2pBase {
    places: Vec<Box<str>>,
    protocol: Option<Box<str>>,
}

impl fmt::Display for Libp2pBase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.places.is_empty() {
            write!(f, "={}", self.places.join(";"))?;
        }
        match &self.protocol {
            Some(protocol) => write!(f, ",protocol={protocol}"),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Base for Libp2pBase {
    fn word(&self) -> &'static str {
        Libp2pWord.word()
    }

    fn properties(&self) -> BaseProperties {
        let config = HostConfig::default();
        BaseProperties {
            asks: true,
            fingerprint: Some(fingerprint),
            holds: HostSwarmConfig::default().messages.items + config.max_streams,
            dial_timeout: Some(config.handshake_timeout),
        }
    }

    async fn open(&self, at: Option<&BoxAddr>, key: &PrivateKey) -> Result<Stack> {
        let mut builder = Host::builder(key);
        if let Some(at) = at {
            let Some(addr) = at.downcast_ref::<HostAddr>() else {
                let reason = "the address belongs to another kind of base";
                return Err(Error::addr(&at.to_string(), 0, reason));
            };
            builder = builder.listen(&addr.place().to_string())?;
        } else if self.places.is_empty() {
            builder = builder.listen(DEFAULT_PLACE)?;
        }
        if at.is_none() {
            for place in &self.places {
                builder = builder.listen(place)?;
            }
        }
        let host = builder.start().await?;
        let protocol = self.protocol.as_deref().unwrap_or(DEFAULT_PROTOCOL);
        let swarm = host.swarm(protocol, HostSwarmConfig::default())?;
        Ok(Stack::SecureAsk(BoxSecureAskSwarm::new(EraseSwarm::erase(swarm))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_multiaddr_ends_before_what_is_no_protocol() {
        for (text, end) in [
            ("/ip4/127.0.0.1/tcp/0/mux=chat", "/mux=chat"),
            ("/ip4/127.0.0.1/udp/0/quic-v1/frag", "/frag"),
            (
                "/ip4/127.0.0.1/tcp/0;/ip4/127.0.0.1/tcp/1",
                ";/ip4/127.0.0.1/tcp/1",
            ),
            ("/ip4/127.0.0.1/tcp/0,protocol=/a/1", ",protocol=/a/1"),
            ("/dns4/mux/tcp/1/mux=a", "/mux=a"),
            ("/ip4/127.0.0.1/tcp/none/mux=a", "/mux=a"),
            ("/p2p/bafzaajaiaejc/frag", "/frag"),
            ("/ip4/127.0.0.1/tcp", ""),
            ("/ip4/127.0.0.1/", "/"),
            ("/chat", "/chat"),
            ("/", "/"),
        ] {
            assert_eq!(&text[multiaddr_len(text)..], end, "{text}");
        }
    }

    #[test]
    fn a_protocol_id_ends_with_its_version() {
        for (text, end) in [
            ("/my-app/1.0.0/mux=chat", "/mux=chat"),
            ("/ipfs/kad/1.0.0", ""),
            ("/a/b/2,x=1", ",x=1"),
            ("/echo/mux=1", "/echo/mux=1"),
            ("/echo", "/echo"),
            ("//1", "//1"),
        ] {
            assert_eq!(&text[protocol_len(text)..], end, "{text}");
        }
    }
}
