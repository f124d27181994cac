//! `http://HOST:PORT/CELL#SECRET`: where a tracker's cell is, and what its members share.

use std::fmt;
use std::str::FromStr;

use hyper::Uri;
use zeroize::Zeroizing;

use crate::tracker::{CellId, Secret};
use crate::{Error, Result};

/// A tracker at a server. Whoever has it is a member; `Debug` and errors do not show its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    host: String,
    port: u16,
    /// What stands before the cell's id, from the first `/` to the last.
    folder: String,
    secret: Secret,
}

impl Token {
    /// The tracker with this secret at a server, which is given as `http://HOST:PORT`, or with a path behind that.
    ///
    /// # Errors
    /// [`Error::Invalid`] if that is no such URL.
    pub fn new(server: &str, secret: Secret) -> Result<Self> {
        let bad = |reason: String| Error::invalid("tracker", reason);
        let uri: Uri = server
            .parse()
            .map_err(|error| bad(format!("it is no URL: {error}")))?;
        if uri.scheme_str() != Some("http") {
            return Err(bad("it does not begin with http://".to_owned()));
        }
        let host = uri.host().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| bad("it names no host".to_owned()))?;
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let behind = authority.strip_prefix(host);
        let behind = behind
            .ok_or_else(|| bad("it names a user, and only a host and a port are expected".to_owned()))?;
        let port = match behind.strip_prefix(':') {
            Some(port) => port.parse().map_err(|_| bad(format!("{port:?} is no port")))?,
            None => 80,
        };
        if uri.query().is_some() {
            return Err(bad("it has a '?', and only a path is expected".to_owned()));
        }
        let mut folder = uri.path().to_owned();
        if !folder.ends_with('/') {
            folder.push('/');
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            folder,
            secret,
        })
    }

    /// The cell's URL as far as the server knows it: `http://HOST:PORT/CELL#…`, without the secret.
    pub fn place(&self) -> String {
        format!("http://{}{}#…", self.authority(), self.path())
    }

    /// What members share.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// The cell at the server.
    pub fn cell_id(&self) -> CellId {
        self.secret.cell_id()
    }

    /// The host to connect to, without the brackets around an IPv6 address.
    pub(super) fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// As the `Host` field says it.
    pub(super) fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The path of the cell.
    pub(super) fn path(&self) -> String {
        format!("{}{}", self.folder, self.cell_id())
    }

    /// The whole of it, secret included.
    pub fn to_text(&self) -> Zeroizing<String> {
        let secret = self.secret.to_text();
        Zeroizing::new(format!("http://{}{}#{}", self.authority(), self.path(), *secret))
    }
}

impl FromStr for Token {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |reason: String| Error::invalid("tracker", reason);
        let (url, secret) = text
            .split_once('#')
            .ok_or_else(|| bad("there is no secret behind a '#'".to_owned()))?;
        let secret: Secret = secret.parse()?;
        let (folder, cell) = url
            .rsplit_once('/')
            .ok_or_else(|| bad("it has no path".to_owned()))?;
        let cell: CellId = cell.parse()?;
        if cell != secret.cell_id() {
            return Err(bad("the cell in its path is not that of the secret".to_owned()));
        }
        Self::new(folder, secret)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.place())
    }
}
