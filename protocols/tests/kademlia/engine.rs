//! One Kademlia node: what its bytes are, what it takes from others, and what it never takes.

mod contacts;
mod floods;
mod identity;
mod lookups;
mod operations;
mod providers;
mod records;
mod setup;
mod wire;
