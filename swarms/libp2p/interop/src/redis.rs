//! The few commands of a Redis server by which listener and dialler meet.
//!
//! The transport tests pass the listener's address on in a list (`RPUSH`, `BLPOP`), the perf tests in a string (`SET`, `GET`).
//! [`Redis::wait_for`] takes it from either.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use redis_protocol::codec::Resp2;
use redis_protocol::error::RedisProtocolError;
use redis_protocol::resp2::types::BytesFrame;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::codec::Framed;

/// Time between two attempts to connect: the containers of a test start in any order.
const RETRY: Duration = Duration::from_millis(100);

/// The reason for which an address could not be passed on.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    /// No connection could be established in time.
    #[error("no connection with the Redis server at {addr} within {limit:?}: {source}")]
    Unreachable {
        /// The address of the server.
        addr: String,
        /// The limit.
        limit: Duration,
        /// The last reason.
        source: std::io::Error,
    },
    /// The server closed the connection.
    #[error("the Redis server closed the connection")]
    Closed,
    /// The server did not send RESP.
    #[error("the Redis server broke its protocol: {0}")]
    Protocol(RedisProtocolError),
    /// The server refused a command.
    #[error("the Redis server refused {command}: {reason}")]
    Refused {
        /// The command.
        command: String,
        /// The server's text.
        reason: String,
    },
    /// The listener published no address in time.
    #[error("no address was published under {key} within {limit:?}")]
    NoAddress {
        /// The key.
        key: String,
        /// The limit.
        limit: Duration,
    },
}

/// A connection with a Redis server.
#[derive(Debug)]
pub struct Redis(Framed<TcpStream, Resp2>);

impl Redis {
    /// Connects to the server at `host:port`, again until it is reached.
    ///
    /// # Errors
    /// [`RedisError::Unreachable`] after `limit`.
    pub async fn connect(addr: &str, limit: Duration) -> Result<Self, RedisError> {
        let until = Instant::now() + limit;
        loop {
            match TcpStream::connect(addr).await {
                Ok(stream) => return Ok(Self(Framed::new(stream, Resp2::default()))),
                Err(source) if Instant::now() + RETRY >= until => {
                    let addr = addr.to_owned();
                    return Err(RedisError::Unreachable { addr, limit, source });
                }
                Err(_) => sleep(RETRY).await,
            }
        }
    }

    /// Publishes an address as the only item of a list.
    ///
    /// # Errors
    /// Those of a command.
    pub async fn push(&mut self, key: &str, addr: &str) -> Result<(), RedisError> {
        self.command(&["DEL", key]).await?;
        self.command(&["RPUSH", key, addr]).await.map(drop)
    }

    /// Publishes an address as a string.
    ///
    /// # Errors
    /// Those of a command.
    pub async fn set(&mut self, key: &str, addr: &str) -> Result<(), RedisError> {
        self.command(&["SET", key, addr]).await.map(drop)
    }

    /// Waits until an address is published, as an item of a list or as a string.
    ///
    /// # Errors
    /// [`RedisError::NoAddress`] after `limit`, and those of a command.
    pub async fn wait_for(&mut self, key: &str, limit: Duration) -> Result<String, RedisError> {
        let wait = async {
            loop {
                // A string that is set later does not end the wait for a list, so the wait begins again each second.
                let answer = match self.command(&["BLPOP", key, "1"]).await {
                    Err(RedisError::Refused { reason, .. }) if reason.starts_with("WRONGTYPE") => {
                        self.command(&["GET", key]).await?
                    }
                    answer => answer?,
                };
                let value = match answer {
                    BytesFrame::Array(items) => items.into_iter().nth(1),
                    value => Some(value),
                };
                if let Some(BytesFrame::BulkString(value) | BytesFrame::SimpleString(value)) = value {
                    return Ok(String::from_utf8_lossy(&value).into_owned());
                }
            }
        };
        let none = |_| RedisError::NoAddress {
            key: key.to_owned(),
            limit,
        };
        timeout(limit, wait).await.map_err(none)?
    }

    async fn command(&mut self, words: &[&str]) -> Result<BytesFrame, RedisError> {
        let words_of = words
            .iter()
            .map(|word| BytesFrame::BulkString(Bytes::copy_from_slice(word.as_bytes())));
        let sent = self.0.send(BytesFrame::Array(words_of.collect())).await;
        sent.map_err(RedisError::Protocol)?;
        match self.0.next().await.ok_or(RedisError::Closed)? {
            Ok(BytesFrame::Error(reason)) => Err(RedisError::Refused {
                command: words.join(" "),
                reason: reason.to_string(),
            }),
            Ok(answer) => Ok(answer),
            Err(error) => Err(RedisError::Protocol(error)),
        }
    }
}
