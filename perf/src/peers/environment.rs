//! The Python environment of the peers: a virtual environment, and a folder with a package that
//! overrides that of the environment.
//!
//! All packages are installed at once. If that fails, they are installed one by one, and failures
//! are reported; a constraints file keeps the others at their versions. The folder is first in
//! PYTHONPATH, so that no second environment, with another torch, is needed.

use super::Places;
use super::commands::{Why, run};
use super::list::{List, requirements};
use super::stamp;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An environment.
#[derive(Debug)]
pub struct Environment {
    pub python: PathBuf,
    /// Packages that could not be installed, and why.
    pub failed: BTreeMap<String, Why>,
    /// Whether it already existed and is managed elsewhere.
    pub is_given: bool,
}

impl Environment {
    /// An existing environment.
    pub fn existing(python: &Path) -> Self {
        Self { python: python.to_owned(), failed: BTreeMap::new(), is_given: true }
    }

    /// Its pip.
    pub fn pip(&self) -> Command {
        let mut pip = Command::new(&self.python);
        pip.args(["-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input", "install"]);
        pip
    }
}

/// The environment with all packages that are available.
pub fn prepare(
    places: &Places,
    list: &List,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<Result<Environment, Why>> {
    let folder = places.peers.join("python");
    let (python, stamp) = (folder.join("bin/python"), folder.join("installed.json"));
    let wanted = requirements(&list.python);
    let made_of = match run(Command::new("python3").arg("--version")) {
        Ok(version) => format!("{}\n{}", version.trim(), wanted.join("\n")),
        Err(why) => return Ok(Err(why)),
    };
    if let Some(failed) = stamp::read(&stamp, &made_of) {
        return Ok(Ok(Environment { python, failed, is_given: false }));
    }
    progress("installing the peers of perf/peers.toml: the first time that is some GB");
    let failed = BTreeMap::new();
    let mut environment = Environment { python, failed, is_given: false };
    if run(environment.pip().arg("--help")).is_err() {
        let made = run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder));
        if let Err(why) = made {
            return Ok(Err(why));
        }
    }
    environment.failed = install(&environment, list, &folder.join("constraints.txt"), progress)?;
    if environment.failed.len() == list.python.len() {
        // Probably there is no network, so the next session tries again.
        let why = environment.failed.into_values().next().unwrap_or_default();
        return Ok(Err(why));
    }
    for (package, why) in &environment.failed {
        progress(&format!("{package} could not be installed: {why}"));
    }
    stamp::write(&stamp, &made_of, &environment.failed)?;
    Ok(Ok(environment))
}

/// Returns the packages that could not be installed.
fn install(
    environment: &Environment,
    list: &List,
    constraints: &Path,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<BTreeMap<String, Why>> {
    let wanted = requirements(&list.python);
    let mut failed = BTreeMap::new();
    let Err(why) = run(environment.pip().args(&wanted)) else {
        return Ok(failed);
    };
    progress(&format!("not all at once, so one by one: {why}"));
    for (name, requirement) in list.python.keys().zip(&wanted) {
        // The package itself is left out: pip would report a false conflict.
        let others: Vec<_> = wanted.iter().filter(|other| *other != requirement).cloned().collect();
        std::fs::write(constraints, others.join("\n") + "\n")?;
        let mut pip = environment.pip();
        if let Err(why) = run(pip.arg("--constraint").arg(constraints).arg(requirement)) {
            failed.insert(name.clone(), why);
        }
    }
    Ok(failed)
}

/// The folder of the packages that override those of the environment.
pub fn next(places: &Places) -> PathBuf {
    places.peers.join("next")
}

/// Installs those packages.
pub fn prepare_next(
    places: &Places,
    list: &List,
    environment: &Environment,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<Result<(), Why>> {
    let wanted = requirements(&list.python_next);
    let made_of = format!("{}\n{}", environment.python.display(), wanted.join("\n"));
    install_folder(environment, &next(places), &made_of, progress, |pip| pip.args(&wanted))
}

/// Installs packages into a separate folder, without their dependencies.
pub fn install_folder(
    environment: &Environment,
    folder: &Path,
    made_of: &str,
    progress: &mut dyn FnMut(&str),
    what: impl FnOnce(&mut Command) -> &mut Command,
) -> anyhow::Result<Result<(), Why>> {
    let stamp = folder.with_extension("json");
    if stamp::read::<()>(&stamp, made_of).is_some() {
        return Ok(Ok(()));
    }
    progress(&format!("installing into {}", folder.display()));
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    let mut pip = environment.pip();
    pip.args(["--no-deps", "--target"]).arg(folder);
    if let Err(why) = run(what(&mut pip)) {
        return Ok(Err(why));
    }
    stamp::write(&stamp, made_of, ())?;
    Ok(Ok(()))
}
