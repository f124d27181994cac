//! The end of a connection, as the transport reports it.

use std::io::{self, ErrorKind};

use p2p_protocols::connections::CloseReason;

/// The end of a connection.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) reason: CloseReason,
    pub(crate) detail: Box<str>,
}

impl End {
    pub(crate) fn new(reason: CloseReason, detail: &str) -> Self {
        let detail = detail.into();
        Self { reason, detail }
    }
}

impl From<&quinn::ConnectionError> for End {
    fn from(error: &quinn::ConnectionError) -> Self {
        use quinn::ConnectionError as Quic;
        let reason = match error {
            Quic::ApplicationClosed(_) => CloseReason::Remote,
            Quic::LocallyClosed => CloseReason::Local,
            Quic::TimedOut => CloseReason::TimedOut,
            _ => CloseReason::Failed,
        };
        Self::new(reason, &error.to_string())
    }
}

impl From<&io::Error> for End {
    fn from(error: &io::Error) -> Self {
        let reason = match error.kind() {
            ErrorKind::TimedOut => CloseReason::TimedOut,
            // A peer whose process has ended says no more.
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => {
                CloseReason::Remote
            }
            _ => CloseReason::Failed,
        };
        Self::new(reason, &error.to_string())
    }
}

impl From<&yamux::ConnectionError> for End {
    fn from(error: &yamux::ConnectionError) -> Self {
        use yamux::ConnectionError as Yamux;
        let reason = match error {
            Yamux::Closed => CloseReason::Remote,
            Yamux::Io(error) => return Self::from(error),
            _ => CloseReason::Failed,
        };
        Self::new(reason, &error.to_string())
    }
}
