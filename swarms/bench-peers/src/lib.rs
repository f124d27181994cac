//! Benches of `p2p-swarms` beside libraries that are too heavy to be its dev-dependencies; there is nothing else here.
#![forbid(unsafe_code)]
