//! Random loads from a server that misbehaves, with kills and damage in between: exact bytes of one
//! version of the object, or a typed error, in bounded time.
//!
//! A seed determines the object, the transport, the cache, the server's faults and the instants of the
//! kills ([`chaos_scene`](crate::chaos_scene)). Each load is a process of its own, which compares every
//! byte. After the loads from the bad server come
//!
//! - with a cache: damage to one of its files (in some seeds), a load without a server
//!   (`cache_validate` never), `ringload cache verify`;
//! - a load from a good server, which has to deliver the right bytes.
//!
//! `RINGLOAD_TEST_SEEDS=17..18 cargo test --features capi --test integration chaos::` repeats a seed, as
//! far as the kernel's timing permits.

use crate::chaos_scene::{Phase, Scene};
use crate::common::command::{finish, ringload, run, sha256};
use crate::common::{certificates, directory, is_full, is_long};
use fastrand::Rng;
use ringload::ErrorKind;
use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What a child process loads: seed, phase, origin and cache directory, one a line.
const CHILD: &str = "RINGLOAD_TEST_CHAOS";

/// After this time a load counts as hanging. The limits of its retries permit a tenth of it.
const LIMIT: Duration = Duration::from_secs(120);

/// How many seeds run at the same time. They wait more than they work.
const AT_ONCE: usize = 6;

fn seeds() -> Range<u64> {
    let chosen = std::env::var("RINGLOAD_TEST_SEEDS").unwrap_or_default();
    if let Some((from, to)) = chosen.split_once("..") {
        return from.parse().unwrap()..to.parse().unwrap();
    }
    if is_long() {
        0..1000
    } else if is_full() {
        0..100
    } else {
        0..8
    }
}

/// How often each outcome was seen.
#[derive(Default)]
struct Outcomes(Mutex<BTreeMap<String, u64>>);

impl Outcomes {
    fn count(&self, outcome: &str) {
        *self.0.lock().unwrap().entry(outcome.to_owned()).or_default() += 1;
    }
}

#[test]
fn loads_from_a_bad_server_deliver_one_version_or_an_error() {
    let certified = directory();
    certificates::make(certified.path());
    let seeds = seeds();
    let (next, outcomes, began) =
        (AtomicU64::new(seeds.start), Outcomes::default(), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    Play::new(seed, certified.path(), &outcomes).run();
                }
            });
        }
    });
    let outcomes = outcomes.0.into_inner().unwrap();
    eprintln!("{seeds:?} in {:.0} s: {outcomes:?}", began.elapsed().as_secs_f64());
    if seeds.end - seeds.start >= 100 {
        // If nearly all loads ended in the same way, the campaign would show little.
        let all: u64 =
            outcomes.iter().filter(|(name, _)| name.starts_with("bad")).map(|(_, n)| n).sum();
        assert!(outcomes["bad server: bytes"] * 5 > all, "{outcomes:?}");
        assert!(outcomes["bad server: bytes"] < all, "{outcomes:?}");
        assert!(outcomes["bad server: killed"] * 20 > all, "{outcomes:?}");
        assert!(outcomes["offline: bytes"] > 0, "{outcomes:?}");
    }
}

/// The loads of one seed.
struct Play<'a> {
    scene: Arc<Scene>,
    certificates: &'a Path,
    outcomes: &'a Outcomes,
    directory: tempfile::TempDir,
}

impl<'a> Play<'a> {
    fn new(seed: u64, certificates: &'a Path, outcomes: &'a Outcomes) -> Self {
        let scene = Arc::new(Scene::new(seed));
        Self { scene, certificates, outcomes, directory: directory() }
    }

    fn cache(&self) -> PathBuf {
        self.directory.path().join("cache")
    }

    fn run(&self) {
        let (scene, mut rng) = (&self.scene, Rng::with_seed(!self.scene.seed));
        let server = scene.serve(self.certificates);
        let origin = server.origin();
        for _ in 0..scene.rounds {
            // Most kills come early, when the headers and the first pages are on their way.
            let kill =
                (scene.kills && rng.u8(..3) > 0).then(|| Duration::from_millis(2 << rng.u32(..9)));
            self.load(Phase::Bad, &origin, kill.map(|most| most.mul_f64(rng.f64())));
        }
        if scene.cached {
            let damaged = scene.damages && self.damage(&mut rng);
            scene.enter(Phase::Offline);
            self.load(Phase::Offline, &origin, None);
            self.verify(damaged);
        }
        scene.enter(Phase::Good);
        let outcome = self.load(Phase::Good, &origin, None);
        assert_eq!(outcome == "bytes", scene.can_be_loaded(), "{scene:?}: {outcome}");
    }

    /// Loads in a child process, which is killed after `kill`. Returns the outcome.
    fn load(&self, phase: Phase, origin: &str, kill: Option<Duration>) -> String {
        let scene = &self.scene;
        let told = self.directory.path().join("outcome");
        let _ = fs::remove_file(&told);
        let mut child = self.start(phase, origin);
        let began = Instant::now();
        let is_killed = kill.is_some_and(|after| {
            while began.elapsed() < after && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
            child.kill().ok(); // SIGKILL; it may have ended
            true
        });
        while child.try_wait().unwrap().is_none() {
            if began.elapsed() > LIMIT {
                child.kill().ok();
                panic!("{scene:?}: the load hangs ({phase:?})");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let finished = finish(child);
        let outcome = fs::read_to_string(&told).unwrap_or_default();
        let outcome = match (finished.status.success(), outcome.as_str()) {
            (true, outcome) if !outcome.is_empty() => outcome.to_owned(),
            _ if is_killed && finished.status.code().is_none() => "killed".to_owned(),
            _ => panic!("{scene:?}: {phase:?}: {finished:#?}"),
        };
        let kind = outcome.split(':').next().unwrap_or_default();
        self.outcomes.count(&format!("{}: {kind}", phase.name()));
        outcome
    }

    fn start(&self, phase: Phase, origin: &str) -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "chaos::load_of_a_child", "--ignored", "--nocapture"]);
        let cache = self.cache();
        let what = format!("{}\n{}\n{origin}\n{}", self.scene.seed, phase.name(), cache.display());
        command.env(CHILD, what).env("SSL_CERT_FILE", self.certificates.join("ca.pem"));
        command.env("RUNAI_STREAMER_S3_UNSIGNED", "1").env("AWS_REGION", "us-east-1");
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// Damages one file of the cache. False if there is none with content.
    fn damage(&self, rng: &mut Rng) -> bool {
        let pattern = format!("{}/**/*", self.cache().display());
        let files = glob::glob(&pattern).unwrap().map(Result::unwrap);
        let is_content =
            |path: &PathBuf| path.metadata().is_ok_and(|file| file.is_file() && file.len() > 0);
        let mut files: Vec<_> = files.filter(is_content).collect();
        files.sort();
        if files.is_empty() {
            return false;
        }
        // The largest file has the object's bytes.
        let largest = files.iter().max_by_key(|file| file.metadata().map_or(0, |file| file.len()));
        let any = &files[rng.usize(..files.len())];
        let file = largest.filter(|_| rng.bool()).unwrap_or(any);
        let mut bytes = fs::read(file).unwrap();
        match rng.u8(..4) {
            0 => bytes.truncate(rng.usize(..bytes.len())),
            1 => {
                let from = rng.usize(..bytes.len());
                bytes[from..].fill(0);
            }
            _ => {
                let at = rng.usize(..bytes.len());
                bytes[at] ^= 1 << rng.u8(..8);
            }
        }
        fs::write(file, bytes).unwrap();
        true
    }

    fn verify(&self, damaged: bool) {
        let mut command = ringload();
        command.args(["cache", "verify", "--json", "--cache-dir"]).arg(self.cache());
        let verified = run(&mut command);
        verified.assert_no_panic();
        let is_right = verified.status.success() || (damaged && verified.status.code() == Some(1));
        // A cache that was never made cannot be opened.
        assert!(is_right || !self.cache().exists(), "{:?}: {verified:#?}", self.scene);
    }
}

#[test]
#[ignore = "the child process of the campaign"]
fn load_of_a_child() {
    let Ok(what) = std::env::var(CHILD) else { return };
    let lines: Vec<_> = what.lines().collect();
    let [seed, phase, origin, cache] = lines[..] else { panic!("{what}") };
    let (scene, phase) = (Scene::new(seed.parse().unwrap()), Phase::named(phase));
    let outcome = match load(&scene, phase, origin, Path::new(cache)) {
        Ok(()) => "bytes".to_owned(),
        Err(error) => {
            assert!(scene.expects(&error), "{error:?} of {scene:?}");
            assert!(error.to_string().len() < 8192, "a long message");
            format!("{:?}: {error}", error.kind())
        }
    };
    println!("{outcome}");
    let told = Path::new(cache).with_file_name("outcome");
    fs::write(told.with_extension("new"), outcome).unwrap();
    fs::rename(told.with_extension("new"), told).unwrap();
}

/// Loads the object and compares it with its versions.
fn load(scene: &Scene, phase: Phase, origin: &str, cache: &Path) -> ringload::Result<()> {
    let loader = scene.loader(phase, origin, cache);
    let mut stream = loader.stream(scene.location(origin).as_str())?;
    let mut tensors = BTreeMap::new();
    for tensor in stream.by_ref() {
        let tensor = tensor?;
        tensors.insert(tensor.name().to_owned(), tensor.bytes().to_vec());
    }
    drop(stream);
    loader.flush(None);
    let sum = |tensors: &BTreeMap<String, Vec<u8>>| {
        sha256(&tensors.values().flatten().copied().collect::<Vec<_>>())
    };
    assert!(scene.is_right(phase, &tensors), "wrong bytes: {}, {scene:?}", sum(&tensors));
    Ok(())
}

/// The kinds of errors that a bad server may cause.
pub const KINDS: [ErrorKind; 6] = [
    ErrorKind::Changed,
    ErrorKind::Io,
    ErrorKind::Unsupported,
    ErrorKind::Unreachable,
    ErrorKind::NotFound,
    ErrorKind::PermissionDenied,
];
