//! `keygen` and `id`: keys in files, and their ids.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;

use p2p_formats::x509::{KeyError, PrivateKey, PublicKey, Registry, sha3_256, shake256};
use p2p_swarms::stack::StackText;
use serde_json::{Value, json};

use crate::Failure;
use crate::cli::{Id, Key, Keygen};
use crate::output::{Out, complain, print};

/// Maximum number of bytes of a key file that are read.
const MOST: u64 = 64 << 10;

pub(crate) fn keygen(args: &Keygen, out: Out) -> Result<(), Failure> {
    let key = new();
    let public = public(&key)?;
    let Some(path) = &args.out else {
        let pem = key.to_pem();
        if out.is_json() {
            return print(&with_ids(json!({ "pem": *pem }), &public).to_string());
        }
        return print(pem.trim_end());
    };
    write(path, key.to_pem().as_bytes()).map_err(|error| failed(path, "cannot be created", &error))?;
    show(&public, json!({ "file": path.display().to_string() }), out)
}

pub(crate) fn id(args: &Id, out: Out) -> Result<(), Failure> {
    let text = read(&args.file)?;
    let key = match PrivateKey::from_pem(&text) {
        Err(KeyError::PemLabel { found, .. }) if *found == *"PUBLIC KEY" => PublicKey::from_pem(&text),
        Err(error) => Err(error),
        Ok(key) => return show(&public_of(&args.file, &key)?, json!({}), out),
    };
    show(&key.map_err(|error| no_key(&args.file, &error))?, json!({}), out)
}

impl Key {
    /// Reads the key that the command line names, or creates a new one.
    pub(crate) fn read(&self, stack: &StackText) -> Result<PrivateKey, Failure> {
        if !stack.takes_key() && (self.key.is_some() || self.seed.is_some()) {
            complain(&format!(
                "warning: no layer of {stack} has a key; the given one is ignored"
            ));
        }
        self.load()
    }

    /// Reads the key that the command line names, or creates a new one, for a node that has a key in any case.
    pub(crate) fn load(&self) -> Result<PrivateKey, Failure> {
        if let Some(seed) = &self.seed {
            return Ok(PrivateKey::ed25519(seed));
        }
        let Some(path) = &self.key else {
            return Ok(new());
        };
        warn_if_shared(path);
        let key = PrivateKey::from_pem(&read(path)?).map_err(|error| no_key(path, &error))?;
        public_of(path, &key)?;
        Ok(key)
    }
}

/// Returns a new random key.
pub(crate) fn new() -> PrivateKey {
    PrivateKey::ed25519(&rand::random())
}

/// Warns of a key file that users other than its owner can read or write.
#[cfg(unix)]
fn warn_if_shared(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;

    let mode = fs::metadata(path).map(|file| file.permissions().mode());
    if mode.is_ok_and(|mode| mode & 0o077 != 0) {
        let path = path.display();
        complain(&format!(
            "warning: users other than its owner have access to the private key {path}; to end that: chmod 600 {path}"
        ));
    }
}

#[cfg(not(unix))]
fn warn_if_shared(_: &Path) {}

fn public(key: &PrivateKey) -> Result<PublicKey, KeyError> {
    Ok(Registry::default().signer(key)?.public_key().clone())
}

fn public_of(path: &Path, key: &PrivateKey) -> Result<PublicKey, Failure> {
    public(key).map_err(|error| no_key(path, &error))
}

fn show(key: &PublicKey, object: Value, out: Out) -> Result<(), Failure> {
    if out.is_json() {
        return print(&with_ids(object, key).to_string());
    }
    print(&format!("p2pke {}\nquic {}", shake256(key), sha3_256(key)))
}

fn with_ids(mut object: Value, key: &PublicKey) -> Value {
    object["p2pke"] = shake256(key).to_string().into();
    object["quic"] = sha3_256(key).to_string().into();
    object
}

fn read(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let file = File::open(path).and_then(|file| file.take(MOST).read_to_string(&mut text));
    file.map_err(|error| failed(path, "cannot be read", &error))?;
    Ok(text)
}

/// Creates a file that only its owner can read; no partial file is left if that fails.
fn write(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    let written = file.write_all(text).and_then(|()| file.sync_all());
    if written.is_err() {
        // The first error is more informative than one from this call.
        drop(fs::remove_file(path));
    }
    written
}

fn failed(path: &Path, what: &str, error: &std::io::Error) -> Failure {
    Failure::Failed(format!("{} {what}: {error}", path.display()))
}

fn no_key(path: &Path, error: &KeyError) -> Failure {
    Failure::Failed(format!(
        "{} does not contain a usable key: {error}",
        path.display()
    ))
}

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        Failure::Failed(error.to_string())
    }
}
