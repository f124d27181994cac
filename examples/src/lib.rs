//! Runnable examples, and the command-line tool `p2putil`.
#![forbid(unsafe_code)]

/// The code in the README, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
