//! Two processes find each other: by a tracker, and by multicast DNS on the loopback interface.

use std::net::UdpSocket;

use serde_json::Value;

use crate::keys::Folder;
use crate::process::{Listener, done, p2putil, refused, text};

/// Starts a tracker; returns it with its URL.
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

/// Returns a place on the loopback interface where no other test announces.
fn multicast() -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = socket.local_addr().expect("it has one").port();
    format!("mdns,loopback,port={port}")
}

/// Checks that a listener that announces itself is found, and that it can be told and asked.
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
        error.contains("no node was found under another within 0 s"),
        "{error}"
    );
}

#[test]
fn two_processes_meet_by_a_tracker() {
    let (_server, url) = tracker([]);
    meet(&url, "udp/p2pke/mbapp");
    // QUIC derives a different id from the same key.
    let (_server, url) = tracker([]);
    meet(&url, "udp/quic");
}

#[test]
fn two_processes_meet_by_multicast_dns() {
    meet(&multicast(), "udp/p2pke/mbapp");
}

#[cfg(unix)]
#[test]
fn a_watch_reports_a_node_that_joins_and_leaves() {
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
    // It withdraws its announcement, so the test need not wait for its expiry.
    listener.signal("-INT");
    assert_eq!(listener.end().0, Some(0));
    let lost = event();
    assert_eq!((&lost["event"], &lost["id"]), (&"lost".into(), &found["id"]));
}

#[cfg(unix)]
#[test]
fn a_tracker_with_a_folder_is_the_same_after_a_restart() {
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
fn an_invalid_place_is_a_usage_error_and_secrets_are_not_shown() {
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
