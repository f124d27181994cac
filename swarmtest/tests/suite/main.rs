//! The suite's own tests, in one program, so that what they share is compiled once.

mod mutants;
mod own;
mod profile;
mod reference;
mod sealed;
mod sim;
mod topology;
mod units;
mod wire;
