//! The handshake: three messages, of which the second and the third prove identities.

use std::io;
use std::sync::LazyLock;

use aws_lc_rs::agreement::{PrivateKey, X25519};
use multiaddr::PeerId;
use p2p::{Error, Result};
use p2p_protocols::noise::{KEY, Primitives};
use snow::params::NoiseParams;
use snow::{Builder, HandshakeState};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use zeroize::Zeroizing;

use super::payload::Payload;
use super::transport::NoiseStream;
use crate::key::{KeyError, Keypair, PublicKey};

/// Maximum length of a handshake message in bytes: room for an RSA key of 8192 bits and its signature.
const MAX_MESSAGE: usize = 8192;

static PARAMS: LazyLock<NoiseParams> = LazyLock::new(|| {
    "Noise_XX_25519_ChaChaPoly_SHA256"
        .parse()
        .expect("a constant name of the Noise specification")
});

/// The reason for which a Noise handshake failed. The connection is of no further use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoiseError {
    /// The connection failed or ended.
    #[error("the connection failed within its handshake: {0}")]
    Io(#[from] io::Error),
    /// A message is longer than this host reads.
    #[error("a handshake message of {0} bytes exceeds the limit of {MAX_MESSAGE} bytes")]
    TooLong(usize),
    /// A message could not be processed.
    #[error("the Noise handshake failed: {0}")]
    Noise(#[from] snow::Error),
    /// The payload is not valid protobuf.
    #[error("the payload of a handshake message is not valid protobuf: {0}")]
    Payload(Box<str>),
    /// The identity is invalid, or did not sign the Noise static key.
    #[error("the identity in the handshake: {0}")]
    Identity(#[from] KeyError),
    /// Another peer answered than the one that was dialled.
    #[error("the peer is {}, not {}", .0.found, .0.expected)]
    OtherPeer(Box<OtherPeer>),
}

/// The peer that answered, and the one that was dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherPeer {
    /// The peer that answered.
    pub found: PeerId,
    /// The peer that was dialled.
    pub expected: PeerId,
}

/// The Noise static key of a host: a new one each time that the host starts.
pub struct NoiseKey {
    private: Zeroizing<[u8; KEY]>,
    public: [u8; KEY],
}

impl NoiseKey {
    /// Makes a key.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the system gives no randomness.
    pub fn generate() -> Result<Self> {
        let failed = |_| Error::invalid("Noise key", "the system gives no randomness for it");
        let mut private = Zeroizing::new([0; KEY]);
        aws_lc_rs::rand::fill(&mut *private).map_err(failed)?;
        let key = PrivateKey::from_private_key(&X25519, &*private);
        let public = key
            .map_err(|_| Error::invalid("Noise key", "it is not a key of X25519"))?
            .compute_public_key()
            .map_err(failed)?;
        let public = public.as_ref().first_chunk().copied().unwrap_or_default();
        Ok(Self { private, public })
    }
}

impl std::fmt::Debug for NoiseKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NoiseKey").finish_non_exhaustive()
    }
}

/// The role of a host in a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It dials, and expects this peer, or accepts any.
    Dialler(Option<PeerId>),
    /// It listens.
    Listener,
}

/// Performs a handshake. Returns the encrypted stream, the peer's key, and the muxer that both sides support, if
/// both named their muxers.
///
/// # Errors
/// Any [`NoiseError`]. The connection is of no further use.
///
/// # Limits
/// A message has at most 8192 bytes. The caller bounds the time.
///
/// # Cancel safety
/// A cancelled handshake leaves the connection of no use.
pub async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    mut io: S,
    role: Role,
    keypair: &Keypair,
    noise_key: &NoiseKey,
    muxers: &[&str],
) -> Result<(NoiseStream<S>, PublicKey, Option<String>), NoiseError> {
    let payload = Payload::encode(keypair, &noise_key.public, muxers);
    let builder = Builder::with_resolver(PARAMS.clone(), Box::new(Primitives::random()));
    let builder = builder.local_private_key(&*noise_key.private)?;
    let (mut state, peer) = match role {
        Role::Dialler(expected) => {
            let mut state = builder.build_initiator()?;
            write(&mut io, &mut state, &[]).await?;
            let peer = read_payload(&mut io, &mut state).await?;
            let found = peer.key.peer_id();
            if let Some(expected) = expected.filter(|expected| *expected != found) {
                return Err(NoiseError::OtherPeer(Box::new(OtherPeer { found, expected })));
            }
            write(&mut io, &mut state, &payload).await?;
            (state, peer)
        }
        Role::Listener => {
            let mut state = builder.build_responder()?;
            read(&mut io, &mut state).await?;
            write(&mut io, &mut state, &payload).await?;
            let peer = read_payload(&mut io, &mut state).await?;
            (state, peer)
        }
    };
    // The first of the dialler's muxers that the listener supports.
    let muxer = match role {
        Role::Dialler(_) => muxers
            .iter()
            .find(|muxer| peer.muxers.iter().any(|theirs| theirs == *muxer))
            .map(|muxer| (*muxer).to_owned()),
        Role::Listener => peer
            .muxers
            .iter()
            .find(|theirs| muxers.contains(&theirs.as_str()))
            .cloned(),
    };
    let (dialler, listener) = state.dangerously_get_raw_split();
    let (dialler, listener) = (Zeroizing::new(dialler), Zeroizing::new(listener));
    let stream = match role {
        Role::Dialler(_) => NoiseStream::new(io, &dialler, &listener),
        Role::Listener => NoiseStream::new(io, &listener, &dialler),
    };
    Ok((stream.ok_or(snow::Error::Decrypt)?, peer.key, muxer))
}

async fn write<S: AsyncWrite + Unpin>(
    io: &mut S,
    state: &mut HandshakeState,
    payload: &[u8],
) -> Result<(), NoiseError> {
    let mut message = vec![0; MAX_MESSAGE];
    let len = state.write_message(payload, &mut message)?;
    let frame = [
        &u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes()[..],
        message.get(..len).unwrap_or_default(),
    ];
    io.write_all(&frame.concat()).await?;
    io.flush().await?;
    Ok(())
}

async fn read<S: AsyncRead + Unpin>(io: &mut S, state: &mut HandshakeState) -> Result<Vec<u8>, NoiseError> {
    let len = usize::from(io.read_u16().await?);
    if len > MAX_MESSAGE {
        return Err(NoiseError::TooLong(len));
    }
    let mut message = vec![0; len];
    io.read_exact(&mut message).await?;
    let mut payload = vec![0; len];
    let len = state.read_message(&message, &mut payload)?;
    payload.truncate(len);
    Ok(payload)
}

async fn read_payload<S: AsyncRead + Unpin>(
    io: &mut S,
    state: &mut HandshakeState,
) -> Result<Payload, NoiseError> {
    let payload = read(io, state).await?;
    let static_key = state.get_remote_static().ok_or(snow::Error::Input)?;
    Payload::decode(&payload, static_key)
}
