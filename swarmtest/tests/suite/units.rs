//! Tests of what the library keeps to itself. They stand beside the code that they test, which is compiled here a second
//! time, since the library is not compiled for tests of its own.

#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "the library uses the rest"
)]

#[path = "../../src/chance.rs"]
mod chance;
#[path = "../../src/sim/mod.rs"]
mod sim;
