//! Datagrams that no QUIC endpoint can use, recognized before QUIC's library drops them without a word.

use p2p::Reason;

/// Bytes of the shortest datagram that means anything: a stateless reset (RFC 9000, section 10.3).
const SHORTEST: usize = 21;

/// Bytes of the shortest datagram that begins a connection or is answered with the versions that are known (RFC 9000,
/// sections 5.2.2 and 14.1).
const SHORTEST_FIRST: usize = 1200;

/// The bit of a first byte that says that a version follows (RFC 8999, section 5.1).
const LONG_HEADER: u8 = 0x80;

/// Bytes of the longest connection id of version 1.
const LONGEST_ID: u8 = 20;

/// Checks the parts of a datagram's header that need no key.
///
/// # Errors
/// [`Reason::Malformed`] for what is too short, has a version that is not spoken here, or too long a connection id.
pub(super) fn check(datagram: &[u8]) -> Result<(), Reason> {
    if datagram.len() < SHORTEST {
        return Err(Reason::Malformed);
    }
    let Some((first, rest)) = datagram.split_first() else {
        return Err(Reason::Malformed);
    };
    if first & LONG_HEADER == 0 {
        return Ok(());
    }
    let Some((version, rest)) = rest.split_first_chunk() else {
        return Err(Reason::Malformed);
    };
    // No version is negotiation, and 0xff000000 and what follows are the drafts that QUIC's library speaks.
    let spoken = matches!(u32::from_be_bytes(*version), 0 | 1 | 0xff00_0000..=0xff00_00ff);
    let is_usable = if spoken {
        rest.first().is_some_and(|length| *length <= LONGEST_ID)
    } else {
        datagram.len() >= SHORTEST_FIRST
    };
    if is_usable { Ok(()) } else { Err(Reason::Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(head: &[u8], len: usize) -> Vec<u8> {
        let mut datagram = head.to_vec();
        datagram.resize(len, 0);
        datagram
    }

    #[test]
    fn what_no_endpoint_can_use_is_malformed_and_the_rest_is_left_to_the_endpoint() {
        let v1 = [0xc0, 0, 0, 0, 1, 8];
        let long_id = [0xc0, 0, 0, 0, 1, 21];
        let (negotiation, draft) = ([0x80, 0, 0, 0, 0, 8], [0xc0, 0xff, 0, 0, 29, 8]);
        let unknown = [0xc0, 1, 2, 3, 4, 8];
        for (head, len, passes) in [
            (&[][..], 0, false),
            (&[0x40], 20, false),
            (&[0x40], 21, true),
            (&v1, 20, false),
            (&v1, 21, true),
            (&long_id, 1200, false),
            (&negotiation, 27, true),
            (&draft, 1200, true),
            (&unknown, 1199, false),
            (&unknown, 1200, true),
        ] {
            let checked = check(&datagram(head, len));
            assert_eq!(checked.is_ok(), passes, "{head:x?} of {len} bytes: {checked:?}");
        }
    }
}
