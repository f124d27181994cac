//! A signed announcement: a node, its addresses, and a topic, with an expiry time.

use std::time::Duration;

use p2p::PeerId;
use p2p_formats::record::SignedRecord;
use p2p_formats::x509::{Fingerprint, Registry, Signer, sha3_256, shake256};
use serde::{Deserialize, Serialize};

use crate::discovery::MAX_TTL;
use crate::{Addrs, Error, Node, Result, Topic, UnixTime};

/// Maximum clock difference between two machines: an announcement that lasts longer than the maximum plus
/// this is invalid.
const CLOCKS: Duration = Duration::from_mins(10);

/// The context of the signature.
const CONTEXT: &str = "p2p discovery announcement 1";

/// Derivations of ids from keys. One key has several ids, since layers hash it differently.
const FINGERPRINTS: [Fingerprint; 2] = [shake256, sha3_256];

/// An announcement of a node by itself.
///
/// # Encoding
/// A [signed record](p2p_formats::record) whose payload is this struct in postcard, with the addresses as
/// lines of one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The topic under which it is found.
    pub topic: Topic,
    /// The node's id and addresses.
    pub node: Node,
    /// Time of creation. Of two announcements the later one applies.
    pub made: UnixTime,
    /// Time of expiry.
    pub expires: UnixTime,
}

#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    id: [u8; 32],
    topic: &'a str,
    addrs: &'a str,
    made: u64,
    expires: u64,
}

impl Announcement {
    /// Signs it, and encodes the record.
    ///
    /// # Errors
    /// Returns [`Error::Invalid`] if its id does not belong to the signer's key.
    pub fn sign(&self, signer: &dyn Signer) -> Result<Vec<u8>> {
        if !FINGERPRINTS
            .iter()
            .any(|of| of(signer.public_key()) == self.node.id)
        {
            let reason = format!("the key is not that of {}", self.node.id);
            return Err(Error::invalid("signer", reason));
        }
        let wire = Wire {
            id: *self.node.id.as_bytes(),
            topic: self.topic.as_str(),
            addrs: &self.node.addrs.to_lines(),
            made: self.made.as_millis(),
            expires: self.expires.as_millis(),
        };
        let payload = postcard::to_allocvec(&wire);
        let payload = payload.map_err(|error| Error::invalid("announcement", error.to_string()))?;
        Ok(SignedRecord::sign(signer, CONTEXT, &payload)?)
    }

    /// Decodes a record, and checks that its subject signed it.
    ///
    /// # Errors
    /// Returns [`Error::Record`] if the record is invalid or its signature is, and [`Error::Garbled`] if the
    /// payload is not an announcement, names another node than the signer, or lasts longer than permitted. An
    /// expired announcement is not an error.
    pub fn open(record: &[u8], registry: &Registry, now: UnixTime) -> Result<Self> {
        let opened = SignedRecord::open(record, CONTEXT, registry)?;
        let payload = opened.payload();
        let garbled = |rest: usize, reason: String| {
            Error::garbled("an announcement", payload.len().saturating_sub(rest), reason)
        };
        let (wire, rest): (Wire<'_>, _) =
            postcard::take_from_bytes(payload).map_err(|error| garbled(payload.len(), error.to_string()))?;
        if !rest.is_empty() {
            return Err(garbled(
                rest.len(),
                format!("{} bytes follow the announcement", rest.len()),
            ));
        }
        let bad = |error: Error| garbled(payload.len(), error.to_string());
        let id = PeerId::new(wire.id);
        if !FINGERPRINTS.iter().any(|of| opened.signer(*of) == id) {
            return Err(garbled(
                payload.len(),
                format!("it names {id}, which is not the id of the signing key"),
            ));
        }
        let (made, expires) = (
            UnixTime::from_millis(wire.made),
            UnixTime::from_millis(wire.expires),
        );
        if expires.since(now) > MAX_TTL + CLOCKS || made.since(now) > CLOCKS {
            return Err(garbled(0, format!("it lasts longer than {MAX_TTL:?}")));
        }
        Ok(Self {
            topic: wire.topic.parse().map_err(bad)?,
            node: Node {
                id,
                addrs: Addrs::from_lines(wire.addrs).map_err(bad)?,
            },
            made,
            expires,
        })
    }
}
