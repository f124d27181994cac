//! Runnable examples, and the command-line tool `p2putil`. This library contains the tested parts of the
//! tool, so that the whole tool need not be compiled a second time for tests.
#![forbid(unsafe_code)]

pub mod row;
pub mod table;
pub mod testbed;
pub mod transfer;

/// The code in the README, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
