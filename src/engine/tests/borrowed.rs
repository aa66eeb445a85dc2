//! `read_into`: any range of any file into any memory, with nothing written outside of it or later.

use super::loader;
use crate::error::ErrorKind;
use crate::load::ReadRequest;
use crate::no_uring::without_io_uring;
use crate::options::ReadPath;
use crate::test_files::{Random, file_at};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

const BLOCK: usize = 4096;
const GUARD: u8 = 0xA5;

struct OnDisk {
    directory: tempfile::TempDir,
    files: Vec<Vec<u8>>,
}

impl OnDisk {
    fn new(sizes: &[usize]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let files: Vec<_> = sizes.iter().map(|&size| file_at("t", &[size], 0)).collect();
        for (number, file) in files.iter().enumerate() {
            std::fs::write(directory.path().join(number.to_string()), file).unwrap();
        }
        Self { directory, files }
    }

    fn path(&self, number: usize) -> PathBuf {
        self.directory.path().join(number.to_string())
    }
}

/// A destination buffer surrounded by guard bytes.
struct Destination {
    file: usize,
    offset: usize,
    len: usize,
    memory: Vec<u8>,
    start: usize,
}

impl Destination {
    /// `congruent`: the address modulo the block is the offset's, so that direct reads are possible.
    fn new(file: usize, offset: usize, len: usize, congruent: bool, random: &mut Random) -> Self {
        let memory = vec![GUARD; len + 3 * BLOCK];
        let wanted = if congruent { offset } else { random.below(BLOCK) };
        let start = BLOCK - (memory.as_ptr() as usize) % BLOCK + wanted % BLOCK;
        Self { file, offset, len, memory, start }
    }

    fn request(&mut self, path: &Path) -> ReadRequest<'_> {
        let into = &mut self.memory[self.start..][..self.len];
        ReadRequest::new(path, self.offset as u64, into)
    }

    #[track_caller]
    fn check(&self, files: &[Vec<u8>]) {
        let read = &self.memory[self.start..][..self.len];
        let right = read == &files[self.file][self.offset..][..self.len];
        assert!(right, "{} bytes from {} of file {}", self.len, self.offset, self.file);
        let around = [&self.memory[..self.start], &self.memory[self.start + self.len..]];
        assert!(around.concat().iter().all(|&byte| byte == GUARD), "written beside the range");
    }
}

fn random_ranges(disk: &OnDisk, random: &mut Random) -> Vec<Destination> {
    let range = |_| {
        let file = random.below(disk.files.len());
        let size = disk.files[file].len();
        let (from, to) = match random.below(4) {
            0 => (random.below(size / BLOCK + 1) * BLOCK, size / BLOCK * BLOCK), // whole blocks
            1 => (random.below(size), size),                                     // to the end
            _ => (random.below(size), random.below(size + 1)),
        };
        let (from, to) = (from.min(to), to.max(from));
        let len = if random.below(8) == 0 { 0 } else { to - from };
        let congruent = random.below(3) > 0;
        Destination::new(file, from, len, congruent, random)
    };
    (0..12).map(range).collect()
}

fn read_random_ranges(seeds: std::ops::Range<u64>) {
    let disk = OnDisk::new(&[1_500_000, 3 * BLOCK, 700_001, 10]);
    for seed in seeds {
        let mut random = Random(seed);
        let mut ranges = random_ranges(&disk, &mut random);
        let mut requests: Vec<_> = ranges
            .iter_mut()
            .map(|range| {
                let path = disk.path(range.file);
                range.request(&path)
            })
            .collect();
        let mut completed = Vec::new();
        let path = ReadPath::ALL[random.below(5)];
        let loader = loader().read_path(path).engines(1 + random.below(2));
        let summary = loader.read_into(&mut requests, |index| {
            completed.push(index);
            ControlFlow::Continue(())
        });
        let summary = summary.unwrap();
        completed.sort_unstable();
        assert_eq!(completed, (0..ranges.len()).collect::<Vec<_>>(), "each once");
        assert_eq!(summary.bytes as usize, ranges.iter().map(|range| range.len).sum::<usize>());
        ranges.iter().for_each(|range| range.check(&disk.files));
    }
}

#[test]
fn random_ranges_come_right_and_nothing_beside_them_is_written() {
    read_random_ranges(0..60);
}

#[test]
fn random_ranges_come_right_without_io_uring() {
    without_io_uring(|| read_random_ranges(1000..1030));
}

#[test]
fn congruent_memory_is_read_into_directly() {
    let disk = OnDisk::new(&[1 << 20]);
    let mut range = Destination::new(0, 1000, 900_000, true, &mut Random(1));
    let direct = loader().read_path(ReadPath::Direct);
    let path = disk.path(0);
    let summary =
        direct.read_into(&mut [range.request(&path)], |_| ControlFlow::Continue(())).unwrap();
    range.check(&disk.files);
    let buffered = summary.read_bytes.get("buffered").copied().unwrap_or(0);
    if summary.downgrades.iter().all(|step| step.from != "direct") {
        assert!(buffered < 2 * BLOCK as u64, "only the partial blocks: {summary:?}");
    }
}

#[test]
fn a_callback_that_breaks_is_not_called_again() {
    let disk = OnDisk::new(&[1 << 20]);
    let path = disk.path(0);
    let mut memory = vec![0; 1 << 20];
    let mut requests: Vec<_> = memory
        .chunks_mut(10_000)
        .zip((0..).step_by(10_000))
        .map(|(part, offset)| ReadRequest::new(path.as_path(), offset, part))
        .collect();
    let mut calls = 0;
    let summary = loader().read_into(&mut requests, |_| {
        calls += 1;
        if calls == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((calls, summary.unwrap().bytes), (3, 30_000));
}

#[test]
fn a_range_beyond_the_end_is_refused_before_anything_is_read() {
    let disk = OnDisk::new(&[10_000]);
    let (path, size) = (disk.path(0), disk.files[0].len() as u64);
    for (offset, len) in
        [(size, 1), (size - 1, 2), (0, size as usize + 1), (u64::MAX, 1), (u64::MAX, 0)]
    {
        let (mut good, mut bad) = (vec![GUARD; 10], vec![GUARD; len]);
        let mut requests = [
            ReadRequest::new(path.as_path(), 0, &mut good),
            ReadRequest::new(path.as_path(), offset, &mut bad),
        ];
        let refused = loader().read_into(&mut requests, |_| panic!("something was read"));
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
        assert!(error.to_string().contains(&format!("offset {offset}")), "{error}");
        assert!(good.iter().chain(&bad).all(|&byte| byte == GUARD));
    }
    // Nothing at the very end is a range like any other.
    let mut at_end = [ReadRequest::new(path.as_path(), size, &mut [])];
    assert!(loader().read_into(&mut at_end, |_| ControlFlow::Continue(())).is_ok());
}

/// Nothing writes to the caller's memory after the call has ended in any way.
#[test]
fn a_callback_that_panics_leaves_nothing_in_flight() {
    let disk = OnDisk::new(&[4 << 20]);
    let path = disk.path(0);
    for seed in 0..20 {
        let mut memory = vec![0; 4 << 20];
        let mut requests: Vec<_> = memory
            .chunks_mut(64 << 10)
            .zip((0..).step_by(64 << 10))
            .map(|(part, offset)| ReadRequest::new(path.as_path(), offset, part))
            .collect();
        let mut left = seed % 7;
        let panicking = AssertUnwindSafe(|| {
            loader().read_path(ReadPath::ALL[seed % 5]).read_into(&mut requests, |_| {
                assert_ne!(left, 0, "planted");
                left -= 1;
                ControlFlow::Continue(())
            })
        });
        assert!(catch_unwind(panicking).is_err());
        drop(requests);
        memory.fill(GUARD);
        std::thread::sleep(Duration::from_millis(2));
        assert!(memory.iter().all(|&byte| byte == GUARD), "written to after the call was left");
    }
}
