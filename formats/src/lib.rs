//! Bytes that are stored or shared: varints, keys, what names their owners, and what they signed.
//!
//! Deliberately absent: I/O. Reading files and sending packets is the caller's.
#![forbid(unsafe_code)]

pub mod record;
pub mod varint;
pub mod x509;
