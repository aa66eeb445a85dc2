//! What another user, or an earlier one, may have put into the directory of a cache.
//!
//! Links planted there made a root process overwrite a file elsewhere, FIFOs hung it, and an entry that
//! another user had rewritten with its checksums was served as the object. Entries of private models
//! could be read by everyone. Now no link is followed, nothing but regular files is opened, files of
//! other owners are not used, and only what a cache itself has made is deleted. Each attack here is
//! tried on every file of a cache; loads deliver the right bytes, in time.

use crate::common::command::{Finished, ringload, run};
use crate::common::directory;
use crate::common::fault_server::FaultServer;
use crate::common::model::Model;
use crate::common::seccomp::is_root;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;

const SECRET: &[u8] = b"a file of the victim";

/// A user that is neither this one nor root; its files can be made by root alone.
const OTHER_USER: u32 = 65_534;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn mode_of(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// The paths below `root`, deepest first.
fn all_below(root: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            paths.extend(all_below(&path));
        }
        paths.push(path);
    }
    paths
}

/// A server whose object has one of two contents, of the same ETag.
struct Store {
    server: FaultServer,
    model: Model,
    is_evil: Arc<AtomicBool>,
}

impl Store {
    fn new() -> Self {
        let model = Model::new(&[300_000, 17]);
        let mut evil = model.file.clone();
        let data = model.data_offset();
        evil[data..].iter_mut().for_each(|byte| *byte = !*byte);
        let is_evil = Arc::new(AtomicBool::new(false));
        let serves_evil = Arc::clone(&is_evil);
        let server = FaultServer::start(model.file.clone(), move |_, request| {
            let right = request.right();
            match (serves_evil.load(Ordering::Relaxed), request.range()) {
                (true, Some((first, last))) if right.body_len() > 0 => {
                    right.body(&evil[first..=last.min(evil.len() - 1)])
                }
                _ => right,
            }
        });
        Self { server, model, is_evil }
    }

    /// Loads the object with these options, and checks its bytes.
    #[track_caller]
    fn load(&self, cache: &Path, options: &[&str]) -> Finished {
        let mut command = ringload();
        command.args(["load", "--digest", &self.server.url(), "--cache-dir"]).arg(cache);
        let loaded = run(command.args(options));
        assert!(loaded.status.success(), "{loaded:#?}");
        for tensor in self.model.tensors.values() {
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &tensor.bytes);
            let digits: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            assert!(loaded.stdout.contains(&digits), "wrong bytes of {}: {loaded:#?}", tensor.name);
        }
        loaded
    }

    /// A cache directory of this mode with the complete entry.
    fn cached(&self, mode: u32, options: &[&str]) -> (TempDir, PathBuf) {
        let directory = directory();
        let cache = directory.path().join("cache");
        fs::create_dir(&cache).unwrap();
        set_mode(&cache, mode);
        let mut command = ringload();
        command.args(["fetch", &self.server.url(), "--cache-dir"]).arg(&cache).args(options);
        run(&mut command).quiet_success();
        (directory, cache)
    }
}

/// The two ways a cache is used.
const WAYS: [(u32, &[&str]); 2] = [(0o700, &[]), (0o777, &["--cache-shared"])];

#[test]
fn entries_are_readable_by_their_user_alone_unless_the_cache_is_shared() {
    let store = Store::new();
    for (mode, options) in WAYS {
        let (_directory, cache) = store.cached(mode, options);
        let paths = all_below(&cache);
        assert!(paths.len() > 6, "{paths:?}");
        for path in paths {
            let expected = if path.is_dir() { mode } else { mode & 0o666 };
            assert_eq!(mode_of(&path), expected, "{}", path.display());
        }
    }
    // A new directory is private, and so is a directory that everyone may read.
    let directory = directory();
    store.load(&directory.path().join("new"), &[]);
    assert_eq!(mode_of(&directory.path().join("new")), 0o700);
}

#[test]
fn plain_files_of_a_download_have_the_usual_permissions() {
    let (store, directory) = (Store::new(), directory());
    let usual = directory.path().join("usual");
    fs::write(&usual, "").unwrap();
    run(ringload().args(["fetch", &store.server.url(), "--to"]).arg(directory.path()))
        .quiet_success();
    let file = directory.path().join("x.safetensors");
    assert_eq!(mode_of(&file), mode_of(&usual));
    // A link in place of the directory of incomplete files is not followed.
    let elsewhere = directory.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, directory.path().join(".ringload-download")).unwrap();
    run(ringload().args(["fetch", &store.server.url(), "--to"]).arg(directory.path())).failure();
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0, "the link was followed");
}

/// A change of a file or directory.
type Change<'a> = &'a dyn Fn(&Path);

#[test]
fn a_directory_of_other_users_is_not_used_unless_the_cache_is_shared() {
    let store = Store::new();
    let others: [(Change, &str); 3] = [
        (&|cache| set_mode(cache, 0o777), "other users may write to it"),
        (&|cache| set_mode(cache, 0o770), "other users may write to it"),
        (&|cache| chown(cache, Some(OTHER_USER), None).unwrap(), "it belongs to user 65534"),
    ];
    for (give_away, why) in &others[..if is_root() { 3 } else { 2 }] {
        let directory = directory();
        let cache = directory.path().join("cache");
        fs::create_dir(&cache).unwrap();
        give_away(&cache);
        let loaded = store.load(&cache, &[]);
        assert!(loaded.stderr.contains(why), "{loaded:#?}");
        assert!(loaded.stderr.contains("--cache-shared"), "{loaded:#?}");
        assert_eq!(all_below(&cache).len(), 0, "something was written");
        let shared = store.load(&cache, &["--cache-shared"]);
        assert!(shared.stderr.is_empty(), "{shared:#?}");
        assert!(all_below(&cache).len() > 6);
    }
}

/// Replaces every file and directory of a cache, one after the other, by what `plant` makes.
fn plant_everywhere(plant: impl Fn(&Path, &Path) -> bool) -> usize {
    let store = Store::new();
    let mut attacks = 0;
    for (mode, options) in WAYS {
        let (_directory, cache) = store.cached(mode, options);
        let names: Vec<_> = all_below(&cache);
        for name in names.iter().map(|path| path.strip_prefix(&cache).unwrap()) {
            let (directory, cache) = store.cached(mode, options);
            let victim = directory.path().join("victim");
            fs::write(&victim, SECRET).unwrap();
            let before = fs::metadata(&victim).unwrap();
            let path = cache.join(name);
            match path.is_dir() {
                true => fs::remove_dir_all(&path).unwrap(),
                false => fs::remove_file(&path).unwrap(),
            }
            if !plant(&path, &victim) {
                continue;
            }
            for validate in ["always", "never"] {
                let all = [options, &["--cache-validate", validate]].concat();
                store.load(&cache, &all);
            }
            for action in [&["ls"][..], &["verify"], &["prune"], &["prune", "--cache-size", "0"]] {
                let mut command = ringload();
                run(command.arg("cache").args(action).arg("--cache-dir").arg(&cache));
            }
            let after = fs::metadata(&victim).unwrap();
            assert_eq!(fs::read(&victim).unwrap(), SECRET, "{} was followed", name.display());
            assert_eq!(after.mtime_nsec(), before.mtime_nsec(), "{} was touched", name.display());
            assert_eq!(after.mode(), before.mode(), "{} was changed", name.display());
            attacks += 1;
        }
    }
    attacks
}

#[test]
fn links_are_not_followed_wherever_they_are() {
    let attacks = plant_everywhere(|path, victim| symlink(victim, path).is_ok());
    assert!(attacks >= 16, "{attacks}");
    // To a directory, and to nothing.
    plant_everywhere(|path, victim| symlink(victim.parent().unwrap(), path).is_ok());
    plant_everywhere(|path, victim| symlink(victim.with_extension("new"), path).is_ok());
}

#[test]
fn a_file_with_another_name_elsewhere_is_not_written_to() {
    let attacks = plant_everywhere(|path, victim| fs::hard_link(victim, path).is_ok());
    assert!(attacks >= 16, "{attacks}");
}

#[test]
fn nothing_but_regular_files_is_opened() {
    let fifo = |path: &Path, _: &Path| {
        nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o666)).is_ok()
    };
    assert!(plant_everywhere(fifo) >= 16);
    plant_everywhere(|path, _| std::os::unix::net::UnixListener::bind(path).is_ok());
    plant_everywhere(|path, _| fs::create_dir(path).is_ok());
    plant_everywhere(|path, _| fs::write(path, "not what was here").is_ok());
}

/// The forger knows how checksums are computed: ringload itself makes the entry, of other bytes.
#[test]
fn a_forged_entry_of_another_user_is_not_served() {
    let store = Store::new();
    store.is_evil.store(true, Ordering::Relaxed);
    let (_forger, forged) = store.cached(0o700, &[]);
    store.is_evil.store(false, Ordering::Relaxed);
    let ways: [(Change, bool); 2] = [
        (&|path| set_mode(path, 0o666), false),
        (&|path| chown(path, Some(OTHER_USER), None).unwrap(), true),
    ];
    for (give_away, needs_root) in ways {
        if needs_root && !is_root() {
            continue;
        }
        for validate in ["always", "never", "1h"] {
            let (_directory, cache) = store.cached(0o700, &[]);
            for path in all_below(&forged).into_iter().filter(|path| path.is_file()) {
                let to = cache.join(path.strip_prefix(&forged).unwrap());
                fs::copy(&path, &to).unwrap();
                give_away(&to);
            }
            store.load(&cache, &["--cache-validate", validate]);
        }
    }
}

/// A directory with other content may be named as a cache. Its content stays.
#[test]
fn only_what_a_cache_has_made_is_deleted() {
    let store = Store::new();
    let directory = directory();
    let like_a_leftover = directory.path().join(".0123456789abcdef");
    fs::create_dir(&like_a_leftover).unwrap();
    fs::write(like_a_leftover.join("entry"), SECRET).unwrap();
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(1 << 20);
    let set_old = |path: &Path| fs::File::open(path).unwrap().set_modified(long_ago).unwrap();
    set_old(&like_a_leftover);
    store.load(directory.path(), &[]);
    assert!(
        !directory.path().join("CACHEDIR.TAG").exists(),
        "a directory of other files is tagged"
    );
    let prune = |cache: &Path| {
        let mut command = ringload();
        run(command.args(["cache", "prune", "--cache-size", "0", "--cache-dir"]).arg(cache))
    };
    prune(directory.path());
    assert_eq!(fs::read(like_a_leftover.join("entry")).unwrap(), SECRET);

    // In a cache of its own, files that no cache makes stay too.
    let (_directory, cache) = store.cached(0o700, &[]);
    let entry = all_below(&cache).into_iter().find(|path| path.ends_with("entry")).unwrap();
    let note = entry.with_file_name("note");
    fs::write(&note, SECRET).unwrap();
    prune(&cache);
    let kept: Vec<_> =
        all_below(&cache).into_iter().filter(|path| path.ends_with("note")).collect();
    assert_eq!(kept.len(), 1, "{:?}", all_below(&cache));
    assert_eq!(fs::read(&kept[0]).unwrap(), SECRET);
}
