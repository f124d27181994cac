//! The primitives of Noise handshakes and transports, for the state machine of the crate `snow`.
//!
//! X25519, ChaCha20-Poly1305 and SHA-256 are those of aws-lc-rs, `BLAKE2b` is that of `blake2b_simd`; each is much
//! faster than snow's. [`p2pke`](crate::p2pke) is built on them, and so is the secure channel of libp2p.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::digest::{Context, SHA256};
use blake2b_simd::State;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use zeroize::Zeroizing;

/// Length of a key of X25519 and of the cipher, in bytes.
pub const KEY: usize = 32;
/// Length of the tag of a message, in bytes.
pub const TAG: usize = 16;

/// The randomness of one ephemeral key.
pub type Ephemeral = Zeroizing<[u8; KEY]>;

/// Returns the key of one direction of a transport; `None` only if the library cannot allocate.
pub fn aead_key(key: &[u8; KEY]) -> Option<LessSafeKey> {
    UnboundKey::new(&CHACHA20_POLY1305, key)
        .ok()
        .map(LessSafeKey::new)
}

/// Returns the nonce of a message: four zeros and the counter, little endian (Noise specification, 12.3).
pub fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    if let Some(tail) = nonce.last_chunk_mut::<8>() {
        *tail = counter.to_le_bytes();
    }
    Nonce::assume_unique_for_key(nonce)
}

/// Resolves the primitives of one handshake: X25519, ChaCha20-Poly1305, and SHA-256 or `BLAKE2b`.
#[derive(Debug)]
pub struct Primitives(Option<Ephemeral>);

impl Primitives {
    /// Draws the ephemeral key from the system.
    pub fn random() -> Self {
        Self(None)
    }

    /// Takes the ephemeral key from the caller. A handshake that draws further bytes fails.
    pub fn with_ephemeral(ephemeral: Ephemeral) -> Self {
        Self(Some(ephemeral))
    }
}

impl CryptoResolver for Primitives {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(match &self.0 {
            Some(ephemeral) => Box::new(Once(Some(ephemeral.clone()))),
            None => Box::new(SystemRandomness),
        })
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| Box::new(Curve25519::default()) as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        match choice {
            HashChoice::SHA256 => Some(Box::new(Sha256(Context::new(&SHA256)))),
            HashChoice::Blake2b => Some(Box::new(Blake2b(State::new()))),
            _ => None,
        }
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        matches!(choice, CipherChoice::ChaChaPoly).then(|| Box::new(ChaChaPoly(None)) as Box<dyn Cipher>)
    }
}

struct SystemRandomness;

impl Random for SystemRandomness {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        aws_lc_rs::rand::fill(dest).map_err(|_| snow::Error::Rng)
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
    private: Zeroizing<[u8; KEY]>,
    public: [u8; KEY],
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
        KEY
    }

    fn priv_len(&self) -> usize {
        KEY
    }

    fn set(&mut self, privkey: &[u8]) {
        self.key = None;
        if let Ok(private) = privkey.try_into() {
            self.private = Zeroizing::new(private);
            // This call cannot report an error; without a key, the handshake fails with `Dh` when it needs one.
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
        let peer = pubkey.first_chunk::<KEY>().ok_or(snow::Error::Dh)?;
        let out = out.first_chunk_mut::<KEY>().ok_or(snow::Error::Dh)?;
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

struct Sha256(Context);

impl Hash for Sha256 {
    fn name(&self) -> &'static str {
        "SHA256"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        self.0 = Context::new(&SHA256);
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        let hash = std::mem::replace(&mut self.0, Context::new(&SHA256)).finish();
        for (out, byte) in out.iter_mut().zip(hash.as_ref()) {
            *out = *byte;
        }
    }
}

struct Blake2b(State);

impl Hash for Blake2b {
    fn name(&self) -> &'static str {
        "BLAKE2b"
    }

    fn block_len(&self) -> usize {
        128
    }

    fn hash_len(&self) -> usize {
        64
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

    fn set(&mut self, key: &[u8; KEY]) {
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
