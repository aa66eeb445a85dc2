//! A submission: the ranges of files that one request names, with their destinations.

use super::code::RunaiFileStreamerResponse as Code;
use crate::capi::abi;
use crate::options::Device;
use std::ffi::{OsString, c_char, c_uint, c_void};
use std::ops::Range as Span;
use std::sync::atomic::{AtomicBool, Ordering};

/// The arrays of a request, as C passed them.
pub struct Arrays {
    pub num_files: c_uint,
    pub paths: *const *const c_char,
    pub num_ranges: *const c_uint,
    pub offsets: *const usize,
    pub sizes: *const usize,
    pub destinations: *const *mut c_void,
}

/// The ranges that one request names.
#[derive(Debug)]
pub struct Submission {
    pub id: u64,
    pub device: Device,
    pub paths: Vec<OsString>,
    /// The ranges, in the order of their files.
    pub ranges: Vec<Range>,
    /// For each range, whether it has its response.
    responded: Vec<AtomicBool>,
}

/// One range of a file.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    /// The index of the range in the submission.
    at: usize,
    /// The index of the file in the submission.
    pub file: u32,
    /// The index of the range among those of its file.
    pub index: u32,
    pub offset_bytes: u64,
    pub len_bytes: usize,
    /// The destination, in the address space of the submission's device.
    pub address: usize,
}

impl Range {
    /// Returns the offset of the range's end in its file.
    pub fn end_bytes(&self) -> u64 {
        self.offset_bytes + self.len_bytes as u64 // `is_possible` has checked for overflow
    }
}

/// Ranges that are adjacent both in their file and in memory, and are read as one.
#[derive(Debug, Clone)]
pub struct Group {
    /// The indices of the ranges in the sorted list.
    pub ranges: Span<usize>,
    pub file: u32,
    pub offset_bytes: u64,
    pub len_bytes: usize,
    pub address: usize,
}

/// Groups of several ranges are no larger than this, since their responses come when the whole
/// group was read.
const GROUP_BYTES_MAX: usize = 32 << 20;

impl Submission {
    /// Makes a submission of the arrays.
    ///
    /// # Errors
    /// [`InvalidParameterError`](Code::InvalidParameterError) if an array is NULL although it has
    /// items, a destination is NULL although the range has bytes, or a range exceeds the address
    /// space or the largest file.
    ///
    /// # Safety
    /// Arrays that are not NULL have an item for each file or for each range of all files, and do
    /// not change during the call.
    pub unsafe fn new(id: u64, device: Device, arrays: &Arrays) -> Result<Self, Code> {
        let files = arrays.num_files as usize;
        let invalid = Code::InvalidParameterError;
        // SAFETY: this function's contract.
        let paths = unsafe { abi::texts(arrays.paths, files) }.ok_or(invalid)?;
        // SAFETY: this function's contract.
        let counts = unsafe { abi::items(arrays.num_ranges, files) }.ok_or(invalid)?;
        let total = counts.iter().try_fold(0, |sum: usize, &count| sum.checked_add(count as usize));
        let total = total.ok_or(invalid)?;
        // SAFETY: this function's contract.
        let offsets = unsafe { abi::items(arrays.offsets, total) }.ok_or(invalid)?;
        // SAFETY: this function's contract.
        let sizes = unsafe { abi::items(arrays.sizes, total) }.ok_or(invalid)?;
        // SAFETY: this function's contract.
        let destinations = unsafe { abi::items(arrays.destinations, total) }.ok_or(invalid)?;
        let mut ranges = Vec::with_capacity(total);
        for (file, &count) in counts.iter().enumerate() {
            for index in 0..count {
                let at = ranges.len();
                ranges.push(Range {
                    at,
                    file: file as u32, // `num_files` is a c_uint
                    index,
                    offset_bytes: offsets[at] as u64,
                    len_bytes: sizes[at],
                    address: destinations[at].addr(),
                });
            }
        }
        let paths = paths.into_iter().map(OsString::from).collect();
        match ranges.iter().all(Range::is_possible) {
            true => {
                let responded = ranges.iter().map(|_| AtomicBool::new(false)).collect();
                Ok(Self { id, device, paths, ranges, responded })
            }
            false => Err(invalid),
        }
    }

    /// Marks that `range` has its response. Returns false if it had one before.
    pub fn mark_responded(&self, range: &Range) -> bool {
        !self.responded[range.at].swap(true, Ordering::Relaxed)
    }
}

impl Range {
    /// Whether the range fits the largest file, and its destination the address space.
    fn is_possible(&self) -> bool {
        let fits = self.offset_bytes.checked_add(self.len_bytes as u64).is_some()
            && self.address.checked_add(self.len_bytes).is_some()
            && isize::try_from(self.len_bytes).is_ok();
        fits && (self.address != 0 || self.len_bytes == 0)
    }
}

/// Sorts `ranges` so that adjacent ones follow each other, and returns the groups.
pub fn groups(ranges: &mut [Range]) -> Vec<Group> {
    ranges.sort_by_key(|range| (range.file, range.offset_bytes));
    let mut groups: Vec<Group> = Vec::new();
    for (at, range) in ranges.iter().enumerate() {
        if let Some(last) = groups.last_mut().filter(|last| last.is_continued_by(range)) {
            last.ranges.end = at + 1;
            last.len_bytes += range.len_bytes;
            continue;
        }
        groups.push(Group {
            ranges: at..at + 1,
            file: range.file,
            offset_bytes: range.offset_bytes,
            len_bytes: range.len_bytes,
            address: range.address,
        });
    }
    groups
}

impl Group {
    fn is_continued_by(&self, range: &Range) -> bool {
        self.file == range.file
            && self.offset_bytes + self.len_bytes as u64 == range.offset_bytes
            && self.address + self.len_bytes == range.address
            && self.len_bytes + range.len_bytes <= GROUP_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr;

    fn range(file: u32, offset_bytes: u64, len_bytes: usize, address: usize) -> Range {
        Range { at: 0, file, index: 0, offset_bytes, len_bytes, address }
    }

    #[test]
    fn adjacent_ranges_are_read_as_one() {
        let mut ranges = [
            range(1, 0, 8, 900),
            range(0, 10, 5, 110),
            range(0, 0, 10, 100),
            range(0, 15, 5, 200), // elsewhere in memory
            range(0, 21, 5, 205), // elsewhere in the file
            range(0, 26, GROUP_BYTES_MAX, 210),
        ];
        let spans = |groups: Vec<Group>| -> Vec<_> {
            groups
                .into_iter()
                .map(|group| (group.file, group.offset_bytes, group.len_bytes))
                .collect()
        };
        let expected =
            [(0, 0, 15), (0, 15, 5), (0, 21, 5), (0, 26, GROUP_BYTES_MAX), (1, 0, 8)].to_vec();
        assert_eq!(spans(groups(&mut ranges)), expected);
        assert!(groups(&mut []).is_empty());
    }

    #[test]
    fn impossible_ranges_and_null_arrays_are_refused() {
        assert!(range(0, 0, 0, 0).is_possible());
        assert!(!range(0, 0, 1, 0).is_possible());
        assert!(!range(0, u64::MAX, 1, 8).is_possible());
        assert!(!range(0, 0, usize::MAX / 2 + 1, 8).is_possible());
        assert!(!range(0, 0, 16, usize::MAX - 8).is_possible());
        let arrays = Arrays {
            num_files: 1,
            paths: ptr::null(),
            num_ranges: ptr::null(),
            offsets: ptr::null(),
            sizes: ptr::null(),
            destinations: ptr::null(),
        };
        // SAFETY: all are NULL.
        let outcome = unsafe { Submission::new(1, Device::Host, &arrays) };
        assert_eq!(outcome.unwrap_err(), Code::InvalidParameterError);
        let none = Arrays { num_files: 0, ..arrays };
        // SAFETY: all are NULL.
        let outcome = unsafe { Submission::new(1, Device::Host, &none) };
        assert!(outcome.unwrap().ranges.is_empty());
    }
}
