//! Keys: created, stored in files, and refused with a reason.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::process::{Listener, done, refused};

/// The all-zero seed, and the ids of its key: the first row of `peer_id.json`, recorded from go-p2p.
const ZERO: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const ZERO_PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n\
    -----END PRIVATE KEY-----\n";
const ZERO_P2PKE: &str = "LJkJe1cDe5x23Eur33HIrBm_oMk3jETvovlQA_da77-";
const ZERO_QUIC: &str = "ubKvpUaLkkOttGH2mxmO0lu78cu2FIymeWjVe6noV7F";
/// A key of an unsupported algorithm: RSA, without its numbers.
const RSA_PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
    MBICAQAwCwYJKoZIhvcNAQEBBAA=\n\
    -----END PRIVATE KEY-----\n";

/// A folder for one test, which is removed afterwards.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    /// Returns the path of a file in it.
    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("UTF-8").to_owned()
    }

    /// Creates a file in it.
    pub(crate) fn file(&self, name: &str, content: &str) -> String {
        let path = self.path(name);
        fs::write(&path, content).expect("written");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Returns the two ids in `shown`, p2pke's first.
#[track_caller]
pub(crate) fn ids(shown: &str) -> [String; 2] {
    let lines: Vec<_> = shown.lines().map(|line| line.split_once(' ')).collect();
    let [Some(("p2pke", p2pke)), Some(("quic", quic))] = lines[..] else {
        panic!("{shown:?}");
    };
    [p2pke, quic].map(str::to_owned)
}

#[test]
fn a_key_is_created_once_and_has_the_same_ids_everywhere() {
    let folder = Folder::new("round-trip");
    let path = folder.path("node.pem");
    let made = done(["keygen", "--out", &path]);
    assert_eq!(made, done(["id", &path]));
    let [p2pke, quic] = ids(&made);
    assert_ne!(p2pke, quic);
    for (stack, id) in [("udp/p2pke/frag", &p2pke), ("udp/quic", &quic)] {
        let addr = Listener::start(["listen", stack, "--key", &path]).addr();
        assert!(addr.starts_with(&format!("{id}@127.0.0.1:")), "{addr}");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let permissions = fs::metadata(&path).expect("it is there").permissions();
        assert_eq!(permissions.mode() & 0o777, 0o600);
    }
    let before = fs::read(&path).expect("it is there");
    let error = refused(["keygen", "--out", &path], 1);
    assert!(error.contains("node.pem") && error.contains("exists"), "{error}");
    assert_eq!(
        fs::read(&path).expect("it is there"),
        before,
        "nothing is overwritten"
    );
    assert_ne!(made, done(["keygen", "--out", &folder.path("other.pem")]));
}

#[test]
fn a_key_from_standard_output_is_valid() {
    let folder = Folder::new("stdout");
    let pem = done(["keygen"]);
    assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n"), "{pem}");
    ids(&done(["id", &folder.file("a.pem", &pem)]));
    let json: Value = serde_json::from_str(&done(["keygen", "--json"])).expect("JSON");
    let path = folder.file("b.pem", json["pem"].as_str().expect("a key"));
    let named: Value = serde_json::from_str(&done(["id", &path, "--json"])).expect("JSON");
    assert!(named["quic"].is_string() && named["p2pke"].is_string(), "{named}");
    assert_eq!((&json["p2pke"], &json["quic"]), (&named["p2pke"], &named["quic"]));
}

#[test]
fn a_known_seed_has_the_known_ids() {
    let folder = Folder::new("known");
    assert_eq!(
        ids(&done(["id", &folder.file("zero.pem", ZERO_PEM)])),
        [ZERO_P2PKE, ZERO_QUIC]
    );
    for (stack, id) in [("udp/p2pke", ZERO_P2PKE), ("udp/quic", ZERO_QUIC)] {
        let addr = Listener::start(["listen", stack, "--seed", ZERO]).addr();
        assert!(addr.starts_with(&format!("{id}@")), "{addr}");
    }
}

#[test]
fn a_bad_key_is_an_error_with_a_reason() {
    let folder = Folder::new("bad");
    let public = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAO2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik=\n\
        -----END PUBLIC KEY-----\n";
    let cut = ZERO_PEM.replace("AAAA\n-", "\n-");
    for (name, content, why) in [
        ("garbage.pem", "garbage", "no line -----BEGIN PRIVATE KEY-----"),
        ("public.pem", public, "\"PUBLIC KEY\""),
        ("cut.pem", &cut, "DER"),
        ("rsa.pem", RSA_PEM, "1.2.840.113549.1.1.1"),
    ] {
        let path = folder.file(name, content);
        let error = refused(["listen", "udp/quic", "--key", &path], 1);
        assert!(error.contains(name) && error.contains(why), "{error}");
    }
    let error = refused(
        [
            "tell",
            "udp/p2pke",
            "x@127.0.0.1:1",
            "hello",
            "--key",
            &folder.path("none"),
        ],
        1,
    );
    assert!(error.contains("none cannot be read"), "{error}");
    let shown = done(["id", &folder.file("public.pem", public)]);
    assert_eq!(
        ids(&shown),
        [ZERO_P2PKE, ZERO_QUIC],
        "a public key has ids as well"
    );
}

#[cfg(unix)]
#[test]
fn a_key_that_other_users_can_read_causes_a_warning() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = Folder::new("shared");
    let key = folder.path("node.pem");
    done(["keygen", "--out", &key]);
    let told = |mode| {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).expect("it is ours");
        let args = ["tell", "mem=shared/p2pke", "an address", "hello", "--key", &key];
        refused(args, 2)
    };
    assert!(!told(0o600).contains("warning"));
    for mode in [0o640, 0o604] {
        let warning = told(mode);
        assert!(
            warning.starts_with("warning: ") && warning.contains(&format!("chmod 600 {key}")),
            "{warning}"
        );
    }
}

#[test]
fn an_invalid_seed_is_a_usage_error() {
    for (seed, why) in [("00", "there are 2"), ("zz", "something else")] {
        let error = refused(["listen", "udp/quic", "--seed", seed], 2);
        assert!(error.contains("64 hex digits") && error.contains(why), "{error}");
    }
    let error = refused(["listen", "udp/quic", "--seed", ZERO, "--key", "a.pem"], 2);
    assert!(error.contains("cannot be used with"), "{error}");
}
