//! Refused requests, and the responses that say why.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use tracing::debug;

use super::super::store::NoCell;
use crate::Error;

/// Why a request is refused.
pub(super) struct Refusal {
    status: StatusCode,
    reason: String,
    header: Option<(HeaderName, &'static str)>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self {
            status,
            reason: reason.into(),
            header: None,
        }
    }

    pub(super) fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.header = Some((name, value));
        self
    }

    pub(super) fn answer(self) -> Response<Full<Bytes>> {
        let mut answer = Response::new(Full::new(Bytes::from(self.reason + "\n")));
        *answer.status_mut() = self.status;
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        answer.headers_mut().insert(CONTENT_TYPE, text);
        if let Some((name, value)) = self.header {
            let value = HeaderValue::from_static(value);
            answer.headers_mut().insert(name, value);
        }
        answer
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        debug!(%error, "a cell failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the cell cannot be read or written",
        )
    }
}

impl From<NoCell> for Refusal {
    fn from(no_cell: NoCell) -> Self {
        match no_cell {
            NoCell::NotHere => Self::new(
                StatusCode::FORBIDDEN,
                "this server has no such cell, and does not create it",
            ),
            NoCell::Share => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "this client has created the maximum number of cells",
            ),
            NoCell::Full => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "there is no room for another cell",
            ),
        }
    }
}
