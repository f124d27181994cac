//! Any bytes are a frame with a channel that round-trips, or a typed error.
#![no_main]
#![forbid(unsafe_code)]

use libfuzzer_sys::fuzz_target;
use p2p_protocols::mux::{Channel, Name, Varint};

/// Parses a frame, then the encoded header of its channel.
fn check<C: Channel>(frame: &[u8], channel: impl Fn(&C::Key) -> C) {
    let Ok((key, len)) = C::read(frame) else { return };
    assert!(len <= frame.len());
    let header = channel(&key).header();
    let again = C::read(&header).map(|(again, len)| (again == key, len));
    assert_eq!(again.ok(), Some((true, header.len())));
}

fuzz_target!(|frame: &[u8]| {
    check::<Name>(frame, |name| Name::from(name));
    check::<u16>(frame, |channel| *channel);
    check::<u32>(frame, |channel| *channel);
    check::<u64>(frame, |channel| *channel);
    check::<Varint>(frame, |channel| *channel);
});
