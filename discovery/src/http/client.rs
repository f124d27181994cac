//! The client of a cell at a server: one connection per request.

use std::future::Future;
use std::io;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::{Either, select};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, HOST, HeaderName, IF_MATCH, IF_NONE_MATCH};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::etag;
use super::token::Token;
use crate::cell::{Cell, DEFAULT_MAX, Swap, check_len};
use crate::{Error, Result};

const DOING: &str = "asking the tracker";
/// Maximum number of characters kept of a server's error text.
const REASON: usize = 200;

/// A cell at a server.
#[derive(Clone, Debug)]
pub struct HttpCell {
    token: Token,
    max: usize,
    limit: Duration,
}

impl HttpCell {
    /// Creates the cell of this token for at most 64 KiB; the server's limit may differ. Requests have a
    /// timeout of 10 s.
    pub fn new(token: Token) -> Self {
        Self {
            token,
            max: DEFAULT_MAX,
            limit: Duration::from_secs(10),
        }
    }

    /// Sets the maximum length of a value to `max` bytes.
    #[must_use]
    pub fn max(mut self, max: usize) -> Self {
        self.max = max;
        self
    }

    /// Sets the timeout of each request.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    async fn ask(
        &self,
        method: Method,
        precondition: Option<(HeaderName, String)>,
        body: &[u8],
    ) -> Result<(StatusCode, Bytes)> {
        let token = self.token.secret().write_token();
        let mut request = Request::builder()
            .method(method)
            .uri(self.token.path())
            .header(HOST, self.token.authority())
            .header(AUTHORIZATION, format!("Bearer {}", *token.to_text()));
        if let Some((name, value)) = precondition {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body)));
        let request = request.map_err(|error| Error::invalid("tracker", error.to_string()))?;
        let asked = timeout(self.limit, self.exchange(request)).await;
        asked.unwrap_or(Err(Error::TimedOut {
            doing: DOING,
            limit: self.limit,
        }))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes)> {
        let stream = TcpStream::connect((self.token.host(), self.token.port())).await;
        let stream = stream.map_err(Error::io("connecting to the tracker"))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let exchange = async {
            let answer = sender.send_request(request).await.map_err(failed)?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), self.max).collect().await;
            let body = body.map_err(|error| failed(io::Error::other(error)))?;
            Ok((status, body.to_bytes()))
        };
        beside(exchange, connection).await
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> Error {
        if status == StatusCode::PAYLOAD_TOO_LARGE {
            return Error::Limit {
                what: "bytes of a cell's value at the server, whose limit is less than",
                limit: self.max,
            };
        }
        let said = String::from_utf8_lossy(body);
        let reason: String = said.chars().filter(|c| !c.is_control()).take(REASON).collect();
        Error::Refused {
            status: status.as_u16(),
            reason: reason.into(),
        }
    }
}

/// Runs `work` while `driver` drives it.
async fn beside<T>(work: impl Future<Output = T>, driver: impl Future) -> T {
    let work = std::pin::pin!(work);
    match select(work, std::pin::pin!(driver)).await {
        Either::Left((done, _)) => done,
        Either::Right((_, work)) => work.await,
    }
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::io(DOING)(io::Error::other(error))
}

#[async_trait]
impl Cell for HttpCell {
    fn max(&self) -> usize {
        self.max
    }

    async fn load(&self) -> Result<Vec<u8>> {
        match self.ask(Method::GET, None, b"").await? {
            (StatusCode::OK, value) => Ok(value.to_vec()),
            (StatusCode::NOT_FOUND, _) => Ok(Vec::new()),
            (status, body) => Err(self.refused(status, &body)),
        }
    }

    async fn compare_and_swap(&self, current: &[u8], new: &[u8]) -> Result<Swap> {
        check_len(new, self.max)?;
        if new.is_empty() && current.is_empty() {
            let actual = self.load().await?;
            return Ok(if actual.is_empty() {
                Swap::Done
            } else {
                Swap::Differs(actual)
            });
        }
        let precondition = if current.is_empty() {
            (IF_NONE_MATCH, "*".to_owned())
        } else {
            (IF_MATCH, etag(current))
        };
        let method = if new.is_empty() {
            Method::DELETE
        } else {
            Method::PUT
        };
        match self.ask(method, Some(precondition), new).await? {
            (StatusCode::NO_CONTENT, _) => Ok(Swap::Done),
            (StatusCode::PRECONDITION_FAILED, _) => Ok(Swap::Differs(self.load().await?)),
            (status, body) => Err(self.refused(status, &body)),
        }
    }
}
