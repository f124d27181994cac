//! Lines on standard output: for people, or one JSON object each.

use std::io::{self, ErrorKind, Write as _};
use std::thread::sleep;
use std::time::Duration;

use p2p::Message;
use serde_json::{Value, json};

use crate::Failure;

/// How long to wait before a full pipe is tried again.
const WHILE_FULL: Duration = Duration::from_millis(1);

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
        put_payload(&mut object, payload);
        self.line(&format!("{event} {src} {}", one_line(payload)), &object)
    }
}

/// Puts bytes into an object: as text, if they are some.
pub(crate) fn put_payload(object: &mut Value, payload: &[u8]) {
    match std::str::from_utf8(payload) {
        Ok(text) => object["text"] = text.into(),
        Err(_) => object["hex"] = hex(payload).into(),
    }
}

/// Prints a line to standard error. Where that cannot be written, nothing else can say so either.
pub(crate) fn complain(text: &str) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// The number of columns of the terminal that standard output is, or 80 where it is none.
pub(crate) fn columns() -> usize {
    console::Term::stdout()
        .size_checked()
        .map_or(80, |(_, columns)| columns.into())
}

/// Prints a line of text as it is, at once.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    write(&[text.as_bytes(), b"\n"].concat())
}

/// Writes all of `bytes` to standard output, at once.
///
/// Another program may have made the pipe or terminal non-blocking, which belongs to all that share it: where it is full,
/// this waits as it would for any other.
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
            Err(error) => return Err(Failure::Failed(format!("the output cannot be written: {error}"))),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

/// The payload as one line: control characters and what is no UTF-8 are escaped.
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
