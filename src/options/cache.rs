//! The local file cache: its directory, its size, and when its entries are validated.

use super::environment::set_or_variable;
use super::parse::{invalid, parse_bytes, parse_flag};
use crate::error::{Error, Result};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// When to ask a store whether a cached object is still current.
///
/// ```no_run
/// # fn main() -> ringload::Result<()> {
/// use ringload::{CacheValidate, Loader};
/// use std::time::Duration;
///
/// let validate = CacheValidate::Age(Duration::from_secs(600));
/// let loader = Loader::new().cache_dir("/var/cache/ringload").cache_validate(validate);
/// let model = loader.load("s3://bucket/llama-8b/")?;
/// # drop(model);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CacheValidate {
    /// Each time the object is opened, with one conditional request.
    #[default]
    Always,
    /// Never. The cached version is used, and a complete entry needs no network.
    Never,
    /// When the last validation is at least this long ago.
    Age(Duration),
}

impl FromStr for CacheValidate {
    type Err = Error;

    /// Parses `always`, `never`, or an age: `30s`, `10m`, `1h`, `7d`.
    fn from_str(text: &str) -> Result<Self> {
        match (text.trim(), parse_age(text.trim())) {
            ("always", _) => Ok(Self::Always),
            ("never", _) => Ok(Self::Never),
            (_, Some(age)) => Ok(Self::Age(age)),
            _ => invalid(format!(
                "{text:?} does not say when to validate; use \"always\", \"never\", or an age such \
                 as 30s, 10m, 1h or 7d"
            )),
        }
    }
}

impl fmt::Display for CacheValidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always => f.write_str("always"),
            Self::Never => f.write_str("never"),
            Self::Age(age) => write!(f, "{}s", age.as_secs()),
        }
    }
}

fn parse_age(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    let number: u64 = text[..text.len() - 1].trim().parse().ok()?;
    Some(Duration::from_secs(number.checked_mul(seconds)?))
}

/// How large the cache may get on disk.
///
/// ```no_run
/// # fn main() -> ringload::Result<()> {
/// use ringload::{CacheSize, Loader};
///
/// let size: CacheSize = "200GiB".parse()?;
/// let model = Loader::new().cache_dir("/var/cache/ringload").cache_size(size).load("s3://bucket/llama-8b/")?;
/// # drop(model);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CacheSize {
    /// As large as the file system allows.
    #[default]
    Unlimited,
    /// A number of bytes.
    Bytes(u64),
}

impl FromStr for CacheSize {
    type Err = Error;

    /// Parses `unlimited`, or bytes: `200GiB`, `100000000000`.
    fn from_str(text: &str) -> Result<Self> {
        let refuse = || {
            format!(
                "{text:?} is not a size for the cache; use \"unlimited\", or bytes such as 200GiB"
            )
        };
        match text.trim() {
            "unlimited" => Ok(Self::Unlimited),
            _ => parse_bytes(text, refuse).map(Self::Bytes),
        }
    }
}

/// Who uses a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum CacheAccess {
    /// One user, who trusts no other. Nobody else can read new entries.
    #[default]
    Private,
    /// As `Private`, for a download, whose files get the usual permissions.
    Download,
    /// Everyone who may write to the directory. New entries have its permissions.
    Shared,
}

/// The cache options that were set in code or on the command line. Options that are not set are
/// read from the environment.
#[derive(Debug, Clone, Default)]
pub(crate) struct CacheOptions {
    /// `Some(None)` turns the cache off, even if the environment configures one.
    pub dir: Option<Option<PathBuf>>,
    pub size: Option<CacheSize>,
    pub validate: Option<CacheValidate>,
    pub access: Option<CacheAccess>,
    /// Whether a load waits for the cache's disk instead of leaving out pages when the disk is too
    /// slow.
    pub waits_for_disk: bool,
}

impl CacheAccess {
    /// The access of a cache that is declared to be shared, or not to be.
    pub fn shared(is_shared: bool) -> Self {
        if is_shared { Self::Shared } else { Self::Private }
    }
}

impl FromStr for CacheAccess {
    type Err = Error;

    /// Parses whether the cache is shared, as [`parse_flag`] does.
    fn from_str(text: &str) -> Result<Self> {
        parse_flag(text).map(Self::shared)
    }
}

/// The cache options in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CacheSettings {
    pub dir: PathBuf,
    pub size: CacheSize,
    pub validate: CacheValidate,
    pub access: CacheAccess,
    pub waits_for_disk: bool,
}

impl CacheOptions {
    pub const DIR_VARIABLE: &str = "RINGLOAD_CACHE_DIR";
    pub const SIZE_VARIABLE: &str = "RINGLOAD_CACHE_SIZE";
    pub const VALIDATE_VARIABLE: &str = "RINGLOAD_CACHE_VALIDATE";
    pub const SHARED_VARIABLE: &str = "RINGLOAD_CACHE_SHARED";

    /// Returns the settings in force in the environment `env`, or `None` without a cache.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput), naming the variable that does not parse.
    pub fn settings(&self, env: impl Fn(&str) -> Option<String>) -> Result<Option<CacheSettings>> {
        let dir = match &self.dir {
            Some(dir) => dir.clone(),
            None => env(Self::DIR_VARIABLE).map(PathBuf::from),
        };
        let size = set_or_variable(self.size, Self::SIZE_VARIABLE, str::parse, &env)?;
        let validate = set_or_variable(self.validate, Self::VALIDATE_VARIABLE, str::parse, &env)?;
        let access = set_or_variable(self.access, Self::SHARED_VARIABLE, str::parse, &env)?;
        // A wrong variable is an error without a cache, too, so that it is seen before there is one.
        let Some(dir) = dir else { return Ok(None) };
        Ok(Some(CacheSettings { dir, size, validate, access, waits_for_disk: self.waits_for_disk }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_sizes_parse_as_documented() {
        let age = |text: &str| text.parse::<CacheValidate>().ok();
        assert_eq!(age("always"), Some(CacheValidate::Always));
        assert_eq!(age(" never"), Some(CacheValidate::Never));
        assert_eq!(age("10m"), Some(CacheValidate::Age(Duration::from_secs(600))));
        assert_eq!(age("7d"), Some(CacheValidate::Age(Duration::from_secs(604_800))));
        assert_eq!(age("0s"), Some(CacheValidate::Age(Duration::ZERO)));
        for wrong in ["", "10", "m", "-1m", "1.5h", "10 parsecs", "99999999999999999999d", "é"] {
            assert_eq!(age(wrong), None, "{wrong:?}");
        }
        assert_eq!("2GiB".parse::<CacheSize>().unwrap(), CacheSize::Bytes(2 << 30));
        assert_eq!("unlimited".parse::<CacheSize>().unwrap(), CacheSize::Unlimited);
        assert!("none".parse::<CacheSize>().is_err());
    }

    #[test]
    fn what_is_set_wins_and_a_bad_variable_is_named() {
        let env = |pairs: &'static [(&str, &str)]| {
            move |name: &str| {
                pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            }
        };
        assert_eq!(CacheOptions::default().settings(env(&[])).unwrap(), None);
        let all = env(&[
            ("RINGLOAD_CACHE_DIR", "/a"),
            ("RINGLOAD_CACHE_SIZE", "1GiB"),
            ("RINGLOAD_CACHE_VALIDATE", "never"),
            ("RINGLOAD_CACHE_SHARED", "1"),
        ]);
        let settings = CacheOptions::default().settings(all).unwrap().unwrap();
        assert_eq!(settings.dir, PathBuf::from("/a"));
        assert_eq!(settings.size, CacheSize::Bytes(1 << 30));
        assert_eq!(settings.validate, CacheValidate::Never);
        assert_eq!(settings.access, CacheAccess::Shared);
        let none = CacheOptions { dir: Some(None), ..CacheOptions::default() };
        assert_eq!(none.settings(all).unwrap(), None);
        let own = CacheOptions {
            dir: Some(Some("/b".into())),
            size: Some(CacheSize::Unlimited),
            ..CacheOptions::default()
        };
        let settings = own.settings(all).unwrap().unwrap();
        assert_eq!((settings.dir, settings.size), ("/b".into(), CacheSize::Unlimited));
        for name in ["RINGLOAD_CACHE_SIZE", "RINGLOAD_CACHE_VALIDATE", "RINGLOAD_CACHE_SHARED"] {
            let wrong =
                |key: &str| (key == "RINGLOAD_CACHE_DIR" || key == name).then(|| "x".to_owned());
            let error = CacheOptions::default().settings(wrong).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
            let alone = |key: &str| (key == name).then(|| "x".to_owned());
            assert!(CacheOptions::default().settings(alone).is_err(), "{name} without a cache");
        }
    }
}
