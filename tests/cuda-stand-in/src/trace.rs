//! Traces: the memory of an operation that must not be changed until it is known to be done.

use crate::mapping::is_mapped;
use crate::random::checksum;

/// The memory of an operation that must not be changed until it is known to be done.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    pub(crate) function: &'static str,
    pub(crate) sequence: u64,
    /// The first addresses of the allocations and registrations that it uses.
    pub(crate) uses: Vec<u64>,
    pub(crate) module: Option<usize>,
    pub(crate) source: Option<HostSource>,
    /// The operation of another stream that precedes it.
    pub(crate) after: Option<(usize, u64)>,
}

/// The registered memory that a copy reads, with its checksum at the submission.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostSource {
    pub(crate) start: u64,
    pub(crate) bytes: u64,
    checksum: u64,
}

impl Trace {
    /// The trace of work that uses the memory with these first addresses.
    pub(crate) fn using(uses: Vec<u64>) -> Self {
        Trace { uses, ..Trace::default() }
    }

    /// The trace of waiting for an operation of another stream.
    pub(crate) fn after(stream: usize, sequence: u64) -> Self {
        Trace { after: Some((stream, sequence)), ..Trace::default() }
    }
}

impl HostSource {
    /// # Safety
    /// The range is registered, so readable.
    pub(crate) unsafe fn new(start: u64, bytes: u64) -> Self {
        // SAFETY: the caller guarantees it.
        let checksum = unsafe { checksum(start, bytes as usize) };
        HostSource { start, bytes, checksum }
    }

    /// Raises the alarm if the memory has changed since the submission.
    pub(crate) fn check(&self, function: &str, when: &str) {
        let HostSource { start, bytes, .. } = *self;
        if !is_mapped(start, bytes) {
            alarm!("{function}: the source of {bytes} bytes was unmapped {when}");
        }
        // SAFETY: the memory is mapped, and was readable at the submission.
        if unsafe { checksum(start, bytes as usize) } != self.checksum {
            alarm!("{function}: the source of {bytes} bytes was rewritten {when}");
        }
    }
}
