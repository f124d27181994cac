//! The engines of a host: identify, the peer store, the dialer and the connection manager, in virtual time.

mod connection_ops;
mod connections;
mod dial;
mod dial_ops;
mod driver;
mod identify;
mod peer_ops;
mod peers;
