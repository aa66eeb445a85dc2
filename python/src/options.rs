//! The options of a loader, kept so that a child process can make the loader anew.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use ringload::{Loader, Result};
use std::ffi::OsString;

/// A number of bytes, or text such as "256MiB".
#[derive(FromPyObject)]
pub(crate) enum Size {
    #[pyo3(transparent)]
    Bytes(u64),
    #[pyo3(transparent)]
    Text(String),
}

impl Size {
    pub(crate) fn into_text(self) -> String {
        match self {
            Self::Bytes(bytes) => bytes.to_string(),
            Self::Text(text) => text,
        }
    }

    /// Returns the text of a memory limit. Python's "none" becomes "unlimited".
    pub(crate) fn into_limit(self) -> String {
        match self.into_text() {
            none if none == "none" => "unlimited".to_owned(),
            limit => limit,
        }
    }
}

/// One device, or the rules of a device map.
pub(crate) enum Devices {
    One(String),
    Map(Vec<String>),
}

impl<'py> FromPyObject<'_, 'py> for Devices {
    type Error = PyErr;

    fn extract(given: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(device) = given.extract() {
            return Ok(Self::One(device));
        }
        let refused =
            |_| PyTypeError::new_err("device must be a str or a dict of globs to devices");
        let map = given.cast::<PyDict>().map_err(|_| refused(()))?;
        // In the order of the dict, since the first glob that matches counts.
        Ok(Self::Map(pairs(&map, "=")?))
    }
}

/// Returns the items of a dict of texts, each as its key, `between`, and its value in one text.
pub(crate) fn pairs(dict: &Bound<'_, PyDict>, between: &str) -> PyResult<Vec<String>> {
    let pair = |(key, value): (Bound<'_, PyAny>, Bound<'_, PyAny>)| {
        Ok(format!("{}{between}{}", key.extract::<String>()?, value.extract::<String>()?))
    };
    dict.iter().map(pair).collect()
}

/// The options of a loader.
pub(crate) struct Options {
    keep: bool,
    runai_env: bool,
    /// Names and values, as [`Loader::set_all`] takes them.
    values: Vec<(&'static str, Vec<OsString>)>,
}

impl Options {
    /// Returns the default options. With `keep`, the memory limit leaves out the tensors that the
    /// caller holds. With `runai_env`, the variables that only Run:ai's own programs read are
    /// honoured.
    pub(crate) fn new(keep: bool, runai_env: bool) -> Self {
        Self { keep, runai_env, values: Vec::new() }
    }

    /// Adds the option `name`, unless its value is None.
    pub(crate) fn add(&mut self, name: &'static str, value: Option<impl Into<OsString>>) {
        self.add_all(name, value.map(|value| [value]));
    }

    /// Adds the option `name` with any number of values, unless they are None.
    pub(crate) fn add_all(
        &mut self,
        name: &'static str,
        values: Option<impl IntoIterator<Item = impl Into<OsString>>>,
    ) {
        if let Some(values) = values {
            self.values.push((name, values.into_iter().map(Into::into).collect()));
        }
    }

    /// Returns a loader with these options.
    ///
    /// # Errors
    /// The error of the first option that cannot be used.
    pub(crate) fn loader(&self) -> Result<Loader> {
        let loader = Loader::new().consumer_holds_one(true).caller_may_retain_all(self.keep);
        let loader = if self.runai_env { loader.runai_env()? } else { loader };
        let mut values = self.values.iter();
        values.try_fold(loader, |loader, (name, values)| loader.set_all(name, values))
    }
}
