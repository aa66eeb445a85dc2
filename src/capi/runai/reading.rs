//! Reads one submission on a reader thread. Every range gets exactly one response, also after
//! errors.
//!
//! Small submissions (headers) are read on this thread without engines: files one after the other,
//! objects on several threads. Larger ones are one `read_into` of the loader, in groups of ranges
//! that are adjacent both in their file and in memory. If that fails, the remaining groups are read
//! again file by file, so that an error of one file affects its own ranges only.

use super::code::{Failure, RunaiFileStreamerResponse as Code};
use super::queue::Queue;
use super::sources::{OpenResult, SourceCache};
use super::submission::{Group, Range, Submission, groups};
use crate::checkpoint::parallel::try_map;
use crate::error::{Error, Result};
use crate::load::{Loader, ReadRequest};
use crate::options::Device;
use crate::source::Source;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::{ptr, slice};

/// The number of threads for requests to servers, which is independent of the number of cores.
const WAITING_THREADS: usize = 16;

/// Submissions of files up to this size are read without engines, which take a millisecond to
/// start.
const SMALL_BYTES: usize = 1 << 20;
/// The size up to which submissions with an object are read without engines. Reading a header is
/// one request, while engines would open new connections.
const SMALL_BYTES_REMOTE: usize = 16 << 20;

/// Reads `submission` and responds to all of its ranges.
pub fn run(queue: &Queue, sources: &SourceCache, submission: &Submission, loader: &Loader) {
    let (files, remaining) = (Vec::new(), Vec::new());
    let mut reading = Reading { queue, sources, submission, loader, files, remaining };
    if catch_unwind(AssertUnwindSafe(|| reading.read())).is_err() {
        let failure = Failure::new(Code::UnknownError);
        queue.respond(submission, &submission.ranges, Err(failure));
    }
}

struct Reading<'a> {
    queue: &'a Queue,
    sources: &'a SourceCache,
    submission: &'a Submission,
    loader: &'a Loader,
    /// The result of opening each file.
    files: Vec<OpenResult>,
    /// The groups that are still to be read, with their ranges.
    remaining: Vec<(Group, Vec<Range>)>,
}

impl Reading<'_> {
    fn read(&mut self) {
        self.files = self.sources.open(self.loader.opener(), &self.submission.paths);
        let mut ranges = self.respond_at_once();
        let groups = groups(&mut ranges).into_iter();
        self.remaining = groups
            .map(|group| {
                let ranges = ranges[group.ranges.clone()].to_vec();
                (group, ranges)
            })
            .collect();
        let queue = self.queue;
        match self.is_small() {
            true => self.read_small(),
            false => drop(queue.writing(|| self.read_by_engines())),
        }
    }

    fn read_by_engines(&mut self) {
        let Err(error) = self.read_remaining(|_| true) else { return };
        let files: BTreeSet<u32> = self.remaining.iter().map(|(group, _)| group.file).collect();
        if files.len() == 1 || self.is_on_gpu() {
            files.iter().for_each(|&file| self.fail(file, &error));
            return;
        }
        for file in files {
            if self.queue.is_ending() {
                return;
            }
            if let Err(error) = self.read_remaining(|group| group.file == file) {
                self.fail(file, &error);
            }
        }
    }

    /// Responds to the ranges that need no reading, and returns the others.
    fn respond_at_once(&self) -> Vec<Range> {
        let mut to_read = Vec::with_capacity(self.submission.ranges.len());
        for range in &self.submission.ranges {
            let outcome = match self.files.get(range.file as usize) {
                None => Err(Failure::new(Code::UnknownError)),
                Some(Err(failure)) => Err(failure.clone()),
                Some(Ok(_)) if range.len_bytes == 0 => Ok(()),
                Some(Ok(source)) if range.end_bytes() > source.len_bytes() => {
                    Err(beyond_end(range, &**source))
                }
                Some(Ok(_)) => {
                    to_read.push(*range);
                    continue;
                }
            };
            self.queue.respond(self.submission, [range], outcome);
        }
        to_read
    }

    /// Whether starting engines for the remaining groups is not worth it.
    fn is_small(&self) -> bool {
        let bytes: usize = self.remaining.iter().map(|(group, _)| group.len_bytes).sum();
        let few = self.remaining.len() <= self.files.len().max(WAITING_THREADS);
        let remote = self.files.iter().flatten().any(|source| source.is_remote());
        let most = if remote { SMALL_BYTES_REMOTE } else { SMALL_BYTES };
        few && bytes <= most && !self.is_on_gpu()
    }

    fn is_on_gpu(&self) -> bool {
        !self.submission.device.is_host()
    }

    fn read_small(&mut self) {
        let groups = std::mem::take(&mut self.remaining);
        let remote = |(group, _): &&(Group, _)| self.source(group).is_some_and(|s| s.is_remote());
        let threads = groups.iter().filter(remote).count().clamp(1, WAITING_THREADS);
        let read = |at: usize| {
            let (group, ranges) = &groups[at];
            let outcome = self.read_group(group);
            if !self.queue.is_ending() {
                self.queue.respond(self.submission, ranges, outcome);
            }
            Ok(())
        };
        // Each result is that of one group. `try_map` itself never fails.
        drop(try_map(groups.len(), threads, read));
    }

    /// Reads `group`. Bytes of an object are first received into a separate buffer, so that ending
    /// the streamer need not wait for a server.
    fn read_group(&self, group: &Group) -> Result<(), Failure> {
        let source = self.source(group).ok_or(Code::UnknownError)?;
        let read = |into: &mut [u8]| self.read_exact(source, into, group.offset_bytes);
        let outcome = if source.is_remote() {
            let mut bytes = vec![0; group.len_bytes];
            read(&mut bytes)?;
            self.queue.writing(|| {
                self.memory(group).copy_from_slice(&bytes);
                Ok(())
            })
        } else {
            self.queue.writing(|| read(self.memory(group)))
        };
        outcome.unwrap_or(Err(Code::FinishedError.into()))
    }

    fn read_exact(
        &self,
        source: &Arc<dyn Source>,
        into: &mut [u8],
        offset_bytes: u64,
    ) -> Result<(), Failure> {
        source.read_exact_at(into, offset_bytes, self.loader.opener().cancellation()).map_err(
            |error| {
                self.sources.forget(source.location());
                let doing = format_args!("read {}", source.location());
                Failure::of(&Error::from_io(doing, error), false)
            },
        )
    }

    /// Reads the remaining groups for which `which` returns true, and responds to each as it
    /// completes.
    ///
    /// # Errors
    /// When one of them cannot be read.
    fn read_remaining(&mut self, which: impl Fn(&Group) -> bool) -> Result<()> {
        let chosen: Vec<usize> =
            (0..self.remaining.len()).filter(|&at| which(&self.remaining[at].0)).collect();
        let mut requests: Vec<_> =
            chosen.iter().filter_map(|&at| self.request(&self.remaining[at].0)).collect();
        let mut done = vec![false; self.remaining.len()];
        let on_complete = |request: usize| {
            let at = chosen[request];
            done[at] = true;
            self.queue.respond(self.submission, &self.remaining[at].1, Ok(()));
            match self.queue.is_ending() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        let outcome = self.loader.read_into(&mut requests, on_complete);
        let mut done = done.into_iter();
        self.remaining.retain(|_| !done.next().unwrap_or(false));
        outcome.map(drop)
    }

    /// Returns the loader's request for `group`. Never `None`, since groups are of open files.
    fn request(&self, group: &Group) -> Option<ReadRequest<'static>> {
        let source = self.source(group)?;
        Some(match self.submission.device {
            Device::Cuda(ordinal) => {
                let (address, len_bytes) = (group.address as u64, group.len_bytes as u64);
                // SAFETY: the caller of `runai_file_streamer_request` keeps the memory allocated,
                // and uses it for nothing else, until the response.
                unsafe {
                    let offset_bytes = group.offset_bytes;
                    let location = source.location().clone();
                    ReadRequest::on_device(location, offset_bytes, ordinal, address, len_bytes)
                        .open_as(source)
                }
            }
            Device::Host => ReadRequest::of(source, group.offset_bytes, self.memory(group)),
        })
    }

    /// Returns the destination of `group` in host memory.
    fn memory(&self, group: &Group) -> &'static mut [u8] {
        let start = ptr::with_exposed_provenance_mut::<u8>(group.address);
        // SAFETY: the caller of `runai_file_streamer_request` keeps the memory allocated, and uses
        // it for nothing else, until the response or until `runai_file_streamer_end` returns. That
        // waits for all threads in `Queue::writing`, in which every caller of this function runs.
        // Ranges do not overlap, also by the contract of the request, and each is in one group. The
        // memory is not NULL and fits the address space, which was checked when the submission was
        // made.
        unsafe { slice::from_raw_parts_mut(start, group.len_bytes) }
    }

    fn source(&self, group: &Group) -> Option<&Arc<dyn Source>> {
        self.files.get(group.file as usize)?.as_ref().ok()
    }

    /// Responds with `error` to the remaining ranges of `file`.
    fn fail(&mut self, file: u32, error: &Error) {
        if self.queue.is_ending() {
            return;
        }
        if let Some(Ok(source)) = self.files.get(file as usize) {
            self.sources.forget(source.location());
        }
        let failure = Failure::of(error, self.is_on_gpu());
        self.remaining.retain(|(group, ranges)| {
            if group.file == file {
                self.queue.respond(self.submission, ranges, Err(failure.clone()));
            }
            group.file != file
        });
    }
}

fn beyond_end(range: &Range, source: &dyn Source) -> Failure {
    let sentence = format!(
        "cannot read {} bytes from offset {} of {}: it has {} bytes",
        range.len_bytes,
        range.offset_bytes,
        source.location(),
        source.len_bytes()
    );
    let error = Error::new(crate::ErrorKind::InvalidInput, sentence);
    Failure::of(&error, false).with_code(Code::EofError)
}
