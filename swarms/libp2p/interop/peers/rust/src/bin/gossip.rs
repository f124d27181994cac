//! A rust-libp2p node in a gossipsub mesh: it takes commands from standard input, and prints what happens, a line each.

// The same commands as those of our nodes.
#[path = "../../../../src/commands.rs"]
#[allow(unreachable_pub, reason = "it is part of a library there")]
mod commands;

use futures_util::StreamExt as _;
use libp2p::gossipsub::{self, IdentTopic, Message, MessageAuthenticity, MessageId};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, SwarmBuilder, identify, identity, noise, tcp, yamux};

use self::commands::commands;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const TOPIC: &str = "interop";

#[derive(NetworkBehaviour)]
struct Behaviour {
    gossipsub: gossipsub::Behaviour,
    identify: identify::Behaviour,
}

/// The id of the specification; by default both parts are text.
fn message_id(message: &Message) -> MessageId {
    let author = message.source.map(|author| author.to_bytes());
    let number = message.sequence_number.unwrap_or_default().to_be_bytes();
    MessageId::from([author.unwrap_or_default(), number.to_vec()].concat())
}

fn behaviour(key: &identity::Keypair) -> Result<Behaviour, Failure> {
    let config = gossipsub::ConfigBuilder::default()
        .message_id_fn(message_id)
        .build()?;
    Ok(Behaviour {
        gossipsub: gossipsub::Behaviour::new(MessageAuthenticity::Signed(key.clone()), config)?,
        identify: identify::Behaviour::new(identify::Config::new("ipfs/0.1.0".to_owned(), key.public())),
    })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let mut node = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::default().nodelay(true),
            noise::Config::new,
            yamux::Config::default,
        )?
        .with_behaviour(behaviour)?
        .build();
    let topic = IdentTopic::new(TOPIC);
    node.behaviour_mut().gossipsub.subscribe(&topic)?;
    node.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    let mut lines = commands();
    loop {
        tokio::select! {
            line = lines.recv() => {
                let Some(line) = line else { return Ok(()) };
                match line.split_once(' ') {
                    Some(("connect", addr)) => node.dial(addr.parse::<Multiaddr>()?)?,
                    Some(("publish", text)) => {
                        node.behaviour_mut().gossipsub.publish(topic.clone(), text.as_bytes())?;
                    }
                    _ => return Err(format!("unknown command: {line}").into()),
                }
            }
            event = node.select_next_some() => match event {
                SwarmEvent::NewListenAddr { address, .. } => println!("at {address}/p2p/{}", node.local_peer_id()),
                SwarmEvent::Behaviour(BehaviourEvent::Gossipsub(gossipsub::Event::Message { message, .. })) => {
                    println!("received {}", String::from_utf8_lossy(&message.data));
                }
                SwarmEvent::Behaviour(BehaviourEvent::Gossipsub(gossipsub::Event::Subscribed { peer_id, .. })) => {
                    println!("subscribed {peer_id}");
                }
                event => eprintln!("{event:?}"),
            }
        }
    }
}
