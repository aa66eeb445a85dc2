//! What the attacks in `attacks` are made on: files of the victim, a cache, and the commands that use it.

use crate::common::Expected;
use crate::common::command::{Finished, ringload, run, sha256};
use crate::common::fault_server::{FaultServer, Reply, Request};
use crate::common::model::Model;
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The contents that a directory has: permissions, owner, time and content of each path.
type Contents = BTreeMap<PathBuf, (u32, u32, i64, Option<Vec<u8>>)>;

pub fn contents(directory: &Path) -> Contents {
    let mut all = Contents::new();
    // A link is not followed, and something else has no contents.
    let is_link = fs::symlink_metadata(directory).is_ok_and(|found| found.is_symlink());
    let entries = fs::read_dir(directory).into_iter().flatten();
    for path in entries.filter(|_| !is_link).map(|entry| entry.unwrap().path()) {
        let found = fs::symlink_metadata(&path).unwrap();
        if found.is_dir() {
            all.append(&mut contents(&path));
        }
        let content = found.is_file().then(|| fs::read(&path).unwrap());
        all.insert(path, (found.mode(), found.uid(), found.mtime_nsec(), content));
    }
    all
}

pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn reply(request: &Request, file: &[u8]) -> Reply {
    let Some((first, last)) = request.range() else { return Reply::new(200).body(file) };
    let last = last.min(file.len() - 1);
    let range = format!("bytes {first}-{last}/{}", file.len());
    let reply = Reply::new(206).with("Content-Range", range).with("ETag", "\"one\"");
    // So that a race has time.
    reply.body(&file[first..=last]).dripping(100_000, Duration::from_millis(5))
}

/// What a directory had: the permissions of each path, which is relative to it, and its content if it is a
/// file. The directory itself is first.
pub struct Saved(BTreeMap<PathBuf, (u32, Option<Vec<u8>>)>);

impl Saved {
    fn of(directory: &Path) -> Self {
        let relative = |(path, (mode, _, _, content)): (PathBuf, (_, _, _, _))| {
            (path.strip_prefix(directory).unwrap().to_owned(), (mode, content))
        };
        let root = (PathBuf::new(), (0o755, None));
        Self(contents(directory).into_iter().map(relative).chain([root]).collect())
    }

    /// Writes what was at `path` to `to`, with these permissions. False if nothing was there.
    pub fn copy(&self, path: &Path, to: &Path, mode: u32) -> bool {
        let mut found = self.0.iter().filter(|(other, _)| other.starts_with(path)).peekable();
        found.peek().is_some()
            && found.all(|(other, (_, content))| {
                let below = other.strip_prefix(path).unwrap();
                let to = if below == Path::new("") { to.to_owned() } else { to.join(below) };
                match content {
                    None => fs::create_dir(&to).map(|()| set_mode(&to, mode)).is_ok(),
                    Some(bytes) => {
                        fs::write(&to, bytes).map(|()| set_mode(&to, mode & 0o666)).is_ok()
                    }
                }
            })
    }
}

/// What all attacks share: the object, its server, and a cache that has it.
pub struct Shared {
    pub model: Model,
    pub server: FaultServer,
    cache: Saved,
    /// A cache that ringload itself has made, of other bytes with the same ETag.
    pub forged: Saved,
}

pub fn shared() -> &'static Shared {
    static SHARED: OnceLock<Shared> = OnceLock::new();
    SHARED.get_or_init(|| {
        let model = Model::new(&[900_000, 17]);
        let (file, mut evil) = (model.file.clone(), model.file.clone());
        let data = model.data_offset();
        evil[data..].iter_mut().for_each(|byte| *byte = !*byte);
        let is_evil = Arc::new(AtomicBool::new(true));
        let serves_evil = Arc::clone(&is_evil);
        let index = r#"{"weight_map":{"t0":"sub/a.safetensors"}}"#;
        let server = FaultServer::start(Vec::new(), move |_, request| {
            let is_index = request.target.ends_with("json");
            let object = if serves_evil.load(Ordering::Relaxed) { &evil } else { &file };
            let reply = reply(request, if is_index { index.as_bytes() } else { object });
            if request.target.contains("bare") { reply.without("ETag") } else { reply }
        });
        let fetched = || {
            let cache = tempfile::tempdir().unwrap();
            let mut fetch = ringload();
            fetch.args(["fetch", &server.url(), "--cache-dir"]).arg(cache.path());
            run(&mut fetch).quiet_success();
            Saved::of(cache.path())
        };
        let forged = fetched();
        is_evil.store(false, Ordering::Relaxed);
        let cache = fetched();
        Shared { model, server, cache, forged }
    })
}

/// The paths of a cache, and of what it may have, relative to it; the cache itself is first.
pub fn cache_paths() -> Vec<PathBuf> {
    let mut paths: Vec<_> = shared().cache.0.keys().cloned().collect();
    let entry = paths.iter().find(|path| path.ends_with("entry")).unwrap().clone();
    paths.extend([entry.with_file_name("partial"), ".0123456789abcdef".into()]);
    paths
}

/// The stage of one attack.
pub struct Stage {
    directory: tempfile::TempDir,
    before: Contents,
    name: String,
    /// Whether the attacker decides where the path of the cache leads. If it leads to a directory of
    /// the victim, that is the cache: files are added to it, and none is changed.
    leads_elsewhere: bool,
}

impl Stage {
    /// Files of the victim, which everyone may read, and an empty directory `open` with these
    /// permissions.
    pub fn new(name: String, mode: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        set_mode(directory.path(), 0o755);
        let victim = directory.path().join("victim");
        fs::create_dir_all(victim.join("precious")).unwrap();
        for file in ["secret", "precious/a.safetensors", "precious/entry", "precious/CACHEDIR.TAG"]
        {
            fs::write(victim.join(file), "a file of the victim").unwrap();
        }
        set_mode(&victim.join("secret"), 0o600);
        let before = contents(&victim);
        let stage = Self { directory, before, name, leads_elsewhere: false };
        fs::create_dir(stage.open()).unwrap();
        set_mode(&stage.open(), mode);
        stage
    }

    pub fn leading_elsewhere(self) -> Self {
        Self { leads_elsewhere: true, ..self }
    }

    pub fn victim(&self) -> PathBuf {
        self.directory.path().join("victim")
    }

    pub fn open(&self) -> PathBuf {
        self.directory.path().join("open")
    }

    pub fn cache(&self) -> PathBuf {
        self.open().join("cache")
    }

    /// Copies the cache that has the object.
    pub fn fill_cache(&self) {
        let cache = self.cache();
        for (path, (mode, content)) in &shared().cache.0 {
            let to = cache.join(path);
            match content {
                None => fs::create_dir(&to).unwrap(),
                Some(bytes) => {
                    fs::write(&to, bytes).unwrap();
                    set_mode(&to, mode & 0o777);
                }
            }
        }
    }

    /// Gives all that the victim has in the cache these permissions.
    pub fn set_modes(&self, directories: u32, files: u32) {
        let mut paths: Vec<_> = contents(&self.cache()).into_keys().collect();
        paths.push(self.cache());
        for path in paths {
            match fs::symlink_metadata(&path) {
                Ok(found) if found.uid() != 0 || found.is_symlink() => {}
                Ok(found) if found.is_dir() => set_mode(&path, directories),
                Ok(_) => set_mode(&path, files),
                Err(_) => {}
            }
        }
    }

    #[track_caller]
    pub fn assert_unharmed(&self) {
        let mut now = contents(&self.victim());
        if self.leads_elsewhere {
            let was = |path: &Path| self.before.get(path);
            now.retain(|path, _| was(path).is_some());
            for (path, state) in now.iter_mut().filter(|(path, _)| path.is_dir()) {
                state.2 = was(path).map_or(0, |before| before.2);
            }
        }
        assert!(now == self.before, "{}: {now:?} instead of {:?}", self.name, self.before);
    }

    /// Loads the object with the cache, which has to deliver the right bytes in any case.
    #[track_caller]
    pub fn load(&self, options: &[&str]) {
        let mut command = ringload();
        command.args(["load", "--digest", &shared().server.url(), "--cache-dir"]).arg(self.cache());
        let loaded = run(command.args(options));
        loaded.assert_no_panic();
        assert!(loaded.status.success(), "{}: {loaded:#?}", self.name);
        let is_right = |tensor: &Expected| loaded.stdout.contains(&sha256(&tensor.bytes));
        assert!(shared().model.tensors.values().all(is_right), "{}: wrong bytes", self.name);
        self.assert_unharmed();
    }

    /// Uses the cache in all ways.
    pub fn use_cache(&self, options: &[&str]) {
        for validate in ["always", "never"] {
            self.load(&[options, &["--cache-validate", validate]].concat());
        }
        for action in [&["ls"][..], &["verify"], &["prune"], &["prune", "--cache-size", "0"]] {
            let mut command = ringload();
            run(command.arg("cache").args(action).arg("--cache-dir").arg(self.cache()))
                .assert_no_panic();
            self.assert_unharmed();
        }
    }

    /// Others cannot read what the victim has put into the cache. The lock and the tag tell nothing.
    #[track_caller]
    pub fn assert_private(&self) {
        let is_of_entry = |path: &Path| !path.ends_with("lock") && !path.ends_with("CACHEDIR.TAG");
        for (path, (mode, user, ..)) in contents(&self.cache()) {
            let is_content = fs::symlink_metadata(&path).unwrap().is_file() && is_of_entry(&path);
            assert!(
                !is_content || user != 0 || mode & 0o77 == 0,
                "{}: {path:?} {mode:o}",
                self.name
            );
        }
    }

    pub fn fetch(&self, location: &str, options: &[&str]) -> Finished {
        let mut command = ringload();
        command.args(["fetch", location, "--to"]).arg(self.open());
        let fetched = run(command.args(options));
        fetched.assert_no_panic();
        self.assert_unharmed();
        fetched
    }

    /// Downloads the object, which has to fail or to deliver the file.
    pub fn download(&self, location: &str, name: &str) {
        let fetched = self.fetch(location, &[]);
        if !fetched.status.success() {
            fetched.failure();
            return;
        }
        let file = self.open().join(name);
        let found = fs::symlink_metadata(&file).unwrap();
        assert!(found.is_file() && found.uid() == 0, "{}: {found:?}", self.name);
        assert!(fs::read(&file).unwrap() == shared().model.file, "{}: wrong bytes", self.name);
    }
}
