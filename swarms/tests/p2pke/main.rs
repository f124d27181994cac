//! P2PKE as nodes use it: exchanges, floods and attacks.

mod exchange;
mod floods;
mod hostile;
