//! Benches of `p2p-swarms` beside rust-libp2p; there is nothing else here.
#![forbid(unsafe_code)]
