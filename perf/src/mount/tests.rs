//! Loads from a mount that refuses `O_DIRECT` for one of two files, in this process.

use super::*;
use crate::files::Shape;
use ringload::{Loader, MemoryLimit, Summary};
use ringload_measure::checkpoint;
use std::time::Instant;

/// A file of 128 MiB that refuses O_DIRECT, and after it one that does not.
const REFUSING: &str = "1.safetensors";
const DIRECT: &str = "2.safetensors";
const SHAPE: Shape = Shape { tensors: 16, tensor_bytes: 8 << 20 };

struct Scene {
    root: tempfile::TempDir,
    point: tempfile::TempDir,
    _session: BackgroundSession,
}

impl Scene {
    /// `None` where nothing can be mounted.
    fn new(latency: f64, waits: bool) -> Option<Self> {
        let (root, point) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for name in [REFUSING, DIRECT] {
            let path = root.path().join(name);
            checkpoint::write(&path, &SHAPE.tensors(name), SHAPE.bytes(), |_, _| ()).unwrap();
        }
        let settings = Settings { latency, refuse: Some(REFUSING.into()), waits };
        match mount(root.path(), point.path(), settings) {
            Ok(session) => Some(Self { root, point, _session: session }),
            Err(error) => {
                let is_forbidden = error.kind() == io::ErrorKind::PermissionDenied
                    || !Path::new("/dev/fuse").exists();
                let is_required =
                    std::env::var("RINGLOAD_TEST_SERVERS").is_ok_and(|value| value == "require");
                assert!(is_forbidden || !is_required, "mount: {error}");
                eprintln!("skipped: a FUSE file system cannot be mounted here: {error}");
                None
            }
        }
    }

    /// Loads these files, and checks every byte against the files of the directory.
    #[track_caller]
    fn load(&self, loader: &Loader, names: &[&str]) -> Summary {
        let files = |root: &Path| names.iter().map(|name| root.join(name)).collect::<Vec<_>>();
        let originals = Loader::new().load(files(self.root.path())).unwrap();
        let mut stream = loader.stream(files(self.point.path())).unwrap();
        for tensor in &mut stream {
            let tensor = tensor.unwrap();
            let original = originals.get(tensor.name()).unwrap();
            assert!(tensor.bytes() == original.bytes(), "{} has other bytes", tensor.name());
        }
        let summary = stream.summary();
        assert_eq!(summary.tensors, names.len() * SHAPE.tensors);
        summary
    }
}

#[test]
fn the_ideal_is_the_header_and_full_rounds_of_requests() {
    let settings = Settings { latency: 20.0, refuse: None, waits: false };
    assert!((settings.ideal_seconds(1 << 30) - 0.18).abs() < 1e-9);
    assert!((settings.ideal_seconds((1 << 30) + 1) - 0.20).abs() < 1e-9);
}

/// Each file is asked for direct I/O: some file systems refuse it for compressed or encrypted files
/// only.
#[test]
fn a_file_that_refuses_direct_io_says_nothing_about_the_next_one() {
    let Some(scene) = Scene::new(0.0, false) else { return };
    let summary = scene.load(&Loader::new(), &[REFUSING, DIRECT]);
    assert_eq!(summary.downgrades.len(), 1, "{summary:?}");
    assert_eq!((summary.downgrades[0].from, summary.downgrades[0].to), ("direct", "buffered"));
    // Both ends of a file may be read through the page cache.
    for path in ["direct", "buffered"] {
        let bytes = summary.read_bytes[path];
        assert!(bytes.abs_diff(SHAPE.bytes()) < 1 << 20, "{summary:?}");
    }
}

/// A mount without direct I/O was read 8 MiB at a time, of which the kernel requested 128 KiB after the
/// other: 1 GiB took 21 s with 20 ms a request. Here a load takes 1 s, and took 17 s.
#[test]
fn a_cold_file_that_refuses_direct_io_is_read_by_many_requests_at_a_time() {
    let Some(scene) = Scene::new(100.0, false) else { return };
    for loader in [Loader::new(), Loader::new().memory_limit(MemoryLimit::Bytes(64 << 20))] {
        let began = Instant::now();
        let summary = scene.load(&loader, &[REFUSING]);
        let seconds = began.elapsed().as_secs_f64();
        assert!(seconds < 5.0, "{seconds} s: {summary:?}");
        assert!(summary.memory_limit_bytes.is_none_or(|limit| summary.ring_bytes <= limit));
        assert!(summary.read_bytes["buffered"] >= SHAPE.bytes(), "{summary:?}");
    }
}

/// Direct reads from a mount without `FUSE_ASYNC_DIO` were made one after the other by each engine, as
/// io_uring waits for them when they are submitted: 1 GiB took 11.5 s with 20 ms a request. Here a load
/// takes 1 s, and took 7 s.
#[test]
fn direct_reads_that_wait_in_their_system_call_are_made_beside_each_other() {
    for waits in [true, false] {
        let Some(scene) = Scene::new(100.0, waits) else { return };
        let began = Instant::now();
        let summary = scene.load(&Loader::new(), &[DIRECT]);
        let seconds = began.elapsed().as_secs_f64();
        assert!(seconds < 3.5, "{seconds} s: {summary:?}");
        assert!(summary.read_bytes["direct"].abs_diff(SHAPE.bytes()) < 1 << 20, "{summary:?}");
    }
}
