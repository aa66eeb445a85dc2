//! A loader's options, by name.

use crate::error::{Error, ErrorKind, Result};
use crate::load::Loader;
use crate::options::{Allocation, Device, Order, S3Credentials, parse_dtype};
use std::str::FromStr;
use std::time::Duration;

/// A loader, and what one call does not say all of.
#[derive(Default)]
pub struct Options {
    pub loader: Loader,
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    session_token: Option<String>,
}

impl Options {
    /// Sets the option `key`.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput), naming the option; without the value where that may
    /// be secret.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let named = |error: Error| Error::new(error.kind(), format!("{key}: {error}"));
        let loader = self.loader.clone();
        self.loader = match key {
            "s3_access_key_id" => return self.key(|own| own.access_key_id = Some(value.into())),
            "s3_secret_access_key" => {
                return self.key(|own| own.secret_access_key = Some(value.into()));
            }
            "s3_session_token" => return self.key(|own| own.session_token = Some(value.into())),
            _ => changed(loader, key, value).map_err(named)?,
        };
        Ok(())
    }

    /// Hands keys over as soon as they are complete.
    fn key(&mut self, change: impl FnOnce(&mut Self)) -> Result<()> {
        change(self);
        if let (Some(id), Some(secret)) = (&self.access_key_id, &self.secret_access_key) {
            self.loader = self.loader.clone().s3_credentials(S3Credentials {
                access_key_id: id.clone(),
                secret_access_key: secret.clone(),
                session_token: self.session_token.clone(),
            });
        }
        Ok(())
    }
}

/// `loader` with one option more.
fn changed(loader: Loader, key: &str, value: &str) -> Result<Loader> {
    Ok(match key {
        "memory_limit" => loader.memory_limit(value.parse()?),
        "device" => loader.device(Device::from_str(value)?),
        "dtype" => loader.dtype(parse_dtype(value)?),
        "allocation" => loader.allocation(one_of(value, ALLOCATIONS)?),
        "tensors" => loader.tensors(value.lines()),
        "order" => loader.order(one_of(value, ORDERS)?),
        "read_path" => loader.read_path(value.parse()?),
        "engines" => loader.engines(number(value)?),
        "hold_timeout_seconds" => {
            let seconds: f64 = number(value)?;
            let timeout = Duration::try_from_secs_f64(seconds).map_err(|_| unusable(value))?;
            loader.hold_timeout(timeout)
        }
        "region" => loader.region(value),
        "endpoint" => loader.endpoint(value),
        "header" => loader.header(value)?,
        "connections" => loader.connections(number(value)?),
        "verify" => loader.verify(one_of(value, [("true", true), ("false", false)])?),
        "cache_dir" => loader.cache_dir(value),
        "cache_size" => loader.cache_size(value.parse()?),
        "cache_validate" => loader.cache_validate(value.parse()?),
        _ => {
            let sentence = "no option is called so; see ringload_loader_set in ringload.h";
            return Err(Error::new(ErrorKind::InvalidInput, sentence));
        }
    })
}

const ALLOCATIONS: [(&str, Allocation); 2] =
    [("shard", Allocation::PerShard), ("tensor", Allocation::PerTensor)];
const ORDERS: [(&str, Order); 2] = [("completion", Order::Completion), ("file", Order::File)];

/// What `value` names.
fn one_of<T, const N: usize>(value: &str, choices: [(&str, T); N]) -> Result<T> {
    let names = choices.each_ref().map(|(name, _)| *name).join(" or ");
    let chosen = choices.into_iter().find(|(name, _)| *name == value);
    chosen.map(|(_, choice)| choice).ok_or_else(|| {
        Error::new(ErrorKind::InvalidInput, format!("{value:?} is no choice; use {names}"))
    })
}

fn number<T: FromStr>(value: &str) -> Result<T> {
    value.trim().parse().map_err(|_| unusable(value))
}

fn unusable(value: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("{value:?} is not a number that can be used"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_known_and_refusals_name_it() {
        let mut options = Options::default();
        for (key, value) in [
            ("memory_limit", "64MiB"),
            ("device", "cpu"),
            ("dtype", "BF16"),
            ("allocation", "tensor"),
            ("tensors", "a.*\nb"),
            ("order", "file"),
            ("read_path", "buffered"),
            ("engines", "2"),
            ("hold_timeout_seconds", "0.5"),
            ("region", "eu-central-1"),
            ("endpoint", "http://localhost:9000"),
            ("header", "Authorization: Bearer s3cret"),
            ("connections", "4"),
            ("verify", "false"),
            ("s3_access_key_id", "id"),
            ("s3_secret_access_key", "s3cret"),
            ("s3_session_token", "token"),
            ("cache_dir", "/nowhere"),
            ("cache_size", "1GiB"),
            ("cache_validate", "never"),
        ] {
            options.set(key, value).unwrap();
        }
        for (key, value) in [
            ("memory_limit", "lots"),
            ("device", "gpu"),
            ("order", "random"),
            ("engines", "-1"),
            ("hold_timeout_seconds", "-1"),
            ("verify", "maybe"),
            ("header", "s3cret"),
            ("colour", "blue"),
        ] {
            let error = options.set(key, value).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{key}");
            let sentence = error.to_string();
            assert!(sentence.starts_with(key) && !sentence.contains("s3cret"), "{sentence}");
        }
    }
}
