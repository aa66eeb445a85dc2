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
    expected.iter().cloned().for_each(|range| ahead.expect(range));
    queue.state.lock().ranges.iter().cloned().collect()
}

fn unused() -> MappedFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1).unwrap();
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
