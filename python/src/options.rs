//! What a loader is asked for, kept so that a child of the process can make it anew.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use ringload::{
    CacheSize, CacheValidate, Device, DeviceMap, Error, ErrorKind, MemoryLimit, Order, Result,
    S3Credentials,
};
use std::path::PathBuf;

/// A number of bytes, or text that says how many.
#[derive(FromPyObject, Clone)]
pub(crate) enum Size {
    #[pyo3(transparent)]
    Bytes(u64),
    #[pyo3(transparent)]
    Text(String),
}

impl Size {
    fn text(&self) -> String {
        match self {
            Self::Bytes(bytes) => bytes.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

/// One device, or devices by globs of names.
#[derive(Clone)]
pub(crate) enum Devices {
    One(String),
    Map(Vec<(String, String)>),
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
        // In the order of the dict: the first glob that matches counts.
        let pairs = map.iter().map(|(glob, device)| Ok((glob.extract()?, device.extract()?)));
        Ok(Self::Map(pairs.collect::<PyResult<_>>()?))
    }
}

impl Devices {
    fn map(&self) -> Result<DeviceMap> {
        match self {
            Self::One(device) => Ok(device.parse::<Device>()?.into()),
            Self::Map(rules) => rules
                .iter()
                .try_fold(DeviceMap::default(), |map, rule| map.with(&rule.0, rule.1.parse()?)),
        }
    }
}

/// The options of a loader.
pub(crate) struct Options {
    pub device: Devices,
    pub keep: bool,
    /// Whether Run:ai's variables count that only its own programs heed.
    pub heed_runai: bool,
    pub memory_limit: Option<Size>,
    pub dtype: Option<String>,
    pub read_path: Option<String>,
    pub engines: Option<usize>,
    pub order: Option<String>,
    pub tensors: Option<Vec<String>>,
    pub names: Option<Vec<String>>,
    pub region: Option<String>,
    pub endpoint: Option<String>,
    pub headers: Vec<(String, String)>,
    pub connections: Option<usize>,
    pub verify: bool,
    pub s3_credentials: Option<(String, String, Option<String>)>,
    /// `Some("")` is: no cache.
    pub cache_dir: Option<PathBuf>,
    pub cache_size: Option<Size>,
    pub cache_validate: Option<String>,
}

impl Options {
    /// A loader with these options.
    ///
    /// # Errors
    /// Of the first option that cannot be used.
    pub fn loader(&self) -> Result<ringload::Loader> {
        let mut loader =
            ringload::Loader::new().device(self.device.map()?).order(order(self.order.as_deref())?);
        loader = loader.consumer_holds_one(true).caller_may_retain_all(self.keep);
        if self.heed_runai {
            loader = loader.runai_env()?;
        }
        if let Some(limit) = &self.memory_limit {
            loader = loader.memory_limit(memory_limit(limit)?);
        }
        if let Some(dtype) = &self.dtype {
            loader = loader.dtype(ringload::options::parse_dtype(dtype)?);
        }
        if let Some(path) = &self.read_path {
            loader = loader.read_path(path.parse()?);
        }
        if let Some(engines) = self.engines {
            loader = loader.engines(engines);
        }
        if let Some(globs) = &self.tensors {
            loader = loader.tensors(globs);
        }
        if let Some(names) = &self.names {
            loader = loader.names(names);
        }
        self.cached(self.remote(loader)?)
    }

    fn remote(&self, mut loader: ringload::Loader) -> Result<ringload::Loader> {
        if let Some(region) = &self.region {
            loader = loader.region(region);
        }
        if let Some(endpoint) = &self.endpoint {
            loader = loader.endpoint(endpoint);
        }
        for (name, value) in &self.headers {
            loader = loader.header(&format!("{name}: {value}"))?;
        }
        if let Some(connections) = self.connections {
            loader = loader.connections(connections);
        }
        if let Some((id, secret, token)) = &self.s3_credentials {
            loader = loader.s3_credentials(S3Credentials {
                access_key_id: id.clone(),
                secret_access_key: secret.clone(),
                session_token: token.clone(),
            });
        }
        Ok(loader.verify(self.verify))
    }

    fn cached(&self, mut loader: ringload::Loader) -> Result<ringload::Loader> {
        loader = match &self.cache_dir {
            None => loader,
            Some(none) if none.as_os_str().is_empty() => loader.no_cache(),
            Some(directory) => loader.cache_dir(directory),
        };
        if let Some(size) = &self.cache_size {
            loader = loader.cache_size(size.text().parse::<CacheSize>()?);
        }
        if let Some(validate) = &self.cache_validate {
            loader = loader.cache_validate(validate.parse::<CacheValidate>()?);
        }
        Ok(loader)
    }
}

pub(crate) fn memory_limit(limit: &Size) -> Result<MemoryLimit> {
    match limit.text().as_str() {
        "none" => Ok(MemoryLimit::Unlimited),
        text => text.parse(),
    }
}

fn order(text: Option<&str>) -> Result<Order> {
    match text {
        None | Some("completion") => Ok(Order::Completion),
        Some("file") => Ok(Order::File),
        Some(text) => Err(Error::new(
            ErrorKind::InvalidInput,
            format!("{text:?} is not an order; use completion or file"),
        )),
    }
}
