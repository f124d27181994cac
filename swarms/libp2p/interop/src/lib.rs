//! Empty: this package has only benches, which need rust-libp2p.
