//! The environment variables that set options.
//!
//! A loader looks up variables in an [`Env`]. [`environment`] is that of
//! [`Loader::from_env`](crate::Loader::from_env). [`environment_of_others`] is that of every other
//! loader: it hides the variables of ringload and of Run:ai's streamer, and leaves those of the stores
//! and of the network.

use super::MemoryLimit;
use super::parse::{count_of, invalid};
use crate::error::{Error, Result};
use std::num::IntErrorKind;
use std::sync::Arc;

/// The maximum number of engines and of connections that may be set. Each engine is a thread with an
/// io_uring, and each connection a socket; more than this helps no load.
pub(crate) const ENGINES_MAX: usize = 1024;
/// See [`ENGINES_MAX`].
pub(crate) const CONNECTIONS_MAX_SET: usize = 1024;

/// Looks up an environment variable, in the environment of the process or of a test.
pub(crate) type Env = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// The variables of the memory limit. The first one that is set counts.
pub(crate) const MEMORY_LIMIT_VARIABLES: &[&str] =
    &["RINGLOAD_MEMORY_LIMIT", "RUNAI_STREAMER_MEMORY_LIMIT"];
/// The variables of the number of engines. The first one that is set counts.
pub(crate) const ENGINE_VARIABLES: &[&str] =
    &["RINGLOAD_CONCURRENCY", "RUNAI_STREAMER_CONCURRENCY"];

/// Returns the value of the first of these variables that is set, and its name.
pub(super) fn first_set<'a>(
    variables: &[&'a str],
    env: impl Fn(&str) -> Option<String>,
) -> Option<(&'a str, String)> {
    variables.iter().find_map(|name| Some((*name, env(name)?)))
}

/// Returns the memory limit that the environment sets, or `None` if it sets none.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput), naming the variable, if its value is not a
/// limit.
pub(crate) fn memory_limit_from(
    env: impl Fn(&str) -> Option<String>,
) -> Result<Option<MemoryLimit>> {
    let Some((name, text)) = first_set(MEMORY_LIMIT_VARIABLES, env) else { return Ok(None) };
    if name == MEMORY_LIMIT_VARIABLES[0] {
        return text.parse().map(Some).map_err(|error| in_variable(name, &error));
    }
    match text.trim().parse::<i64>() {
        Ok(-1) => Ok(Some(MemoryLimit::Unlimited)),
        Ok(0) => Ok(Some(MemoryLimit::Min)),
        Ok(bytes @ 1..) => Ok(Some(MemoryLimit::Bytes(bytes as u64))),
        _ => invalid(format!(
            "{name}={text}: use -1 (unlimited), 0 (the largest tensor) or a number of bytes"
        )),
    }
}

/// Returns the memory limit that the process's environment sets, or `None` if it sets none.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput), naming the variable, if its value is not a
/// limit.
pub fn environment_memory_limit() -> Result<Option<MemoryLimit>> {
    memory_limit_from(environment)
}

/// Returns the number of engines that the environment sets, or `None` if it sets none. Run:ai's
/// variable counts blocking threads, while an engine keeps many reads in flight, so the value of
/// that variable is limited to the number of `cores`.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput), naming the variable, if its value is not a
/// positive number.
pub(crate) fn engines_from(
    env: impl Fn(&str) -> Option<String>,
    cores: usize,
) -> Result<Option<usize>> {
    let Some((name, text)) = first_set(ENGINE_VARIABLES, env) else { return Ok(None) };
    let engines = positive(name, &text, "engines")?;
    if name != ENGINE_VARIABLES[0] {
        return Ok(Some(engines.min(cores)));
    }
    let checked = count_of(&text, ENGINES_MAX, "engines");
    checked.map(Some).map_err(|error| in_variable(name, &error))
}

/// Parses the value of the variable `name` as a positive number of `things`.
pub(super) fn positive(name: &str, text: &str, things: &str) -> Result<usize> {
    match text.trim().parse() {
        Ok(number @ 1..) => Ok(number),
        // More than there can be of anything; the caller has its own maximum.
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => Ok(usize::MAX),
        _ => invalid(format!("{name}={text}: use a number of {things}, at least 1")),
    }
}

/// Returns a variable of the process's environment, or `None` if it is unset or empty. Bytes that
/// are not UTF-8 are replaced, so that the option's parser refuses the value instead of taking the
/// variable for unset.
pub(crate) fn environment(name: &str) -> Option<String> {
    let value = std::env::var_os(name)?;
    (!value.is_empty()).then(|| value.to_string_lossy().into_owned())
}

/// Returns a variable of the process's environment as [`environment`] does, except that those that
/// set options of a loader, `RINGLOAD_*` and `RUNAI_STREAMER_*`, and those that are meant for certain
/// other programs, [`CA_BUNDLES`], count as unset.
pub(crate) fn environment_of_others(name: &str) -> Option<String> {
    let sets_options = ["RINGLOAD_", "RUNAI_STREAMER_"].iter().any(|own| name.starts_with(own));
    if sets_options || CA_BUNDLES.contains(&name) { None } else { environment(name) }
}

/// The files of certificates that Python's requests and curl trust.
pub(crate) const CA_BUNDLES: [&str; 2] = ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];

/// Returns how many cores this process may use, after affinity and cgroup quota.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Returns the value that was set, else the one in the variable `name`, else the default.
///
/// # Errors
/// The error of `parse`, naming the variable.
pub(super) fn set_or_variable<T: Default>(
    set: Option<T>,
    name: &str,
    parse: impl FnOnce(&str) -> Result<T>,
    env: impl Fn(&str) -> Option<String>,
) -> Result<T> {
    match (set, env(name)) {
        (Some(set), _) => Ok(set),
        (None, Some(text)) => parse(&text).map_err(|error| in_variable(name, &error)),
        (None, None) => Ok(T::default()),
    }
}

/// Puts the variable's name before the message of `error`.
pub(super) fn in_variable(name: &str, error: &Error) -> Error {
    Error::new(error.kind(), format!("{name}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<'a>(pairs: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string())
    }

    #[test]
    fn own_variables_win_over_run_ai_s() {
        let both = [("RINGLOAD_MEMORY_LIMIT", "1MiB"), ("RUNAI_STREAMER_MEMORY_LIMIT", "0")];
        assert_eq!(memory_limit_from(env(&both)).unwrap(), Some(MemoryLimit::Bytes(1 << 20)));
        for (text, limit) in [
            ("-1", MemoryLimit::Unlimited),
            ("0", MemoryLimit::Min),
            ("4000000000", MemoryLimit::Bytes(4_000_000_000)),
        ] {
            let only = [("RUNAI_STREAMER_MEMORY_LIMIT", text)];
            assert_eq!(memory_limit_from(env(&only)).unwrap(), Some(limit));
        }
        assert_eq!(memory_limit_from(env(&[])).unwrap(), None);
        assert_eq!(engines_from(env(&[("RUNAI_STREAMER_CONCURRENCY", "16")]), 4).unwrap(), Some(4));
        assert_eq!(engines_from(env(&[("RINGLOAD_CONCURRENCY", "3")]), 2).unwrap(), Some(3));
    }

    #[test]
    fn a_bad_variable_is_named() {
        for pair in [
            ("RINGLOAD_MEMORY_LIMIT", "lots"),
            ("RUNAI_STREAMER_MEMORY_LIMIT", "-2"),
            ("RUNAI_STREAMER_MEMORY_LIMIT", "4GiB"),
        ] {
            let error = memory_limit_from(env(&[pair])).unwrap_err().to_string();
            assert!(error.contains(pair.0) && error.contains(pair.1), "{error}");
        }
        let error = engines_from(env(&[("RINGLOAD_CONCURRENCY", "0")]), 2).unwrap_err();
        assert!(error.to_string().contains("RINGLOAD_CONCURRENCY"), "{error}");
        let error = engines_from(env(&[("RINGLOAD_CONCURRENCY", "1025")]), 2).unwrap_err();
        assert!(error.to_string().ends_with("1025 engines are more than the maximum of 1024"));
        // This was told to be "a number of engines, at least 1", without the maximum.
        let large = "99999999999999999999";
        let error = engines_from(env(&[("RINGLOAD_CONCURRENCY", large)]), 2).unwrap_err();
        let told = format!("{large} engines are more than the maximum of 1024");
        assert!(error.to_string().ends_with(&told), "{error}");
        let of_others = [("RUNAI_STREAMER_CONCURRENCY", large)];
        assert_eq!(engines_from(env(&of_others), 2).unwrap(), Some(2));
    }
}
