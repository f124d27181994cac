//! One Chord engine: its encoding, the requests it accepts, and those that it refuses.

mod any;
mod floods;
mod identity;
mod liars;
mod operations;
mod records;
mod ring;
mod setup;
mod wire;
