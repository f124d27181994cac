//! Benches of `p2p-swarms` beside libraries that are too heavy to be its dev-dependencies; the library is
//! empty.
#![forbid(unsafe_code)]
