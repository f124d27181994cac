//! Lines on standard output: for people, or one JSON object each.

use std::io::{self, Write as _};

use p2p::Message;
use serde_json::{Value, json};

use crate::Failure;

/// Where results go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Out {
    json: bool,
}

impl Out {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// Prints one result, at once.
    pub(crate) fn line(self, text: &str, json: &Value) -> Result<(), Failure> {
        if self.json {
            print(&json.to_string())
        } else {
            print(text)
        }
    }

    /// Prints something measured.
    pub(crate) fn value(self, name: &str, value: f64, unit: &str) -> Result<(), Failure> {
        let text = if value >= 100.0 {
            format!("{value:.0}")
        } else {
            format!("{value:.2}")
        };
        let number: Value = text.parse().unwrap_or_default();
        self.line(
            &format!("name={name} value={text} unit={unit}"),
            &json!({ "name": name, "value": number, "unit": unit }),
        )
    }

    /// Prints what came from somebody.
    pub(crate) fn message<A: ToString>(self, event: &str, message: &Message<A>) -> Result<(), Failure> {
        let (src, payload) = (message.src.to_string(), &*message.payload);
        let mut object = json!({
            "event": event, "src": src, "dst": message.dst.to_string(), "size": payload.len(),
        });
        match std::str::from_utf8(payload) {
            Ok(text) => object["text"] = text.into(),
            Err(_) => object["hex"] = hex(payload).into(),
        }
        self.line(&format!("{event} {src} {}", one_line(payload)), &object)
    }
}

/// Prints text as it is, at once.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    Ok(stdout.flush()?)
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

/// The payload as one line: control characters and what is no UTF-8 are escaped.
fn one_line(payload: &[u8]) -> String {
    let mut line = String::with_capacity(payload.len());
    for chunk in payload.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                line.extend(c.escape_default());
            } else {
                line.push(c);
            }
        }
        line.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    line
}
