//! One Chord node: what its bytes are, what it takes from others, and what it never takes.

mod any;
mod floods;
mod identity;
mod liars;
mod operations;
mod records;
mod ring;
mod setup;
mod wire;
