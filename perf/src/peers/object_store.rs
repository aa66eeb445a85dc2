//! The client of the crate `object_store`: a separate crate, which is written and built below target,
//! so that its dependencies are not part of this workspace. Its source is perf/peers/object_store.rs.

use super::Places;
use super::commands::{Why, run};
use super::list::{List, Versions};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAM: &str = "object-store";

/// What of each crate is used.
const FEATURES: [(&str, &[&str]); 6] = [
    ("object_store", &["aws", "http"]),
    ("crc32fast", &["std"]),
    ("futures-util", &["std"]),
    ("nix", &["time"]),
    ("serde_json", &["std"]),
    ("tokio", &["net", "rt-multi-thread", "time"]),
];

/// The path of the program.
pub fn program(places: &Places) -> PathBuf {
    folder(places).join("target/release").join(PROGRAM)
}

/// Builds the client and returns the version of the crate.
pub fn prepare(
    places: &Places,
    list: &List,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<Result<String, Why>> {
    let folder = folder(places);
    std::fs::create_dir_all(&folder)?;
    let manifest = manifest(&list.crates, &places.root.join("perf/peers/object_store.rs"))?;
    let file = folder.join("Cargo.toml");
    // Written only when it changed, as cargo checks the modification time.
    if std::fs::read_to_string(&file).ok().as_deref() != Some(&manifest) {
        std::fs::write(&file, &manifest)?;
    }
    progress("building the client of object_store, if it is not up to date");
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--quiet", "--release", "--manifest-path"]).arg(&file);
    cargo.arg("--target-dir").arg(folder.join("target"));
    Ok(run(&mut cargo).map(|_| list.crates["object_store"].clone()))
}

fn folder(places: &Places) -> PathBuf {
    places.peers.join(PROGRAM)
}

/// Its version is that of `object_store`, which is how the program knows it.
fn manifest(versions: &Versions, source: &Path) -> anyhow::Result<String> {
    let version_of = |name: &str| {
        versions.get(name).ok_or_else(|| anyhow::anyhow!("perf/peers.toml has no crate {name}"))
    };
    let version = version_of("object_store")?;
    let source = serde_json::to_string(source)?;
    let mut text = format!(
        "# Written by perf/src/peers/object_store.rs.\n\
         [package]\nname = \"{PROGRAM}\"\nversion = \"{version}\"\nedition = \"2024\"\n\
         publish = false\n\n\
         [workspace]\n\n\
         [[bin]]\nname = \"{PROGRAM}\"\npath = {source}\n\n\
         [dependencies]\n"
    );
    for (name, features) in FEATURES {
        let exactly = if name == "object_store" { "=" } else { "" };
        let version = version_of(name)?;
        writeln!(
            text,
            "{name} = {{ version = \"{exactly}{version}\", default-features = false, \
             features = {features:?} }}"
        )?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions() -> Versions {
        List::parse(include_str!("../../peers.toml")).unwrap().crates
    }

    #[test]
    fn the_manifest_is_of_a_workspace_of_its_own_with_the_versions_of_the_list() {
        let versions = versions();
        let text = manifest(&versions, Path::new("/a \"b\"/object_store.rs")).unwrap();
        let manifest: toml::Table = text.parse().unwrap();
        assert!(manifest["workspace"].as_table().unwrap().is_empty());
        assert_eq!(manifest["bin"][0]["path"].as_str(), Some("/a \"b\"/object_store.rs"));
        let dependencies = manifest["dependencies"].as_table().unwrap();
        assert_eq!(dependencies.len(), versions.len());
        let exact = format!("={}", versions["object_store"]);
        assert_eq!(dependencies["object_store"]["version"].as_str(), Some(exact.as_str()));
        assert_eq!(dependencies["tokio"]["version"].as_str(), Some(versions["tokio"].as_str()));
        let version = manifest["package"]["version"].as_str();
        assert_eq!(version, Some(versions["object_store"].as_str()));
    }

    #[test]
    fn a_crate_without_a_version_is_told() {
        let mut versions = versions();
        versions.remove("nix");
        let error = manifest(&versions, Path::new("/x.rs")).unwrap_err();
        assert_eq!(error.to_string(), "perf/peers.toml has no crate nix");
    }
}
