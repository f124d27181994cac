//! Processes that publish, subscribe and chat, on loopback.

use std::io::Write as _;
use std::process::{ChildStdin, Stdio};

use serde_json::Value;

use crate::process::{Listener, done, p2putil, refused};
use crate::secure::HYPHEN_P2PKE;

const STACK: &str = "udp=127.0.0.1:0/p2pke/frag";

/// Starts a chat; returns it with its standard input.
fn chatter<const N: usize>(args: [&str; N]) -> (Listener, ChildStdin) {
    let mut command = p2putil(["chat", "--stack", STACK]);
    command.args(args).stdin(Stdio::piped());
    let mut chatter = Listener::spawn(command);
    let stdin = chatter.stdin();
    (chatter, stdin)
}

/// Reads lines up to one that ends with `end`.
fn until(listener: &mut Listener, end: &str) -> String {
    loop {
        let line = listener.line();
        if line.ends_with(end) {
            return line;
        }
    }
}

#[test]
fn two_processes_chat_and_end_with_their_input() {
    // Her id begins with a hyphen, and must not be parsed as an option.
    let ann = [
        "--name",
        "ann",
        "--seed",
        HYPHEN_P2PKE,
        "--announce",
        "mdns,loopback,port=9",
    ];
    let (mut ann, mut to_ann) = chatter(ann);
    let addr = ann.addr();
    assert!(addr.starts_with('-'), "{addr}");
    let (mut bob, mut to_bob) = chatter(["--name", "bob", "--peer", &addr]);
    until(&mut ann, " came");
    until(&mut bob, " came");
    writeln!(to_ann, "hello, bob").expect("it reads");
    let (id, _) = addr.split_once('@').expect("an id");
    assert_eq!(
        until(&mut bob, "hello, bob"),
        format!("[{}] ann: hello, bob", &id[..8])
    );
    writeln!(to_bob, "hello, ann\u{7}").expect("it reads");
    let heard = until(&mut ann, "hello, ann\\u{7}");
    assert!(heard.contains("] bob: "), "{heard}");
    drop(to_bob);
    until(&mut ann, " went");
    assert_eq!(bob.ended(), Some(0));
    drop(to_ann);
    let (code, rest) = ann.end();
    assert_eq!((code, rest), (Some(0), Vec::new()), "he leaves once");
}

#[test]
fn a_published_message_reaches_subscribers_that_know_each_other() {
    let stack = "udp=127.0.0.1:0/p2pke/gossip=news";
    let mut first = Listener::start(["sub", stack, "--json"]);
    let line = until(&mut first, "}");
    assert!(line.contains("news"), "{line}");
    let bootstrap = loop {
        let line: Value = serde_json::from_str(&first.line()).expect("JSON");
        if let Some(addr) = line["bootstrap"].as_str() {
            break addr.to_owned();
        }
    };
    let with_peers = format!("{stack},peers={bootstrap}");
    let published = done(["pub", &with_peers, "extra! extra!", "--wait", "30"]);
    assert_eq!(published, "published news 13 bytes to 1 peers\n");
    let heard: Value = serde_json::from_str(&first.line()).expect("JSON");
    assert_eq!(
        (&heard["event"], &heard["text"]),
        (&"message".into(), &"extra! extra!".into())
    );
    assert!(
        heard["src"].as_str().is_some_and(|src| src.starts_with("news@")),
        "{heard}"
    );
}

#[test]
fn a_failed_publish_has_a_reason() {
    let error = refused(["pub", "udp/p2pke", "hello"], 2);
    assert!(error.contains("gossip=TOPIC"), "{error}");
    let error = refused(["sub", "udp/p2pke/gossip=x,peers=1x"], 2);
    assert!(error.contains("\n  udp/p2pke/gossip=x,peers=1x\n"), "{error}");
    let error = refused(["pub", "udp/p2pke/gossip=x", "hello", "--wait", "0.1"], 1);
    assert!(
        error.contains("no subscriber of x was found within 0.1 s"),
        "{error}"
    );
    refused(["chat", "--name", ""], 2);
    refused(["chat", "--topic", "Two Rooms"], 2);
    refused(["chat", "--stack", "udp/frog"], 2);
}
