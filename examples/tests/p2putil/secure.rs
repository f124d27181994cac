//! Two processes communicate over every kind of stack, and only with the intended peer.

use std::io::Write as _;
use std::process::Stdio;

use crate::keys::{Folder, ids};
use crate::process::{Listener, done, p2putil, refused, text};

/// Seeds of keys whose ids begin with a hyphen, found by search.
pub(crate) const HYPHEN_P2PKE: &str = "0000000000000000000000000000000000000000000000000000000000000004";
const HYPHEN_QUIC: &str = "000000000000000000000000000000000000000000000000000000000000005c";

/// Checks tells and asks from one process to another, over the given stack.
fn talk(stack: &str, asks: bool) {
    let mut listener = Listener::start(["listen", stack, "--echo"]);
    let addr = listener.addr();
    let told = done(["tell", stack, &addr, "hello", "--wait", "30"]);
    assert_eq!(told, format!("told {addr} 5 bytes\ntell {addr} echo:hello\n"));
    let heard = listener.line();
    assert!(heard.starts_with("tell ") && heard.ends_with(" hello"), "{heard}");
    if asks {
        assert_eq!(done(["ask", stack, &addr, "hello", "--timeout", "30"]), "olleh\n");
        let heard = listener.line();
        assert!(heard.starts_with("ask ") && heard.ends_with(" hello"), "{heard}");
    } else {
        let error = refused(["ask", stack, &addr, "hello"], 2);
        assert!(error.contains("does not support asks"), "{error}");
    }
}

macro_rules! two_processes_talk {
    ($($name:ident: $stack:literal, $asks:literal;)+) => {
        $(#[test]
        fn $name() {
            talk($stack, $asks);
        })+
    };
}

two_processes_talk! {
    two_processes_talk_over_fragments: "udp/frag=65536", false;
    two_processes_talk_over_a_channel: "udp/mux=chat", false;
    two_processes_talk_over_mbapp: "udp/mbapp", true;
    two_processes_talk_over_p2pke: "udp/p2pke", false;
    two_processes_talk_over_p2pke_and_fragments: "udp/p2pke/frag=65536", false;
    two_processes_talk_over_p2pke_and_mbapp: "udp/p2pke/mbapp", true;
    two_processes_talk_over_quic: "udp/quic", true;
    two_processes_talk_over_quic_on_a_channel: "udp,mtu=1400/mux=a/quic/mux=b", true;
}

#[test]
fn two_processes_talk_over_a_bad_network() {
    let mut listener = Listener::start(["listen", "udp/faulty,loss=0.1,seed=1/p2pke/mbapp", "--echo"]);
    let addr = listener.addr();
    // The losses are determined by the seed; each direction loses one in ten.
    let echoed = (0..30).any(|seed| {
        let stack = format!("udp/faulty,loss=0.1,seed={seed}/p2pke/mbapp");
        let told = p2putil(["tell", &stack, &addr, "hello", "--wait", "1"]).output();
        text(&told.expect("it runs").stdout).ends_with("echo:hello\n")
    });
    assert!(echoed);
    let asked = done([
        "ask",
        "udp/faulty,loss=0.1,seed=2/p2pke/mbapp",
        &addr,
        "hello",
        "--timeout",
        "30",
    ]);
    assert_eq!(asked, "olleh\n", "asks are retransmitted");
}

#[test]
fn a_message_without_a_waiting_reader_arrives() {
    for stack in ["udp/p2pke/frag=65536", "udp/faulty,delay=50/frag=65536"] {
        println!("{stack}");
        let mut listener = Listener::start(["listen", stack, "--json"]);
        let line: serde_json::Value = serde_json::from_str(&listener.line()).expect("JSON");
        let addr = line["addr"].as_str().expect("an address");
        let mut teller = p2putil(["tell", stack, addr, "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("it runs");
        let mut stdin = teller.stdin.take().expect("a pipe");
        stdin.write_all(&vec![b'x'; 60_000]).expect("it reads");
        drop(stdin);
        assert!(teller.wait().expect("it ends").success());
        let heard: serde_json::Value = serde_json::from_str(&listener.line()).expect("JSON");
        assert_eq!(heard["size"], 60_000, "{stack}");
    }
}

#[test]
fn a_wrong_id_at_the_right_address_is_an_error() {
    let folder = Folder::new("wrong");
    let [p2pke, quic] = ids(&done(["keygen", "--out", &folder.path("other.pem")]));
    for (stack, wrong) in [("udp/p2pke/mbapp", p2pke), ("udp/quic", quic)] {
        let listener = &mut Listener::start(["listen", stack]);
        let addr = listener.addr();
        let (_, place) = addr.split_once('@').expect("an id and an address");
        let wrong = format!("{wrong}@{place}");
        let error = refused(["tell", stack, &wrong, "hello"], 1);
        assert!(error.contains("error: "), "{error}");
        refused(["ask", stack, &wrong, "hello", "--timeout", "1"], 1);
        drop(p2putil(["tell", stack, &addr, "to you", "--wait", "0.5"]).output());
        assert!(listener.line().ends_with(" to you"), "nothing else arrived");
    }
}

#[test]
fn an_id_that_begins_with_a_hyphen_is_not_an_option() {
    // One id in 64 does.
    for (stack, seed) in [("udp/p2pke/mbapp", HYPHEN_P2PKE), ("udp/quic", HYPHEN_QUIC)] {
        let listener = &mut Listener::start(["listen", stack, "--echo", "--seed", seed]);
        let addr = listener.addr();
        assert!(addr.starts_with('-'), "{addr}");
        let told = done(["tell", stack, &addr, "-5", "--wait", "30"]);
        assert!(told.ends_with(" echo:-5\n"), "{told}");
        assert_eq!(done(["ask", "--timeout", "30", stack, &addr, "-5"]), "5-\n");
    }
}

#[test]
fn an_allow_list_of_ids_accepts_its_members() {
    let folder = Folder::new("allow");
    let (friend, other) = (folder.path("friend.pem"), folder.path("other.pem"));
    let [id, _] = ids(&done(["keygen", "--out", &friend]));
    done(["keygen", "--out", &other]);
    let mut listener = Listener::start(["listen", &format!("udp/p2pke/allow={id}")]);
    let addr = listener.addr();
    done(["tell", "udp/p2pke", &addr, "a stranger", "--key", &other]);
    done(["tell", "udp/p2pke", &addr, "a friend", "--key", &friend]);
    let heard = listener.line();
    assert!(
        heard.starts_with(&format!("tell {id}@")) && heard.ends_with(" a friend"),
        "{heard}"
    );
}

#[test]
fn an_unused_key_causes_a_warning() {
    let told = p2putil(["tell", "udp", "127.0.0.1:9", "hello", "--seed", &"0".repeat(64)]).output();
    let told = told.expect("it runs");
    assert_eq!(told.status.code(), Some(0));
    assert!(
        text(&told.stderr).contains("no layer of udp has a key"),
        "{}",
        text(&told.stderr)
    );
}

#[cfg(unix)]
#[test]
fn non_blocking_output_is_complete() {
    use std::io::Read as _;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    let mut listener = Listener::start(["listen", "udp/quic", "--echo"]);
    let addr = listener.addr();
    let (mut ours, theirs) = UnixStream::pair().expect("a pair");
    theirs.set_nonblocking(true).expect("set");
    let mut asker = p2putil(["ask", "udp/quic", &addr, "-"])
        .stdin(Stdio::piped())
        .stdout(OwnedFd::from(theirs))
        .spawn()
        .expect("it runs");
    let payload: Vec<u8> = (0..1_000_000_u32).map(|byte| b'a' + (byte % 26) as u8).collect();
    let mut stdin = asker.stdin.take().expect("a pipe");
    stdin.write_all(&payload).expect("it reads");
    drop(stdin);
    // More than the pipe holds, so that it was full before this reads.
    assert!(listener.line().len() > payload.len());
    let mut response = Vec::new();
    ours.read_to_end(&mut response).expect("read");
    assert!(asker.wait().expect("it ends").success());
    assert_eq!(response.pop(), Some(b'\n'));
    response.reverse();
    assert!(response == payload);
}
