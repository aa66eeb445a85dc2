//! `anyscale://PATH`: an object below the artifact storage of an Anyscale cloud, which is in S3 or
//! GCS. The location is resolved before anything is opened, so that messages name the real object.

use crate::error::{Error, Result};
use crate::location::{Location, ObjectUri, Scheme};
use crate::options::RemoteOptions;

const VARIABLE: &str = "ANYSCALE_ARTIFACT_STORAGE";

/// Resolves an `anyscale://` location; other locations are returned as they are.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) where the variable is unset or is not a location
/// in S3 or GCS.
pub(crate) fn resolve(options: &RemoteOptions, uri: &ObjectUri) -> Result<ObjectUri> {
    if uri.scheme() != Scheme::Anyscale {
        return Ok(uri.clone());
    }
    let fail = |why: &str| {
        Error::invalid_input(format!(
            "cannot find {uri}: {VARIABLE} {why}; set it to the s3:// or gs:// location of the \
             cloud's artifacts, as it is set inside an Anyscale cluster"
        ))
    };
    let storage = options.env(VARIABLE).ok_or_else(|| fail("is not set"))?;
    match Location::parse(storage.trim()) {
        Ok(Location::Object(storage)) if matches!(storage.scheme(), Scheme::S3 | Scheme::Gs) => {
            Ok(storage.as_directory().join(uri.key()))
        }
        _ => Err(fail("is not an s3:// or gs:// location")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn of(storage: Option<&str>, path: &str) -> Result<String> {
        let options = RemoteOptions::with_variables(&[(VARIABLE, storage.unwrap_or_default())]);
        let uri = ObjectUri::new(Scheme::Anyscale, "", path);
        resolve(&options, &uri).map(|uri| uri.to_string())
    }

    #[test]
    fn paths_lie_below_the_storage() {
        for (storage, path, location) in [
            ("s3://b/org/x", "m.safetensors", "s3://b/org/x/m.safetensors"),
            ("s3://b/org/x/", "a/m?", "s3://b/org/x/a/m?"),
            ("gs://b", "a/", "gs://b/a/"),
            ("gs://b/", "", "gs://b/"),
            ("gs://b/x", "", "gs://b/x/"),
        ] {
            assert_eq!(of(Some(storage), path).unwrap(), location);
        }
    }

    #[test]
    fn the_variable_is_named_where_it_does_not_help() {
        for storage in [None, Some("/x"), Some("https://u:s3cret@h/x"), Some("s3://k:s3cret@b")] {
            let error = of(storage, "m").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let sentence = error.to_string();
            assert!(sentence.contains(VARIABLE) && !sentence.contains("s3cret"), "{sentence}");
        }
    }
}
