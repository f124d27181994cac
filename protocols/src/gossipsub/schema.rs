//! The protobuf schema of an RPC.

use bytes::Bytes;

/// An RPC: everything that one peer sends to another at once.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Rpc {
    /// Changes of the sender's subscriptions.
    #[prost(message, repeated, tag = "1")]
    pub subscriptions: Vec<SubOpts>,
    /// Messages as encoded bytes, because signatures cover these bytes.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub publish: Vec<Bytes>,
    /// Control messages.
    #[prost(message, optional, tag = "3")]
    pub control: Option<ControlMessage>,
    /// The sender's introduction.
    #[prost(message, optional, tag = "2125874")]
    pub hello: Option<Hello>,
    /// Messages for the receiver only, as encoded bytes.
    #[prost(bytes = "bytes", repeated, tag = "2125875")]
    pub direct: Vec<Bytes>,
}

/// The introduction of a node.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Hello {
    /// The sender's libp2p peer id, if messages are signed. It is claimed, not authenticated.
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub author: Option<Bytes>,
    /// Whether the sender requests the receiver's hello and subscriptions.
    #[prost(bool, optional, tag = "2")]
    pub asks: Option<bool>,
    /// Whether the sender leaves.
    #[prost(bool, optional, tag = "3")]
    pub leaves: Option<bool>,
}

/// A change of a subscription.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SubOpts {
    /// Whether it begins.
    #[prost(bool, optional, tag = "1")]
    pub subscribe: Option<bool>,
    /// The topic.
    #[prost(string, optional, tag = "2")]
    pub topicid: Option<String>,
}

/// A message of a topic.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Message {
    /// The author's libp2p peer id.
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub from: Option<Bytes>,
    /// The data.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub data: Option<Bytes>,
    /// The author's sequence number: eight bytes, big-endian.
    #[prost(bytes = "bytes", optional, tag = "3")]
    pub seqno: Option<Bytes>,
    /// The topic. Every message has one.
    #[prost(string, optional, tag = "4")]
    pub topic: Option<String>,
    /// The author's signature.
    #[prost(bytes = "bytes", optional, tag = "5")]
    pub signature: Option<Bytes>,
    /// The author's public key, if `from` does not contain it.
    #[prost(bytes = "bytes", optional, tag = "6")]
    pub key: Option<Bytes>,
    /// The recipient's libp2p peer id, in direct messages only.
    #[prost(bytes = "bytes", optional, tag = "2125876")]
    pub to: Option<Bytes>,
}

/// The control messages of an RPC.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ControlMessage {
    /// Messages that the sender has.
    #[prost(message, repeated, tag = "1")]
    pub ihave: Vec<ControlIHave>,
    /// Messages that the sender wants.
    #[prost(message, repeated, tag = "2")]
    pub iwant: Vec<ControlIWant>,
    /// Topics with a mesh that the sender adds the receiver to.
    #[prost(message, repeated, tag = "3")]
    pub graft: Vec<ControlGraft>,
    /// Topics with a mesh that the sender removes the receiver from.
    #[prost(message, repeated, tag = "4")]
    pub prune: Vec<ControlPrune>,
    /// Messages that the sender does not want (v1.2).
    #[prost(message, repeated, tag = "5")]
    pub idontwant: Vec<ControlIDontWant>,
}

/// Messages that the sender has.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ControlIHave {
    /// Their topic.
    #[prost(string, optional, tag = "1")]
    pub topic_id: Option<String>,
    /// Their ids.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub message_ids: Vec<Bytes>,
}

/// Messages that the sender wants.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ControlIWant {
    /// Their ids.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub message_ids: Vec<Bytes>,
}

/// Adds the receiver to the sender's mesh of a topic.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ControlGraft {
    /// The topic.
    #[prost(string, optional, tag = "1")]
    pub topic_id: Option<String>,
}

/// Removes the receiver from the sender's mesh of a topic.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ControlPrune {
    /// The topic.
    #[prost(string, optional, tag = "1")]
    pub topic_id: Option<String>,
    /// Other peers that the receiver may connect to (v1.1).
    #[prost(message, repeated, tag = "2")]
    pub peers: Vec<PeerInfo>,
    /// Backoff in seconds during which neither side may graft the other (v1.1).
    #[prost(uint64, optional, tag = "3")]
    pub backoff: Option<u64>,
}

/// A peer that other nodes may connect to.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PeerInfo {
    /// The peer's id.
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub peer_id: Option<Bytes>,
    /// The peer's addresses, signed by itself.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub signed_peer_record: Option<Bytes>,
}

/// Messages that the sender does not want.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ControlIDontWant {
    /// Their ids.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub message_ids: Vec<Bytes>,
}
