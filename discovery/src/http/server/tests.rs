//! Connections and writes of the server.

use std::fs::File;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::Secret;

/// Timeout for operations that must succeed.
const PATIENCE: Duration = Duration::from_mins(1);

fn serve(config: ServerConfig) -> TrackerServer {
    TrackerServer::bind(SocketAddr::from(([127, 0, 0, 1], 0)), config).expect("a port")
}

/// Waits until a condition holds.
async fn until(mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("it holds in time");
}

fn put(secret: &Secret) -> String {
    let (id, token) = (secret.cell_id(), secret.write_token().to_text());
    format!(
        "PUT /{id} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nif-none-match: *\r\ncontent-length: 5\r\n\r\nvalue",
        *token
    )
}

/// Asserts that a request on this connection is answered.
async fn is_served(mut stream: TcpStream) {
    let request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(request).await.expect("sent");
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    read.expect("an answer in time").expect("an answer");
    let text = String::from_utf8_lossy(&answer);
    assert!(text.starts_with("HTTP/1.1 404"), "{text}");
}

#[tokio::test]
async fn a_write_completes_after_its_connection_ended() {
    let folder = std::env::temp_dir().join(format!("p2p-tracker-write-{}", std::process::id()));
    drop(std::fs::remove_dir_all(&folder));
    let server = serve(ServerConfig {
        folder: Some(folder.clone()),
        ..ServerConfig::default()
    });
    let (secret, state) = (Secret::new([3; 32]), server.state.clone());
    let id = secret.cell_id();
    // Another process holds the cell's lock, so the write takes some time.
    let lock = File::create(folder.join(format!("{id}.lock"))).expect("a file");
    lock.lock().expect("it is free");
    let mut stream = TcpStream::connect(server.local_addr()).await.expect("it listens");
    stream.write_all(put(&secret).as_bytes()).await.expect("sent");
    until(|| state.store.len() == 1).await;
    drop(stream);
    until(|| server.served().broken == 1).await;
    assert!(!state.store.is_kept(&id));
    lock.unlock().expect("it was locked");
    until(|| state.store.is_kept(&id)).await;
    server.close().await;
    assert_eq!(
        std::fs::read(folder.join(id.to_string())).expect("a value"),
        b"value"
    );
    std::fs::remove_dir_all(&folder).expect("removed");
}

#[tokio::test]
async fn connections_without_a_request_are_closed_when_there_are_too_many() {
    let server = serve(ServerConfig {
        connections: 8,
        limit: PATIENCE * 10,
        head: PATIENCE * 10,
        ..ServerConfig::default()
    });
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(TcpStream::connect(server.local_addr()).await.expect("it listens"));
    }
    let stream = TcpStream::connect(server.local_addr()).await.expect("it listens");
    is_served(stream).await;
}

/// A connection from an address of loopback.
async fn connect_from(ip: [u8; 4], server: &TrackerServer) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind((ip, 0).into()).expect("a free port");
    socket.connect(server.local_addr()).await.expect("it listens")
}

#[tokio::test]
async fn slow_requests_of_one_network_leave_connections_to_others() {
    let server = serve(ServerConfig {
        connections: 12,
        connections_prefix: 4,
        limit: PATIENCE * 10,
        head: PATIENCE * 10,
        ..ServerConfig::default()
    });
    let mut slow = Vec::new();
    for host in 1..=20 {
        // Each has asked, and holds its connection, since the value never comes.
        let mut stream = connect_from([127, 0, 1, host], &server).await;
        let secret = put(&Secret::new([host; 32]));
        let head = secret.strip_suffix("value").expect("a value");
        // One that is closed is no error.
        let _ = stream.write_all(head.as_bytes()).await;
        slow.push(stream);
        sleep(Duration::from_millis(5)).await;
    }
    is_served(connect_from([127, 0, 2, 1], &server).await).await;
}

#[tokio::test]
async fn a_connection_without_a_head_ends_soon() {
    let server = serve(ServerConfig {
        limit: PATIENCE * 10,
        head: Duration::from_millis(100),
        ..ServerConfig::default()
    });
    let mut stream = TcpStream::connect(server.local_addr()).await.expect("it listens");
    stream.write_all(b"GET / HT").await.expect("sent");
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    drop(read.expect("an end in time"));
}
