//! The names of downloaded files.

use crate::error::{Error, ErrorKind};
use crate::location::{Location, ObjectUri};
use std::path::{Component, Path, PathBuf};

/// `name` without `.` components; `None` if it is not a relative path, or contains `..`.
pub fn plain(name: &Path) -> Option<PathBuf> {
    let parts = name.components().filter(|part| *part != Component::CurDir);
    let parts = parts.map(|part| matches!(part, Component::Normal(_)).then_some(part));
    parts.collect()
}

/// The name in the target directory of the file at `location`: its path below the directory of the
/// index that names it, or else its last component.
pub fn name_of(location: &Location, indexes: &[Location]) -> PathBuf {
    let below = |index: &Location| match (location, index) {
        (Location::File(path), Location::File(index)) => {
            Some(path.strip_prefix(index.parent()?).ok()?.to_owned())
        }
        (Location::Object(uri), Location::Object(index)) => Some(below(uri, index)?.into()),
        _ => None,
    };
    let last = || match location {
        Location::File(path) => path.file_name().map(PathBuf::from).unwrap_or_default(),
        Location::Object(uri) => uri.name().into(),
    };
    let name = indexes.iter().find_map(below).unwrap_or_else(last);
    let name = match location {
        Location::Object(uri) if uri.is_url() => decoded(name),
        _ => name,
    };
    plain(&name).unwrap_or_else(|| {
        // Slashes and `..` are replaced, so that the name cannot lead out of the target.
        name.to_string_lossy().replace('/', "_").replace("..", "_").into()
    })
}

/// The path of `uri` below the directory of `index`.
fn below<'a>(uri: &'a ObjectUri, index: &ObjectUri) -> Option<&'a str> {
    let is_below_same_root = (uri.scheme(), uri.container()) == (index.scheme(), index.container());
    uri.path().strip_prefix(index.parent().path()).filter(|_| is_below_same_root)
}

/// `name` with its percent escapes decoded; unchanged if the result is not UTF-8.
fn decoded(name: PathBuf) -> PathBuf {
    match Location::parse(&format!("file:///{}", name.display())) {
        Ok(Location::File(path)) => {
            let text = path.to_str().and_then(|path| path.strip_prefix('/'));
            text.map_or(name, PathBuf::from)
        }
        _ => name,
    }
}

pub fn outside(name: &Path, directory: &Path) -> Error {
    let (name, directory) = (name.display(), directory.display());
    let sentence = format!("the file {name:?} would be written outside of {directory}");
    Error::new(ErrorKind::InvalidInput, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_and_stay_in_the_target() {
        let name = |location: &str, indexes: &[&str]| {
            let parse = |text: &&str| Location::parse(text).unwrap();
            let indexes: Vec<_> = indexes.iter().map(parse).collect();
            name_of(&parse(&location), &indexes).display().to_string()
        };
        let index = "s3://b/dir/model.safetensors.index.json";
        assert_eq!(name("s3://b/dir/a%20.safetensors", &[]), "a%20.safetensors");
        assert_eq!(name("https://h/dir/a%20b.safetensors?x=y", &[]), "a b.safetensors");
        assert_eq!(name("s3://b/dir/sub/a.safetensors", &[index]), "sub/a.safetensors");
        assert_eq!(name("s3://c/dir/sub/a.safetensors", &[index]), "a.safetensors");
        assert_eq!(name("s3://b/dir/../a.safetensors", &[index]), "__a.safetensors");
        assert_eq!(name("https://h/%2e%2e%2fa.safetensors", &[]), "__a.safetensors");
        assert_eq!(name("https://h/%2fetc%2fa.safetensors", &[]), "_etc_a.safetensors");
        assert_eq!(
            name("/m/sub/a.safetensors", &["/m/x.safetensors.index.json"]),
            "sub/a.safetensors"
        );
        assert_eq!(name("/m/sub/a.safetensors", &[]), "a.safetensors");
    }
}
