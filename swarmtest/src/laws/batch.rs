//! Laws of `tell_batch` and `receive_batch`.

mod receiving;
mod telling;

pub use receiving::*;
pub use telling::*;
