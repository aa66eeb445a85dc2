//! The local file cache: where it is, how large, and when its entries are believed.

use super::{in_variable, parse_bytes};
use crate::error::{Error, ErrorKind, Result};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// When the store is asked whether an object is still what the cache holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheValidate {
    /// Whenever it is opened: one conditional request.
    #[default]
    Always,
    /// Never: what was cached last is taken. What is complete needs no network.
    Never,
    /// When it was asked this long ago, or longer.
    Age(Duration),
}

impl FromStr for CacheValidate {
    type Err = Error;

    /// `always`, `never`, or an age: `30s`, `10m`, `1h`, `7d`.
    fn from_str(text: &str) -> Result<Self> {
        match text.trim() {
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            age => parse_age(age).map(Self::Age).ok_or_else(|| {
                let sentence = format!(
                    "{text:?} does not say when to validate; use \"always\", \"never\", or an age \
                     such as 30s, 10m, 1h or 7d"
                );
                Error::new(ErrorKind::InvalidInput, sentence)
            }),
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

/// How large the cache may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheSize {
    /// As large as the file system lets it.
    #[default]
    Unlimited,
    /// So many bytes on disk.
    Bytes(u64),
}

impl FromStr for CacheSize {
    type Err = Error;

    /// `unlimited`, or bytes: `200GiB`, `100000000000`.
    fn from_str(text: &str) -> Result<Self> {
        match text.trim() {
            "unlimited" => Ok(Self::Unlimited),
            bytes => parse_bytes(bytes).map(Self::Bytes).ok_or_else(|| {
                let sentence = format!(
                    "{text:?} is not a size for the cache; use \"unlimited\", or bytes such as \
                     200GiB"
                );
                Error::new(ErrorKind::InvalidInput, sentence)
            }),
        }
    }
}

/// What was chosen in code or on the command line; what was not is the environment's to say.
#[derive(Debug, Clone, Default)]
pub(crate) struct CacheOptions {
    /// `Some(None)` is: no cache.
    pub dir: Option<Option<PathBuf>>,
    pub size: Option<CacheSize>,
    pub validate: Option<CacheValidate>,
    /// Whether what comes too fast for the disk is waited for, and not left out.
    pub patient: bool,
}

/// What is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CacheSettings {
    pub dir: PathBuf,
    pub size: CacheSize,
    pub validate: CacheValidate,
    pub patient: bool,
}

impl CacheOptions {
    const DIR: &str = "RINGLOAD_CACHE_DIR";
    const SIZE: &str = "RINGLOAD_CACHE_SIZE";
    const VALIDATE: &str = "RINGLOAD_CACHE_VALIDATE";

    /// What is in force in this environment; `None` without a cache.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput), naming the variable that cannot be read.
    pub fn settings(&self, env: impl Fn(&str) -> Option<String>) -> Result<Option<CacheSettings>> {
        let dir = match &self.dir {
            Some(chosen) => chosen.clone(),
            None => env(Self::DIR).map(PathBuf::from),
        };
        let Some(dir) = dir else { return Ok(None) };
        let size = chosen(self.size, Self::SIZE, &env)?;
        let validate = chosen(self.validate, Self::VALIDATE, &env)?;
        Ok(Some(CacheSettings { dir, size, validate, patient: self.patient }))
    }
}

/// What was set, else what the variable `name` says, else the default.
fn chosen<T: FromStr<Err = Error> + Default>(
    set: Option<T>,
    name: &str,
    env: impl Fn(&str) -> Option<String>,
) -> Result<T> {
    match (set, env(name)) {
        (Some(set), _) => Ok(set),
        (None, Some(text)) => text.parse().map_err(|error| in_variable(name, &error)),
        (None, None) => Ok(T::default()),
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
        ]);
        let settings = CacheOptions::default().settings(all).unwrap().unwrap();
        assert_eq!(settings.dir, PathBuf::from("/a"));
        assert_eq!(settings.size, CacheSize::Bytes(1 << 30));
        assert_eq!(settings.validate, CacheValidate::Never);
        let none = CacheOptions { dir: Some(None), ..CacheOptions::default() };
        assert_eq!(none.settings(all).unwrap(), None);
        let own = CacheOptions {
            dir: Some(Some("/b".into())),
            size: Some(CacheSize::Unlimited),
            ..CacheOptions::default()
        };
        let settings = own.settings(all).unwrap().unwrap();
        assert_eq!((settings.dir, settings.size), ("/b".into(), CacheSize::Unlimited));
        for name in ["RINGLOAD_CACHE_SIZE", "RINGLOAD_CACHE_VALIDATE"] {
            let wrong =
                |key: &str| (key == "RINGLOAD_CACHE_DIR" || key == name).then(|| "x".to_owned());
            let error = CacheOptions::default().settings(wrong).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
