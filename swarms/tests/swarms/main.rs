//! Tests of the swarms, in one program: it links once, and tests that wait leave the cores to others.
//!
//! Separate programs count what is allocated (`alloc`, `flood`, `gossip_memory`, `p2pke_flood`) or read what is traced
//! (`p2pke_events`), find mutants (`layer_laws`), and check the generated matrix of layers (`stacks`).

mod conformance;
mod conformance_gossip;
mod conformance_overlay;
mod conformance_p2pke;
mod conformance_quic;
mod drive;
mod gossip;
mod gossip_exchange;
mod gossip_lossy;
mod key_addr;
mod mbapp;
mod overlay_floods;
mod overlays;
mod p2pke;
mod replay;
mod stack_gossip;
mod udp;
mod udp_addr;
