//! What a node says of itself: under which topic it is found where, and until when, signed with its key.

use std::time::Duration;

use p2p::PeerId;
use p2p_formats::record::SignedRecord;
use p2p_formats::x509::{Fingerprint, Registry, Signer, sha3_256, shake256};
use serde::{Deserialize, Serialize};

use crate::discovery::MAX_TTL;
use crate::{Addrs, Error, Node, Result, Topic, UnixTime};

/// Where the clocks of two machines may differ by: an announcement that lasts longer than any may is one of a lie.
const CLOCKS: Duration = Duration::from_mins(10);

/// The context of the signature.
const CONTEXT: &str = "p2p discovery announcement 1";

/// How ids follow from keys. One key has several ids, since layers hash it in their ways.
const FINGERPRINTS: [Fingerprint; 2] = [shake256, sha3_256];

/// What a node says of itself.
///
/// # Encoding
/// A [signed record](p2p_formats::record) whose payload is this in postcard, with the addresses as lines of one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// What it is found under.
    pub topic: Topic,
    /// Who it is, and where.
    pub node: Node,
    /// When it said so. Of two, the later one counts.
    pub made: UnixTime,
    /// Until when it holds.
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
    /// Signs it, and writes the record.
    ///
    /// # Errors
    /// [`Error::Invalid`] if its id is none of the signer's key.
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

    /// Reads a record, and checks that it is by whom it is about.
    ///
    /// # Errors
    /// [`Error::Record`] if it is no record or was not signed; [`Error::Garbled`] if what was signed is no announcement,
    /// or speaks for another node, or lasts longer than any may. A record that has expired is none of them.
    pub fn open(record: &[u8], registry: &Registry, now: UnixTime) -> Result<Self> {
        let opened = SignedRecord::open(record, CONTEXT, registry)?;
        let payload = opened.payload();
        let garbled = |rest: usize, reason: String| {
            Error::garbled("an announcement", payload.len().saturating_sub(rest), reason)
        };
        let (wire, rest): (Wire<'_>, _) =
            postcard::take_from_bytes(payload).map_err(|error| garbled(payload.len(), error.to_string()))?;
        if !rest.is_empty() {
            return Err(garbled(rest.len(), format!("{} bytes are left over", rest.len())));
        }
        let bad = |error: Error| garbled(payload.len(), error.to_string());
        let id = PeerId::new(wire.id);
        if !FINGERPRINTS.iter().any(|of| opened.signer(*of) == id) {
            return Err(garbled(
                payload.len(),
                format!("it speaks for {id}, whose key is another"),
            ));
        }
        let (made, expires) = (
            UnixTime::from_millis(wire.made),
            UnixTime::from_millis(wire.expires),
        );
        if expires.since(now) > MAX_TTL + CLOCKS || made.since(now) > CLOCKS {
            return Err(garbled(0, format!("it is made to last longer than {MAX_TTL:?}")));
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
