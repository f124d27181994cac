//! Two processes find each other: by a tracker, and by multicast DNS on the loopback interface.

use std::net::UdpSocket;

use serde_json::Value;

use crate::keys::Folder;
use crate::process::{Listener, done, p2putil, refused, text};

/// A tracker of its own, and its URL.
fn tracker<const N: usize>(options: [&str; N]) -> (Listener, String) {
    let mut command = p2putil(["tracker", "serve", "127.0.0.1:0"]);
    command.args(options);
    let mut server = Listener::spawn(command);
    let line = server.line();
    let url = line
        .strip_prefix("tracker http://127.0.0.1:")
        .unwrap_or_else(|| panic!("{line:?}"));
    let url = format!("http://127.0.0.1:{url}");
    (server, url)
}

/// A place on the loopback interface where no other test announces.
fn multicast() -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = socket.local_addr().expect("it has one").port();
    format!("mdns,loopback,port={port}")
}

/// A listener that announces itself at a place is found there, and what is found can be told and asked.
fn meet(place: &str, stack: &str) {
    let mut listener = Listener::start([
        "listen",
        stack,
        "--echo",
        "--announce",
        place,
        "--topic",
        "meeting",
    ]);
    let addr = listener.addr();
    let found = done(["find", place, "--topic", "meeting", "--wait", "60"]);
    assert_eq!(found, format!("{addr}\n"));
    let told = done(["tell", stack, found.trim_end(), "hello", "--wait", "30"]);
    assert!(told.ends_with("echo:hello\n"), "{told}");
    assert!(listener.line().ends_with(" hello"));
    assert_eq!(
        done(["ask", stack, found.trim_end(), "hello", "--timeout", "30"]),
        "olleh\n"
    );
    let error = refused(["find", place, "--topic", "another", "--wait", "0"], 1);
    assert!(
        error.contains("nobody was found under another within 0 s"),
        "{error}"
    );
}

#[test]
fn two_processes_meet_by_a_tracker() {
    let (_server, url) = tracker([]);
    meet(&url, "udp/p2pke/mbapp");
    // Ids of QUIC are others of the same key.
    let (_server, url) = tracker([]);
    meet(&url, "udp/quic");
}

#[test]
fn two_processes_meet_by_multicast_dns() {
    meet(&multicast(), "udp/p2pke/mbapp");
}

#[cfg(unix)]
#[test]
fn who_watches_sees_a_node_come_and_go() {
    let (_server, url) = tracker([]);
    let place = multicast();
    let mut watch = Listener::start(["find", &url, &place, "--watch", "--json"]);
    let mut listener = Listener::start(["listen", "udp/p2pke", "--announce", &place, "--announce", &url]);
    let addr = listener.addr();
    let mut event = || serde_json::from_str::<Value>(&watch.line()).expect("JSON");
    let found = event();
    assert_eq!(
        (&found["event"], &found["addrs"]),
        (&"found".into(), &serde_json::json!([addr]))
    );
    assert!(addr.starts_with(found["id"].as_str().expect("an id")));
    // It withdraws wherever it announced, so it is not waited for until its time is over.
    listener.signal("-INT");
    assert_eq!(listener.end().0, Some(0));
    let lost = event();
    assert_eq!((&lost["event"], &lost["id"]), (&"lost".into(), &found["id"]));
}

#[cfg(unix)]
#[test]
fn a_tracker_with_a_folder_is_the_same_when_it_is_started_again() {
    let folder = Folder::new("tracker");
    let path = folder.path("cells");
    let (server, url) = tracker(["--folder", &path]);
    let mut listener = Listener::start(["listen", "udp", "--announce", &url]);
    let addr = listener.addr();
    assert_eq!(done(["find", &url, "--wait", "60"]), format!("{addr}\n"));
    server.signal("-TERM");
    assert_eq!(server.end().0, Some(0));
    let (_server, again) = tracker(["--folder", &path]);
    let (_, secret) = url.split_once('#').expect("a secret");
    assert!(again.ends_with(secret), "the same secret at another port");
    assert_eq!(done(["find", &again, "--wait", "60"]), format!("{addr}\n"));
}

#[test]
fn a_place_that_is_none_is_wrong_use_and_secrets_are_not_repeated() {
    for place in [
        "",
        "dns",
        "mdns,lo",
        "mdns,port=0",
        "mdns,port=99999",
        "http://127.0.0.1:1/",
        "http://127.0.0.1:1/x#y",
    ] {
        refused(["find", place], 2);
    }
    refused(["find"], 2);
    refused(["find", "mdns=nonsense", "--wait", "0"], 2);
    refused(["find", "mdns", "--topic", "Two Words"], 2);
    let (server, url) = tracker([]);
    drop(server);
    let output = p2putil(["find", &url, "--wait", "0"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let (error, (_, secret)) = (text(&output.stderr), url.split_once('#').expect("a secret"));
    assert!(
        error.contains("connecting to the tracker failed") && !error.contains(secret),
        "{error}"
    );
}
