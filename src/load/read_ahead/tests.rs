// A single range in a list is meant as it stands.
#![allow(clippy::single_range_in_vec_init)]

use super::*;

fn blocks(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut ranges: VecDeque<_> = ranges.iter().cloned().collect();
    std::iter::from_fn(|| next_block(&mut ranges)).collect()
}

#[test]
fn ranges_are_cut_into_blocks_once_and_in_order() {
    const BLOCK: u64 = BLOCK_BYTES;
    assert_eq!(blocks(&[100..200, 5..5, 7..BLOCK]), [100..200, 7..BLOCK]);
    let long = [3..BLOCK, BLOCK..2 * BLOCK, 2 * BLOCK..2 * BLOCK + 1];
    assert_eq!(blocks(&[3..2 * BLOCK + 1]), long);
}

/// The ranges that are queued after the program asked for these, by a queue that no thread empties.
fn queued(data: u64, expected: &[Range<u64>]) -> Vec<Range<u64>> {
    let ahead = ReadAhead::new(&unused(), 0..data);
    let queue = ahead.queue.get().unwrap();
    queue.state.lock().threads = THREADS_MAX; // as if they were all busy
    for range in expected {
        ahead.expect(range.clone());
    }
    queue.state.lock().ranges.iter().cloned().collect()
}

fn unused() -> MappedFile {
    of_bytes(&[0])
}

fn of_bytes(bytes: &[u8]) -> MappedFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let source = crate::source::FileSource::open(file.path()).unwrap();
    crate::source::Source::map_private(&source).unwrap()
}

#[test]
fn tensors_in_order_are_read_ahead_by_a_window_and_others_alone() {
    const MIB: u64 = 1 << 20;
    let window = WINDOW_BYTES;
    let data = 10 * window;
    // The next window is requested when half of it is used up.
    assert_eq!(queued(data, &[0..MIB]), [0..window + MIB]);
    assert_eq!(queued(data, &[0..MIB, MIB..2 * MIB]), [0..window + MIB]);
    let far = window / 2 + 2 * MIB;
    assert_eq!(queued(data, &[0..MIB, MIB..far]), [0..window + MIB, window + MIB..far + window]);
    // The last window ends with the file.
    assert_eq!(queued(2 * MIB, &[0..MIB, MIB..2 * MIB]), [0..2 * MIB]);
    // Within the window, it is read before the others.
    assert_eq!(
        queued(data, &[0..MIB, 20 * MIB..22 * MIB]),
        [20 * MIB..22 * MIB, 0..20 * MIB, 22 * MIB..window + MIB]
    );
    // Out of order, only the tensor is read, and first; a short one is left to its page faults.
    let there = 3 * window;
    assert_eq!(queued(data, &[there..there + 2 * MIB]), [there..there + 2 * MIB]);
    assert_eq!(queued(data, &[there..there + 2]), []);
    // Whoever goes on in order from there is read ahead again.
    assert_eq!(
        queued(data, &[there..there + 2, there + 2..there + 4]),
        [there + 2..there + 4 + window]
    );
}

/// A program that closed its file and kept the tensors was read ahead no further.
#[test]
fn the_file_is_read_ahead_for_tensors_whose_checkpoint_was_closed() {
    let file = unused();
    let (weak, mapping) = (file.downgrade(), Arc::clone(file.mapping()));
    drop(file);
    assert!(weak.upgrade().is_some());
    drop(mapping);
    assert!(weak.upgrade().is_none());
}

/// A warm load started threads that only found out that there was nothing to read, beside a program
/// that used all cores.
#[test]
fn nothing_is_queued_and_no_thread_started_for_what_the_page_cache_has() {
    let bytes = 3 * BLOCK_BYTES;
    let file = of_bytes(&vec![1; bytes as usize]);
    let ahead = ReadAhead::new(&file, 0..bytes);
    assert!(!ahead.expect(0..100));
    ahead.request_all();
    let state = ahead.queue.get().unwrap().state.lock();
    assert!((state.ranges.is_empty(), state.threads) == (true, 0), "{state:?}");
}

/// Programs touched tensors while threads were reading them, so that both read by page faults.
#[test]
fn a_program_waits_for_a_range_until_it_was_read_or_cannot_be() {
    let bytes = 3 * BLOCK_BYTES;
    let ahead = ReadAhead::new(&unused(), 0..bytes);
    let queue = ahead.queue.get().unwrap();
    queue.state.lock().threads = THREADS_MAX; // as if they were all busy
    assert!(ahead.expect(100..200));
    let short = Duration::from_millis(1);
    assert!(!ahead.wait(&(100..200), short) && !ahead.wait_for_all(short));
    assert!(ahead.wait(&(100..100), short) && ahead.wait(&(bytes..bytes + 1), short));
    queue.state.lock().in_flight.push(50..101);
    queue.state.lock().ranges.clear();
    assert!(!ahead.wait(&(100..200), short) && ahead.wait(&(101..200), short));
    queue.state.lock().in_flight.clear();
    assert!(ahead.wait_for_all(short));
    // Nobody has the mapping any more, so the first thread that notices empties the queue.
    ahead.request(0..bytes);
    std::thread::scope(|threads| {
        let waits = threads.spawn(|| ahead.wait_for_all(Duration::from_secs(60)));
        queue.work();
        assert!(waits.join().unwrap());
    });
}
