//! Tests of the libp2p host, in one program: it links once, and tests that wait leave the cores to others.

mod addr;
mod bounds;
mod certificates;
mod envelopes;
mod hosts;
mod identities;
mod managed;
mod many;
mod negotiation;
mod nodes;
mod over_swarms;
mod remembered;
mod secure;
mod swarms;
