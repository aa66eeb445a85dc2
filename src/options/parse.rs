//! Parsers that several options share.

use crate::error::{Error, ErrorKind, Result};
use std::num::IntErrorKind;
use std::str::FromStr;

/// Parses `number[unit]` with the units B, K/KB, KiB, ... E/EB, EiB.
///
/// # Errors
/// [`ErrorKind::InvalidInput`]: with the sentence of `refuse` for any other text and for zero; with the
/// maximum for a number of bytes that exceeds 64 bits.
pub fn parse_bytes(text: &str, refuse: impl FnOnce() -> String) -> Result<u64> {
    match bytes_in(text.trim()) {
        Some(Some(bytes @ 1..)) => Ok(bytes),
        Some(None) => {
            invalid(format!("{text:?} is too large; the maximum is {} bytes (16 EiB)", u64::MAX))
        }
        _ => invalid(refuse()),
    }
}

/// The bytes of `number[unit]`, `Some(None)` if they exceed 64 bits, and `None` for any other text.
fn bytes_in(text: &str) -> Option<Option<u64>> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1000,
        "m" | "mb" => 1000_u64.pow(2),
        "g" | "gb" => 1000_u64.pow(3),
        "t" | "tb" => 1000_u64.pow(4),
        "p" | "pb" => 1000_u64.pow(5),
        "e" | "eb" => 1000_u64.pow(6),
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        "pib" => 1 << 50,
        "eib" => 1 << 60,
        _ => return None,
    };
    match number.parse::<u64>() {
        Ok(whole) => Some(whole.checked_mul(scale)),
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => Some(None),
        // A fraction needs a unit: `1.5` is not a number of bytes.
        Err(_) if scale > 1 => {
            let bytes = number.parse::<f64>().ok()? * scale as f64;
            Some((bytes < u64::MAX as f64).then_some(bytes as u64))
        }
        Err(_) => None,
    }
}

/// Returns the value that `text` names in `choices`.
///
/// # Errors
/// [`ErrorKind::InvalidInput`]; the message says that `text` is not `what` and lists the choices.
pub(crate) fn one_of<T: Clone>(text: &str, what: &str, choices: &[(&str, T)]) -> Result<T> {
    if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text) {
        return Ok(value.clone());
    }
    let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
    let names = match names.split_last() {
        Some((last, first)) if !first.is_empty() => format!("{} or {last}", first.join(", ")),
        _ => names.concat(),
    };
    invalid(format!("{text:?} is not {what}; use {names}"))
}

/// Parses a flag: `true`, `1`, `yes` or `on`; `false`, `0`, `no` or `off`; in upper or lower case.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] for any other text.
pub(crate) fn parse_flag(text: &str) -> Result<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => invalid(format!("{text:?} is not a flag; use true or false")),
    }
}

/// Parses `text` as `what`, such as "a number of engines".
///
/// # Errors
/// [`ErrorKind::InvalidInput`], with the text.
pub(crate) fn parse_number<T: FromStr>(text: &str, what: &str) -> Result<T> {
    text.trim().parse().or_else(|_| invalid(format!("{text:?} is not {what}")))
}

/// Returns `number` if it is at most `max`.
///
/// # Errors
/// [`ErrorKind::InvalidInput`], with the maximum.
pub(crate) fn at_most(number: usize, max: usize, things: &str) -> Result<usize> {
    match number <= max {
        true => Ok(number),
        false => invalid(format!("{number} {things} are more than the maximum of {max}")),
    }
}

/// Parses `text` as a number of `things`, from 0 to `max`.
///
/// # Errors
/// [`ErrorKind::InvalidInput`], with the text, and with the maximum if the number is larger.
pub(crate) fn count_of(text: &str, max: usize, things: &str) -> Result<usize> {
    let text = text.trim();
    match text.parse() {
        Ok(number) => at_most(number, max, things),
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => {
            invalid(format!("{text} {things} are more than the maximum of {max}"))
        }
        Err(_) => invalid(format!("{text:?} is not a whole number, at least 0")),
    }
}

/// Fails with [`ErrorKind::InvalidInput`] and this message.
pub(crate) fn invalid<T>(message: impl Into<String>) -> Result<T> {
    Err(Error::new(ErrorKind::InvalidInput, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "16EiB" was "not a size", and 99999999999999999999 "not a whole number".
    #[test]
    fn a_number_that_is_too_large_is_told_its_maximum() {
        let told = |text: &str| parse_bytes(text, || "no size".into()).unwrap_err().to_string();
        let maximum = "is too large; the maximum is 18446744073709551615 bytes (16 EiB)";
        for text in ["16EiB", "99999999999999999999", "99999999999999999999MB", "16.5 EiB"] {
            assert_eq!(told(text), format!("{text:?} {maximum}"));
        }
        for text in ["", "0", "0EiB", ".", "-1", "1.5", "1e9", "99999999999999999999 parsecs"] {
            assert_eq!(told(text), "no size", "{text}");
        }
        assert_eq!(parse_bytes("15EiB", String::new).unwrap(), 15 << 60);
        assert_eq!(parse_bytes("2pb", String::new).unwrap(), 2_000_000_000_000_000);
        let told = |text: &str| count_of(text, 7, "engines").unwrap_err().to_string();
        for text in ["8", "99999999999999999999"] {
            assert_eq!(told(text), format!("{text} engines are more than the maximum of 7"));
        }
        assert_eq!(told("-1"), "\"-1\" is not a whole number, at least 0");
    }
}
