//! The handshake `Noise_NN_25519_ChaChaPoly_BLAKE2b`.

use std::sync::LazyLock;

use snow::params::NoiseParams;
use snow::{Builder, HandshakeState};

use crate::noise::{Ephemeral, Primitives};

static PARAMS: LazyLock<NoiseParams> = LazyLock::new(|| {
    "Noise_NN_25519_ChaChaPoly_BLAKE2b"
        .parse()
        .expect("a constant name of the Noise specification")
});

/// Returns the state of a handshake before its first message.
pub(super) fn handshake(initiator: bool, ephemeral: Ephemeral) -> Result<Box<HandshakeState>, snow::Error> {
    let primitives = Box::new(Primitives::with_ephemeral(ephemeral));
    let builder = Builder::with_resolver(PARAMS.clone(), primitives);
    let state = if initiator {
        builder.build_initiator()
    } else {
        builder.build_responder()
    };
    state.map(Box::new)
}
