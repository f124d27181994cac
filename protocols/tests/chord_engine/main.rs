//! One Chord node: what its bytes are, what it takes from others, and what it never takes.

#[path = "../chord/place.rs"]
mod place;

mod any;
mod floods;

mod identity;
mod liars;
mod operations;
mod records;
mod ring;
mod setup;
mod wire;
