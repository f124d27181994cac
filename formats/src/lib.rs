//! Bytes that are stored or shared.
#![forbid(unsafe_code)]

pub mod varint;
