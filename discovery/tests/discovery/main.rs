//! Tests of discovery, in one program: it links once, and tests that wait leave the cores to others.

mod cell;
mod combined;
mod dns;
mod folder;
mod http;
mod laws;
mod mdns;
mod peering;
mod testbeds;
mod tracker;
