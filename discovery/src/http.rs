//! A cell at an HTTP server (RFC 9110): `GET`, `PUT` and `DELETE` of one value, with its version as `ETag`.
//!
//! | request | responses |
//! | --- | --- |
//! | `GET /CELL` | 200 with the value and its `ETag`; 404 if there is none |
//! | `PUT /CELL` with `If-Match: ETAG`, or `If-None-Match: *` if there is no value | 204 with the new `ETag`; 412 if the value differs |
//! | `DELETE /CELL` with `If-Match: ETAG` | 204; 412 |
//!
//! Each request has `Authorization: Bearer TOKEN`. The cell's id is the SHA-256 of the token: the status is
//! 401 without a token, and 403 with that of another cell. Further statuses are 400 for an invalid request,
//! 405 for other methods, 408 for a slow client, 413 for a value that is too long, 428 without a
//! precondition, 429 for too many requests, and 507 if there is no room for another cell. Every response
//! except 200 has one line of text that describes the error.
//!
//! A [`Token`] is what members of a tracker share: the URL of the cell with the secret as its fragment, which
//! clients do not send.
//!
//! # Limits
//! All limits of the server are in [`ServerConfig`].
//!
//! # Security
//! Deliberately absent: TLS. Values are encrypted before they are sent, so an eavesdropper learns what the
//! server knows: which addresses access which cell, and the token for it. With the token it can overwrite the
//! cell, but not read its contents.

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

/// Returns the strong validator of a value (RFC 9110, section 8.8.3): half of its SHA-256 in hex.
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
