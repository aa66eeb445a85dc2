//! Attacks of another user on the directory of a cache, and on the target of a download, of root.
//!
//! The attacker is a thread with the credentials of `nobody`, and the victim is the command, which runs
//! as root. An attack plants something (a link, a FIFO, a directory, ...) in the place of something
//! that the victim uses ([`attack_plants`](crate::attack_plants)), or changes it again and again while
//! the victim works. It has succeeded if a file of the victim has changed, a load has delivered wrong
//! bytes, the victim hangs, or others can read what a private cache holds.
//!
//! `tests/run.sh --full` runs all attacks, and the default size some of them. They need root.

use crate::attack_plants::{Plant, as_attacker, during_download, race};
use crate::attack_stage::{Stage, cache_paths, set_mode, shared};
use crate::common::seccomp::is_root;
use crate::common::{is_full, skip};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Whether the attack of this number is tried in this size of the tests.
fn is_chosen(number: usize) -> bool {
    is_full() || number.is_multiple_of(10)
}

/// Runs `attack` with each of the `attacks` that are chosen. It says whether the kernel permitted the
/// plant. Returns how many were tried.
fn each<T: Sync>(what: &str, attacks: &[T], attack: impl Fn(&T) -> bool + Sync) {
    if !is_root() {
        return skip("only root has files that another user attacks");
    }
    let chosen: Vec<_> = attacks.iter().enumerate().filter(|(at, _)| is_chosen(*at)).collect();
    let count = |attacks: &[(usize, &T)]| attacks.iter().filter(|(_, it)| attack(it)).count();
    let planted: usize = std::thread::scope(|scope| {
        let halves = chosen.chunks(chosen.len().div_ceil(2));
        let running: Vec<_> = halves.map(|half| scope.spawn(|| count(half))).collect();
        running.into_iter().map(|half| half.join().unwrap()).sum()
    });
    eprintln!("{what}: {} attacks, {planted} of them planted something", chosen.len());
    // The kernel refuses some plants; a sample may have more of these.
    let least = if is_full() { chosen.len() / 2 } else { 0 };
    assert!(planted > least, "{what}: only {planted} of {} planted something", chosen.len());
}

/// All plants at all paths.
fn everywhere(paths: &[PathBuf]) -> Vec<(Plant, PathBuf)> {
    let at = |path: &PathBuf| Plant::ALL.map(|plant| (plant, path.clone()));
    paths.iter().flat_map(at).collect()
}

/// The cache was open to everyone once. Its owner has repaired the permissions; what was planted stayed.
#[test]
fn what_was_planted_before_the_permissions_were_repaired() {
    let attacks = if is_root() { everywhere(&cache_paths()) } else { Vec::new() };
    assert!(!is_root() || attacks.len() >= 90, "{}", attacks.len());
    each("repaired caches", &attacks, |(plant, path)| {
        let stage = Stage::new(format!("{plant:?} at {path:?}"), 0o777);
        stage.fill_cache();
        stage.set_modes(0o777, 0o666);
        let planted = as_attacker(|| plant.put(&stage.cache().join(path), &stage.victim()));
        set_mode(&stage.open(), 0o755);
        stage.set_modes(0o755, 0o600);
        stage.use_cache(&[]);
        stage.assert_private();
        planted
    });
}

/// The forger knows how entries are made, and has put one into the cache while it was open to everyone.
#[test]
fn what_is_forged_is_not_loaded() {
    let paths = if is_root() { cache_paths() } else { Vec::new() };
    let modes = [0o700, 0o755, 0o777];
    let attacks: Vec<_> =
        modes.iter().flat_map(|mode| paths.iter().map(move |path| (*mode, path))).collect();
    each("forged entries", &attacks, |&(mode, path)| {
        let stage = Stage::new(format!("forged {path:?}, {mode:o}"), 0o777);
        stage.fill_cache();
        stage.set_modes(0o777, 0o666);
        let planted = as_attacker(|| {
            let at = stage.cache().join(path);
            let _ = fs::rename(&at, stage.open().join("away"));
            shared().forged.copy(path, &at, mode)
        });
        set_mode(&stage.open(), 0o755);
        stage.set_modes(0o755, 0o600);
        stage.use_cache(&[]);
        planted
    });
}

/// As in /tmp: everyone may put things there, and remove only their own ones.
#[test]
fn what_is_in_the_place_of_a_cache_in_a_sticky_directory() {
    each("sticky directories", &Plant::ALL, |plant| {
        let mut stage = Stage::new(format!("{plant:?} in a sticky directory"), 0o1777);
        if *plant == Plant::LinkToDirectory {
            stage = stage.leading_elsewhere();
        }
        let planted = as_attacker(|| plant.put(&stage.cache(), &stage.victim()));
        stage.use_cache(&[]);
        planted
    });
}

/// Whoever may write to a shared cache is trusted with its bytes, and with nothing else.
#[test]
fn what_is_planted_in_a_shared_cache() {
    let attacks = if is_root() { everywhere(&cache_paths()[1..]) } else { Vec::new() };
    let attacks: Vec<_> = attacks.into_iter().step_by(2).collect();
    each("shared caches", &attacks, |(plant, path)| {
        let stage = Stage::new(format!("{plant:?} at {path:?}, shared"), 0o755);
        stage.fill_cache();
        stage.set_modes(0o777, 0o666);
        let planted = as_attacker(|| plant.put(&stage.cache().join(path), &stage.victim()));
        stage.use_cache(&["--cache-shared"]);
        planted
    });
}

#[test]
fn what_is_planted_in_the_target_of_a_download() {
    let paths =
        [".ringload-download", "x.safetensors", "sub", "sub/a.safetensors"].map(PathBuf::from);
    let modes = [0o777, 0o1777];
    let attacks: Vec<_> = modes
        .iter()
        .flat_map(|mode| everywhere(&paths).into_iter().map(move |it| (*mode, it)))
        .collect();
    each("downloads", &attacks, |(mode, (plant, path))| {
        let stage = Stage::new(format!("{plant:?} at {path:?} of a download"), *mode);
        let planted = as_attacker(|| {
            let directory = stage.open().join(path.parent().unwrap());
            fs::create_dir_all(directory).unwrap();
            plant.put(&stage.open().join(path), &stage.victim())
        });
        let index = format!("{}/model.safetensors.index.json", shared().server.origin());
        match path.starts_with("sub") {
            true => stage.download(&index, "sub/a.safetensors"),
            false => stage.download(&shared().server.url(), "x.safetensors"),
        }
        planted
    });
}

/// What the attacker changes without a pause while the victim loads or downloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Race {
    /// The cache and a link to a directory of the victim.
    CacheAndLink,
    /// The cache and a directory of the attacker.
    CacheAndDirectory,
    /// The directory of the entry, in a directory of the attacker, and a link.
    EntryAndLink,
    /// Each file of the entry, in a directory of the attacker.
    Files,
    /// The files of a shared cache.
    SharedFiles,
    /// The directory of incomplete files, and one with links to a file of the victim.
    Staging,
    /// The file that is downloaded.
    Target,
    /// A directory of the target, which belongs to the attacker, and a link.
    Subdirectory,
}

const RACES: [Race; 8] = [
    Race::CacheAndLink,
    Race::CacheAndDirectory,
    Race::EntryAndLink,
    Race::Files,
    Race::SharedFiles,
    Race::Staging,
    Race::Target,
    Race::Subdirectory,
];

#[test]
fn races_while_the_victim_works() {
    each("races", &RACES, |&kind| {
        let is_sticky = matches!(kind, Race::Subdirectory);
        let stage = Stage::new(format!("{kind:?}"), if is_sticky { 0o1777 } else { 0o777 });
        let stage = match kind {
            Race::CacheAndLink => stage.leading_elsewhere(),
            _ => stage,
        };
        let (victim, cache, open) = (stage.victim(), stage.cache(), stage.open());
        let entry = cache_paths().into_iter().find(|path| path.ends_with("entry")).unwrap();
        let entry = cache.join(entry.parent().unwrap());
        let is_cache = !matches!(kind, Race::Staging | Race::Target | Race::Subdirectory);
        if is_cache {
            stage.fill_cache();
            stage.set_modes(0o777, 0o666);
        }
        let own = open.join("own");
        as_attacker(|| match kind {
            // The attacker has put a directory of its own in the place of that of the object.
            Race::EntryAndLink => own_directory(entry.parent().unwrap()),
            Race::Files => {
                own_directory(entry.parent().unwrap());
                own_directory(&entry);
            }
            Race::Subdirectory => own_directory(&open.join("sub")),
            Race::Staging => {
                own_directory(&own);
                (0..3).for_each(|n| {
                    symlink(victim.join("secret"), own.join(format!("file-{n}"))).unwrap();
                });
            }
            _ => own_directory(&own),
        });
        if is_cache && kind != Race::SharedFiles {
            stage.set_modes(0o755, 0o600);
        }
        let files =
            ["entry", "pages", "partial", "data.safetensors", "used"].map(|name| entry.join(name));
        let changes = race(
            || match kind {
                Race::CacheAndLink => Plant::LinkToDirectory.alternate(&cache, &victim),
                Race::CacheAndDirectory => Plant::exchange(&cache, &own),
                Race::EntryAndLink => Plant::LinkToDirectory.alternate(&entry, &victim),
                Race::Files | Race::SharedFiles => files.iter().for_each(|file| {
                    [Plant::LinkToFile, Plant::HardLink, Plant::Fifo].iter().for_each(|plant| {
                        plant.alternate(file, &victim);
                    });
                }),
                Race::Staging => {
                    let swap = || Plant::exchange(&open.join(".ringload-download"), &own);
                    during_download(&open, swap, swap);
                }
                Race::Target => Plant::LinkToFile.alternate(&open.join("x.safetensors"), &victim),
                Race::Subdirectory => {
                    let sub = open.join("sub");
                    let link = || _ = Plant::LinkToDirectory.put(&sub, &victim);
                    during_download(&open, link, || Plant::undo(&sub));
                }
            },
            || work(&stage, kind, is_cache),
        );
        eprintln!("{kind:?}: {changes} changes");
        changes > 3
    });
}

/// A directory of the attacker, in the place of what is there.
fn own_directory(path: &Path) {
    assert!(Plant::Directory.put(path, Path::new("/")), "{path:?}");
}

/// What the victim does during a race.
fn work(stage: &Stage, kind: Race, is_cache: bool) {
    for _ in 0..if is_full() { 12 } else { 4 } {
        if is_cache {
            let options: &[&str] =
                if kind == Race::SharedFiles { &["--cache-shared"] } else { &[] };
            stage.load(options);
            continue;
        }
        let origin = shared().server.origin();
        // What the attacker puts in the place of the result later is no success.
        match kind {
            Race::Subdirectory => {
                stage.fetch(&format!("{origin}/model.safetensors.index.json"), &[])
            }
            // The cache cannot have an object without validators: the download has a file for it.
            Race::Staging => stage.fetch(&format!("{origin}/bare.safetensors"), &["--unpinned"]),
            _ => stage.fetch(&shared().server.url(), &[]),
        };
    }
}
