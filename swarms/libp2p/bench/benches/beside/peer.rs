//! Nodes of rust-libp2p, each a swarm in a task of its own, with ping and identify as in a host of ours.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures_util::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, StreamExt as _};
use libp2p::core::upgrade::Version;
use libp2p::request_response::{self, Message, ProtocolSupport};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, identify, noise, ping, tcp, yamux};
use libp2p_stream::Control;

use crate::rounds::all;
use crate::{ASK, CHUNK, Way};

const BULK: StreamProtocol = StreamProtocol::new("/bulk/1.0.0");
const STREAM: StreamProtocol = StreamProtocol::new("/stream/1.0.0");
const ECHO: StreamProtocol = StreamProtocol::new("/echo/1.0.0");
/// Nodes that dial at the same time.
const DIALLERS: usize = 4;

#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    ping: ping::Behaviour,
    identify: identify::Behaviour,
    stream: libp2p_stream::Behaviour,
    asks: request_response::Behaviour<Bytes>,
}

pub(crate) type Node = Swarm<Behaviour>;

pub(crate) fn node(way: Way) -> Node {
    let builder = SwarmBuilder::with_new_identity().with_tokio();
    let behaviour = |key: &libp2p::identity::Keypair| Behaviour {
        ping: ping::Behaviour::default(),
        identify: identify::Behaviour::new(identify::Config::new("peer/1".to_owned(), key.public())),
        stream: libp2p_stream::Behaviour::new(),
        asks: request_response::Behaviour::new(
            [(ECHO, ProtocolSupport::Full)],
            request_response::Config::default(),
        ),
    };
    let configure = |config: libp2p::swarm::Config| {
        config
            .with_idle_connection_timeout(Duration::from_mins(10))
            // As ours: the first bytes leave with the proposal.
            .with_substream_upgrade_protocol_override(Version::V1Lazy)
    };
    let mut swarm = match way {
        Way::Quic => {
            let builder = builder
                .with_quic()
                .with_behaviour(behaviour)
                .expect("a behaviour");
            builder.with_swarm_config(configure).build()
        }
        Way::Tcp => {
            let tcp = tcp::Config::default().nodelay(true);
            let builder = builder.with_tcp(tcp, noise::Config::new, yamux::Config::default);
            let builder = builder
                .expect("a transport")
                .with_behaviour(behaviour)
                .expect("a behaviour");
            builder.with_swarm_config(configure).build()
        }
    };
    swarm
        .listen_on(way.place().parse().expect("an address"))
        .expect("a free port");
    swarm
}

/// Waits until a node listens.
pub(crate) async fn listening(node: &mut Node) -> Multiaddr {
    loop {
        if let SwarmEvent::NewListenAddr { address, .. } = node.select_next_some().await {
            return address;
        }
    }
}

/// Two connected nodes: the control of each, and the id of the second.
async fn connected(way: Way) -> (Control, Control, PeerId) {
    let (mut a, mut b) = (node(way), node(way));
    let controls = (
        a.behaviour().stream.new_control(),
        b.behaviour().stream.new_control(),
    );
    let (id, to) = (*b.local_peer_id(), listening(&mut b).await);
    a.dial(to).expect("an address");
    tokio::spawn(async move {
        loop {
            b.select_next_some().await;
        }
    });
    while !matches!(
        a.select_next_some().await,
        SwarmEvent::ConnectionEstablished { .. }
    ) {}
    tokio::spawn(async move {
        loop {
            a.select_next_some().await;
        }
    });
    (controls.0, controls.1, id)
}

/// The bytes of one stream.
pub(crate) async fn bulk(way: Way, count: Arc<AtomicU64>) {
    let (mut a, mut b, to) = connected(way).await;
    let mut streams = b.accept(BULK).expect("a protocol");
    tokio::spawn(async move {
        while let Some((_, mut stream)) = streams.next().await {
            let mut chunk = vec![0; CHUNK];
            while let Ok(read @ 1..) = stream.read(&mut chunk).await {
                count.fetch_add(read as u64, Relaxed);
            }
        }
    });
    let chunk = vec![7; CHUNK];
    let mut stream = a.open_stream(to, BULK).await.expect("a stream");
    // The receiver exists until the round ends.
    while stream.write_all(&chunk).await.is_ok() {}
}

/// Requests by request-response: a stream for each. The events of a node are taken by the task that polls it.
pub(crate) async fn asks(way: Way, in_flight: usize, count: Arc<AtomicU64>) {
    let (mut a, mut b) = (node(way), node(way));
    let (id, to) = (*b.local_peer_id(), listening(&mut b).await);
    a.dial(to).expect("an address");
    tokio::spawn(async move {
        loop {
            if let SwarmEvent::Behaviour(BehaviourEvent::Asks(request_response::Event::Message {
                message: Message::Request { request, channel, .. },
                ..
            })) = b.select_next_some().await
            {
                // The asker exists until the round ends.
                let _ = b.behaviour_mut().asks.send_response(channel, request);
            }
        }
    });
    while !matches!(
        a.select_next_some().await,
        SwarmEvent::ConnectionEstablished { .. }
    ) {}
    for _ in 0..in_flight {
        a.behaviour_mut().asks.send_request(&id, [7; ASK]);
    }
    loop {
        match a.select_next_some().await {
            SwarmEvent::Behaviour(BehaviourEvent::Asks(request_response::Event::Message {
                message: Message::Response { .. },
                ..
            })) => {
                count.fetch_add(1, Relaxed);
                a.behaviour_mut().asks.send_request(&id, [7; ASK]);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Asks(request_response::Event::OutboundFailure {
                error,
                ..
            })) => panic!("{error}"),
            _ => {}
        }
    }
}

/// A request and a response are [`ASK`] bytes each.
#[derive(Clone, Default)]
pub(crate) struct Bytes;

impl request_response::Codec for Bytes {
    type Protocol = StreamProtocol;
    type Request = [u8; ASK];
    type Response = [u8; ASK];

    async fn read_request<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<[u8; ASK]> {
        let mut bytes = [0; ASK];
        io.read_exact(&mut bytes).await?;
        Ok(bytes)
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(
        &mut self,
        protocol: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<[u8; ASK]> {
        self.read_request(protocol, io).await
    }

    async fn write_request<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        bytes: [u8; ASK],
    ) -> io::Result<()> {
        io.write_all(&bytes).await
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(
        &mut self,
        protocol: &StreamProtocol,
        io: &mut T,
        bytes: [u8; ASK],
    ) -> io::Result<()> {
        self.write_request(protocol, io, bytes).await
    }
}

/// Requests by streams, one at a time: the crate drops streams that arrive while it hands one over.
pub(crate) async fn stream_asks(way: Way, count: Arc<AtomicU64>) {
    let (mut a, mut b, to) = connected(way).await;
    let mut streams = b.accept(STREAM).expect("a protocol");
    tokio::spawn(async move {
        while let Some((_, mut stream)) = streams.next().await {
            tokio::spawn(async move {
                let mut request = Vec::with_capacity(ASK);
                if stream.read_to_end(&mut request).await.is_ok() {
                    // The asker exists until the round ends.
                    let _ = stream.write_all(&request).await;
                    let _ = stream.close().await;
                }
            });
        }
    });
    while let Some(response) = ask(&mut a, to).await {
        // A connection that ends with the round is the end of a stream over yamux.
        if response.len() == ASK {
            count.fetch_add(1, Relaxed);
        }
    }
}

async fn ask(control: &mut Control, to: PeerId) -> Option<Vec<u8>> {
    let mut stream = control.open_stream(to, STREAM).await.ok()?;
    stream.write_all(&[7; ASK]).await.ok()?;
    stream.close().await.ok()?;
    let mut response = Vec::with_capacity(ASK);
    stream.read_to_end(&mut response).await.ok()?;
    Some(response)
}

/// Connections that are established, and closed by the dialler at once.
pub(crate) async fn handshakes(way: Way, count: Arc<AtomicU64>) {
    let mut server = node(way);
    let (to, id) = (listening(&mut server).await, *server.local_peer_id());
    tokio::spawn(async move {
        loop {
            server.select_next_some().await;
        }
    });
    all((0..DIALLERS).map(|_| {
        let (to, count) = (to.clone(), count.clone());
        async move {
            let mut dialler = node(way);
            dialler.dial(to.clone()).expect("an address");
            loop {
                match dialler.select_next_some().await {
                    SwarmEvent::ConnectionEstablished { .. } => {
                        count.fetch_add(1, Relaxed);
                        let _ = dialler.disconnect_peer_id(id);
                    }
                    SwarmEvent::ConnectionClosed { .. } => dialler.dial(to.clone()).expect("an address"),
                    SwarmEvent::OutgoingConnectionError { error, .. } => panic!("{error}"),
                    _ => {}
                }
            }
        }
    }))
    .await;
}
