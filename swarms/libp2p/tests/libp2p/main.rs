//! Tests of the libp2p host, in one program: it links once, and tests that wait leave the cores to others.

mod addr;
mod bounds;
mod builtin;
mod certificates;
mod envelopes;
mod handshakes;
mod hosts;
mod identities;
mod kademlia;
mod managed;
mod many;
mod negotiation;
mod nodes;
mod noise;
mod over_swarms;
mod packets;
mod raw;
mod remembered;
mod secure;
mod stack;
mod swarms;
mod yamux;
