//! The protobuf schema of an RPC, as types.

use bytes::Bytes;

/// What one peer sends to another at once.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Rpc {
    /// Topics that the sender wants or no longer wants.
    #[prost(message, repeated, tag = "1")]
    pub subscriptions: Vec<SubOpts>,
    /// Messages, each as its own bytes: a signature is over these.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub publish: Vec<Bytes>,
    /// What routers tell one another.
    #[prost(message, optional, tag = "3")]
    pub control: Option<ControlMessage>,
    /// Who the sender is, and that it takes direct messages.
    #[prost(message, optional, tag = "2125874")]
    pub hello: Option<Hello>,
    /// Messages for the receiver alone, each as its own bytes.
    #[prost(bytes = "bytes", repeated, tag = "2125875")]
    pub direct: Vec<Bytes>,
}

/// How nodes introduce themselves to one another.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Hello {
    /// The sender's libp2p peer id, where messages are signed. It is claimed, not proven.
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub author: Option<Bytes>,
    /// Whether the sender knows nothing of the receiver, and would like to.
    #[prost(bool, optional, tag = "2")]
    pub asks: Option<bool>,
    /// Whether the sender leaves.
    #[prost(bool, optional, tag = "3")]
    pub leaves: Option<bool>,
}

/// A change of what the sender wants.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SubOpts {
    /// Whether it is wanted from now on.
    #[prost(bool, optional, tag = "1")]
    pub subscribe: Option<bool>,
    /// Which topic.
    #[prost(string, optional, tag = "2")]
    pub topicid: Option<String>,
}

/// A message of a topic.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Message {
    /// Its author's libp2p peer id.
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub from: Option<Bytes>,
    /// What it says.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub data: Option<Bytes>,
    /// Its author's number for it: eight bytes, the first the most significant.
    #[prost(bytes = "bytes", optional, tag = "3")]
    pub seqno: Option<Bytes>,
    /// Its topic. There is one in every message.
    #[prost(string, optional, tag = "4")]
    pub topic: Option<String>,
    /// Its author's signature.
    #[prost(bytes = "bytes", optional, tag = "5")]
    pub signature: Option<Bytes>,
    /// The author's public key, where `from` does not say it.
    #[prost(bytes = "bytes", optional, tag = "6")]
    pub key: Option<Bytes>,
    /// The libp2p peer id of whom a direct message is for. In no message of a topic.
    #[prost(bytes = "bytes", optional, tag = "2125876")]
    pub to: Option<Bytes>,
}

/// What routers tell one another.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ControlMessage {
    /// Messages that the sender has.
    #[prost(message, repeated, tag = "1")]
    pub ihave: Vec<ControlIHave>,
    /// Messages that the sender wants.
    #[prost(message, repeated, tag = "2")]
    pub iwant: Vec<ControlIWant>,
    /// Meshes that the sender takes the receiver into.
    #[prost(message, repeated, tag = "3")]
    pub graft: Vec<ControlGraft>,
    /// Meshes that the sender puts the receiver out of.
    #[prost(message, repeated, tag = "4")]
    pub prune: Vec<ControlPrune>,
    /// Messages that the sender need not get any more (v1.2).
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

/// The sender takes the receiver into its mesh of a topic.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ControlGraft {
    /// The topic.
    #[prost(string, optional, tag = "1")]
    pub topic_id: Option<String>,
}

/// The sender puts the receiver out of its mesh of a topic.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ControlPrune {
    /// The topic.
    #[prost(string, optional, tag = "1")]
    pub topic_id: Option<String>,
    /// Others whom the receiver may turn to (v1.1).
    #[prost(message, repeated, tag = "2")]
    pub peers: Vec<PeerInfo>,
    /// For how many seconds neither may take the other in again (v1.1).
    #[prost(uint64, optional, tag = "3")]
    pub backoff: Option<u64>,
}

/// A peer whom others may turn to.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PeerInfo {
    /// Its id.
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub peer_id: Option<Bytes>,
    /// Where it is, signed by itself.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub signed_peer_record: Option<Bytes>,
}

/// The sender need not get these messages any more.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ControlIDontWant {
    /// Their ids.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub message_ids: Vec<Bytes>,
}
