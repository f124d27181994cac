//! Runnable examples, and the command-line tool `p2putil`.
#![forbid(unsafe_code)]
