//! Messages of libp2p's Kademlia: vectors, rust-protobuf with the specification's schema, round trips, limits, any bytes.

use p2p_protocols::kademlia::libp2p::{
    ConnectionType, MAX_ADDR, MAX_ADDRS, MAX_ID, MAX_KEY, MAX_PEERS, Message, MessageType, Peer, Record,
    WireError,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use protobuf::reflect::ReflectValueBox;
use serde_json::Value;

use crate::hex::hex;
use crate::schema::{Fields, Schema};

/// kad-dht/README.md, with enumerations as numbers.
const SCHEMA: &str = include_str!("libp2p.proto");

const TYPES: [MessageType; 6] = [
    MessageType::PutValue,
    MessageType::GetValue,
    MessageType::AddProvider,
    MessageType::GetProviders,
    MessageType::FindNode,
    MessageType::Ping,
];

const CONNECTIONS: [ConnectionType; 4] = [
    ConnectionType::NotConnected,
    ConnectionType::Connected,
    ConnectionType::CanConnect,
    ConnectionType::CannotConnect,
];

fn vectors(name: &str) -> Vec<Value> {
    let vectors: Value =
        serde_json::from_str(include_str!("../vectors/kad_dht.json")).expect("the vectors are JSON");
    vectors[name].as_array().expect("a list").clone()
}

/// The content of a message, with its own bytes.
#[derive(Clone, Debug, Default)]
struct Content {
    message_type: usize,
    key: Vec<u8>,
    record: Option<[Vec<u8>; 3]>,
    closer: Vec<Node>,
    providers: Vec<Node>,
}

#[derive(Clone, Debug)]
struct Node {
    id: Vec<u8>,
    addrs: Vec<Vec<u8>>,
    connection: usize,
}

impl Node {
    fn peer(&self) -> Peer<'_> {
        Peer {
            id: &self.id,
            addrs: self.addrs.iter().map(|addr| &addr[..]).collect(),
            connection: CONNECTIONS[self.connection],
        }
    }
}

impl Content {
    fn of(vector: &Value) -> Self {
        let number = |value: &Value| usize::try_from(value.as_u64().expect("a number")).expect("it fits");
        let nodes = |value: &Value| {
            let nodes = value.as_array().map_or(&[][..], |nodes| nodes);
            let node = |node: &Value| Node {
                id: hex(&node["id"]),
                addrs: node["addrs"]
                    .as_array()
                    .expect("a list")
                    .iter()
                    .map(hex)
                    .collect(),
                connection: number(&node["connection"]),
            };
            nodes.iter().map(node).collect()
        };
        let record = vector.get("record");
        Self {
            message_type: number(&vector["type"]),
            key: hex(&vector["key"]),
            record: record.map(|record| [hex(&record["key"]), hex(&record["value"]), hex(&record["time"])]),
            closer: nodes(&vector["closer"]),
            providers: nodes(&vector["provider"]),
        }
    }

    fn message(&self) -> Message<'_> {
        Message {
            message_type: TYPES[self.message_type],
            key: &self.key,
            record: self.record.as_ref().map(|[key, value, time]| Record {
                key,
                value,
                time_received: time,
            }),
            closer_peers: self.closer.iter().map(Node::peer).collect(),
            provider_peers: self.providers.iter().map(Node::peer).collect(),
        }
    }

    /// Encodes the message with rust-protobuf.
    fn encode(&self, schema: &Schema) -> Vec<u8> {
        let given = |bytes: &Vec<u8>| (!bytes.is_empty()).then(|| ReflectValueBox::Bytes(bytes.clone()));
        let number = |number: usize| (number > 0).then_some(ReflectValueBox::U64(number as u64));
        let node = |node: &Node| -> ReflectValueBox {
            let addrs = node.addrs.iter().cloned().map(ReflectValueBox::Bytes);
            let fields = schema
                .message("Peer")
                .set("id", Some(ReflectValueBox::Bytes(node.id.clone())));
            let fields = fields
                .push("addrs", addrs)
                .set("connection", number(node.connection));
            fields.into()
        };
        let record = self.record.as_ref().map(|[key, value, time]| -> Fields {
            let time = String::from_utf8(time.clone()).expect("a text");
            let time = (!time.is_empty()).then_some(ReflectValueBox::String(time));
            let record = schema.message("Record").set("key", given(key));
            record.set("value", given(value)).set("timeReceived", time)
        });
        let message = schema.message("Message").set("type", number(self.message_type));
        let message = message.set("key", given(&self.key)).set("record", record);
        let message = message.push("closerPeers", self.closer.iter().map(node));
        message
            .push("providerPeers", self.providers.iter().map(node))
            .bytes()
    }
}

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..most)
}

fn content() -> impl Strategy<Value = Content> {
    let node = || {
        let parts = (bytes(40), vec(bytes(30), 0..4), 0..CONNECTIONS.len());
        parts.prop_map(|(id, addrs, connection)| Node {
            id,
            addrs,
            connection,
        })
    };
    let record = (bytes(40), bytes(200), "[0-9TZ]{0,9}");
    let record = record.prop_map(|(key, value, time)| [key, value, time.into_bytes()]);
    let nodes = || vec(node(), 0..5);
    let parts = (0..TYPES.len(), bytes(200), option::of(record), nodes(), nodes());
    parts.prop_map(|(message_type, key, record, closer, providers)| Content {
        message_type,
        key,
        record,
        closer,
        providers,
    })
}

#[test]
fn messages_equal_the_vectors() {
    let schema = Schema::new(SCHEMA);
    for vector in vectors("messages") {
        let (bytes, content, name) = (hex(&vector["bytes"]), Content::of(&vector), &vector["name"]);
        let received = Message::read(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(received.message, content.message(), "{name}");
        assert_eq!((received.ignored_peers, received.ignored_addrs), (0, 0), "{name}");
        if vector.get("canonical").is_none() {
            assert_eq!(content.message().write(), bytes, "{name}");
            assert_eq!(content.encode(&schema), bytes, "{name}");
            assert_eq!(schema.read_and_write("Message", &bytes), bytes, "{name}");
        }
    }
    for vector in vectors("rejected") {
        let read = Message::read(&hex(&vector["bytes"])).map(|received| format!("{received:?}"));
        read.expect_err(vector["name"].as_str().expect("a name"));
    }
}

#[test]
fn an_error_says_what_is_wrong_and_where() {
    let at = Message::read(b"\x08\x04\x12\x05/").expect_err("a key beyond the end");
    assert_eq!(at, WireError::Malformed { at: 2 });
    assert_eq!(Message::read(b"\x08\x06"), Err(WireError::UnknownType(6)));
    let long = Message::new(MessageType::GetValue, &[7; MAX_KEY + 1]).write();
    assert_eq!(Message::read(&long), Err(WireError::Key { len: MAX_KEY + 1 }));
    let id = [7; MAX_ID + 1];
    let mut message = Message::new(MessageType::FindNode, b"key");
    message.closer_peers.push(Peer {
        id: &id,
        ..Peer::default()
    });
    assert_eq!(
        Message::read(&message.write()),
        Err(WireError::Id { len: MAX_ID + 1 })
    );
}

#[test]
fn peers_and_addresses_beyond_the_limits_are_left_out_and_counted() {
    let long = [4; MAX_ADDR + 1];
    let peer = Peer {
        id: b"id",
        addrs: vec![&long[..MAX_ADDR]; MAX_ADDRS + 3],
        connection: ConnectionType::Connected,
    };
    let message = Message {
        closer_peers: vec![Peer::default(); 10_000],
        provider_peers: vec![peer; 1],
        ..Message::new(MessageType::GetProviders, b"key")
    };
    let bytes = message.write();
    let received = Message::read(&bytes).expect("a message");
    assert_eq!(received.message.closer_peers.len(), MAX_PEERS);
    assert_eq!(received.ignored_peers, 10_000 - MAX_PEERS);
    assert_eq!(received.message.provider_peers[0].addrs.len(), MAX_ADDRS);
    assert_eq!(received.ignored_addrs, 3);
    let mut message = Message::new(MessageType::FindNode, b"key");
    message.closer_peers.push(Peer {
        addrs: vec![&long],
        ..Peer::default()
    });
    assert_eq!(
        Message::read(&message.write()).expect("a message").ignored_addrs,
        1
    );
}

proptest! {
    #[test]
    fn a_message_is_written_as_rust_protobuf_writes_it_and_read_again(content in content()) {
        let message = content.message();
        let bytes = message.write();
        prop_assert!(bytes.len() <= message.encoded_len());
        prop_assert_eq!(&bytes, &content.encode(&Schema::new(SCHEMA)));
        prop_assert_eq!(&Message::read(&bytes).expect("this side wrote it").message, &message);
    }

    #[test]
    fn any_bytes_are_an_error_or_a_message_that_is_written_and_read_again(bytes in bytes(300)) {
        if let Ok(received) = Message::read(&bytes) {
            let again = received.message.write();
            prop_assert_eq!(&Message::read(&again).expect("this side wrote it").message, &received.message);
        }
    }

    #[test]
    fn a_damaged_message_is_an_error_or_a_message(content in content(), at in any::<usize>(), to in any::<u8>()) {
        let mut bytes = content.message().write();
        if let Some(at) = at.checked_rem(bytes.len()) {
            bytes[at] = to;
            let _ = Message::read(&bytes);
            let _ = Message::read(&bytes[..at]);
        }
    }
}
