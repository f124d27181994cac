//! Preconditions of writes (RFC 9110, section 13.1).

use hyper::header::{HeaderName, IF_MATCH, IF_NONE_MATCH};
use hyper::{HeaderMap, StatusCode};

use super::super::etag;
use super::refusal::Refusal;

/// The condition on the value for a write.
pub(super) enum Precondition {
    /// There is no value.
    Absent,
    /// The value has one of these validators, or any if the list is empty.
    Present(Vec<String>),
}

impl Precondition {
    /// Parses `If-Match` or `If-None-Match: *` (RFC 9110, section 13.1).
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let bad = |reason: &str| Refusal::new(StatusCode::BAD_REQUEST, reason);
        let read = |name: HeaderName| {
            let mut values = headers.get_all(name).iter();
            match (values.next().map(|value| value.to_str()), values.next()) {
                (None, _) => Ok(None),
                (Some(Ok(value)), None) => Ok(Some(value.trim())),
                _ => Err(bad("a precondition occurs twice, or is not text")),
            }
        };
        match (read(IF_MATCH)?, read(IF_NONE_MATCH)?) {
            (None, Some("*")) => Ok(Self::Absent),
            (None, Some(_)) => Err(bad("If-None-Match must be *")),
            (Some("*"), None) => Ok(Self::Present(Vec::new())),
            (Some(tags), None) => {
                let tags: Vec<String> = tags.split(',').map(|tag| tag.trim().to_owned()).collect();
                let is_tag = |tag: &String| tag.len() >= 2 && tag.starts_with('"') && tag.ends_with('"');
                if tags.iter().all(is_tag) {
                    Ok(Self::Present(tags))
                } else {
                    Err(bad("If-Match must be * or strong validators in double quotes"))
                }
            }
            (Some(_), Some(_)) => Err(bad("If-Match and If-None-Match exclude each other")),
            (None, None) => Err(Refusal::new(
                StatusCode::PRECONDITION_REQUIRED,
                "If-Match, or If-None-Match: *, must name the value to replace",
            )),
        }
    }

    pub(super) fn holds(&self, value: &[u8]) -> bool {
        match self {
            Self::Absent => value.is_empty(),
            Self::Present(tags) => !value.is_empty() && (tags.is_empty() || tags.contains(&etag(value))),
        }
    }
}
