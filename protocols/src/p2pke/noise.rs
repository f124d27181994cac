//! The handshake `Noise_NN_25519_ChaChaPoly_BLAKE2b`: snow's state machine with other primitives.
//!
//! X25519 and ChaCha20-Poly1305 are those of aws-lc-rs, `BLAKE2b` is that of `blake2b_simd`; each is much
//! faster than snow's. The randomness of the ephemeral key is an argument.

use std::sync::LazyLock;

use aws_lc_rs::aead::{Aad, LessSafeKey};
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use blake2b_simd::State;
use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};
use zeroize::Zeroizing;

use super::transport::{aead_key, nonce};
use super::wire::TAG;

const DH_LEN: usize = 32;
const HASH_LEN: usize = 64;
const BLOCK_LEN: usize = 128;

/// The randomness of one ephemeral key.
pub(super) type Ephemeral = Zeroizing<[u8; DH_LEN]>;

static PARAMS: LazyLock<NoiseParams> = LazyLock::new(|| {
    "Noise_NN_25519_ChaChaPoly_BLAKE2b"
        .parse()
        .expect("a constant name of the Noise specification")
});

/// Returns the state of a handshake before its first message.
pub(super) fn handshake(initiator: bool, ephemeral: Ephemeral) -> Result<Box<HandshakeState>, snow::Error> {
    let builder = Builder::with_resolver(PARAMS.clone(), Box::new(Primitives(ephemeral)));
    let state = if initiator {
        builder.build_initiator()
    } else {
        builder.build_responder()
    };
    state.map(Box::new)
}

struct Primitives(Ephemeral);

impl CryptoResolver for Primitives {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Once(Some(self.0.clone()))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| Box::new(Curve25519::default()) as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        matches!(choice, HashChoice::Blake2b).then(|| Box::new(Blake2b(State::new())) as Box<dyn Hash>)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        matches!(choice, CipherChoice::ChaChaPoly).then(|| Box::new(ChaChaPoly(None)) as Box<dyn Cipher>)
    }
}

/// Returns its bytes once: a handshake draws one ephemeral key.
struct Once(Option<Ephemeral>);

impl Random for Once {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        let bytes = self.0.take().ok_or(snow::Error::Rng)?;
        if dest.len() != bytes.len() {
            return Err(snow::Error::Rng);
        }
        dest.copy_from_slice(&*bytes);
        Ok(())
    }
}

#[derive(Default)]
struct Curve25519 {
    key: Option<PrivateKey>,
    private: Zeroizing<[u8; DH_LEN]>,
    public: [u8; DH_LEN],
}

impl Curve25519 {
    fn load(&mut self) -> Result<(), snow::Error> {
        let key = PrivateKey::from_private_key(&X25519, &*self.private).map_err(|_| snow::Error::Dh)?;
        let public = key.compute_public_key().map_err(|_| snow::Error::Dh)?;
        self.public = public.as_ref().try_into().map_err(|_| snow::Error::Dh)?;
        self.key = Some(key);
        Ok(())
    }
}

impl Dh for Curve25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        DH_LEN
    }

    fn priv_len(&self) -> usize {
        DH_LEN
    }

    fn set(&mut self, privkey: &[u8]) {
        self.key = None;
        if let Ok(private) = privkey.try_into() {
            self.private = Zeroizing::new(private);
            // This call cannot report an error; without a key, the handshake fails with `Dh` when it needs
            // one.
            let _ = self.load();
        }
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        rng.try_fill_bytes(&mut *self.private)?;
        self.load()
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &*self.private
    }

    /// Fails for points of low order, because the shared secret would be public.
    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        let key = self.key.as_ref().ok_or(snow::Error::Dh)?;
        let peer = pubkey.first_chunk::<DH_LEN>().ok_or(snow::Error::Dh)?;
        let out = out.first_chunk_mut::<DH_LEN>().ok_or(snow::Error::Dh)?;
        agree(
            key,
            UnparsedPublicKey::new(&X25519, peer),
            snow::Error::Dh,
            |secret| {
                *out = secret.try_into().map_err(|_| snow::Error::Dh)?;
                Ok(())
            },
        )
    }
}

struct Blake2b(State);

impl Hash for Blake2b {
    fn name(&self) -> &'static str {
        "BLAKE2b"
    }

    fn block_len(&self) -> usize {
        BLOCK_LEN
    }

    fn hash_len(&self) -> usize {
        HASH_LEN
    }

    fn reset(&mut self) {
        self.0 = State::new();
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        let hash = self.0.finalize();
        for (out, byte) in out.iter_mut().zip(hash.as_bytes()) {
            *out = *byte;
        }
    }
}

struct ChaChaPoly(Option<LessSafeKey>);

impl Cipher for ChaChaPoly {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.0 = aead_key(key);
    }

    /// Snow provides room for the tag in `out` and accepts no error; without a key, the output is zeros.
    fn encrypt(&self, counter: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let len = plaintext.len() + TAG;
        let Some(out) = out.get_mut(..len) else {
            return 0;
        };
        out.fill(0);
        if let (Some(key), Some((body, tag))) = (&self.0, out.split_last_chunk_mut::<TAG>()) {
            body.copy_from_slice(plaintext);
            match key.seal_in_place_separate_tag(nonce(counter), Aad::from(authtext), body) {
                Ok(sealed) => tag.copy_from_slice(sealed.as_ref()),
                Err(_) => out.fill(0),
            }
        }
        len
    }

    fn decrypt(
        &self,
        counter: u64,
        authtext: &[u8],
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, snow::Error> {
        let key = self.0.as_ref().ok_or(snow::Error::Decrypt)?;
        let (body, tag) = ciphertext.split_last_chunk::<TAG>().ok_or(snow::Error::Decrypt)?;
        let out = out.get_mut(..body.len()).ok_or(snow::Error::Decrypt)?;
        key.open_separate_gather(nonce(counter), Aad::from(authtext), body, tag, out)
            .map_err(|_| snow::Error::Decrypt)?;
        Ok(body.len())
    }
}
