//! The names of files in a manifest: their paths relative to the directory that they have in common.
//!
//! A checkpoint is copied from one place to another, so files are found by the last components of their
//! paths. The longest name that a path ends with counts.

use crate::location::Location;

/// The components of the path of `location`. Names that are not UTF-8 are shown with replacements.
pub(super) fn components(location: &Location) -> Vec<String> {
    let path = match location {
        Location::File(path) => path.to_string_lossy().into_owned(),
        Location::Object(uri) => uri.key().to_owned(),
    };
    let is_name = |name: &&str| !name.is_empty() && *name != ".";
    path.split('/').filter(is_name).map(str::to_owned).collect()
}

/// The names of the files at `locations` in a manifest: their paths without the directories that all of
/// them have in common.
pub(crate) fn common_names<'a>(locations: impl Iterator<Item = &'a Location>) -> Vec<String> {
    let paths: Vec<_> = locations.map(components).collect();
    let shortest = paths.iter().map(|path| path.len().saturating_sub(1)).min().unwrap_or(0);
    let is_common = |&at: &usize| paths.iter().all(|path| path[at] == paths[0][at]);
    let common = (0..shortest).take_while(is_common).count();
    paths.iter().map(|path| path[common..].join("/")).collect()
}

/// How many components of `name` the path ends with; `None` unless it ends with all of them.
pub(super) fn matching(path: &[String], name: &str) -> Option<usize> {
    let name: Vec<&str> = name.split('/').collect();
    let start = path.len().checked_sub(name.len())?;
    path[start..].iter().eq(&name).then_some(name.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(paths: &[&str]) -> Vec<String> {
        let locations: Vec<_> = paths.iter().map(|path| Location::parse(path).unwrap()).collect();
        common_names(locations.iter())
    }

    #[test]
    fn names_are_relative_to_the_common_directory() {
        assert_eq!(names(&["/m/a.st"]), ["a.st"]);
        assert_eq!(names(&["/m/a.st", "/m/b.st"]), ["a.st", "b.st"]);
        assert_eq!(names(&["/m/unet/a.st", "/m/vae/a.st"]), ["unet/a.st", "vae/a.st"]);
        assert_eq!(names(&["/m/a.st", "/m/vae/a.st"]), ["a.st", "vae/a.st"]);
        assert_eq!(names(&["a.st", "./b//c.st"]), ["a.st", "b/c.st"]);
        assert_eq!(names(&["s3://bucket/x/m/a.st?y"]), names(&["/a.st?y"]));
        assert!(names(&[]).is_empty());
    }

    #[test]
    fn a_path_is_found_by_its_last_components() {
        let path = components(&Location::parse("/m/vae/a.st").unwrap());
        assert_eq!(matching(&path, "a.st"), Some(1));
        assert_eq!(matching(&path, "vae/a.st"), Some(2));
        for other in ["b.st", "unet/a.st", "x/m/vae/a.st", "st", ""] {
            assert_eq!(matching(&path, other), None, "{other}");
        }
    }
}
