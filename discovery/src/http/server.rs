//! A server of cells, which knows neither their contents nor their owners.

mod precondition;
mod refusal;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, ETAG, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::{Mutex, MutexGuard};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::debug;

use self::precondition::Precondition;
use self::refusal::Refusal;
use super::connections::{ConnectionGuard, Connections};
use super::etag;
use super::sources::{Opened, Sources};
use super::store::{ServerConfig, Store};
use crate::cell::Swap;
use crate::tracker::{CellId, WriteToken};
use crate::{Error, Result};

/// Maximum length of a request's head in bytes.
const HEAD: usize = 16 << 10;
/// Delay after the system had no socket for a connection.
const NO_SOCKET: Duration = Duration::from_millis(100);

/// Counters of a server since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Requests that succeeded.
    pub done: u64,
    /// Requests that were answered with an error of any kind.
    pub refused: u64,
    /// Connections that were closed at once because the client had too many.
    pub closed: u64,
    /// Connections that ended without a complete request.
    pub broken: u64,
    /// Number of cells.
    pub cells: usize,
}

#[derive(Default)]
struct Counts {
    done: AtomicU64,
    refused: AtomicU64,
    closed: AtomicU64,
    broken: AtomicU64,
}

/// A server that runs until it is closed or dropped.
pub struct TrackerServer {
    addr: SocketAddr,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

struct State {
    store: Store,
    sources: Arc<Sources>,
    connections: Arc<Connections>,
    counts: Counts,
    /// Writes in progress, which complete even if their connection ends.
    writes: Mutex<JoinSet<()>>,
}

impl State {
    fn writes(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.writes.lock()
    }
}

impl TrackerServer {
    /// Binds a server to this address; with port 0 the system chooses a port.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if the address or the folder cannot be used, and [`Error::Invalid`] if another
    /// server uses the folder.
    ///
    /// # Panics
    /// Panics outside of a tokio runtime with I/O and time.
    pub fn bind(addr: SocketAddr, config: ServerConfig) -> Result<Self> {
        let doing = "binding the tracker";
        let listener = StdListener::bind(addr).map_err(Error::io(doing))?;
        listener.set_nonblocking(true).map_err(Error::io(doing))?;
        let listener = TcpListener::from_std(listener).map_err(Error::io(doing))?;
        let addr = listener.local_addr().map_err(Error::io(doing))?;
        let sources = Sources::new(config.connections_each, config.requests_each, config.burst_each);
        let state = Arc::new(State {
            sources: Arc::new(sources),
            connections: Arc::default(),
            counts: Counts::default(),
            writes: Mutex::default(),
            store: Store::open(config)?,
        });
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(accept(listener, state.clone(), stopped));
        Ok(Self {
            addr,
            state,
            stop: Some(stop),
            task,
        })
    }

    /// Closes the server and all of its connections. Its port and its folder are free afterwards.
    ///
    /// # Cancel safety
    /// After cancelling, the server still ends, a little later.
    pub async fn close(mut self) {
        drop(self.stop.take());
        // The task does not panic, and no code aborts it.
        drop((&mut self.task).await);
    }

    /// Returns the address that it serves.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns its counters.
    pub fn served(&self) -> Served {
        let counts = &self.state.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Served {
            done: read(&counts.done),
            refused: read(&counts.refused),
            closed: read(&counts.closed),
            broken: read(&counts.broken),
            cells: self.state.store.len(),
        }
    }
}

impl Drop for TrackerServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for TrackerServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrackerServer")
            .field("addr", &self.addr)
            .field("served", &self.served())
            .finish_non_exhaustive()
    }
}

async fn accept(listener: TcpListener, state: Arc<State>, mut stopped: oneshot::Receiver<()>) {
    let room = Arc::new(Semaphore::new(state.store.config().connections));
    // Connections end with the server.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let next = async {
            let (stream, peer) = listener.accept().await?;
            if state.connections.of_prefix(peer.ip()) >= state.store.config().connections_prefix
                && !state.connections.close_idle(Some(peer.ip()))
            {
                return Ok((stream, peer, None));
            }
            // Connections without a request are closed first.
            let room = room.clone();
            let permit = if let Ok(permit) = room.clone().try_acquire_owned() {
                permit
            } else {
                state.connections.close_idle(None);
                room.acquire_owned().await.map_err(io::Error::other)?
            };
            Ok((stream, peer, Some(permit)))
        };
        let next: io::Result<_> = tokio::select! {
            next = next => next,
            _ = &mut stopped => break,
        };
        let (stream, peer, permit) = match next {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!(%error, "a connection was not accepted");
                sleep(NO_SOCKET).await;
                continue;
            }
        };
        let opened = state.sources.open(peer.ip()).filter(|_| permit.is_some());
        let Some(opened) = opened else {
            add(&state.counts.closed);
            continue;
        };
        let listed = state.connections.enter(peer.ip());
        let (number, shared) = (listed.number(), state.clone());
        let task = connections.spawn(async move {
            converse(stream, &opened, &listed, &shared).await;
            drop((permit, listed, opened));
        });
        state.connections.serve(number, task);
    }
    drop(listener);
    connections.shutdown().await;
    let mut writes = std::mem::take(&mut *state.writes());
    while writes.join_next().await.is_some() {}
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// Serves one request.
async fn converse(stream: TcpStream, opened: &Opened, listed: &ConnectionGuard, state: &Arc<State>) {
    let (limit, head) = (state.store.config().limit, state.store.config().head);
    let service = service_fn(async |request| {
        listed.has_asked();
        // The response to a slow client needs some time as well.
        let answer = match timeout(limit * 9 / 10, answer(request, opened, state)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(refusal)) => refusal.answer(),
            Err(_) => Refusal::new(StatusCode::REQUEST_TIMEOUT, "the request took too long").answer(),
        };
        let is_done = answer.status().is_success() || answer.status() == StatusCode::NOT_FOUND;
        add(if is_done {
            &state.counts.done
        } else {
            &state.counts.refused
        });
        Ok::<_, Infallible>(answer)
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(head.min(limit))
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(limit, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            debug!(%error, "a connection broke");
            add(&state.counts.broken);
        }
        Err(_) => add(&state.counts.broken),
    }
}

/// Returns the cell of a request, if its token permits access.
fn authorized(request: &Request<Incoming>) -> Result<CellId, Refusal> {
    let path = request.uri().path().trim_start_matches('/');
    if path.is_empty() {
        return Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "a tracker: its cells are at /CELL",
        ));
    }
    let id: CellId = path
        .parse()
        .map_err(|error: Error| Refusal::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    let unauthorized =
        |reason: &str| Refusal::new(StatusCode::UNAUTHORIZED, reason).with(WWW_AUTHENTICATE, "Bearer");
    let field = request.headers().get(AUTHORIZATION);
    let field = field.ok_or_else(|| unauthorized("Authorization: Bearer TOKEN is missing"))?;
    // Schemes are case-insensitive (RFC 9110, section 11.1).
    let token = field.to_str().ok().and_then(|field| field.split_once(' '));
    let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let token: Option<WriteToken> = token.and_then(|(_, token)| token.trim().parse().ok());
    let token = token.ok_or_else(|| unauthorized("Authorization must be Bearer TOKEN with 43 characters"))?;
    if token.cell_id() != id {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "the token belongs to another cell",
        ));
    }
    Ok(id)
}

async fn answer(
    request: Request<Incoming>,
    opened: &Opened,
    state: &Arc<State>,
) -> Result<Response<Full<Bytes>>, Refusal> {
    let max = state.store.config().value;
    let checked = check(&request, opened, max);
    let (parts, body) = request.into_parts();
    // The body is read, so that the client reads the response; but not without limit.
    let value = Limited::new(body, max.saturating_mul(2)).collect().await;
    let id = checked?;
    let too_long = || {
        Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("a value has at most {max} bytes"),
        )
    };
    let value = match value {
        Ok(value) => value.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => return Err(too_long()),
        Err(_) => {
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "the value is incomplete"));
        }
    };
    if value.len() > max {
        return Err(too_long());
    }
    match parts.method {
        Method::GET => load(state, &id).await,
        Method::PUT if value.is_empty() => Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "a value must not be empty: DELETE removes it",
        )),
        Method::PUT => write(state, id, opened.network(), &parts.headers, value).await,
        _ => write(state, id, opened.network(), &parts.headers, Bytes::new()).await,
    }
}

/// Checks that are possible before the value is read.
fn check(request: &Request<Incoming>, opened: &Opened, max: usize) -> Result<CellId, Refusal> {
    if !opened.request() {
        let refusal = Refusal::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too many requests from this client",
        );
        return Err(refusal.with(RETRY_AFTER, "1"));
    }
    if ![Method::GET, Method::PUT, Method::DELETE].contains(request.method()) {
        let refusal = Refusal::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "a cell supports GET, PUT and DELETE",
        );
        return Err(refusal.with(ALLOW, "GET, PUT, DELETE"));
    }
    let id = authorized(request)?;
    if request.body().size_hint().lower() > max as u64 {
        let reason = format!("a value has at most {max} bytes");
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, reason));
    }
    Ok(id)
}

fn success(status: StatusCode, value: &[u8], body: Bytes) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    if let Ok(tag) = etag(value).parse()
        && !value.is_empty()
    {
        answer.headers_mut().insert(ETAG, tag);
    }
    let no_store = hyper::header::HeaderValue::from_static("no-store");
    answer.headers_mut().insert(CACHE_CONTROL, no_store);
    answer
}

async fn load(state: &State, id: &CellId) -> Result<Response<Full<Bytes>>, Refusal> {
    let value = match state.store.get(id) {
        Some(cell) => cell.load().await?,
        None => Vec::new(),
    };
    if value.is_empty() {
        return Err(Refusal::new(StatusCode::NOT_FOUND, "the cell has no value"));
    }
    Ok(success(StatusCode::OK, &value, Bytes::from(value.clone())))
}

/// Writes a cell. A write that does not complete at once continues in a task of its own, so that a closed
/// connection leaves no partial write.
async fn write(
    state: &Arc<State>,
    id: CellId,
    client: u128,
    headers: &HeaderMap,
    new: Bytes,
) -> Result<Response<Full<Bytes>>, Refusal> {
    let precondition = Precondition::of(headers)?;
    let ends = || Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the server is closing");
    let shared = state.clone();
    let swapping = async move { swap(&shared, id, client, &precondition, &new).await };
    let mut swapping = Box::pin(swapping);
    // Values in memory are written without another task.
    if let Some(written) = swapping.as_mut().now_or_never() {
        return written;
    }
    let (done, outcome) = oneshot::channel();
    let writing = async move {
        // The connection may have ended.
        drop(done.send(swapping.await));
    };
    {
        let mut writes = state.writes();
        while writes.try_join_next().is_some() {}
        if writes.len() >= state.store.config().connections.saturating_mul(2) {
            let refusal = Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many values are being written",
            );
            return Err(refusal.with(RETRY_AFTER, "1"));
        }
        writes.spawn(writing);
    }
    outcome.await.map_err(|_| ends())?
}

async fn swap(
    state: &State,
    id: CellId,
    client: u128,
    precondition: &Precondition,
    new: &[u8],
) -> Result<Response<Full<Bytes>>, Refusal> {
    let failed = || Refusal::new(StatusCode::PRECONDITION_FAILED, "the value has changed");
    let (cell, turn) = state.store.to_write(id, client)?;
    let _turn = turn.lock().await;
    let current = cell.load().await?;
    if !precondition.holds(&current) {
        return Err(failed());
    }
    match cell.compare_and_swap(&current, new).await? {
        Swap::Done => {
            state.store.keep(&id, !new.is_empty());
            Ok(success(StatusCode::NO_CONTENT, new, Bytes::new()))
        }
        Swap::Differs(_) => Err(failed()),
    }
}
