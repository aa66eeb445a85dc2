//! Reading one submission, on a reader's thread: every range is answered once, whatever happens.
//!
//! Small ones (headers) are read right here, without engines: files one after the other, objects on
//! several threads. All else is one `read_into` of the loader, in groups of ranges that are neighbours
//! in file and memory. Where that fails, what is not there yet is read again file by file: so a file
//! that fails does so for its own ranges.

use super::code::{Failure, RunaiFileStreamerResponse as Code};
use super::sources::Opened;
use super::streamer::Streamer;
use super::submission::{Group, Range, Submission, groups};
use crate::checkpoint::parallel::{WAITING_THREADS, try_map};
use crate::error::{Error, Result};
use crate::load::{Loader, ReadRequest};
use crate::options::Device;
use crate::source::Source;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::{ptr, slice};

/// Submissions of files up to this size are read without engines, which take a millisecond to start.
const SMALL_BYTES: usize = 1 << 20;
/// The same where one is of an object: a header is a request, and engines would connect anew.
const SMALL_BYTES_REMOTE: usize = 16 << 20;

/// Reads `submission`.
pub fn run(streamer: &Streamer, submission: &Submission, loader: &Loader) {
    let mut reading = Reading { streamer, submission, loader, files: Vec::new(), left: Vec::new() };
    if catch_unwind(AssertUnwindSafe(|| reading.read())).is_err() {
        let failure = Failure::new(Code::UnknownError);
        streamer.answer(submission, &submission.ranges, Err(failure));
    }
}

struct Reading<'a> {
    streamer: &'a Streamer,
    submission: &'a Submission,
    loader: &'a Loader,
    /// By file.
    files: Vec<Opened>,
    /// What has to be read and was not answered for.
    left: Vec<(Group, Vec<Range>)>,
}

impl Reading<'_> {
    fn read(&mut self) {
        self.files = self.streamer.sources.open(self.loader.opener(), &self.submission.paths);
        let mut ranges = self.answer_at_once();
        let groups = groups(&mut ranges);
        self.left = groups
            .into_iter()
            .map(|group| {
                let ranges = ranges[group.ranges.clone()].to_vec();
                (group, ranges)
            })
            .collect();
        let streamer = self.streamer;
        match self.is_small() {
            true => self.read_small(),
            false => drop(streamer.writing(|| self.read_by_engines())),
        }
    }

    fn read_by_engines(&mut self) {
        let Err(error) = self.read_left(|_| true) else { return };
        let files: BTreeSet<u32> = self.left.iter().map(|(group, _)| group.file).collect();
        if files.len() == 1 || self.is_on_gpu() {
            files.iter().for_each(|&file| self.fail(file, &error));
            return;
        }
        for file in files {
            if self.streamer.is_ending() {
                return;
            }
            if let Err(error) = self.read_left(|group| group.file == file) {
                self.fail(file, &error);
            }
        }
    }

    /// Answers for what needs no reading; gives the rest.
    fn answer_at_once(&self) -> Vec<Range> {
        let mut rest = Vec::with_capacity(self.submission.ranges.len());
        for range in &self.submission.ranges {
            let outcome = match self.files.get(range.file as usize) {
                None => Err(Failure::new(Code::UnknownError)),
                Some(Err(failure)) => Err(failure.clone()),
                Some(Ok(_)) if range.len_bytes == 0 => Ok(()),
                Some(Ok(source)) if range.end_bytes() > source.len_bytes() => {
                    Err(beyond_end(range, &**source))
                }
                Some(Ok(_)) => {
                    rest.push(*range);
                    continue;
                }
            };
            self.streamer.answer(self.submission, [range], outcome);
        }
        rest
    }

    /// Whether the rest is no work for engines.
    fn is_small(&self) -> bool {
        let bytes: usize = self.left.iter().map(|(group, _)| group.len_bytes).sum();
        let few = self.left.len() <= self.files.len().max(WAITING_THREADS);
        let remote = self.files.iter().flatten().any(|source| source.is_remote());
        let most = if remote { SMALL_BYTES_REMOTE } else { SMALL_BYTES };
        few && bytes <= most && !self.is_on_gpu()
    }

    fn is_on_gpu(&self) -> bool {
        !self.submission.device.is_host()
    }

    fn read_small(&mut self) {
        let left = std::mem::take(&mut self.left);
        let remote = |(group, _): &&(Group, _)| self.source(group).is_some_and(|s| s.is_remote());
        let threads = left.iter().filter(remote).count().clamp(1, WAITING_THREADS);
        let read = |at: usize| {
            let (group, ranges) = &left[at];
            let outcome = self.read_group(group);
            if !self.streamer.is_ending() {
                self.streamer.answer(self.submission, ranges, outcome);
            }
            Ok(())
        };
        // Reading one fails for itself, never for all.
        drop(try_map(left.len(), threads, read));
    }

    /// Reads `group`, without keeping the streamer from being ended while a server is waited for.
    fn read_group(&self, group: &Group) -> Result<(), Failure> {
        let source = self.source(group).ok_or(Code::UnknownError)?;
        let read = |into: &mut [u8]| self.read_exact(source, into, group.offset_bytes);
        let outcome = if source.is_remote() {
            let mut bytes = vec![0; group.len_bytes];
            read(&mut bytes)?;
            self.streamer.writing(|| {
                self.memory(group).copy_from_slice(&bytes);
                Ok(())
            })
        } else {
            self.streamer.writing(|| read(self.memory(group)))
        };
        outcome.unwrap_or(Err(Code::FinishedError.into()))
    }

    fn read_exact(
        &self,
        source: &Arc<dyn Source>,
        into: &mut [u8],
        offset_bytes: u64,
    ) -> Result<(), Failure> {
        source.read_exact_at(into, offset_bytes).map_err(|error| {
            self.streamer.sources.forget(source.location());
            let doing = format_args!("read {}", source.location());
            Failure::of(&Error::from_io(doing, error), false)
        })
    }

    /// Reads what is left of the groups that `which` are meant, and answers for what is there.
    ///
    /// # Errors
    /// When one of them cannot be read.
    fn read_left(&mut self, which: impl Fn(&Group) -> bool) -> Result<()> {
        let chosen: Vec<usize> =
            (0..self.left.len()).filter(|&at| which(&self.left[at].0)).collect();
        let mut requests: Vec<_> =
            chosen.iter().filter_map(|&at| self.request(&self.left[at].0)).collect();
        let mut done = vec![false; self.left.len()];
        let on_complete = |request: usize| {
            let at = chosen[request];
            done[at] = true;
            self.streamer.answer(self.submission, &self.left[at].1, Ok(()));
            match self.streamer.is_ending() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        let outcome = self.loader.read_into_cancellable(
            &mut requests,
            |load| self.streamer.started(self.submission, load),
            on_complete,
        );
        let mut done = done.into_iter();
        self.left.retain(|_| !done.next().unwrap_or(false));
        outcome.map(drop)
    }

    /// What the loader is asked to read for `group`; `None` never, as its file was opened.
    fn request(&self, group: &Group) -> Option<ReadRequest<'static>> {
        let source = self.source(group)?;
        Some(match self.submission.device {
            Device::Cuda(ordinal) => {
                let (address, len_bytes) = (group.address as u64, group.len_bytes as u64);
                // SAFETY: who calls `runai_file_streamer_request` keeps the memory for it, and uses it
                // for nothing else, until the response.
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

    /// Where the bytes of `group` go.
    fn memory(&self, group: &Group) -> &'static mut [u8] {
        let start = ptr::with_exposed_provenance_mut::<u8>(group.address);
        // SAFETY: who calls `runai_file_streamer_request` keeps the memory for it, and uses it for
        // nothing else, until the response; `end` returns when nobody is `writing` any more, as all who
        // call this are. Ranges do not overlap, also by that function's contract, and each is in one
        // group. Not NULL and not longer than memory can be: checked when the submission was read.
        unsafe { slice::from_raw_parts_mut(start, group.len_bytes) }
    }

    fn source(&self, group: &Group) -> Option<&Arc<dyn Source>> {
        self.files.get(group.file as usize)?.as_ref().ok()
    }

    /// Answers for what is left of `file`, which failed.
    fn fail(&mut self, file: u32, error: &Error) {
        if self.streamer.is_ending() {
            return;
        }
        if let Some(Ok(source)) = self.files.get(file as usize) {
            self.streamer.sources.forget(source.location());
        }
        let failure = Failure::of(error, self.is_on_gpu());
        let (of_file, left) =
            std::mem::take(&mut self.left).into_iter().partition(|(group, _)| group.file == file);
        self.left = left;
        let of_file: Vec<(Group, Vec<Range>)> = of_file;
        for (_, ranges) in &of_file {
            self.streamer.answer(self.submission, ranges, Err(failure.clone()));
        }
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
    Failure::of(&error, false).under(Code::EofError)
}
