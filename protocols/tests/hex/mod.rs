//! Hexadecimal strings in test vectors.

use serde_json::Value;

/// Returns the bytes of a hexadecimal JSON string.
pub(crate) fn hex(text: &Value) -> Vec<u8> {
    let text = text.as_str().expect("a string");
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("two hex digits");
    (0..text.len()).step_by(2).map(digit).collect()
}
