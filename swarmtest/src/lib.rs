//! The laws of a swarm as a conformance suite.
#![forbid(unsafe_code)]
