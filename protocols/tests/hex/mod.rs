//! Bytes of a vector.

use serde_json::Value;

/// The bytes that a JSON string spells.
pub(crate) fn hex(text: &Value) -> Vec<u8> {
    let text = text.as_str().expect("a string");
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("two hex digits");
    (0..text.len()).step_by(2).map(digit).collect()
}
