//! Parsers that several options share.

use crate::error::{Error, ErrorKind, Result};
use std::str::FromStr;

/// Parses `number[unit]` with the units B, K/KB, KiB, ... T/TB, TiB. Returns `None` for any other
/// text, for zero, and for numbers that exceed 64 bits.
pub(crate) fn parse_bytes(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1000,
        "m" | "mb" => 1000_u64.pow(2),
        "g" | "gb" => 1000_u64.pow(3),
        "t" | "tb" => 1000_u64.pow(4),
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return None,
    };
    let bytes = match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(scale)?,
        // A fraction needs a unit: `1.5` is not a number of bytes.
        Err(_) if scale > 1 => {
            let bytes = number.parse::<f64>().ok()? * scale as f64;
            (bytes < u64::MAX as f64).then_some(bytes as u64)?
        }
        Err(_) => return None,
    };
    (bytes > 0).then_some(bytes)
}

/// Returns the value that `text` names in `choices`.
///
/// # Errors
/// [`ErrorKind::InvalidInput`]; the message says that `text` is not `what` and lists the choices.
pub(crate) fn one_of<T: Copy>(text: &str, what: &str, choices: &[(&str, T)]) -> Result<T> {
    if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text) {
        return Ok(*value);
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

/// Fails with [`ErrorKind::InvalidInput`] and this message.
pub(crate) fn invalid<T>(message: impl Into<String>) -> Result<T> {
    Err(Error::new(ErrorKind::InvalidInput, message))
}
