//! A peer of go-libp2p: its daemon, `p2pd`, in a process of its own, steered through its control socket.
//!
//! # Protocol
//! Each message is protobuf behind its length as a varint. A request to open a stream turns the control connection into the
//! stream. Only the fields that a ping needs are here.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use multiaddr::{Multiaddr, Protocol};
use p2p_libp2p::ping::PING;
use p2p_libp2p::{Muxer, Security};
use prost::Message;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

use crate::Failure;
use crate::link::Link;
use crate::node;
use crate::redis::Redis;
use crate::report::Latency;
use crate::settings::{Role, Settings};

/// Timeout of the daemon's start and of each of its answers.
const LIMIT: Duration = Duration::from_secs(20);

/// Maximum length of an answer in bytes.
const MAX_ANSWER: u64 = 1 << 20;

#[derive(Clone, PartialEq, Message)]
struct Request {
    /// 1 connects, 2 opens a stream.
    #[prost(int32, required, tag = "1")]
    kind: i32,
    #[prost(message, optional, tag = "2")]
    connect: Option<Connect>,
    #[prost(message, optional, tag = "3")]
    open: Option<Open>,
}

#[derive(Clone, PartialEq, Message)]
struct Connect {
    #[prost(bytes = "vec", required, tag = "1")]
    peer: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    addrs: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Open {
    #[prost(bytes = "vec", required, tag = "1")]
    peer: Vec<u8>,
    #[prost(string, repeated, tag = "2")]
    protocols: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Answer {
    /// 0 unless the request failed.
    #[prost(int32, required, tag = "1")]
    kind: i32,
    #[prost(message, optional, tag = "2")]
    error: Option<Refusal>,
}

#[derive(Clone, PartialEq, Message)]
struct Refusal {
    #[prost(string, required, tag = "1")]
    reason: String,
}

/// A running daemon. It ends when this is dropped.
struct Daemon {
    socket: PathBuf,
    /// The address of its first listener, with its id.
    addr: String,
    child: Child,
}

impl Daemon {
    async fn start(program: &str, settings: &Settings) -> Result<Self, Failure> {
        let security = match settings.link {
            Link::Tcp(_, Muxer::Mplex) => return Err("p2pd has no mplex".into()),
            Link::Tcp(Security::Noise, _) => ["-noise=true", "-tls=false"],
            Link::Tcp(Security::Tls, _) => ["-noise=false", "-tls=true"],
            Link::Quic => ["-noise=true", "-tls=true"],
        };
        let socket = std::env::temp_dir().join(format!("p2pd-{}.sock", std::process::id()));
        let mut child = Command::new(program)
            .arg("-listen")
            .arg(format!("/unix{}", socket.display()))
            .arg("-hostAddrs")
            .arg(settings.link.place(settings.ip))
            .args(security)
            .arg("-relay=false")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{program} cannot be started: {error}"))?;
        let stdout = child.stdout.take().ok_or("p2pd has no standard output")?;
        let (mut id, mut lines) = (None, BufReader::new(stdout).lines());
        let addr = async {
            while let Some(line) = lines.next_line().await? {
                if let Some(text) = line.strip_prefix("Peer ID: ") {
                    id = Some(text.to_owned());
                } else if let (Some(id), true) = (&id, line.starts_with('/')) {
                    return Ok::<_, Failure>(format!("{line}/p2p/{id}"));
                }
            }
            Err("p2pd ended without an address".into())
        };
        let addr = timeout(LIMIT, addr)
            .await
            .map_err(|_| format!("p2pd did not start within {LIMIT:?}"))??;
        Ok(Self { socket, addr, child })
    }

    /// Sends a request on a control connection of its own, which is the stream after a request to open one.
    async fn request(&self, request: &Request) -> Result<UnixStream, Failure> {
        let exchange = async {
            let mut control = UnixStream::connect(&self.socket).await?;
            control
                .write_all(&request.encode_length_delimited_to_vec())
                .await?;
            let (mut len, mut shift) = (0_u64, 0);
            loop {
                let byte = control.read_u8().await?;
                len |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte < 0x80 {
                    break;
                }
                if len > MAX_ANSWER {
                    return Err("p2pd's answer is too long".into());
                }
            }
            if len > MAX_ANSWER {
                return Err("p2pd's answer is too long".into());
            }
            let mut answer = vec![0; len as usize];
            control.read_exact(&mut answer).await?;
            let answer = Answer::decode(answer.as_slice())?;
            if answer.kind != 0 {
                let reason = answer.error.unwrap_or_default().reason;
                return Err(format!("p2pd failed: {reason}").into());
            }
            Ok::<_, Failure>(control)
        };
        timeout(LIMIT, exchange)
            .await
            .map_err(|_| format!("p2pd did not answer within {LIMIT:?}"))?
    }

    async fn measure(&self, addr: &str) -> Result<Latency, Failure> {
        let mut place: Multiaddr = addr.parse()?;
        let Some(Protocol::P2p(id)) = place.pop() else {
            return Err(format!("{addr} does not end with an id").into());
        };
        let (peer, addrs) = (id.to_bytes(), vec![place.to_vec()]);
        let began = Instant::now();
        let connect = Some(Connect {
            peer: peer.clone(),
            addrs,
        });
        self.request(&Request {
            kind: 1,
            connect,
            open: None,
        })
        .await?;
        let open = Some(Open {
            peer,
            protocols: vec![PING.to_owned()],
        });
        let mut stream = self
            .request(&Request {
                kind: 2,
                connect: None,
                open,
            })
            .await?;
        let (sent, asked): ([u8; 32], _) = (rand::random(), Instant::now());
        let mut back = [0; 32];
        let ping = async {
            stream.write_all(&sent).await?;
            stream.read_exact(&mut back).await
        };
        timeout(LIMIT, ping)
            .await
            .map_err(|_| format!("no pong within {LIMIT:?}"))??;
        if back != sent {
            return Err("the pong has other bytes than the ping".into());
        }
        Ok(Latency {
            handshake_plus_one_rtt: began.elapsed(),
            ping: asked.elapsed(),
        })
    }

    /// Removes the control socket, which the daemon leaves behind.
    fn remove_socket(&self) {
        // An error says that it was removed before.
        let _ = std::fs::remove_file(&self.socket);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.remove_socket();
    }
}

/// Runs the transport test with the daemon `program` as this process's node.
///
/// # Errors
/// A text that says what failed.
pub async fn run(program: &str, settings: &Settings) -> Result<(), Failure> {
    let mut daemon = Daemon::start(program, settings).await?;
    match settings.role {
        Role::Listener => {
            // A listener is not steered, and is killed.
            daemon.remove_socket();
            let mut redis = Redis::connect(&settings.redis, settings.timeout).await?;
            redis.push(&settings.key, &daemon.addr).await?;
            eprintln!("listening at {}", daemon.addr);
            let status = daemon.child.wait().await?;
            Err(format!("p2pd ended: {status}").into())
        }
        Role::Dialler => {
            let addr = node::listener_addr(settings).await?;
            let latency = daemon.measure(&addr).await?;
            print!("{}", latency.text(settings.form));
            daemon.child.kill().await?;
            Ok(())
        }
    }
}
