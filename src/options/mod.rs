//! What a caller can choose, and the only place that reads environment variables.
//!
//! An option that was set in code or on the command line wins; then this project's own variables;
//! then the names that users of Run:ai's streamer have set already:
//!
//! | option | variable | fallback |
//! | --- | --- | --- |
//! | memory limit | `RINGLOAD_MEMORY_LIMIT` (`unlimited`, `min`, `4GiB`, `4000000000`) | `RUNAI_STREAMER_MEMORY_LIMIT` (`-1`, `0`, bytes) |
//! | engines | `RINGLOAD_CONCURRENCY` | `RUNAI_STREAMER_CONCURRENCY`, at most one a core |
//! | cache directory | `RINGLOAD_CACHE_DIR` (none: no cache) | |
//! | cache size | `RINGLOAD_CACHE_SIZE` (`unlimited`, `200GiB`) | |
//! | cache validation | `RINGLOAD_CACHE_VALIDATE` (`always`, `never`, `10m`) | |
//!
//! What is remote heeds the variables that each field has, besides its options. Where several mean
//! the same, the first one that is set counts.
//!
//! | for | variables |
//! | --- | --- |
//! | proxies | `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`, also in lower case; `REQUEST_METHOD` (set by web servers for scripts: `HTTP_PROXY` is not believed then) |
//! | roots of trust | `SSL_CERT_FILE`, `SSL_CERT_DIR` in place of the system's; `AWS_CA_BUNDLE` in addition |
//! | `s3://` place | `AWS_REGION`, `AWS_DEFAULT_REGION`; `RUNAI_STREAMER_S3_ENDPOINT`, `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, `AWS_IGNORE_CONFIGURED_ENDPOINT_URLS`; `RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING` |
//! | `s3://` without credentials | `RUNAI_STREAMER_S3_UNSIGNED`, `AWS_NO_SIGN_REQUEST` |
//! | `s3://` keys and profiles | `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`; `AWS_PROFILE`, `AWS_DEFAULT_PROFILE`, `AWS_CONFIG_FILE`, `AWS_SHARED_CREDENTIALS_FILE`, `HOME`; `AWS_ENDPOINT_URL_SSO` |
//! | `s3://` roles | `AWS_WEB_IDENTITY_TOKEN_FILE`, `AWS_ROLE_ARN`, `AWS_ROLE_SESSION_NAME`; `AWS_ENDPOINT_URL_STS`, `AWS_STS_REGIONAL_ENDPOINTS` |
//! | `s3://` containers | `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI`, `AWS_CONTAINER_CREDENTIALS_FULL_URI`, `AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE`, `AWS_CONTAINER_AUTHORIZATION_TOKEN` |
//! | `s3://` instances | `AWS_EC2_METADATA_DISABLED`, `AWS_EC2_METADATA_SERVICE_ENDPOINT`, `AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE` |
//! | `gs://` place | `STORAGE_EMULATOR_HOST`, `CLOUD_STORAGE_EMULATOR_ENDPOINT` |
//! | `gs://` credentials | `RINGLOAD_GCS_ANONYMOUS`, `RUNAI_STREAMER_GCS_USE_ANONYMOUS_CREDENTIALS`; `GOOGLE_APPLICATION_CREDENTIALS`, `RUNAI_STREAMER_GCS_CREDENTIAL_FILE`; `CLOUDSDK_CONFIG`, `HOME`; `GCE_METADATA_HOST`, `NO_GCE_CHECK`; and those that the credentials' file names |
//! | `az://` place | `AZURE_STORAGE_ENDPOINT`, `AZURE_ENDPOINT_URL`; `AZURE_STORAGE_ACCOUNT_NAME`, `AZURE_STORAGE_ACCOUNT` |
//! | `az://` secrets | `AZURE_STORAGE_CONNECTION_STRING`; `AZURE_STORAGE_ACCOUNT_KEY`, `AZURE_STORAGE_KEY`; `AZURE_STORAGE_SAS_TOKEN`; `RINGLOAD_AZURE_ANONYMOUS` |
//! | `az://` tokens | `AZURE_TENANT_ID`, `AZURE_CLIENT_ID`, `AZURE_AUTHORITY_HOST` with `AZURE_FEDERATED_TOKEN_FILE` or `AZURE_CLIENT_SECRET`; `IDENTITY_ENDPOINT`, `IDENTITY_HEADER`; `AZURE_POD_IDENTITY_AUTHORITY_HOST` |
//! | `hf://` | `HF_ENDPOINT`; `HF_TOKEN`, `HUGGING_FACE_HUB_TOKEN`, `HF_TOKEN_PATH`, `HF_HUB_DISABLE_IMPLICIT_TOKEN`; `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE` |
//! | cache of `hf://` | `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`; `HF_HOME`, `XDG_CACHE_HOME`, `HOME` |
//! | [`Loader::runai_env`](crate::Loader::runai_env) | `RUNAI_STREAMER_OBJ_CONCURRENCY`, `RUNAI_STREAMER_CONCURRENCY`, `RUNAI_STREAMER_FS_STRATEGY` |
//! | `anyscale://` | `ANYSCALE_ARTIFACT_STORAGE`, and those of the store that it names |

mod cache;
mod device;
mod dtype;
mod remote;
mod runai;

pub(crate) use cache::{CacheOptions, CacheSettings};
pub use cache::{CacheSize, CacheValidate};
pub(crate) use device::compile;
pub use device::{Allocation, Device, DeviceMap};
pub(crate) use dtype::check_dtype;
pub use dtype::parse_dtype;
pub(crate) use remote::{RemoteOptions, parse_header};
pub use remote::{RetryLimits, S3Credentials};
pub(crate) use runai::RunaiVariables;
#[cfg(feature = "capi")]
pub(crate) use runai::strategy;

use crate::error::{Error, ErrorKind, Result};
use std::fmt;
use std::str::FromStr;

/// How much memory the tensors of a load may take at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MemoryLimit {
    /// As much as the tensors need: nothing is reused while the caller holds it, nothing waits.
    #[default]
    Unlimited,
    /// The size of the largest tensor, or 1 MiB if that is more.
    Min,
    /// As [`Min`](Self::Min), for a caller that still holds the last tensor while it waits for the
    /// next one, as a loop in Python does: three times that, so that wherever the one in hand lies,
    /// there is room for the next.
    MinHoldingOne,
    /// So many bytes; at least the size of the largest tensor.
    Bytes(u64),
}

impl FromStr for MemoryLimit {
    type Err = Error;

    /// `unlimited`, `min`, or bytes: `4000000000`, `4GiB`, `512MB`, `1.5GiB`.
    fn from_str(text: &str) -> Result<Self> {
        match text.trim() {
            "unlimited" => Ok(Self::Unlimited),
            "min" => Ok(Self::Min),
            other => parse_bytes(other).map(Self::Bytes).ok_or_else(|| {
                Error::new(
                    ErrorKind::InvalidInput,
                    format!(
                        "{text:?} is not a memory limit; use \"unlimited\", \"min\", or bytes such \
                         as 4000000000, 512MiB or 4GiB"
                    ),
                )
            }),
        }
    }
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlimited => f.write_str("unlimited"),
            Self::Min | Self::MinHoldingOne => f.write_str("min"),
            Self::Bytes(bytes) => write!(f, "{bytes}"),
        }
    }
}

/// `number[unit]` with the units B, K/KB, KiB, ... T/TB, TiB. A zero size is not a limit.
fn parse_bytes(text: &str) -> Option<u64> {
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
        // A fraction needs a unit to be a whole number of bytes worth speaking of.
        Err(_) if scale > 1 => {
            let bytes = number.parse::<f64>().ok()? * scale as f64;
            (bytes < u64::MAX as f64).then_some(bytes as u64)?
        }
        Err(_) => return None,
    };
    (bytes > 0).then_some(bytes)
}

/// How local files are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ReadPath {
    /// What the page cache holds is read from there, the rest directly. To GPUs as with
    /// [`Gds`](Self::Gds), where that was seen working and is worth it.
    #[default]
    Auto,
    /// O_DIRECT wherever file system and alignment allow it.
    Direct,
    /// Through the page cache.
    Buffered,
    /// The tensors are the file's own pages, mapped: no copy and no memory limit, but the bytes
    /// follow the file. Whoever rewrites the file changes the tensors; whoever truncates it makes
    /// the next touch of the lost pages kill the process (SIGBUS).
    Mapped,
    /// GPUDirect Storage: from local files straight into the memory of GPUs, by cuFile, with no
    /// ring. Where that does not work or is not possible for a load (tensors that stay in host memory
    /// or are cast, remote locations, checksums to verify, `read_into`), all of it is read as by
    /// [`Auto`](Self::Auto), and the summary says why.
    Gds,
}

impl ReadPath {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 5] = [Self::Auto, Self::Direct, Self::Buffered, Self::Mapped, Self::Gds];

    /// Its name, in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Direct => "direct",
            Self::Buffered => "buffered",
            Self::Mapped => "mapped",
            Self::Gds => "gds",
        }
    }
}

impl FromStr for ReadPath {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|path| path.as_str() == text).ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidInput,
                format!("{text:?} is not a read path; use auto, direct, buffered, mapped or gds"),
            )
        })
    }
}

impl fmt::Display for ReadPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// In which order a stream yields tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// As they complete: the earliest first.
    #[default]
    Completion,
    /// As they stand in the checkpoint: shard after shard, by offset.
    File,
}

/// The limit that the environment sets; `None` if it sets none.
///
/// # Errors
/// When a variable is set to what is not a limit; the message names the variable.
pub(crate) fn memory_limit_from(
    env: impl Fn(&str) -> Option<String>,
) -> Result<Option<MemoryLimit>> {
    const OWN: &str = "RINGLOAD_MEMORY_LIMIT";
    const RUNAI: &str = "RUNAI_STREAMER_MEMORY_LIMIT";
    if let Some(text) = env(OWN) {
        return text.parse().map(Some).map_err(|error: Error| in_variable(OWN, &error));
    }
    let Some(text) = env(RUNAI) else {
        return Ok(None);
    };
    match text.trim().parse::<i64>() {
        Ok(-1) => Ok(Some(MemoryLimit::Unlimited)),
        Ok(0) => Ok(Some(MemoryLimit::Min)),
        Ok(bytes @ 1..) => Ok(Some(MemoryLimit::Bytes(bytes as u64))),
        _ => Err(Error::new(
            ErrorKind::InvalidInput,
            format!(
                "{RUNAI}={text}: use -1 (unlimited), 0 (the largest tensor) or a number of bytes"
            ),
        )),
    }
}

/// The limit that the process's environment sets; `None` if it sets none.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput), naming the variable, for what is no limit.
pub fn environment_memory_limit() -> Result<Option<MemoryLimit>> {
    memory_limit_from(environment)
}

/// How many engines the environment asks for; `None` if it asks for none.
///
/// # Errors
/// When a variable is set to what is not a positive number; the message names the variable.
pub(crate) fn engines_from(
    env: impl Fn(&str) -> Option<String>,
    cores: usize,
) -> Result<Option<usize>> {
    const OWN: &str = "RINGLOAD_CONCURRENCY";
    const RUNAI: &str = "RUNAI_STREAMER_CONCURRENCY";
    let parse = |name: &str, text: String| match text.trim().parse::<usize>() {
        Ok(engines @ 1..) => Ok(engines),
        _ => Err(Error::new(
            ErrorKind::InvalidInput,
            format!("{name}={text}: use a number of engines, at least 1"),
        )),
    };
    if let Some(text) = env(OWN) {
        return parse(OWN, text).map(Some);
    }
    // There the number counts blocking threads, here engines that each keep many reads in flight.
    env(RUNAI).map(|text| parse(RUNAI, text).map(|n| n.min(cores))).transpose()
}

/// The process's environment, for the two functions above. What is not UTF-8 is refused by them,
/// with the rest of what they cannot read, and not taken for unset.
pub(crate) fn environment(name: &str) -> Option<String> {
    let value = std::env::var_os(name)?;
    (!value.is_empty()).then(|| value.to_string_lossy().into_owned())
}

/// How many cores this process may use (affinity and cgroup quota).
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn in_variable(name: &str, error: &Error) -> Error {
    Error::new(error.kind(), format!("{name}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_parse_as_documented() {
        let parse = |text: &str| text.parse::<MemoryLimit>().ok();
        assert_eq!(parse("unlimited"), Some(MemoryLimit::Unlimited));
        assert_eq!(parse("min"), Some(MemoryLimit::Min));
        assert_eq!(parse("4000000000"), Some(MemoryLimit::Bytes(4_000_000_000)));
        assert_eq!(parse("4GiB"), Some(MemoryLimit::Bytes(4 << 30)));
        assert_eq!(parse("256 MiB"), Some(MemoryLimit::Bytes(256 << 20)));
        assert_eq!(parse("1.5GiB"), Some(MemoryLimit::Bytes(3 << 29)));
        assert_eq!(parse("2gb"), Some(MemoryLimit::Bytes(2_000_000_000)));
        for wrong in [
            "",
            "0",
            "-1",
            "4 parsecs",
            "1.5",
            "99999999999999999999",
            "18446744073709551615GiB",
            "1e9",
            ".",
        ] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }

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
    }
}
