//! P2PKE as nodes use it: exchanges, what it counts and tells, and attacks.

mod events;
mod exchange;
mod floods;
mod hostile;
