//! Detects datagrams that no QUIC endpoint can use, before quinn drops them silently.

use p2p::DropReason;

/// Minimum length of a valid datagram: a stateless reset (RFC 9000, section 10.3).
const SHORTEST: usize = 21;

/// Minimum length of a datagram that starts a connection, or is answered with version negotiation (RFC 9000,
/// sections 5.2.2 and 14.1).
const SHORTEST_FIRST: usize = 1200;

/// The bit of the first byte that announces a version (RFC 8999, section 5.1).
const LONG_HEADER: u8 = 0x80;

/// Maximum length of a connection id in version 1.
const LONGEST_ID: u8 = 20;

/// Checks the parts of a datagram's header that need no key.
///
/// # Errors
/// Returns [`DropReason::Malformed`] for a datagram that is too short, has an unknown version, or too long a
/// connection id.
pub(super) fn check(datagram: &[u8]) -> Result<(), DropReason> {
    if datagram.len() < SHORTEST {
        return Err(DropReason::Malformed);
    }
    let Some((first, rest)) = datagram.split_first() else {
        return Err(DropReason::Malformed);
    };
    if first & LONG_HEADER == 0 {
        return Ok(());
    }
    let Some((version, rest)) = rest.split_first_chunk() else {
        return Err(DropReason::Malformed);
    };
    // Version 0 is negotiation; 0xff000000 and above are the drafts that quinn supports.
    let spoken = matches!(u32::from_be_bytes(*version), 0 | 1 | 0xff00_0000..=0xff00_00ff);
    let is_usable = if spoken {
        rest.first().is_some_and(|length| *length <= LONGEST_ID)
    } else {
        datagram.len() >= SHORTEST_FIRST
    };
    if is_usable {
        Ok(())
    } else {
        Err(DropReason::Malformed)
    }
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
    fn unusable_datagrams_are_malformed_and_others_pass() {
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
