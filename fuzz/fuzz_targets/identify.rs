//! Any bytes are an error or an identification within the limits, whatever the pieces in which they arrive, and
//! what is read is written and read again.
#![no_main]
#![forbid(unsafe_code)]

use libfuzzer_sys::fuzz_target;
use p2p_protocols::identify::{Info, Limits, MAX_SENT, Reader, Received, WireError};

fn read(bytes: &[u8], piece: usize) -> Result<Received, WireError> {
    let mut reader = Reader::new(Limits::default());
    for piece in bytes.chunks(piece) {
        reader.handle_bytes(piece)?;
    }
    reader.finish()
}

fuzz_target!(|input: (u8, Vec<u8>)| {
    let (piece, bytes) = input;
    let received = read(&bytes, usize::from(piece).max(1));
    assert_eq!(read(&bytes, bytes.len().max(1)), received);
    let Ok(Received { info, .. }) = received else {
        return;
    };
    let limits = Limits::default();
    assert!(info.listen_addrs.len() <= limits.addrs && info.protocols.len() <= limits.protocols);
    let mut merged = Info::default();
    merged.update(info.clone());
    assert_eq!(merged, info);
    let Ok(encoded) = info.encode() else { return };
    assert!(encoded.bytes.len() <= MAX_SENT + 2);
    let mut again = read(&encoded.bytes, 100).expect("this side wrote it").info;
    let (protocols, addrs) = (info.protocols.len(), info.listen_addrs.len());
    assert_eq!(again.protocols.len(), protocols - encoded.omitted_protocols);
    assert_eq!(again.listen_addrs.len(), addrs - encoded.omitted_addrs);
    again.protocols.clone_from(&info.protocols);
    again.listen_addrs.clone_from(&info.listen_addrs);
    if encoded.omitted_record {
        again.signed_peer_record.clone_from(&info.signed_peer_record);
    }
    assert_eq!(again, info);
});
