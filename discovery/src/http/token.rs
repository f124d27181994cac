//! `http://HOST:PORT/CELL#SECRET`: the URL of a tracker's cell, and the secret that its members share.

use std::fmt;
use std::str::FromStr;

use hyper::Uri;
use zeroize::Zeroizing;

use crate::tracker::{CellId, Secret};
use crate::{Error, Result};

/// A tracker at a server. Its holder is a member; `Debug` and errors do not show the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    host: String,
    port: u16,
    /// The path before the cell's id, from the first `/` to the last.
    folder: String,
    secret: Secret,
}

impl Token {
    /// Creates the token of the tracker with this secret at a server, given as `http://HOST:PORT` with an
    /// optional path.
    ///
    /// # Errors
    /// Returns [`Error::Invalid`] if the URL is invalid.
    pub fn new(server: &str, secret: Secret) -> Result<Self> {
        let bad = |reason: String| Error::invalid("tracker", reason);
        let uri: Uri = server
            .parse()
            .map_err(|error| bad(format!("it is not a URL: {error}")))?;
        if uri.scheme_str() != Some("http") {
            return Err(bad("it does not start with http://".to_owned()));
        }
        let host = uri.host().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| bad("it has no host".to_owned()))?;
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let behind = authority.strip_prefix(host);
        let behind =
            behind.ok_or_else(|| bad("it has a user name: expected only a host and a port".to_owned()))?;
        let port = match behind.strip_prefix(':') {
            Some(port) => port.parse().map_err(|_| bad(format!("{port:?} is not a port")))?,
            None => 80,
        };
        if uri.query().is_some() {
            return Err(bad("it has a '?': expected only a path".to_owned()));
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

    /// Returns the cell's URL without the secret, as the server knows it: `http://HOST:PORT/CELL#…`.
    pub fn place(&self) -> String {
        format!("http://{}{}#…", self.authority(), self.path())
    }

    /// Returns the secret that members share.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Returns the cell's id at the server.
    pub fn cell_id(&self) -> CellId {
        self.secret.cell_id()
    }

    /// Returns the host to connect to, without the brackets of an IPv6 address.
    pub(super) fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the value of the `Host` field.
    pub(super) fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Returns the path of the cell.
    pub(super) fn path(&self) -> String {
        format!("{}{}", self.folder, self.cell_id())
    }

    /// Returns the complete text, including the secret.
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
            .ok_or_else(|| bad("there is no '#' with a secret".to_owned()))?;
        let secret: Secret = secret.parse()?;
        let (folder, cell) = url
            .rsplit_once('/')
            .ok_or_else(|| bad("it has no path".to_owned()))?;
        let cell: CellId = cell.parse()?;
        if cell != secret.cell_id() {
            return Err(bad(
                "the cell in its path does not belong to the secret".to_owned()
            ));
        }
        Self::new(folder, secret)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.place())
    }
}
