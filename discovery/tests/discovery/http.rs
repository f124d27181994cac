//! The server under good and bad clients, and the client under bad servers: clear responses, and no accepted
//! value is lost.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use p2p_discovery::cell::Swap;
use p2p_discovery::http::{HttpCell, ServerConfig, Token, TrackerServer};
use p2p_discovery::{Cell, Discovery as _, Error, Secret, Tracker, TrackerConfig, laws};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Handle};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

use crate::folder::Folder;
use crate::testbeds::{TrackerTestbed, addrs, key};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

fn serve(change: impl FnOnce(&mut ServerConfig)) -> TrackerServer {
    let mut config = ServerConfig {
        requests_each: 1_000_000,
        burst_each: 1_000_000,
        value: 4096,
        ..ServerConfig::default()
    };
    change(&mut config);
    TrackerServer::bind(LOOPBACK, config).expect("a port")
}

fn token(server: &TrackerServer, seed: u8) -> Token {
    Token::new(
        &format!("http://{}", server.local_addr()),
        Secret::new([seed; 32]),
    )
    .expect("a URL")
}

fn cell(server: &TrackerServer, seed: u8) -> HttpCell {
    HttpCell::new(token(server, seed)).max(4096)
}

/// Returns a server's response to these bytes: its status, and the whole text.
async fn raw(server: &TrackerServer, request: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(server.local_addr()).await.expect("it listens");
    // A server that has read enough may close before all was written.
    drop(stream.write_all(request).await);
    let mut answer = Vec::new();
    let read = timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await;
    drop(read.expect("an end in time"));
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text.get(9..12).and_then(|status| status.parse().ok());
    (status.unwrap_or(0), text)
}

/// Returns a request for the cell of `seed` with its valid token.
fn request(method: &str, seed: u8, headers: &str, body: &[u8]) -> Vec<u8> {
    let secret = Secret::new([seed; 32]);
    let token = secret.write_token().to_text();
    request_with(
        method,
        &format!("/{}", secret.cell_id()),
        &format!("authorization: Bearer {}\r\n{headers}", *token),
        body,
    )
}

fn request_with(method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\n{headers}content-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[tokio::test]
async fn a_cell_at_a_server_swaps() {
    let server = serve(|_| {});
    let cell = cell(&server, 1);
    assert_eq!(cell.load().await.expect("it answers"), b"");
    assert_eq!(
        cell.compare_and_swap(b"", b"").await.expect("it answers"),
        Swap::Done
    );
    assert_eq!(
        cell.compare_and_swap(b"x", b"a").await.expect("it answers"),
        Swap::Differs(vec![])
    );
    assert_eq!(
        cell.compare_and_swap(b"", b"a").await.expect("it answers"),
        Swap::Done
    );
    assert_eq!(
        cell.compare_and_swap(b"", b"b").await.expect("it answers"),
        Swap::Differs(b"a".to_vec())
    );
    assert_eq!(
        cell.compare_and_swap(b"", b"").await.expect("it answers"),
        Swap::Differs(b"a".to_vec())
    );
    assert_eq!(
        cell.compare_and_swap(b"a", b"b").await.expect("it answers"),
        Swap::Done
    );
    let full = vec![7; 4096];
    assert_eq!(
        cell.compare_and_swap(b"b", &full).await.expect("it answers"),
        Swap::Done
    );
    assert_eq!(cell.load().await.expect("it answers"), full);
    assert!(matches!(
        cell.compare_and_swap(&full, &vec![7; 4097]).await,
        Err(Error::Limit { limit: 4096, .. })
    ));
    // The server has the limit as well.
    let larger = cell.clone().max(1 << 20);
    assert!(matches!(
        larger.compare_and_swap(&full, &vec![7; 4097]).await,
        Err(Error::Limit { .. })
    ));
    assert!(matches!(
        larger.compare_and_swap(&full, &vec![7; 500_000]).await,
        Err(Error::Limit { .. })
    ));
    assert_eq!(cell.load().await.expect("it answers"), full);
    assert_eq!(
        cell.compare_and_swap(&full, b"").await.expect("it answers"),
        Swap::Done
    );
    assert_eq!(cell.load().await.expect("it answers"), b"");
}

/// A cell whose requests run in a separate runtime in real time. Tokio's paused clock stands still meanwhile,
/// so the laws do not depend on the speed of the machine.
#[derive(Clone)]
struct Apart {
    runtime: Handle,
    cell: HttpCell,
}

impl Apart {
    async fn run<T: Send + 'static>(&self, request: impl Future<Output = T> + Send + 'static) -> T {
        let runtime = self.runtime.clone();
        let request = spawn_blocking(move || runtime.block_on(request));
        request.await.expect("no panic")
    }
}

#[async_trait]
impl Cell for Apart {
    fn max(&self) -> usize {
        Cell::max(&self.cell)
    }

    async fn load(&self) -> Result<Vec<u8>, Error> {
        let cell = self.cell.clone();
        self.run(async move { cell.load().await }).await
    }

    async fn compare_and_swap(&self, current: &[u8], new: &[u8]) -> Result<Swap, Error> {
        let (cell, current, new) = (self.cell.clone(), current.to_vec(), new.to_vec());
        self.run(async move { cell.compare_and_swap(&current, &new).await })
            .await
    }
}

#[tokio::test(start_paused = true)]
async fn a_tracker_at_a_server_keeps_the_laws() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a thread");
    let server = {
        let _entered = runtime.enter();
        serve(|config| config.value = 64 << 10)
    };
    let cell = Apart {
        runtime: runtime.handle().clone(),
        cell: HttpCell::new(token(&server, 7)),
    };
    assert_eq!(laws::check(&TrackerTestbed::new(cell)).await, Ok(()));
    drop(server);
    runtime.shutdown_background();
}

#[tokio::test]
async fn the_server_learns_neither_the_secret_nor_nodes_or_addresses() {
    // A server that records what it receives.
    let listener = TcpListener::bind(LOOPBACK).await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("it has one"));
    let token = Token::new(&url, Secret::new([7; 32])).expect("a URL");
    let secret = token.secret().to_text();
    let tracker = Tracker::new(
        HttpCell::new(token),
        Secret::new([7; 32]),
        &key(1),
        TrackerConfig::default(),
    );
    let tracker = tracker.expect("a good key");
    let announcing = tokio::spawn(async move {
        let topic = "chat".parse().expect("a topic");
        tracker.announce(&topic, &addrs(1), Duration::from_mins(1)).await
    });
    let mut heard = Vec::new();
    for answer in ["404 Not Found", "204 No Content"] {
        let (mut stream, _) = listener.accept().await.expect("it comes");
        let mut buf = vec![0; 64 << 10];
        let mut request = Vec::new();
        let is_whole = |request: &[u8]| {
            let text = String::from_utf8_lossy(request).to_lowercase();
            let body = text.find("\r\n\r\n").map(|at| at + 4);
            body.is_some_and(|body| text.starts_with("get") || request.len() >= body + 1024)
        };
        while !is_whole(&request) {
            let len = stream.read(&mut buf).await.expect("it writes");
            assert!(len > 0);
            request.extend_from_slice(&buf[..len]);
        }
        heard.extend_from_slice(&request);
        let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        let answer = if answer.contains("204") {
            answer.replace("content-length: 0\r\n", "")
        } else {
            answer
        };
        stream.write_all(answer.as_bytes()).await.expect("it reads");
    }
    announcing.await.expect("no panic").expect("room");
    let heard = String::from_utf8_lossy(&heard);
    assert!(heard.contains("Bearer") && heard.contains("PUT /"));
    assert!(!heard.contains(&*secret) && !heard.contains(&secret[..20]));
    assert!(!heard.contains("chat") && !heard.contains("127.0.0.1:4001"));
}

/// The fault of a request, the status of the response, and the request.
#[expect(clippy::too_many_lines, reason = "a table")]
fn bad_requests() -> Vec<(&'static str, u16, Vec<u8>)> {
    let id = Secret::new([1; 32]).cell_id();
    let path = format!("/{id}");
    let other = Secret::new([2; 32]).write_token().to_text();
    let bearer = |token: &str| format!("authorization: Bearer {token}\r\n");
    let matches_any = "if-match: *\r\n";
    vec![
        ("no HTTP", 400, b"what is this?\r\n\r\n".to_vec()),
        ("binary", 400, vec![0xff; 100]),
        ("a version that is none", 400, b"GET / HTTP/7.0\r\n\r\n".to_vec()),
        (
            "two lengths",
            400,
            b"PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab".to_vec(),
        ),
        (
            "no number",
            400,
            b"PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n".to_vec(),
        ),
        (
            "a head without end",
            431,
            [&b"GET / HTTP/1.1\r\nx: "[..], &[b'x'; 30_000]].concat(),
        ),
        (
            "many fields",
            431,
            [&b"GET / HTTP/1.1\r\n"[..], &b"a: b\r\n".repeat(200), b"\r\n"].concat(),
        ),
        ("no cell", 404, request_with("GET", "/", "", b"")),
        ("no cell's id", 400, request_with("GET", "/etc/passwd", "", b"")),
        (
            "another spelling",
            400,
            request_with("GET", &format!("{path}="), "", b""),
        ),
        ("no token", 401, request_with("PUT", &path, matches_any, b"bad")),
        (
            "another scheme",
            401,
            request_with("PUT", &path, "authorization: Basic YTpi\r\n", b"bad"),
        ),
        (
            "a token that is none",
            401,
            request_with("PUT", &path, &bearer("x"), b"bad"),
        ),
        (
            "another cell's token",
            403,
            request_with("PUT", &path, &(bearer(&other) + matches_any), b"bad"),
        ),
        (
            "another cell's token",
            403,
            request_with("GET", &path, &bearer(&other), b""),
        ),
        (
            "another cell's token",
            403,
            request_with("DELETE", &path, &(bearer(&other) + matches_any), b""),
        ),
        (
            "the cell's id as its token",
            403,
            request_with("GET", &path, &bearer(&id.to_string()), b""),
        ),
        ("another method", 405, request("POST", 1, matches_any, b"bad")),
        ("another method", 405, request("OPTIONS", 1, "", b"")),
        ("no precondition", 428, request("PUT", 1, "", b"bad")),
        ("no precondition", 428, request("DELETE", 1, "", b"")),
        (
            "a value that is there",
            412,
            request("PUT", 1, "if-none-match: *\r\n", b"bad"),
        ),
        (
            "a value that is another",
            412,
            request("PUT", 1, "if-match: \"0123\"\r\n", b"bad"),
        ),
        (
            "a value that is another",
            412,
            request("DELETE", 1, "if-match: \"0123\"\r\n", b""),
        ),
        (
            "a weak validator",
            400,
            request("PUT", 1, "if-match: W/\"0123\"\r\n", b"bad"),
        ),
        (
            "no validator",
            400,
            request("PUT", 1, "if-match: 0123\r\n", b"bad"),
        ),
        (
            "both preconditions",
            400,
            request("PUT", 1, "if-match: *\r\nif-none-match: *\r\n", b"bad"),
        ),
        (
            "two preconditions",
            400,
            request("PUT", 1, "if-match: *\r\nif-match: *\r\n", b"bad"),
        ),
        ("an empty value", 400, request("PUT", 1, matches_any, b"")),
        ("a long value", 413, request("PUT", 1, matches_any, &[b'x'; 4097])),
        (
            "a much longer value",
            413,
            request("PUT", 1, matches_any, &vec![b'x'; 1 << 20]),
        ),
        (
            "a value that is not there",
            412,
            request("PUT", 2, matches_any, b"bad"),
        ),
        (
            "one cell too many",
            507,
            request("PUT", 3, "if-none-match: *\r\n", b"bad"),
        ),
    ]
}

#[tokio::test]
async fn each_kind_of_bad_request_has_its_status_and_changes_nothing() {
    let server = serve(|config| config.cells = 2);
    let kept = cell(&server, 1);
    assert_eq!(
        kept.compare_and_swap(b"", b"kept").await.expect("it answers"),
        Swap::Done
    );
    let path = format!("/{}", Secret::new([1; 32]).cell_id());
    for (what, status, bytes) in &bad_requests() {
        let (answered, text) = raw(&server, bytes).await;
        assert_eq!(answered, *status, "{what}: {text}");
        if ![400, 431].contains(status) || text.contains("text/plain") {
            let (_, reason) = text.split_once("\r\n\r\n").expect("a head");
            assert!(reason.len() > 10 && reason.ends_with('\n'), "{what}: {text}");
        }
        assert_eq!(kept.load().await.expect("it answers"), b"kept", "{what}");
    }
    let (_, text) = raw(&server, &request_with("GET", &path, "", b"")).await;
    assert!(text.contains("www-authenticate: Bearer"), "{text}");
    let (_, text) = raw(&server, &request("POST", 1, "", b"")).await;
    assert!(text.contains("allow: GET, PUT, DELETE"), "{text}");
    let counts = server.served();
    assert!(
        counts.refused >= 25 && counts.broken >= 4 && counts.done > 30,
        "{counts:?}"
    );
}

#[tokio::test]
async fn a_chunked_value_is_bounded() {
    let server = serve(|_| {});
    let head = request("PUT", 1, "if-none-match: *\r\n", b"");
    let head = String::from_utf8(head)
        .expect("text")
        .replace("content-length: 0", "transfer-encoding: chunked");
    let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
    let (status, text) = raw(&server, format!("{head}{}0\r\n\r\n", chunk.repeat(4)).as_bytes()).await;
    assert_eq!(status, 204, "{text}");
    for chunks in [5, 500] {
        let head = head.replace("if-none-match: *", "if-match: *");
        let (status, text) = raw(
            &server,
            format!("{head}{}0\r\n\r\n", chunk.repeat(chunks)).as_bytes(),
        )
        .await;
        assert_eq!(status, 413, "{text}");
    }
    assert_eq!(
        cell(&server, 1).load().await.expect("it answers"),
        vec![b'x'; 4096]
    );
}

#[tokio::test]
async fn slow_or_silent_clients_are_closed_and_block_no_other() {
    let server = serve(|config| {
        config.limit = Duration::from_secs(1);
        config.connections = 8;
        config.connections_each = 4;
    });
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(server.local_addr()).await.expect("it listens");
        drop(stream.write_all(b"GET / HT").await);
        slow.push(stream);
    }
    // Four are waited for, and the others were closed; then there is room again.
    let mut first = slow.remove(0);
    let mut byte = [0];
    let read = timeout(Duration::from_secs(20), first.read(&mut byte)).await;
    assert!(matches!(read.expect("an end in time"), Ok(0) | Err(_)));
    drop(slow);
    let start = Instant::now();
    let cell = cell(&server, 1);
    while cell.load().await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(20));
        sleep(Duration::from_millis(50)).await;
    }
    let half = request("PUT", 1, "if-none-match: *\r\n", &[b'x'; 100]);
    let (status, text) = raw(&server, &half[..half.len() - 1]).await;
    assert_eq!(status, 408, "{text}");
    let counts = server.served();
    assert!(counts.closed >= 12 && counts.broken >= 4, "{counts:?}");
}

#[tokio::test]
async fn too_many_requests_are_refused_with_a_status() {
    let server = serve(|config| {
        config.requests_each = 1;
        config.burst_each = 5;
    });
    let cell = cell(&server, 1);
    for _ in 0..5 {
        cell.load().await.expect("it answers");
    }
    let (status, text) = raw(&server, &request("GET", 1, "", b"")).await;
    assert_eq!(status, 429);
    assert!(text.contains("retry-after: 1"), "{text}");
    assert!(matches!(
        cell.load().await,
        Err(Error::Refused { status: 429, .. })
    ));
    let start = Instant::now();
    while cell.load().await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(20));
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_server_with_a_list_of_cells_creates_no_others() {
    let listed = Secret::new([1; 32]).cell_id();
    let server = serve(|config| config.only = Some(BTreeSet::from([listed])));
    assert_eq!(
        cell(&server, 1)
            .compare_and_swap(b"", b"a")
            .await
            .expect("it answers"),
        Swap::Done
    );
    let refused = cell(&server, 2).compare_and_swap(b"", b"a").await;
    assert!(
        matches!(refused, Err(Error::Refused { status: 403, .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_value_in_a_folder_survives_its_server() {
    let folder = Folder::new("http");
    let in_folder = |config: &mut ServerConfig| {
        config.folder = Some(folder.path("cells"));
        config.cells = 2;
    };
    let server = serve(in_folder);
    let stranger = folder.path("cells").join("not a cell");
    std::fs::write(&stranger, b"x").expect("written");
    assert_eq!(
        cell(&server, 1)
            .compare_and_swap(b"", b"a")
            .await
            .expect("it answers"),
        Swap::Done
    );
    let second = TrackerServer::bind(LOOPBACK, {
        let mut config = ServerConfig::default();
        in_folder(&mut config);
        config
    });
    assert!(matches!(second, Err(Error::Invalid { what: "folder", .. })));
    server.close().await;
    let server = serve(in_folder);
    assert_eq!(cell(&server, 1).load().await.expect("it answers"), b"a");
    assert_eq!(
        cell(&server, 2)
            .compare_and_swap(b"", b"b")
            .await
            .expect("it answers"),
        Swap::Done
    );
    let refused = cell(&server, 3).compare_and_swap(b"", b"c").await;
    assert!(
        matches!(refused, Err(Error::Refused { status: 507, .. })),
        "{refused:?}"
    );
    assert!(stranger.exists());
}

#[tokio::test]
async fn a_cell_replaces_one_that_is_no_longer_written() {
    let server = serve(|config| {
        config.cells = 1;
        config.keep = Duration::from_millis(300);
    });
    let start = Instant::now();
    assert_eq!(
        cell(&server, 1)
            .compare_and_swap(b"", b"a")
            .await
            .expect("it answers"),
        Swap::Done
    );
    let refused = cell(&server, 2).compare_and_swap(b"", b"b").await;
    if start.elapsed() < Duration::from_millis(300) {
        assert!(
            matches!(refused, Err(Error::Refused { status: 507, .. })),
            "{refused:?}"
        );
        sleep(Duration::from_millis(301)).await;
        assert_eq!(
            cell(&server, 1).load().await.expect("it answers"),
            b"a",
            "its room is not needed"
        );
        assert_eq!(
            cell(&server, 2)
                .compare_and_swap(b"", b"b")
                .await
                .expect("it answers"),
            Swap::Done
        );
    }
    assert_eq!(cell(&server, 2).load().await.expect("it answers"), b"b");
    assert_eq!(cell(&server, 1).load().await.expect("it answers"), b"");
}

/// Whatever happens between them, each accepted value is present until the next one is accepted.
#[tokio::test(flavor = "multi_thread")]
async fn every_accepted_value_is_kept_under_any_noise() {
    let server = Arc::new(serve(|_| {}));
    let noise = {
        let server = server.clone();
        tokio::spawn(async move {
            let id = Secret::new([1; 32]).cell_id();
            let mut runner = TestRunner::deterministic();
            let line = "(GET|PUT|DELETE|HEAD|[A-Z]{1,9}) (/|/[-_A-Za-z0-9]{43}|.{0,30}) HTTP/1.[01]\r\n\
                        (host: x\r\n|content-length: [0-9]{1,6}\r\n|if-match: .{0,9}\r\n|[a-z-]{1,20}: .{0,40}\r\n){0,6}\r\n.{0,99}";
            let line = proptest::string::string_regex(line).expect("a pattern");
            let strategy = (
                line,
                proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
                any::<bool>(),
            );
            for _ in 0..300 {
                let (mut text, changes, ours) = strategy.new_tree(&mut runner).expect("a request").current();
                if ours {
                    text = text.replacen("/ ", &format!("/{id} "), 1);
                }
                let mut bytes = text.into_bytes();
                for (at, byte) in changes {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
                let Ok(mut stream) = TcpStream::connect(server.local_addr()).await else {
                    continue;
                };
                drop(stream.write_all(&bytes).await);
                drop(stream.shutdown().await);
                let mut answer = Vec::new();
                drop(
                    timeout(Duration::from_secs(30), stream.read_to_end(&mut answer))
                        .await
                        .expect("an end"),
                );
            }
        })
    };
    let mut writers = Vec::new();
    for seed in 1..4 {
        let cell = cell(&server, seed);
        writers.push(tokio::spawn(async move {
            let mut value = Vec::new();
            for number in 0..100_u32 {
                let next = [&number.to_be_bytes()[..], &[seed; 100]].concat();
                assert_eq!(
                    cell.compare_and_swap(&value, &next).await.expect("it answers"),
                    Swap::Done
                );
                assert_eq!(cell.load().await.expect("it answers"), next);
                value = next;
            }
        }));
    }
    for writer in writers {
        writer.await.expect("nothing was lost");
    }
    noise.await.expect("an answer to everything");
}

/// A server that responds to any request with these bytes.
async fn bad_server(answer: Vec<u8>) -> Token {
    let listener = TcpListener::bind(LOOPBACK).await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("it has one"));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buf = [0; 4096];
            drop(stream.read(&mut buf).await);
            drop(stream.write_all(&answer).await);
        }
    });
    Token::new(&url, Secret::new([1; 32])).expect("a URL")
}

#[tokio::test]
async fn a_bad_server_is_a_typed_error_and_costs_no_more_than_the_limit() {
    let endless = [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n"[..],
        &vec![b'x'; 1 << 20],
    ]
    .concat();
    for (answer, is_refusal) in [
        (b"".to_vec(), false),
        (b"what?".to_vec(), false),
        (endless, false),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort".to_vec(),
            false,
        ),
        (
            b"HTTP/1.1 302 Found\r\nlocation: http://example.org/\r\ncontent-length: 0\r\n\r\n".to_vec(),
            true,
        ),
        (
            b"HTTP/1.1 500 \xff\r\ncontent-length: 4\r\n\r\n\x1b[2J".to_vec(),
            true,
        ),
    ] {
        let cell = HttpCell::new(bad_server(answer.clone()).await)
            .max(4096)
            .limit(Duration::from_secs(20));
        for result in [
            cell.load().await.map(drop),
            cell.compare_and_swap(b"a", b"b").await.map(drop),
        ] {
            match result {
                Err(Error::Refused { reason, .. }) if is_refusal => assert!(!reason.contains('\x1b')),
                Err(Error::Io { .. }) if !is_refusal => {}
                other => panic!(
                    "{:?}: {other:?}",
                    String::from_utf8_lossy(&answer[..answer.len().min(60)])
                ),
            }
        }
    }
    // No server listens.
    let port = TcpListener::bind(LOOPBACK)
        .await
        .expect("a port")
        .local_addr()
        .expect("it has one");
    let token = Token::new(&format!("http://{port}"), Secret::new([1; 32])).expect("a URL");
    assert!(matches!(HttpCell::new(token).load().await, Err(Error::Io { .. })));
    // A server that accepts and stays silent.
    let silent = TcpListener::bind(LOOPBACK).await.expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("it has one"));
    let token = Token::new(&url, Secret::new([1; 32])).expect("a URL");
    let cell = HttpCell::new(token).limit(Duration::from_millis(200));
    assert!(matches!(cell.load().await, Err(Error::TimedOut { .. })));
}

#[test]
fn tokens_parse_back_from_their_text_and_do_not_show_their_secret() {
    let secret = Secret::new([7; 32]);
    for (server, written) in [
        ("http://127.0.0.1:4000", "http://127.0.0.1:4000/"),
        ("http://[::1]:4000/", "http://[::1]:4000/"),
        ("http://tracker.example", "http://tracker.example:80/"),
        (
            "http://tracker.example/p2p/here",
            "http://tracker.example:80/p2p/here/",
        ),
    ] {
        let token = Token::new(server, secret.clone()).expect("a URL");
        let text = token.to_text();
        assert_eq!(
            *text,
            format!("{written}{}#{}", secret.cell_id(), *secret.to_text())
        );
        assert_eq!(text.parse::<Token>().expect("its own"), token);
        let shown = format!("{token:?}");
        assert!(
            shown.contains(written) && !shown.contains(&*secret.to_text()),
            "{shown}"
        );
    }
    let text = Token::new("http://a:1", secret.clone()).expect("a URL").to_text();
    let other = Secret::new([8; 32]).to_text();
    let wrong_cell = text.replace(&*secret.to_text(), &other);
    for (bad, why) in [
        ("", "there is no '#' with a secret"),
        ("http://a:1/x", "there is no '#' with a secret"),
        ("http://a:1/x#y", "invalid secret"),
        (&*wrong_cell, "the cell in its path does not belong to the secret"),
        (&*text.replace("http", "https"), "it does not start with http://"),
        (&*text.replace("a:1", "user:password@a:1"), "it has a user name"),
        (&*text.replace("a:1", "a:99999"), "\"99999\" is not a port"),
        (&*text.replace("a:1", ""), "it is not a URL"),
    ] {
        let error = bad.parse::<Token>().expect_err(bad).to_string();
        assert!(error.contains(why), "{bad}: {error}");
        assert!(
            !error.contains(&*other) && !error.contains(&*secret.to_text()),
            "{error}"
        );
    }
}

proptest! {
    #[test]
    fn any_text_is_a_token_or_an_error(text in "(http://)?.{0,40}(/[-_A-Za-z0-9]{43})?(#[-_A-Za-z0-9]{43})?") {
        let _ = text.parse::<Token>();
    }
}
