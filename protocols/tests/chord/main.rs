//! Chord: distances, one engine, and rings of engines in virtual time.

mod engine;
#[path = "../hex/mod.rs"]
mod hex;
mod place;
mod ring;
mod rings;
mod vectors;
