//! Values of TOML: how mistakes describe them, and numbers.

use toml::de::{DeInteger, DeValue};

use crate::quoted::quoted;

/// A wrong value, as a mistake quotes it.
pub fn got(text: &str) -> String {
    format!("got {}", quoted(text))
}

pub(super) fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => got(text),
        DeValue::Integer(number) => format!("got {number}"),
        DeValue::Float(number) => format!("got {number}"),
        DeValue::Boolean(value) => format!("got {value}"),
        DeValue::Datetime(date) => format!("got {date}"),
        DeValue::Array(_) => "got an array".to_owned(),
        DeValue::Table(_) => "got a section".to_owned(),
    }
}

pub(super) fn integer(number: &DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// Bytes with a unit, such as `64KiB`, or without one.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text.get(digits.len()..)? {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    let digits = digits.trim_end();
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// How many single-character edits lie between two keys (Levenshtein).
pub(super) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
