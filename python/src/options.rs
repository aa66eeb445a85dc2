//! The options of a loader, kept so that a child process can make the loader anew.
//!
//! A keyword argument of Python becomes the text of an option, which the library parses as that of a
//! flag. [`ARGUMENTS`] has the kinds of all arguments: a value of another type is a `TypeError`, and
//! one that the library refuses is its error. Both begin with the name of the argument.

use crate::slices::Rules;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyType};
use ringload::internals::sharing_pinned_ring;
use ringload::{Error, Loader, Result};
use std::ffi::OsString;
use std::path::PathBuf;

/// The kind of the values that an argument takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Path,
    Texts,
    Flag,
    /// An integer, which is not a bool.
    Number,
    Seconds,
    /// A number of bytes, or text such as "256MiB".
    Size,
    /// A size; "none" is "unlimited".
    Limit,
    /// The name of an element type, or the type as torch, numpy, ml_dtypes or jax has it.
    Dtype,
    /// A device, or a dict of globs to devices.
    Devices,
    Headers,
    /// The access key id, the secret access key, and the session token or None.
    S3Keys,
}

/// The keyword arguments of `Loader` that are options of the library.
const ARGUMENTS: &[(&str, Kind)] = &[
    ("device", Kind::Devices),
    ("memory_limit", Kind::Limit),
    ("dtype", Kind::Dtype),
    ("allocation", Kind::Text),
    ("tensors", Kind::Texts),
    ("names", Kind::Texts),
    ("variant", Kind::Text),
    ("all_files", Kind::Flag),
    ("strict", Kind::Flag),
    ("order", Kind::Text),
    ("read_path", Kind::Text),
    ("immutable", Kind::Flag),
    ("read_size", Kind::Size),
    ("engines", Kind::Number),
    ("hold_timeout_seconds", Kind::Seconds),
    ("verify", Kind::Flag),
    ("manifest", Kind::Path),
    ("check_finite", Kind::Flag),
    ("region", Kind::Text),
    ("endpoint", Kind::Text),
    ("headers", Kind::Headers),
    ("connections", Kind::Number),
    ("pin", Kind::Text),
    ("unpinned", Kind::Flag),
    ("s3_credentials", Kind::S3Keys),
    ("cache_dir", Kind::Path),
    ("cache_size", Kind::Size),
    ("cache_validate", Kind::Text),
    ("cache_shared", Kind::Flag),
];

/// The names of an option and its values, as [`Loader::set_all`] takes them.
type Values = (&'static str, Vec<OsString>);

/// The options of a loader.
#[derive(Default)]
pub(crate) struct Options {
    keep: bool,
    runai_env: bool,
    slices: Rules,
    /// With the name of the argument.
    values: Vec<(&'static str, Values)>,
}

impl Options {
    /// Returns the options in the keyword arguments of `Loader`. None is the default of all.
    ///
    /// # Errors
    /// A `TypeError` for an unknown argument and for a value of another type.
    pub(crate) fn of(arguments: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let mut options = Self::default();
        for (name, given) in arguments.into_iter().flatten() {
            let name: String = name.extract()?;
            if given.is_none() {
                continue;
            }
            match (name.as_str(), ARGUMENTS.iter().find(|(known, _)| *known == name)) {
                (_, Some(&(known, kind))) => {
                    let values = kind.values(known, &given)?;
                    options.values.extend(values.into_iter().map(|values| (known, values)));
                }
                ("slices", None) => options.slices = Rules::of(&given)?,
                ("keep", None) => options.keep = flag("keep", &given)?,
                ("runai_env", None) => options.runai_env = flag("runai_env", &given)?,
                _ => {
                    let sentence = format!("Loader() got an unexpected keyword argument '{name}'");
                    return Err(PyTypeError::new_err(sentence));
                }
            }
        }
        Ok(options)
    }

    /// Returns a loader with these options. With `keep`, the memory limit leaves out the tensors that
    /// the caller holds. With `runai_env`, the variables that only Run:ai's own programs read are
    /// honoured. Loaders of this process share their pinned ring, as the package's functions make a loader
    /// for each load.
    ///
    /// # Errors
    /// The error of the first option that cannot be used, with the name of its argument.
    pub(crate) fn loader(&self) -> Result<Loader> {
        let loader = sharing_pinned_ring(Loader::from_env());
        let loader = loader.consumer_holds_one(true).caller_may_retain_all(self.keep);
        let loader = if self.runai_env { loader.runai_env()? } else { loader };
        let loader = match self.slices.is_empty() {
            true => loader,
            false => loader.slices(self.slices.slices()?),
        };
        let mut values = self.values.iter();
        values.try_fold(loader, |loader, (argument, (option, values))| {
            loader.set_all(option, values).map_err(|error| named(argument, &error))
        })
    }
}

/// Returns `loader` with the memory limit that a caller gives.
///
/// # Errors
/// A `TypeError` for a value of another type; otherwise what `raised` makes of the library's error.
pub(crate) fn with_limit(
    loader: Loader,
    given: &Bound<'_, PyAny>,
    raised: impl FnOnce(&Error) -> PyErr,
) -> PyResult<Loader> {
    let name = "memory_limit";
    let values = Kind::Limit.values(name, given)?;
    let mut values = values.iter().flat_map(|(_, values)| values);
    let limited = values.try_fold(loader, |loader, limit| loader.set(name, limit));
    limited.map_err(|error| raised(&named(name, &error)))
}

/// Puts the name of an argument before the message of `error`.
fn named(argument: &str, error: &Error) -> Error {
    Error::new(error.kind(), format!("{argument}: {error}"))
}

/// The error of an argument that is not `what`. It does not show the value, which may be secret.
fn type_error(argument: &str, what: &str, given: &Bound<'_, PyAny>) -> PyErr {
    let kind = given.get_type().name().map_or_else(|_| "this".to_owned(), |name| name.to_string());
    PyTypeError::new_err(format!("{argument} must be {what}, not {kind}"))
}

fn flag(argument: &str, given: &Bound<'_, PyAny>) -> PyResult<bool> {
    given.extract().map_err(|_| type_error(argument, Kind::Flag.what(), given))
}

impl Kind {
    fn what(self) -> &'static str {
        match self {
            Self::Text => "a str",
            Self::Path => "a str or a path",
            Self::Texts => "a list of str",
            Self::Flag => "a bool",
            Self::Number => "an int",
            Self::Seconds => "an int or a float",
            Self::Size | Self::Limit => "an int or a str",
            Self::Dtype => "a str, or a dtype of torch or numpy",
            Self::Devices => "a str, or a dict of globs to devices, each a str",
            Self::Headers => "a dict of str to str",
            Self::S3Keys => {
                "a tuple of the access key id, the secret access key, and the session token or None"
            }
        }
    }

    /// Returns the values that an argument gives to options.
    ///
    /// # Errors
    /// A `TypeError` if the argument is of another kind.
    fn values(self, argument: &'static str, given: &Bound<'_, PyAny>) -> PyResult<Vec<Values>> {
        let one = |text: OsString| vec![(argument, vec![text])];
        let text = || given.extract::<String>().ok();
        let values = match self {
            Self::Text => text().map(|text| one(text.into())),
            Self::Path => given.extract::<PathBuf>().ok().map(|path| one(path.into())),
            Self::Texts => given
                .extract::<Vec<String>>()
                .ok()
                .map(|texts| vec![(argument, texts.into_iter().map(Into::into).collect())]),
            Self::Flag => given.extract::<bool>().ok().map(|flag| one(flag.to_string().into())),
            Self::Number => digits(given).map(|digits| one(digits.into())),
            Self::Seconds => seconds(given).map(|seconds| one(seconds.into())),
            Self::Size => digits(given).or_else(text).map(|size| one(size.into())),
            Self::Limit => digits(given)
                .or_else(text)
                .map(|limit| one(if limit == "none" { "unlimited".into() } else { limit.into() })),
            Self::Dtype => text().or_else(|| name_of_dtype(given)).map(|name| one(name.into())),
            // In the order of the dict, since the first glob that matches counts.
            Self::Devices => match text() {
                Some(device) => Some(one(device.into())),
                None => pairs(given, "=").map(|rules| vec![("device_map", rules)]),
            },
            Self::Headers => pairs(given, ": ").map(|headers| vec![("header", headers)]),
            Self::S3Keys => s3_keys(given),
        };
        values.ok_or_else(|| type_error(argument, self.what(), given))
    }
}

/// The digits of an integer; `None` for everything else, bools among it.
fn digits(given: &Bound<'_, PyAny>) -> Option<String> {
    if given.is_instance_of::<PyBool>() {
        return None;
    }
    let int = given.call_method0("__index__").ok()?;
    if let Ok(number) = int.extract::<i128>() {
        return Some(number.to_string());
    }
    // Python does not print every integer.
    let bits = int.call_method0("bit_length").ok()?;
    Some(format!("a number of {bits} bits"))
}

fn seconds(given: &Bound<'_, PyAny>) -> Option<String> {
    let float = || given.cast::<PyFloat>().ok().map(|seconds| format!("{:?}", seconds.value()));
    digits(given).or_else(float)
}

fn name_of_dtype(given: &Bound<'_, PyAny>) -> Option<String> {
    // A scalar type of numpy, ml_dtypes or jax, or an instance of `numpy.dtype`.
    let attribute = if given.is_instance_of::<PyType>() { "__name__" } else { "name" };
    let name = given.getattr(attribute).and_then(|name| name.extract::<String>());
    let of_torch = || Some(given.str().ok()?.to_string()).filter(|text| text.starts_with("torch."));
    name.ok().or_else(of_torch)
}

/// The items of a dict of texts, each as its key, `between`, and its value in one text.
fn pairs(given: &Bound<'_, PyAny>, between: &str) -> Option<Vec<OsString>> {
    let pair = |(key, value): (Bound<'_, PyAny>, Bound<'_, PyAny>)| {
        let (key, value) = (key.extract::<String>().ok()?, value.extract::<String>().ok()?);
        Some(format!("{key}{between}{value}").into())
    };
    given.cast::<PyDict>().ok()?.iter().map(pair).collect()
}

fn s3_keys(given: &Bound<'_, PyAny>) -> Option<Vec<Values>> {
    let (id, secret, token): (String, String, Option<String>) = given.extract().ok()?;
    let pair = [("s3_access_key_id", Some(id)), ("s3_secret_access_key", Some(secret))];
    let keys = pair.into_iter().chain([("s3_session_token", token)]);
    Some(keys.filter_map(|(name, key)| Some((name, vec![key?.into()]))).collect())
}
