//! A cell at an HTTP server (RFC 9110): `GET`, `PUT` and `DELETE` of one value, with its version as `ETag`.
//!
//! | request | answers |
//! | --- | --- |
//! | `GET /CELL` | 200 with the value and its `ETag`; 404 if there is none |
//! | `PUT /CELL` with `If-Match: ETAG`, or `If-None-Match: *` where there is none | 204 with the new `ETag`; 412 if the value is another |
//! | `DELETE /CELL` with `If-Match: ETAG` | 204; 412 |
//!
//! Each request has `Authorization: Bearer TOKEN`, whose SHA-256 is the cell's id: 401 without one, 403 with another's.
//! Besides there are 400 for what makes no sense, 405 for other methods, 408 for who is slow, 413 for a value that is too
//! long, 428 without a precondition, 429 for too many requests, and 507 if there is no room for another cell. Every
//! answer but 200 says in its body, in one line of text, what is wrong.
//!
//! A [`Token`] is what members of a tracker give each other: the URL of the cell, and the secret as its fragment, which
//! no client sends.
//!
//! Deliberately absent: TLS. Values are sealed before they leave, so that whoever listens learns what the server does:
//! which addresses ask for which cell, and the token that opens it. With that they can wipe the cell, but not read it.

mod client;
mod connections;
mod server;
mod sources;
mod store;
mod token;

use aws_lc_rs::digest::{SHA256, digest};

pub use client::HttpCell;
pub use server::{Served, TrackerServer};
pub use store::ServerConfig;
pub use token::Token;

/// The strong validator of a value (RFC 9110, section 8.8.3): half of its SHA-256 in hex.
fn etag(value: &[u8]) -> String {
    let hash = digest(&SHA256, value);
    let mut tag = String::from("\"");
    for byte in hash.as_ref().iter().take(16) {
        for digit in [byte >> 4, byte & 15] {
            tag.extend(char::from_digit(digit.into(), 16));
        }
    }
    tag.push('"');
    tag
}
