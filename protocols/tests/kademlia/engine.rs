//! One Kademlia engine: its encoding, the requests it accepts, and those that it refuses.

mod contacts;
mod floods;
mod identity;
mod lookups;
mod operations;
mod providers;
mod records;
mod setup;
mod wire;
