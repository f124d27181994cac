//! The test program as the harness runs it: a listener and a dialler in processes of their own, which meet through a server.

use std::process::Stdio;
use std::time::Duration;

use p2p_libp2p_interop::report::Latency;
use p2p_libp2p_interop::stub::Stub;
use tokio::process::{Child, Command};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_mins(1);

fn side(mode: &str, variables: &[(&str, &str)]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_interop"));
    command
        .arg(mode)
        .envs(variables.iter().copied())
        .stdin(Stdio::null());
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command.spawn().expect("the test program")
}

/// Runs both sides, and returns the dialler's standard output.
async fn output(mode: &str, is_dialler: &str, variables: &[(&str, &str)]) -> String {
    let role = |role| [variables, &[(is_dialler, role)]].concat();
    let (dialler, listener) = (side(mode, &role("true")), side(mode, &role("false")));
    let ended = timeout(LIMIT, dialler.wait_with_output()).await;
    let ended = ended.expect("the dialler ends").expect("its output");
    let log = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success(), "{}: {log}", ended.status);
    drop(listener);
    String::from_utf8(ended.stdout).expect("text")
}

#[tokio::test]
async fn a_dialler_prints_its_times_and_nothing_else() {
    let stub = Stub::start().await.expect("a free port");
    let tcp = ["tcp", "noise", "yamux"];
    for (key, [transport, security, muxer]) in [("00000001", tcp), ("00000002", ["quic-v1", "", ""])] {
        let variables = [
            ("TEST_KEY", key),
            ("REDIS_ADDR", stub.addr()),
            ("TRANSPORT", transport),
            ("SECURE_CHANNEL", security),
            ("MUXER", muxer),
            ("LISTENER_IP", "127.0.0.1"),
        ];
        let printed = output("transport", "IS_DIALER", &variables).await;
        let latency = Latency::parse(&printed).expect("a latency");
        assert!(latency.ping <= latency.handshake_plus_one_rtt && !latency.ping.is_zero());
        assert_eq!(printed.lines().count(), 4, "{printed}");
    }
}

#[tokio::test]
async fn the_older_form_prints_json() {
    let stub = Stub::start().await.expect("a free port");
    let variables = [
        ("redis_addr", stub.addr()),
        ("transport", "tcp"),
        ("security", "tls"),
        ("muxer", "yamux"),
        ("ip", "127.0.0.1"),
    ];
    let printed = output("transport", "is_dialer", &variables).await;
    assert!(
        printed.starts_with("{\"handshakePlusOneRTTMillis\":"),
        "{printed}"
    );
    assert!(
        printed.contains(",\"pingRTTMilllis\":") && printed.ends_with("}\n"),
        "{printed}"
    );
}

#[tokio::test]
async fn perf_prints_three_sections() {
    let stub = Stub::start().await.expect("a free port");
    let variables = [
        ("TEST_KEY", "00000003"),
        ("REDIS_ADDR", stub.addr()),
        ("TRANSPORT", "quic-v1"),
        ("LISTENER_IP", "127.0.0.1"),
        ("UPLOAD_BYTES", "100000"),
        ("DOWNLOAD_BYTES", "200000"),
        ("UPLOAD_ITERATIONS", "2"),
        ("DOWNLOAD_ITERATIONS", "3"),
        ("LATENCY_ITERATIONS", "4"),
    ];
    let printed = output("perf", "IS_DIALER", &variables).await;
    let sections: Vec<_> = printed.split("\n\n").collect();
    assert_eq!(sections.len(), 3, "{printed}");
    for (section, [name, iterations, unit]) in sections.into_iter().zip([
        ["upload", "2", "Gbps"],
        ["download", "3", "Gbps"],
        ["latency", "4", "ms"],
    ]) {
        let lines: Vec<_> = section.lines().collect();
        assert_eq!(
            lines[..2],
            [format!("{name}:"), format!("  iterations: {iterations}")],
            "{printed}"
        );
        assert_eq!(
            lines.last().copied(),
            Some(format!("  unit: {unit}").as_str()),
            "{printed}"
        );
    }
}

#[tokio::test]
async fn a_dialler_without_a_listener_fails_and_prints_nothing() {
    let stub = Stub::start().await.expect("a free port");
    let variables = [
        ("TEST_KEY", "00000004"),
        ("REDIS_ADDR", stub.addr()),
        ("TRANSPORT", "quic-v1"),
        ("IS_DIALER", "true"),
        ("TEST_TIMEOUT_SECS", "0"),
    ];
    let ended = timeout(LIMIT, side("transport", &variables).wait_with_output()).await;
    let ended = ended.expect("the dialler ends").expect("its output");
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stdout.is_empty());
    assert!(String::from_utf8_lossy(&ended.stderr).contains("00000004_listener_multiaddr"));
}
