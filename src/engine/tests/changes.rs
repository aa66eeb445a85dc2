//! Files that shrink, are rewritten or replaced while they are being loaded: the load fails or yields
//! the old bytes to the end, never zeros or a mixture, and never dies by a signal.

use super::{loader, without_hanging};
use crate::checkpoint::Checkpoint;
use crate::error::{Error, ErrorKind};
use crate::options::{MemoryLimit, Order, ReadPath};
use crate::source::{Access, Backend, FileSource, Source};
use crate::test_files::{file_at, is_intact};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const TENSOR_BYTES: usize = 64 << 10;
const TENSORS: usize = 48;
const READING: [ReadPath; 3] = [ReadPath::Auto, ReadPath::Direct, ReadPath::Buffered];

struct OnDisk {
    _directory: tempfile::TempDir,
    path: PathBuf,
    bytes: Vec<u8>,
}

fn on_disk() -> OnDisk {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    let bytes = file_at("t", &[TENSOR_BYTES; TENSORS], 0);
    std::fs::write(&path, &bytes).unwrap();
    File::open(&path).unwrap().sync_all().unwrap();
    // File times of some kernels are as coarse as a tick.
    let modified = |path: &Path| std::fs::metadata(path).unwrap().modified().unwrap();
    let (written, probe) = (modified(&path), directory.path().join("probe"));
    std::fs::write(&probe, "").unwrap();
    while modified(&probe) == written {
        std::thread::sleep(Duration::from_millis(1));
        std::fs::write(&probe, "again").unwrap();
    }
    OnDisk { _directory: directory, path, bytes }
}

/// Streams through a small ring and changes the file after the first tensor. Returns how many tensors
/// were yielded, which must have the old bytes, and how the load ended.
fn change_in_mid_load(read_path: ReadPath, change: fn(&OnDisk)) -> (usize, Option<Error>) {
    without_hanging(move || {
        let disk = on_disk();
        let limit = MemoryLimit::Bytes(8 * TENSOR_BYTES as u64);
        let loader = loader().memory_limit(limit).order(Order::File).read_path(read_path);
        let mut stream = loader.stream(disk.path.as_path()).unwrap();
        let held = stream.next().unwrap().unwrap();
        change(&disk);
        let (mut count, mut error) = (1, None);
        for item in &mut stream {
            match item {
                Ok(tensor) => {
                    let name = tensor.name();
                    assert!(is_intact(&tensor, &[&disk.bytes]), "{read_path}: {name} is wrong");
                    count += 1;
                }
                Err(met) => error = Some(met),
            }
        }
        assert!(stream.next().is_none());
        assert!(is_intact(&held, &[&disk.bytes]));
        (count, error)
    })
}

/// The kernel changes a file's time and its length one after the other: an engine that looks in
/// between sees that it was written to, and only a later look would see that it shrank or grew.
#[track_caller]
fn is_changed(read_path: ReadPath, (count, error): (usize, Option<Error>), says: &str) {
    let error = error.unwrap_or_else(|| panic!("{read_path}: the change went unseen"));
    assert_eq!(error.kind(), ErrorKind::Changed, "{read_path}: {error:?}");
    let text = error.to_string();
    assert!(text.contains("model.safetensors") && text.contains(says), "{read_path}: {text}");
    assert!(count < TENSORS);
}

fn open_to_write(path: &Path) -> File {
    OpenOptions::new().write(true).open(path).unwrap()
}

#[test]
fn a_file_that_shrinks_in_mid_load_is_an_error_never_zeros() {
    for read_path in READING {
        for keep in [0_usize, 4096, TENSORS * TENSOR_BYTES / 2 + 17, TENSORS * TENSOR_BYTES] {
            let change: fn(&OnDisk) = match keep {
                0 => |disk| open_to_write(&disk.path).set_len(0).unwrap(),
                4096 => |disk| open_to_write(&disk.path).set_len(4096).unwrap(),
                keep if keep == TENSORS * TENSOR_BYTES => {
                    |disk| open_to_write(&disk.path).set_len(disk.bytes.len() as u64 - 1).unwrap()
                }
                _ => |disk| {
                    let half = (TENSORS * TENSOR_BYTES / 2 + 17) as u64;
                    open_to_write(&disk.path).set_len(half).unwrap();
                },
            };
            is_changed(read_path, change_in_mid_load(read_path, change), "changed while");
        }
    }
}

/// The holes that a file shrunk and grown again has read as zeros, at the right length.
#[test]
fn a_file_that_shrinks_and_grows_back_is_an_error_never_zeros() {
    for read_path in READING {
        let outcome = change_in_mid_load(read_path, |disk| {
            let file = open_to_write(&disk.path);
            file.set_len(4096).unwrap();
            file.set_len(disk.bytes.len() as u64).unwrap();
            // Whether an engine looks in between or only afterwards differs.
        });
        is_changed(read_path, outcome, "changed while");
    }
}

#[test]
fn a_file_rewritten_in_place_in_mid_load_is_an_error_never_a_mixture() {
    for read_path in READING {
        let outcome = change_in_mid_load(read_path, |disk| {
            let half = disk.bytes.len() / 2;
            let other = vec![0xEE; disk.bytes.len() - half];
            open_to_write(&disk.path).write_all_at(&other, half as u64).unwrap();
        });
        is_changed(read_path, outcome, "written to");
    }
}

/// `rsync --inplace -t` writes to the file and puts its modification time back: 30 MiB of zeros were
/// delivered with exit status 0, as only that time was compared.
#[test]
fn a_file_rewritten_with_its_time_put_back_is_an_error_never_a_mixture() {
    for read_path in READING {
        let outcome = change_in_mid_load(read_path, |disk| {
            let file = open_to_write(&disk.path);
            let modified = file.metadata().unwrap().modified().unwrap();
            let half = disk.bytes.len() / 2;
            file.write_all_at(&vec![0; disk.bytes.len() - half], half as u64).unwrap();
            file.set_modified(modified).unwrap();
            assert_eq!(file.metadata().unwrap().modified().unwrap(), modified);
        });
        match &outcome.1 {
            // An engine may look before the time is put back.
            Some(error) if error.to_string().contains("it was written to;") => {
                is_changed(read_path, outcome, "it was written to;");
            }
            _ => is_changed(read_path, outcome, "the time put back"),
        }
    }
}

/// The same for a file that is opened first and read later, and for the mapped read path.
#[test]
fn a_file_rewritten_with_its_time_put_back_before_it_is_read_is_an_error() {
    for read_path in ReadPath::ALL {
        let disk = on_disk();
        let checkpoint = Arc::new(Checkpoint::open(disk.path.as_path()).unwrap());
        let file = open_to_write(&disk.path);
        let modified = file.metadata().unwrap().modified().unwrap();
        file.write_all_at(&[0; 100], disk.bytes.len() as u64 - 100).unwrap();
        file.set_modified(modified).unwrap();
        let items: Vec<_> =
            loader().read_path(read_path).stream_checkpoint(checkpoint).unwrap().collect();
        let error = items.into_iter().find_map(Result::err).unwrap();
        assert_eq!(error.kind(), ErrorKind::Changed, "{read_path}: {error:?}");
        assert!(error.to_string().contains("the time put back"), "{read_path}: {error}");
    }
}

/// A name that is added or removed changes the ctime too, and no byte.
#[test]
fn a_link_to_the_file_or_its_removal_in_mid_load_does_no_harm() {
    let changes: [fn(&OnDisk); 2] = [
        |disk| std::fs::hard_link(&disk.path, disk.path.with_extension("link")).unwrap(),
        |disk| std::fs::remove_file(&disk.path).unwrap(),
    ];
    for change in changes {
        let (count, error) = change_in_mid_load(ReadPath::Buffered, change);
        assert!(error.is_none() && count == TENSORS, "{count}: {error:?}");
    }
}

/// `--pin length` is the way on where a file system changes times at will.
#[test]
fn times_are_not_compared_where_the_length_is_to_suffice() {
    let disk = on_disk();
    let loader = loader().pin(crate::PinBy::Length);
    let checkpoint = Arc::new(loader.open(disk.path.as_path()).unwrap());
    open_to_write(&disk.path).set_modified(std::time::UNIX_EPOCH).unwrap();
    let items: Vec<_> = loader.stream_checkpoint(checkpoint).unwrap().collect();
    assert_eq!(items.into_iter().filter_map(Result::ok).count(), TENSORS);
}

#[test]
fn a_file_that_grows_in_mid_load_is_an_error() {
    for read_path in READING {
        let outcome = change_in_mid_load(read_path, |disk| {
            open_to_write(&disk.path).set_len(disk.bytes.len() as u64 + 1).unwrap();
        });
        is_changed(read_path, outcome, "changed while");
    }
}

/// A checkpoint that is replaced by a rename may be read to its end: the old file is still there
/// for those who have it open.
#[test]
fn a_file_replaced_in_mid_load_gives_the_old_bytes_or_an_error() {
    for read_path in READING {
        let (count, error) = change_in_mid_load(read_path, |disk| {
            let new = disk.path.with_extension("new");
            std::fs::write(&new, vec![0xEE; disk.bytes.len()]).unwrap();
            std::fs::rename(&new, &disk.path).unwrap();
        });
        match error {
            None => assert_eq!(count, TENSORS),
            Some(error) => assert_eq!(error.kind(), ErrorKind::Changed, "{error:?}"),
        }
    }
}

#[test]
fn a_file_replaced_or_removed_between_opening_and_reading_is_an_error() {
    for read_path in ReadPath::ALL {
        let disk = on_disk();
        let checkpoint = Arc::new(Checkpoint::open(disk.path.as_path()).unwrap());
        let new = disk.path.with_extension("new");
        std::fs::write(&new, vec![0xEE; disk.bytes.len()]).unwrap();
        std::fs::rename(&new, &disk.path).unwrap();
        let end = |checkpoint| {
            let items: Vec<_> =
                loader().read_path(read_path).stream_checkpoint(checkpoint).unwrap().collect();
            assert_eq!(items.len(), 1, "tensors of another file");
            items.into_iter().next().unwrap().unwrap_err()
        };
        let error = end(Arc::clone(&checkpoint));
        assert_eq!(error.kind(), ErrorKind::Changed, "{error:?}");
        assert!(error.to_string().contains("replaced"), "{error}");
        std::fs::remove_file(&disk.path).unwrap();
        assert_eq!(end(checkpoint).kind(), ErrorKind::NotFound);
    }
}

/// The mapping is made of the file as it was opened, and faulted in after it shrank: the kernel
/// answers EFAULT where a touch would kill the process.
#[test]
fn a_mapped_file_that_shrank_is_an_error_not_a_signal() {
    let mapped = || loader().read_path(ReadPath::Mapped);
    let immutable = || loader().immutable(true);
    for (mapped, keep) in
        [(mapped(), 0), (mapped(), 4096 * 100 + 1), (immutable(), 0), (immutable(), 4096 * 100 + 1)]
    {
        let disk = on_disk();
        let source = Arc::new(FileSource::open(&disk.path).unwrap());
        let checkpoint = Arc::new(
            Checkpoint::from_sources(vec![Arc::clone(&source) as Arc<dyn Source>]).unwrap(),
        );
        // Keeps the file open, so that opening it again does not find the change first.
        let access =
            Access::new(Backend::pread(), ReadPath::Buffered, Arc::default(), Arc::default());
        let _open = source.reader(&access).unwrap();
        open_to_write(&disk.path).set_len(keep).unwrap();
        let items: Vec<_> = mapped.stream_checkpoint(checkpoint).unwrap().collect();
        let error = items.into_iter().find_map(Result::err).unwrap();
        assert_eq!(error.kind(), ErrorKind::Changed, "{error:?}");
        assert!(error.to_string().contains("shrank"), "{error}");
    }
}

#[test]
fn a_mapped_load_is_right_and_takes_no_ring() {
    let disk = on_disk();
    let mut stream = loader().read_path(ReadPath::Mapped).stream(disk.path.as_path()).unwrap();
    let outcome = super::drain(&mut stream, &disk.bytes);
    assert_eq!((outcome.tensors, outcome.error.map(|e| e.kind())), (TENSORS, None));
    assert_eq!((outcome.summary.ring_bytes, outcome.summary.read_path()), (0, "mapped".to_owned()));
    // What it cannot keep it refuses.
    let limited = loader().read_path(ReadPath::Mapped).memory_limit(MemoryLimit::Min);
    assert_eq!(limited.stream(disk.path.as_path()).unwrap_err().kind(), ErrorKind::InvalidInput);
}
