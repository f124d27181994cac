//! The peers of the matrix, and which links they have.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use p2p_libp2p::Muxer;

use super::cell::Direction;
use crate::link::Link;

/// A peer of the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Peer {
    /// Our own host.
    Ours,
    /// rust-libp2p.
    Rust,
    /// js-libp2p.
    Js,
    /// py-libp2p.
    Py,
    /// go-libp2p's daemon.
    Go,
}

/// A peer that can be started.
#[derive(Debug)]
pub(super) struct Installed {
    pub(super) peer: Peer,
    /// The program that is one side of the test; `None` for our own.
    pub(super) program: Option<PathBuf>,
    /// Its name and version.
    pub(super) name: String,
}

impl Peer {
    pub(super) const ALL: [Self; 5] = [Self::Ours, Self::Rust, Self::Js, Self::Py, Self::Go];

    /// Returns the folder's name.
    fn folder(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Rust => "rust",
            Self::Js => "js",
            Self::Py => "py",
            Self::Go => "go",
        }
    }

    /// Finds the peer in the folder where `peers/install` put it: a program `run`, and its name in a file.
    ///
    /// # Errors
    /// A text that says what is missing.
    pub(super) fn find(self, folder: &Path) -> Result<Installed, String> {
        if self == Self::Ours {
            return Ok(Installed {
                peer: self,
                program: None,
                name: concat!("p2p-libp2p ", env!("CARGO_PKG_VERSION")).to_owned(),
            });
        }
        let folder = folder.join(self.folder());
        let program = folder.join("run");
        if !program.is_file() {
            return Err(format!("which is not installed at {}", folder.display()));
        }
        let name = folder.join("name");
        let name = std::fs::read_to_string(&name).map_err(|error| format!("{}: {error}", name.display()))?;
        Ok(Installed {
            peer: self,
            program: Some(program),
            name: name.trim().to_owned(),
        })
    }

    /// Returns whether the peer's published package serves perf, which is measured with the tool.
    pub(super) fn has_perf(self) -> bool {
        self == Self::Py
    }

    /// Returns the reason for which a cell cannot exist.
    pub(super) fn obstacle(self, link: Link, direction: Direction) -> Option<&'static str> {
        match (self, link) {
            (_, Link::Tcp(_, Muxer::Mplex)) if direction == Direction::Tool => Some("mplex is off"),
            (Self::Go, Link::Tcp(_, Muxer::Mplex)) => Some("go has no mplex"),
            _ if self == Self::Ours && direction == Direction::PeerDials => Some("the same"),
            _ => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.folder())
    }
}
