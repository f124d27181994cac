//! Benches of `p2p-swarms` beside rust-libp2p; the library is empty.
#![forbid(unsafe_code)]
