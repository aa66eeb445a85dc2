//! What other tests cannot see: which load waits for which, and which pages are left out.

use super::cache_dir::CacheDir;
use super::entries::Entries;
use super::entry::Entry;
use super::fetch_lock::{FetchDecision, decide};
use super::files::DATA;
use super::pages::{PAGE_BYTES, PageBytes};
use super::writer::{Reservation, WriteJob, Writer};
use crate::location::{ObjectUri, Scheme};
use crate::options::{CacheAccess, PinBy};
use crate::ring::Ring;
use crate::source::{LoadCounters, ObjectIdentity, Stop};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const PAGES: u64 = 64;

fn open(directory: &Path) -> Arc<CacheDir> {
    let (cache, refusal) = CacheDir::open(directory, CacheAccess::Private);
    assert!(refusal.is_none());
    cache
}

fn entry(cache: &Arc<CacheDir>) -> Arc<Entry> {
    entry_of(cache, PAGES * PAGE_BYTES)
}

fn entry_of(cache: &Arc<CacheDir>, len_bytes: u64) -> Arc<Entry> {
    let identity = ObjectIdentity::from_parts(len_bytes, Some(b"\"e\""), None).unwrap();
    let entries = Entries::new(Arc::clone(cache), None);
    let uri = ObjectUri::new(Scheme::Http, "h", "x");
    entries.get(&"0".repeat(64), &uri, &identity, PinBy::Auto, true).unwrap()
}

/// A fetch from a store that lists its directories left the listing, and `.ringload-download` with it.
#[test]
fn a_finished_download_leaves_no_listing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("staging");
    let (cache, refusal) = CacheDir::open(&path, CacheAccess::Download);
    assert!(refusal.is_none());
    cache.listing("s3://b/d/", |_| false, &|| Ok(Some(vec!["x".into()]))).unwrap();
    assert!(path.join("listings").is_dir());
    cache.remove_empty();
    assert!(!path.exists());
}

fn writer(cache: &Arc<CacheDir>) -> Writer {
    Writer::new(Arc::clone(cache), None, false)
}

fn pages(first: u64, count: u64) -> PageBytes {
    let bytes = (first..first + count).flat_map(|page| [page as u8; PAGE_BYTES as usize]);
    PageBytes::Owned(bytes.collect())
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().build().unwrap().block_on(work)
}

/// Gives pages to the writer, and waits until it is done.
fn push(
    writer: &Writer,
    entry: &Arc<Entry>,
    first_page: u64,
    checksums: Vec<u64>,
    bytes: PageBytes,
    reservation: Option<Reservation>,
) {
    let (entry, files) = (Arc::clone(entry), entry.files().unwrap());
    writer.push(WriteJob { entry, files, first_page, checksums, bytes, lock: None, reservation });
    assert!(writer.flush(None));
}

/// A consumer may write to its tensors before the writer gets to their pages.
#[test]
fn what_was_altered_since_it_arrived_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let cache = open(directory.path());
    let (entry, writer) = (entry(&cache), writer(&cache));
    let PageBytes::Owned(mut bytes) = pages(0, 3) else { unreachable!() };
    let (arrived, checksums) = (bytes.clone(), entry.checksums.of_pages(0, &bytes));
    bytes[PAGE_BYTES as usize + 7] ^= 1;
    push(&writer, &entry, 0, checksums, PageBytes::Owned(bytes), None);
    assert_eq!(entry.read(&(0..1)).unwrap(), arrived[..PAGE_BYTES as usize]);
    assert!(entry.read(&(1..2)).is_none());
    assert_eq!(entry.read(&(2..3)).unwrap(), arrived[2 * PAGE_BYTES as usize..]);
}

/// A consumer changes bytes of its tensors and restores them, again and again, while the writer
/// copies, checks and writes the same pages.
#[test]
fn changed_and_restored_bytes_never_get_into_the_file() {
    const LEN: usize = 600 * PAGE_BYTES as usize + 104; // more than is copied at once, and a short page
    let object: Vec<u8> = (0..LEN).map(|at| (at * 31 + at / 4096) as u8).collect();
    let mut missing = 0;
    for round in 0..10 {
        let directory = tempfile::tempdir().unwrap();
        let cache = open(directory.path());
        let (entry, writer) = (entry_of(&cache, LEN as u64), writer(&cache));
        let ring = Ring::new(LEN, PAGE_BYTES as usize).unwrap();
        let mut window = ring.allocate(LEN).unwrap().into_windows(&[LEN]).pop().unwrap();
        window.unfilled_mut().copy_from_slice(&object);
        window.set_filled(LEN);
        let part = window.share().unwrap();
        let checksums = entry.checksums.of_pages(0, window.shared_bytes(&part));
        let full = window.complete().unwrap();
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let consumer = scope.spawn(|| {
                if round % 2 == 1 {
                    std::thread::sleep(Duration::from_millis(1)); // lent while it is being written
                }
                let start = full.lend();
                while !ended.load(Ordering::Relaxed) {
                    for page in 0..LEN / PAGE_BYTES as usize {
                        let at = page * PAGE_BYTES as usize + 8 * (page % 512);
                        // SAFETY: within the slot, of which nobody makes slices once it is lent.
                        #[allow(unsafe_code)]
                        let word = unsafe { AtomicU64::from_ptr(start.add(at).cast().as_ptr()) };
                        let right = word.fetch_xor(1 << (page % 64), Ordering::Relaxed);
                        (0..100).for_each(|_| std::hint::spin_loop());
                        word.store(right, Ordering::Relaxed);
                    }
                }
            });
            while round % 2 == 0 && !full.is_lent() {
                std::thread::yield_now();
            }
            push(&writer, &entry, 0, checksums.clone(), PageBytes::Slot(part), None);
            ended.store(true, Ordering::Relaxed);
            consumer.join().unwrap();
        });
        let file =
            || std::fs::read(super::files::data_path(&cache.root, entry.path()).unwrap()).unwrap();
        let written = file();
        for (page, bytes) in object.chunks(PAGE_BYTES as usize).enumerate() {
            let start = page * PAGE_BYTES as usize;
            if entry.has_page(&entry.files().unwrap(), page as u64) {
                assert!(written[start..][..bytes.len()] == *bytes, "page {page} is wrong on disk");
                continue;
            }
            missing += 1;
            let checksums = checksums[page..=page].to_vec();
            push(&writer, &entry, page as u64, checksums, PageBytes::Owned(bytes.to_vec()), None);
        }
        assert!(entry.path().join(DATA).is_file() && file() == object);
    }
    assert!(missing > 0, "no change was seen");
}

/// Under a memory limit: a full share is left out at once, what waited too long when its turn comes.
#[test]
fn memory_that_a_load_needs_again_does_not_wait_for_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let cache = open(directory.path());
    let (entry, mut writer) = (entry(&cache), writer(&cache));
    let counters = Arc::new(LoadCounters::default());
    counters.hold_at_most(3 * PAGE_BYTES);
    writer.write_delay_max = Duration::ZERO;
    let first = writer.reserve(&counters, 2 * PAGE_BYTES).unwrap();
    assert!(writer.reserve(&counters, 2 * PAGE_BYTES).is_none());
    assert_eq!(counters.left_out_bytes(), 2 * PAGE_BYTES);
    let push = |writer: &Writer, first_page, reservation| {
        let bytes = pages(first_page, 2);
        let PageBytes::Owned(own) = &bytes else { unreachable!() };
        let checksums = entry.checksums.of_pages(first_page, own);
        push(writer, &entry, first_page, checksums, bytes, reservation);
    };
    push(&writer, 0, Some(first));
    assert_eq!((counters.left_out_bytes(), counters.holds_any()), (4 * PAGE_BYTES, false));
    assert!(entry.read(&(0..2)).is_none());
    writer.write_delay_max = Duration::from_secs(3600);
    push(&writer, 0, writer.reserve(&counters, 2 * PAGE_BYTES));
    assert!(entry.read(&(0..2)).is_some());
    // Without a limit nothing is left out, however late.
    writer.write_delay_max = Duration::ZERO;
    let counters = Arc::new(LoadCounters::default());
    push(&writer, 2, writer.reserve(&counters, 2 * PAGE_BYTES));
    assert_eq!((counters.left_out_bytes(), entry.read(&(2..4)).is_some()), (0, true));
}

/// Two holders of one directory, as two processes are.
#[test]
fn one_fetches_and_others_follow_or_take_over() {
    let directory = tempfile::tempdir().unwrap();
    let (mine, theirs) = (open(directory.path()), open(directory.path()));
    let (a, b) = (entry(&mine), entry(&theirs));
    let (files_a, files_b) = (a.files().unwrap(), b.files().unwrap());
    let stop = Stop::default();
    let locked = |decision| match decision {
        FetchDecision::Fetch(lock) => lock.unwrap(),
        FetchDecision::Arrived => panic!("nobody wrote the pages"),
    };
    let first = locked(block_on(decide(&a, &files_a, &(0..20), &stop)).unwrap());
    assert_eq!(first.pages, 0..20);
    // The page that both sides of an extent's end have is the first one's; the rest is free.
    let second = locked(block_on(decide(&b, &files_b, &(19..40), &stop)).unwrap());
    assert_eq!(second.pages, 20..40);
    // Few pages are not waited for.
    let few = block_on(decide(&b, &files_b, &(5..7), &stop)).unwrap();
    assert!(matches!(few, FetchDecision::Fetch(None)), "{few:?}");
    // It comes, and the follower sees that.
    let bytes = vec![7; 20 * PAGE_BYTES as usize];
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| block_on(decide(&b, &files_b, &(0..20), &Stop::default())));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!waiting.is_finished());
        let checksums = a.checksums.of_pages(0, &bytes);
        a.write(&files_a, 0, &checksums, &PageBytes::Owned(bytes.clone())).unwrap();
        drop(first);
        assert!(matches!(waiting.join().unwrap().unwrap(), FetchDecision::Arrived));
        assert_eq!(b.read(&(0..20)).unwrap(), bytes);
        // Its holder dies, and the follower takes over; one that is stopped ends.
        let stopped = Stop::default();
        let waiting = scope.spawn(|| block_on(decide(&a, &files_a, &(20..40), &Stop::default())));
        std::thread::sleep(Duration::from_millis(20));
        stopped.set();
        assert!(block_on(decide(&a, &files_a, &(20..40), &stopped)).is_err());
        drop(second);
        let taken = locked(waiting.join().unwrap().unwrap());
        assert_eq!(taken.pages, 20..40);
    });
}

/// A follower that waited for pages in the middle of its range fetched these pages again, because
/// it had looked for missing pages before it waited.
#[test]
fn pages_that_arrived_while_a_load_waited_are_not_fetched_again() {
    let directory = tempfile::tempdir().unwrap();
    let (mine, theirs) = (open(directory.path()), open(directory.path()));
    let (a, b) = (entry(&mine), entry(&theirs));
    let (files_a, files_b) = (a.files().unwrap(), b.files().unwrap());
    let held = block_on(decide(&a, &files_a, &(10..30), &Stop::default())).unwrap();
    let bytes = vec![7; 20 * PAGE_BYTES as usize];
    let checksums = a.checksums.of_pages(10, &bytes);
    a.write(&files_a, 10, &checksums, &PageBytes::Owned(bytes)).unwrap();
    drop(held);
    let decision = block_on(decide(&b, &files_b, &(0..30), &Stop::default())).unwrap();
    assert!(matches!(decision, FetchDecision::Arrived), "{decision:?}");
    let decision = block_on(decide(&b, &files_b, &(0..10), &Stop::default())).unwrap();
    assert!(matches!(decision, FetchDecision::Fetch(Some(_))), "{decision:?}");
}
