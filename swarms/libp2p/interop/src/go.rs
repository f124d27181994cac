//! A peer of go-libp2p: its daemon, `p2pd`, in a process of its own, steered through its control socket.
//!
//! # Protocol
//! Each message is protobuf behind its length as a varint. A request to open a stream turns the control connection into the
//! stream. Only the fields that a ping and a topic need are here.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use multiaddr::{Multiaddr, PeerId, Protocol};
use p2p_libp2p::ping::PING;
use p2p_libp2p::{Muxer, Security};
use prost::Message;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::Failure;
use crate::commands::commands;
use crate::gossip;
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
    /// 1 connects, 2 opens a stream, 8 is about a topic.
    #[prost(int32, required, tag = "1")]
    kind: i32,
    #[prost(message, optional, tag = "2")]
    connect: Option<Connect>,
    #[prost(message, optional, tag = "3")]
    open: Option<Open>,
    #[prost(message, optional, tag = "8")]
    pubsub: Option<PubSub>,
}

#[derive(Clone, PartialEq, Message)]
struct PubSub {
    /// 1 lists the peers of a topic, 2 publishes, 3 subscribes.
    #[prost(int32, required, tag = "1")]
    kind: i32,
    #[prost(string, optional, tag = "2")]
    topic: Option<String>,
    #[prost(bytes = "vec", optional, tag = "3")]
    data: Option<Vec<u8>>,
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
    #[prost(message, optional, tag = "7")]
    pubsub: Option<Subscribers>,
}

#[derive(Clone, PartialEq, Message)]
struct Subscribers {
    #[prost(bytes = "vec", repeated, tag = "2")]
    peers: Vec<Vec<u8>>,
}

/// A message of a topic.
#[derive(Clone, PartialEq, Message)]
struct Published {
    #[prost(bytes = "vec", optional, tag = "1")]
    from: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "2")]
    data: Option<Vec<u8>>,
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
    async fn of(program: &str, settings: &Settings) -> Result<Self, Failure> {
        let security = match settings.link {
            Link::Tcp(_, Muxer::Mplex) => return Err("p2pd has no mplex".into()),
            Link::Tcp(Security::Noise, _) => ["-noise=true", "-tls=false"],
            Link::Tcp(Security::Tls, _) => ["-noise=false", "-tls=true"],
            Link::Quic => ["-noise=true", "-tls=true"],
        };
        Self::start(program, &settings.link.place(settings.ip), &security).await
    }

    async fn start(program: &str, place: &str, options: &[&str]) -> Result<Self, Failure> {
        let socket = std::env::temp_dir().join(format!("p2pd-{}.sock", std::process::id()));
        let mut child = Command::new(program)
            .arg("-listen")
            .arg(format!("/unix{}", socket.display()))
            .arg("-hostAddrs")
            .arg(place)
            .args(options)
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
        Ok(self.ask(request).await?.1)
    }

    /// Sends a request about the topic of the mesh. After a subscription, its messages come on the connection.
    async fn pubsub(&self, kind: i32, data: Option<Vec<u8>>) -> Result<(Answer, UnixStream), Failure> {
        let topic = Some(gossip::TOPIC.to_owned());
        let pubsub = Some(PubSub { kind, topic, data });
        let kind = 8;
        self.ask(&Request {
            kind,
            pubsub,
            ..Request::default()
        })
        .await
    }

    async fn connect(&self, addr: &str) -> Result<Vec<u8>, Failure> {
        let mut place: Multiaddr = addr.parse()?;
        let Some(Protocol::P2p(id)) = place.pop() else {
            return Err(format!("{addr} does not end with an id").into());
        };
        let peer = id.to_bytes();
        let connect = Some(Connect {
            peer: peer.clone(),
            addrs: vec![place.to_vec()],
        });
        self.request(&Request {
            kind: 1,
            connect,
            ..Request::default()
        })
        .await?;
        Ok(peer)
    }

    async fn ask(&self, request: &Request) -> Result<(Answer, UnixStream), Failure> {
        let exchange = async {
            let mut control = UnixStream::connect(&self.socket).await?;
            control
                .write_all(&request.encode_length_delimited_to_vec())
                .await?;
            let answer = Answer::decode(&*read_message(&mut control).await?)?;
            if answer.kind != 0 {
                let reason = answer.error.unwrap_or_default().reason;
                return Err(format!("p2pd failed: {reason}").into());
            }
            Ok::<_, Failure>((answer, control))
        };
        timeout(LIMIT, exchange)
            .await
            .map_err(|_| format!("p2pd did not answer within {LIMIT:?}"))?
    }

    async fn measure(&self, addr: &str) -> Result<Latency, Failure> {
        let began = Instant::now();
        let peer = self.connect(addr).await?;
        let open = Some(Open {
            peer,
            protocols: vec![PING.to_owned()],
        });
        let mut stream = self
            .request(&Request {
                kind: 2,
                open,
                ..Request::default()
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

/// Reads a message behind its length.
async fn read_message(control: &mut UnixStream) -> Result<Vec<u8>, Failure> {
    let (mut len, mut shift) = (0_u64, 0);
    loop {
        let byte = control.read_u8().await?;
        len |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if len > MAX_ANSWER || shift > 28 {
            return Err("p2pd's answer is too long".into());
        }
        if byte < 0x80 {
            break;
        }
    }
    let mut message = vec![0; len as usize];
    control.read_exact(&mut message).await?;
    Ok(message)
}

/// Runs a node of a gossipsub mesh, as [`gossip::run`] does, with the daemon `program` as this process's node.
///
/// # Errors
/// A text that says what failed.
pub async fn gossip(program: &str) -> Result<(), Failure> {
    let options = [
        "-noise=true",
        "-tls=false",
        "-pubsub",
        "-pubsubRouter",
        "gossipsub",
    ];
    let daemon = Daemon::start(program, "/ip4/127.0.0.1/tcp/0", &options).await?;
    let (_, mut messages) = daemon.pubsub(3, None).await?;
    println!("at {}", daemon.addr);
    let receive = async {
        loop {
            let message = Published::decode(&*read_message(&mut messages).await?)?;
            // The daemon delivers its own messages, too.
            let author = PeerId::from_bytes(&message.from.unwrap_or_default())?.to_string();
            if daemon.addr.ends_with(&author) {
                continue;
            }
            println!(
                "received {}",
                String::from_utf8_lossy(&message.data.unwrap_or_default())
            );
        }
    };
    // The daemon tells of subscribers only when it is asked.
    let watch = async {
        let mut known = BTreeSet::new();
        loop {
            let (answer, _) = daemon.pubsub(1, None).await?;
            for peer in answer.pubsub.unwrap_or_default().peers {
                if known.insert(peer.clone()) {
                    println!("subscribed {}", PeerId::from_bytes(&peer)?);
                }
            }
            sleep(Duration::from_millis(200)).await;
        }
    };
    let obey = async {
        let mut lines = commands();
        while let Some(line) = lines.recv().await {
            match line.split_once(' ') {
                Some(("connect", addr)) => drop(daemon.connect(addr).await?),
                Some(("publish", text)) => drop(daemon.pubsub(2, Some(text.into())).await?),
                _ => return Err(format!("unknown command: {line}").into()),
            }
        }
        Ok(())
    };
    tokio::select! {
        ended = obey => ended,
        failed = receive => failed,
        failed = watch => failed,
    }
}

/// Runs the transport test with the daemon `program` as this process's node.
///
/// # Errors
/// A text that says what failed.
pub async fn run(program: &str, settings: &Settings) -> Result<(), Failure> {
    let mut daemon = Daemon::of(program, settings).await?;
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
