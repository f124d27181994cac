//! Runnable examples, and the command-line tool `p2putil`. This library contains the tested parts of the
//! tool, so that the whole tool need not be compiled a second time for tests.
#![forbid(unsafe_code)]

pub mod row;
pub mod table;
pub mod testbed;
pub mod transfer;

/// The code in the README, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// The code in the guide, compiled and run.
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../../docs/guide/compose.md")]
    struct Compose;
    #[doc = include_str!("../../docs/guide/filter.md")]
    struct Filter;
    #[doc = include_str!("../../docs/guide/layer.md")]
    struct Layer;
    #[doc = include_str!("../../docs/guide/base.md")]
    struct Base;
    #[doc = include_str!("../../docs/guide/overlay.md")]
    struct Overlay;
    #[doc = include_str!("../../docs/guide/prove.md")]
    struct Prove;
    #[doc = include_str!("../../docs/guide/simulate.md")]
    struct Simulate;
    #[doc = include_str!("../../docs/guide/libp2p.md")]
    struct Libp2p;
    #[doc = include_str!("../../docs/guide/run.md")]
    struct Run;
}
