//! The versions of the peers, from perf/peers.toml.

use anyhow::Context;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Versions by name.
pub type Versions = BTreeMap<String, String>;

/// The packages to install.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct List {
    /// Packages of the environment.
    pub python: Versions,
    /// Packages that override those, for one client.
    pub python_next: Versions,
    /// The crates of the client of `object_store`.
    pub crates: Versions,
}

impl List {
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is not as expected", path.display()))
    }

    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let list: Self = toml::from_str(text)?;
        for (name, version) in [&list.python, &list.python_next, &list.crates].into_iter().flatten()
        {
            // The names become parts of commands and manifests.
            let is_plain = |text: &str| {
                let of_version = |c: char| c.is_ascii_alphanumeric() || ".-_+".contains(c);
                text.starts_with(|c: char| c.is_ascii_alphanumeric())
                    && text.chars().all(of_version)
            };
            anyhow::ensure!(is_plain(name), "{name:?} is no name");
            anyhow::ensure!(is_plain(version), "{version:?} is no version of {name}");
        }
        Ok(list)
    }
}

/// In the syntax of pip.
pub fn requirements(versions: &Versions) -> Vec<String> {
    versions.iter().map(|(name, version)| format!("{name}=={version}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "
        python = { torch = '2.15.0', numpy = '2.4.6' }
        python-next = { safetensors = '0.9.0rc1' }
        crates = { object_store = '0.14.2' }
    ";

    #[test]
    fn the_list_of_the_repository_is_read() {
        let list = List::parse(include_str!("../../peers.toml")).unwrap();
        assert_eq!(list.python["runai-model-streamer"], "0.17.0");
        assert_eq!(list.python["safetensors"], "0.8.0");
        assert_eq!(list.python_next["safetensors"], "0.9.0rc1");
        assert!(list.crates.contains_key("object_store"));
    }

    #[test]
    fn requirements_are_exact() {
        let list = List::parse(SMALL).unwrap();
        assert_eq!(requirements(&list.python), ["numpy==2.4.6", "torch==2.15.0"]);
    }

    #[test]
    fn what_is_unknown_or_missing_is_refused() {
        assert!(List::parse(&format!("{SMALL}\nruby = {{}}")).is_err());
        assert!(List::parse("python = {}\npython-next = {}").is_err());
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for odd in ["", "--index-url=x", "1.0 ; rm", "1\\n"] {
            let error = List::parse(&SMALL.replace("2.4.6", odd)).unwrap_err();
            assert!(error.to_string().contains("no version of numpy"), "{odd}: {error}");
        }
    }
}
