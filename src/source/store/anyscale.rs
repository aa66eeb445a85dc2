//! `anyscale://PATH`: what lies below the artifact storage of an Anyscale cloud, which is a place in
//! S3 or GCS. It is put in before anything is opened, so that messages show the real place.

use crate::error::{Error, ErrorKind, Result};
use crate::location::{Location, ObjectUri, Scheme};
use crate::options::RemoteOptions;

const VARIABLE: &str = "ANYSCALE_ARTIFACT_STORAGE";

/// Where `uri` really is: itself, unless it is an `anyscale://` location.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) where the variable is unset or names no place in S3 or
/// GCS.
pub(crate) fn actual(options: &RemoteOptions, uri: &ObjectUri) -> Result<ObjectUri> {
    if uri.scheme() != Scheme::Anyscale {
        return Ok(uri.clone());
    }
    let refuse = |what: &str| {
        let sentence = format!(
            "cannot find {uri}: {VARIABLE} {what}; set it to the s3:// or gs:// place of the \
             cloud's artifacts, as it is inside of an Anyscale cluster"
        );
        Error::new(ErrorKind::InvalidInput, sentence)
    };
    let storage = options.env(VARIABLE).ok_or_else(|| refuse("is not set"))?;
    match Location::parse(storage.trim()) {
        Ok(Location::Object(storage)) if matches!(storage.scheme(), Scheme::S3 | Scheme::Gs) => {
            Ok(storage.as_directory().join(uri.key()))
        }
        _ => Err(refuse("is no s3:// or gs:// location")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(storage: Option<&str>, path: &str) -> Result<String> {
        let options = RemoteOptions::with_variables(&[(VARIABLE, storage.unwrap_or_default())]);
        let uri = ObjectUri::new(Scheme::Anyscale, "", path);
        actual(&options, &uri).map(|uri| uri.to_string())
    }

    #[test]
    fn paths_lie_below_the_storage() {
        for (storage, path, place) in [
            ("s3://b/org/x", "m.safetensors", "s3://b/org/x/m.safetensors"),
            ("s3://b/org/x/", "a/m?", "s3://b/org/x/a/m?"),
            ("gs://b", "a/", "gs://b/a/"),
            ("gs://b/", "", "gs://b/"),
            ("gs://b/x", "", "gs://b/x/"),
        ] {
            assert_eq!(of(Some(storage), path).unwrap(), place);
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
