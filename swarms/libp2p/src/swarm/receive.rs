//! The receive path: streams that peers open for the swarm, and the responses to their requests.

use std::io::{self, ErrorKind};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::BytesMut;
use p2p::{Counters, DropReason, Error, Message, Packet, Rejection, Request, Respond, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::Core;
use super::send::{Sending, frame};
use crate::frame::{self, Head, REJECTED};
use crate::stream::{Stream, failed};

/// Registers the handlers of both protocol ids.
pub(super) fn serve(core: &Arc<Core>) -> Result<()> {
    let weak = Arc::downgrade(core);
    core.attachment.host.add_handler(&core.tell_id, move |stream| {
        with(weak.clone(), stream, Core::receive_tell)
    })?;
    let weak = Arc::downgrade(core);
    let added = core.attachment.host.add_handler(&core.ask_id, move |stream| {
        with(weak.clone(), stream, Core::receive_request)
    });
    if let Err(error) = added {
        core.attachment.host.remove_handler(&core.tell_id);
        return Err(error);
    }
    // Pending receives end with the host.
    let weak = Arc::downgrade(core);
    core.attachment.host.at_end(core.attachment.closing(), move || {
        if let Some(core) = weak.upgrade() {
            core.close();
        }
    });
    Ok(())
}

async fn with<F: Future<Output = ()>>(
    core: Weak<Core>,
    stream: Stream,
    serve: impl FnOnce(Arc<Core>, Stream) -> F,
) {
    if let Some(core) = core.upgrade() {
        serve(core, stream).await;
    }
}

impl Core {
    async fn receive_tell(self: Arc<Self>, mut stream: Stream) {
        let Some(payload) = self.receive_whole(&mut stream, &self.attachment.counters).await else {
            return;
        };
        // The peer awaits the end of the stream.
        stream.release();
        let _ = stream.shutdown().await;
        let peer = stream.peer().clone();
        drop(stream);
        self.attachment.deliver(peer, Packet::from_buffer(payload, 0));
    }

    async fn receive_request(self: Arc<Self>, mut stream: Stream) {
        let Some(payload) = self.receive_whole(&mut stream, &self.asks).await else {
            return;
        };
        let message = Message {
            src: stream.peer().clone(),
            dst: self.attachment.local.clone(),
            payload: Packet::from_buffer(payload, 0),
        };
        let responder = StreamResponder {
            core: self.clone(),
            stream: Some(stream),
        };
        let request = Request::new(message, responder);
        if let Err(refused) = self.requests.push(request) {
            for request in refused.items {
                self.asks.add_dropped_from(refused.reason, &request.message.src);
                request.reject(Rejection::BUSY);
            }
        }
    }

    /// Receives a message to the end of its stream; counts the reason if it does not arrive.
    async fn receive_whole(&self, stream: &mut Stream, counters: &Counters) -> Option<BytesMut> {
        counters.add_received(1);
        let received = timeout(self.config.message_timeout, self.receive_message(stream)).await;
        let reason = match received {
            Ok(Ok(message)) => return Some(message),
            Ok(Err(reason)) => reason,
            Err(_) => DropReason::Expired,
        };
        counters.add_dropped_from(reason, stream.peer());
        None
    }

    async fn receive_message(&self, stream: &mut Stream) -> Result<BytesMut, DropReason> {
        let lost = |error: io::Error| match error.kind() {
            ErrorKind::InvalidData => DropReason::Malformed,
            ErrorKind::OutOfMemory => DropReason::Budget,
            ErrorKind::FileTooLarge => DropReason::Oversize,
            _ => DropReason::Lost,
        };
        let length = match frame::read_head(stream, self.config.mtu).await.map_err(lost)? {
            Head::Length(length) => length,
            Head::Rejected(_) | Head::End => return Err(DropReason::Malformed),
        };
        let mut charge = self.reassembly.charging(stream.peer());
        let body = frame::read_body(stream, length, &mut charge)
            .await
            .map_err(lost)?;
        match stream.read(&mut [0; 1]).await.map_err(lost)? {
            0 => Ok(body),
            _ => Err(DropReason::Malformed),
        }
    }
}

/// Answers a request on its stream.
struct StreamResponder {
    core: Arc<Core>,
    stream: Option<Stream>,
}

#[async_trait]
impl Respond for StreamResponder {
    async fn respond(mut self: Box<Self>, mut response: Packet) -> Result<()> {
        if let Err(error) = response.check_mtu(self.core.config.mtu) {
            self.reject_with(Rejection::OVERSIZE);
            return Err(error);
        }
        let core = self.core.clone();
        core.attachment.check_open()?;
        let Some(mut stream) = self.stream.take() else {
            return Ok(());
        };
        let sending = Sending::begin(&core);
        frame(&mut response);
        let write = async {
            stream.write_bytes(response.into_bytes()).await?;
            stream.shutdown().await
        };
        let limit = core.config.send_timeout;
        match timeout(limit, core.attachment.unless_closed(async { Ok(write.await) })).await {
            Ok(Ok(Ok(()))) => {
                core.ends.await_end(sending, stream);
                Ok(())
            }
            Ok(Ok(Err(error))) => Err(failed(stream.peer(), &error)),
            Ok(Err(closed)) => Err(closed),
            Err(_) => Err(Error::TimedOut {
                doing: "sending a response",
                limit,
            }),
        }
    }

    fn reject(mut self: Box<Self>, why: Rejection) {
        self.reject_with(why);
    }
}

impl StreamResponder {
    fn reject_with(&mut self, why: Rejection) {
        let Some(mut stream) = self.stream.take() else {
            return;
        };
        let core = self.core.clone();
        let answer = [REJECTED[0], REJECTED[1], why.code().get()];
        let sending = Sending::begin(&core);
        self.core.attachment.host.spawn(async move {
            let write = async {
                stream.write_all(&answer).await?;
                stream.shutdown().await
            };
            if matches!(timeout(core.config.send_timeout, write).await, Ok(Ok(()))) {
                core.ends.await_end(sending, stream);
            }
        });
    }
}
