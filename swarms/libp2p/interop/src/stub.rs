//! A server with the few commands of Redis that the tests use: PING, SET, GET, DEL, RPUSH and BLPOP.
//!
//! Values are strings and lists. Nothing is kept for longer than the matrix runs.

use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use redis_protocol::codec::Resp2;
use redis_protocol::resp2::types::BytesFrame;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::codec::Framed;

/// Longest wait of a BLPOP whose timeout is 0, which means without end, or is longer.
const MAX_WAIT: Duration = Duration::from_hours(1);

#[derive(Debug)]
enum Value {
    Text(Bytes),
    List(VecDeque<Bytes>),
}

#[derive(Debug, Default)]
struct Store {
    values: Mutex<HashMap<Bytes, Value>>,
    /// Called when an item was appended.
    pushed: Notify,
}

/// A running server. It ends when this is dropped, and its connections with their clients.
#[derive(Debug)]
pub struct Stub {
    addr: String,
    store: Arc<Store>,
    task: tokio::task::JoinHandle<()>,
}

impl Stub {
    /// Starts a server on a free port of the loopback interface.
    ///
    /// # Errors
    /// Those of binding a socket.
    pub async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?.to_string();
        let store = Arc::new(Store::default());
        let serving = store.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, serving.clone()));
            }
        });
        Ok(Self { addr, store, task })
    }

    /// Returns the address, `host:port`.
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// Waits for an item of a list, and takes it.
    pub async fn pop(&self, key: &str) -> String {
        let item = self
            .store
            .pop(&Bytes::copy_from_slice(key.as_bytes()), MAX_WAIT)
            .await;
        item.ok()
            .flatten()
            .map(|item| String::from_utf8_lossy(&item).into_owned())
            .unwrap_or_default()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, store: Arc<Store>) {
    let mut framed = Framed::new(stream, Resp2::default());
    while let Some(Ok(request)) = framed.next().await {
        let answer = store.handle(request).await;
        if framed.send(answer).await.is_err() {
            return;
        }
    }
}

fn error(reason: &str) -> BytesFrame {
    BytesFrame::Error(reason.to_owned().into())
}

fn wrong_type() -> BytesFrame {
    error("WRONGTYPE Operation against a key holding the wrong kind of value")
}

impl Store {
    async fn handle(&self, request: BytesFrame) -> BytesFrame {
        let BytesFrame::Array(words) = request else {
            return error("ERR a request is an array");
        };
        let words = words.into_iter().map(|word| match word {
            BytesFrame::BulkString(word) | BytesFrame::SimpleString(word) => word,
            _ => Bytes::new(),
        });
        let words: Vec<Bytes> = words.collect();
        let Some((command, rest)) = words.split_first() else {
            return error("ERR a request is empty");
        };
        match (command.to_ascii_uppercase().as_slice(), rest) {
            (b"PING", []) => BytesFrame::SimpleString(Bytes::from_static(b"PONG")),
            (b"SET", [key, value]) => {
                self.values().insert(key.clone(), Value::Text(value.clone()));
                BytesFrame::SimpleString(Bytes::from_static(b"OK"))
            }
            (b"GET", [key]) => match self.values().get(key) {
                None => BytesFrame::Null,
                Some(Value::Text(value)) => BytesFrame::BulkString(value.clone()),
                Some(Value::List(_)) => wrong_type(),
            },
            (b"DEL", keys) => {
                let mut values = self.values();
                let removed = keys.iter().filter(|key| values.remove(*key).is_some()).count();
                BytesFrame::Integer(removed.cast_signed() as i64)
            }
            (b"RPUSH", [key, items @ ..]) => self.push(key, items),
            (b"BLPOP", [key, seconds]) => {
                let seconds = std::str::from_utf8(seconds)
                    .ok()
                    .and_then(|text| text.parse::<f64>().ok());
                let wait = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                let Some(wait) = wait else {
                    return error("ERR timeout is not a float or out of range");
                };
                let wait = if wait.is_zero() {
                    MAX_WAIT
                } else {
                    wait.min(MAX_WAIT)
                };
                match self.pop(key, wait).await {
                    Err(refused) => refused,
                    Ok(None) => BytesFrame::Null,
                    Ok(Some(item)) => {
                        BytesFrame::Array([key.clone(), item].map(BytesFrame::BulkString).into())
                    }
                }
            }
            (command, _) => error(&format!("ERR unknown: {}", String::from_utf8_lossy(command))),
        }
    }

    fn values(&self) -> std::sync::MutexGuard<'_, HashMap<Bytes, Value>> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, key: &Bytes, items: &[Bytes]) -> BytesFrame {
        let mut values = self.values();
        let Value::List(list) = values
            .entry(key.clone())
            .or_insert_with(|| Value::List(VecDeque::new()))
        else {
            return wrong_type();
        };
        list.extend(items.iter().cloned());
        let len = list.len();
        drop(values);
        self.pushed.notify_waiters();
        BytesFrame::Integer(len.cast_signed() as i64)
    }

    /// Takes the first item of a list, once there is one.
    async fn pop(&self, key: &Bytes, wait: Duration) -> Result<Option<Bytes>, BytesFrame> {
        let taken = async {
            loop {
                // Before the look, so that an item which is appended after it is noticed.
                let mut pushed = std::pin::pin!(self.pushed.notified());
                pushed.as_mut().enable();
                match self.values().get_mut(key) {
                    Some(Value::Text(_)) => return Err(wrong_type()),
                    Some(Value::List(list)) => {
                        if let Some(item) = list.pop_front() {
                            return Ok(Some(item));
                        }
                    }
                    None => {}
                }
                pushed.await;
            }
        };
        timeout(wait, taken).await.unwrap_or(Ok(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::{Redis, RedisError};

    #[tokio::test]
    async fn an_address_arrives_by_a_list_and_by_a_string_in_either_order() {
        let stub = Stub::start().await.unwrap();
        let client = async || Redis::connect(stub.addr(), Duration::from_secs(5)).await.unwrap();
        let (mut ours, mut theirs) = (client().await, client().await);
        let limit = Duration::from_secs(5);

        ours.push("before", "a").await.unwrap();
        assert_eq!(theirs.wait_for("before", limit).await.unwrap(), "a");
        ours.set("text", "b").await.unwrap();
        assert_eq!(theirs.wait_for("text", limit).await.unwrap(), "b");
        let (waited, pushed) = tokio::join!(theirs.wait_for("after", limit), ours.push("after", "c"));
        pushed.unwrap();
        assert_eq!(waited.unwrap(), "c");
        // DEL makes room for a list where a string was.
        ours.push("text", "d").await.unwrap();
        assert_eq!(theirs.wait_for("text", limit).await.unwrap(), "d");
        assert_eq!(
            theirs
                .wait_for("text", Duration::ZERO)
                .await
                .unwrap_err()
                .to_string(),
            {
                let (key, limit) = ("text".to_owned(), Duration::ZERO);
                RedisError::NoAddress { key, limit }.to_string()
            }
        );
    }

    #[tokio::test]
    async fn an_item_is_taken_once_and_unknown_commands_are_refused() {
        let store = Store::default();
        let request = |words: &[&str]| {
            let words = words
                .iter()
                .map(|word| BytesFrame::BulkString(Bytes::copy_from_slice(word.as_bytes())));
            store.handle(BytesFrame::Array(words.collect()))
        };
        assert_eq!(request(&["ping"]).await, BytesFrame::SimpleString("PONG".into()));
        assert_eq!(request(&["RPUSH", "k", "1", "2"]).await, BytesFrame::Integer(2));
        assert_eq!(request(&["GET", "k"]).await, wrong_type());
        let item = |item: &str| BytesFrame::BulkString(Bytes::copy_from_slice(item.as_bytes()));
        assert_eq!(
            request(&["BLPOP", "k", "0"]).await,
            BytesFrame::Array(vec![item("k"), item("1")])
        );
        assert_eq!(
            request(&["BLPOP", "k", "1"]).await,
            BytesFrame::Array(vec![item("k"), item("2")])
        );
        assert_eq!(request(&["BLPOP", "k", "0.001"]).await, BytesFrame::Null);
        for wrong in [&["BLPOP", "k", "-1"][..], &["FLUSHALL"], &["SET", "k"], &[]] {
            assert!(matches!(request(wrong).await, BytesFrame::Error(_)), "{wrong:?}");
        }
    }
}
