//! Lines on standard output: as text, or one JSON object each.

use std::io::{self, ErrorKind, Write as _};
use std::thread::sleep;
use std::time::Duration;

use p2p::Message;
use serde_json::{Value, json};

use crate::Failure;

/// Delay before a full pipe is tried again.
const WHILE_FULL: Duration = Duration::from_millis(1);

/// The output format.
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

    /// Prints one result immediately.
    pub(crate) fn line(self, text: &str, json: &Value) -> Result<(), Failure> {
        if self.json {
            print(&json.to_string())
        } else {
            print(text)
        }
    }

    /// Prints a measurement.
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

    /// Prints a received message.
    pub(crate) fn message<A: ToString>(self, event: &str, message: &Message<A>) -> Result<(), Failure> {
        let (src, payload) = (message.src.to_string(), &*message.payload);
        let mut object = json!({
            "event": event, "src": src, "dst": message.dst.to_string(), "size": payload.len(),
        });
        put_payload(&mut object, payload);
        self.line(&format!("{event} {src} {}", one_line(payload)), &object)
    }
}

/// Adds bytes to an object: as text if they are UTF-8, otherwise in hex.
pub(crate) fn put_payload(object: &mut Value, payload: &[u8]) {
    match std::str::from_utf8(payload) {
        Ok(text) => object["text"] = text.into(),
        Err(_) => object["hex"] = hex(payload).into(),
    }
}

/// Prints a line to standard error. A write error is ignored, since it cannot be reported.
pub(crate) fn complain(text: &str) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// Returns the number of columns of the terminal on standard output, or 80 if it is not a terminal.
pub(crate) fn columns() -> usize {
    console::Term::stdout()
        .size_checked()
        .map_or(80, |(_, columns)| columns.into())
}

/// Prints a line of text immediately.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    write(&[text.as_bytes(), b"\n"].concat())
}

/// Writes all of `bytes` to standard output immediately.
///
/// Another program may have made the shared pipe or terminal non-blocking: if it is full, this waits.
pub(crate) fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let mut rest = bytes;
    loop {
        let written = if rest.is_empty() {
            stdout.flush().map(|()| None)
        } else {
            stdout.write(rest).map(Some)
        };
        match written {
            Ok(None) => return Ok(()),
            Ok(Some(0)) => return Err(io::Error::from(ErrorKind::WriteZero).into()),
            Ok(Some(count)) => rest = rest.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => sleep(WHILE_FULL),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Err(Failure::OutputClosed),
            Err(error) => return Err(Failure::Failed(format!("writing the output failed: {error}"))),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

/// Returns the payload as one line: control characters and invalid UTF-8 are escaped.
pub(crate) fn one_line(payload: &[u8]) -> String {
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
