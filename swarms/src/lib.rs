//! Swarms over tokio: bases, and the layers that stack on any swarm.
#![forbid(unsafe_code)]

pub mod metrics;
