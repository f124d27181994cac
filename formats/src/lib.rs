//! Bytes that are stored or shared: varints, keys, and what names their owners.
//!
//! Deliberately absent: I/O. Reading files and sending packets is the caller's.
#![forbid(unsafe_code)]

pub mod varint;
pub mod x509;
