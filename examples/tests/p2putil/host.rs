//! libp2p hosts in separate processes.

use serde_json::Value;

use crate::process::{Listener, done, refused};

#[test]
fn two_hosts_ping_identify_and_measure_over_quic_and_tcp() {
    let mut listener = Listener::start([
        "host",
        "listen",
        "/ip4/127.0.0.1/udp/0/quic-v1",
        "/ip4/127.0.0.1/tcp/0",
        "--perf",
    ]);
    let addrs = [listener.addr(), listener.addr()];
    assert!(addrs[0].contains("/quic-v1/p2p/12D3KooW") && addrs[1].contains("/tcp/"));
    for addr in &addrs {
        let pinged = done(["host", "ping", addr, "--count", "2"]);
        assert_eq!(pinged.lines().count(), 2);
        assert!(
            pinged.lines().all(|line| line.starts_with("name=rtt value=")),
            "{pinged}"
        );
        let connected = listener.line();
        assert!(connected.starts_with("connected /p2p/12D3KooW"), "{connected}");
        let disconnected = listener.line();
        assert!(
            disconnected.starts_with("disconnected /p2p/12D3KooW"),
            "{disconnected}"
        );

        let identified = done(["--json", "host", "identify", addr]);
        let identified: Value = serde_json::from_str(&identified).expect("JSON");
        let (_, peer) = addr.split_once("/p2p/").expect("an id");
        assert_eq!(identified["peer"], format!("/p2p/{peer}"));
        assert_eq!(identified["addrs"].as_array().map(Vec::len), Some(2));
        assert_eq!(identified["signed"], true);
        listener.line();
        listener.line();

        let measured = done(["host", "perf", addr, "--up", "100000", "--down", "200000"]);
        assert!(measured.starts_with("name=upload value="), "{measured}");
        listener.line();
        listener.line();
    }
}

#[test]
fn a_seed_gives_a_host_the_same_id() {
    let seed = "0000000000000000000000000000000000000000000000000000000000000001";
    let mut first = Listener::start(["host", "listen", "/ip4/127.0.0.1/tcp/0", "--seed", seed]);
    let mut second = Listener::start(["host", "listen", "/ip4/127.0.0.1/tcp/0", "--seed", seed]);
    let id = |addr: String| addr.split_once("/p2p/").expect("an id").1.to_owned();
    assert_eq!(id(first.addr()), id(second.addr()));
}

#[test]
fn another_peer_and_a_wrong_address_are_refused() {
    let mut listener = Listener::start(["host", "listen", "/ip4/127.0.0.1/tcp/0"]);
    let addr = listener.addr();
    let (place, _) = addr.split_once("/p2p/").expect("an id");
    let other = format!("{place}/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA");
    let error = refused(["host", "ping", &other], 1);
    assert!(
        error.contains("12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA"),
        "{error}"
    );
    let error = refused(["host", "ping", "127.0.0.1:4001"], 2);
    assert!(error.contains("multiaddr"), "{error}");
    let error = refused(["host", "listen", "/ip4/127.0.0.1/udp/0"], 2);
    assert!(error.contains("quic-v1"), "{error}");
}

#[test]
fn a_host_is_the_base_of_a_stack() {
    for place in ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"] {
        let stack = format!("libp2p={place}/mux=chat");
        let mut listener = Listener::start(["listen", &stack, "--echo"]);
        let addr = listener.addr();
        assert!(addr.contains("/p2p/12D3KooW"), "{addr}");
        let told = done(["tell", &stack, &addr, "hello", "--wait", "30"]);
        let (_, peer) = addr.split_once("/p2p/").expect("an id");
        assert_eq!(
            told,
            format!("told {addr} 5 bytes\ntell /p2p/{peer} echo:hello\n")
        );
        assert!(listener.line().starts_with("tell /p2p/12D3KooW"));
        assert_eq!(done(["ask", &stack, &addr, "hello"]), "olleh\n");
    }
    let error = refused(["listen", "libp2p=/ip4/127.0.0.1/tcp/0/mxu=chat"], 2);
    assert!(
        error.contains("/mxu=chat\n                              ^\n"),
        "{error}"
    );
}

#[cfg(unix)]
#[test]
fn a_running_host_says_which_connections_it_has_and_why() {
    use std::os::unix::fs::PermissionsExt as _;

    let path = std::env::temp_dir().join(format!("p2putil-control-{}", std::process::id()));
    let control = path.to_str().expect("UTF-8");
    let error = refused(["host", "connections", control], 1);
    assert!(error.contains(control), "{error}");
    let args = [
        "host",
        "listen",
        "/ip4/127.0.0.1/udp/0/quic-v1",
        "--control",
        control,
    ];
    let mut listener = Listener::start(args);
    let addr = listener.addr();
    assert_eq!(done(["--json", "host", "connections", control]), "");
    let mode = std::fs::metadata(&path).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let error = refused(args, 1);
    assert!(error.contains("another program"), "{error}");

    let mut dialler = Listener::start(["--json", "host", "ping", &addr, "--count", "1000000"]);
    let connected = listener.line();
    assert!(connected.starts_with("connected "), "{connected}");
    dialler.line();
    let text = done(["--json", "host", "connections", control]);
    let object: Value = serde_json::from_str(text.trim()).expect("one JSON object");
    assert_eq!(
        (&object["direction"], &object["transport"]),
        (&"in".into(), &"quic-v1".into())
    );
    assert!(
        object["streams"].as_u64().is_some_and(|streams| streams > 0),
        "{object}"
    );
    let table = done(["host", "connections", control]);
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    assert!(
        table.contains("127.0.0.1:") && table.contains("stream"),
        "{table}"
    );
    drop(dialler);

    listener.signal("-INT");
    let (code, _) = listener.end();
    assert_eq!(code, Some(0));
    assert!(!path.exists(), "the socket is removed");
}
