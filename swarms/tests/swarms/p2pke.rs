//! P2PKE in use: exchanges, floods and attacks.

mod exchange;
mod floods;
mod hostile;
