//! `read_into`: byte ranges of locations straight into memory that the caller owns.

use super::{Loader, Summary};
use crate::engine::{Done, IntoWork, Lent, Running};
use crate::error::{Error, ErrorKind, Result};
use crate::location::Location;
use crate::options::ReadPath;
use crate::source::Source;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Instant;

/// One range: `into.len()` bytes of a location from an offset.
#[derive(Debug)]
pub struct ReadRequest<'a> {
    location: Location,
    offset_bytes: u64,
    into: &'a mut [u8],
}

impl<'a> ReadRequest<'a> {
    /// Asks for the `into.len()` bytes of `location` from `offset_bytes`.
    ///
    /// Memory whose address is congruent to the offset modulo 4096 can be read into directly; other
    /// memory is filled through the page cache.
    pub fn new(location: impl Into<Location>, offset_bytes: u64, into: &'a mut [u8]) -> Self {
        Self { location: location.into(), offset_bytes, into }
    }
}

impl Loader {
    /// Reads all `requests`, calling `on_complete` with the index of each as soon as its memory is
    /// filled; [`ControlFlow::Break`] stops the rest. Returns when nothing is in flight any more.
    ///
    /// The loader's read path and engines apply; there is no ring, so the memory limit does not.
    ///
    /// # Errors
    /// When a location cannot be opened, a range lies beyond its end
    /// ([`ErrorKind::InvalidInput`]), or a read fails. What the memory of requests that were not
    /// completed holds is then unspecified.
    pub fn read_into(
        &self,
        requests: &mut [ReadRequest<'_>],
        mut on_complete: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Summary> {
        self.check_not_verifying()?;
        let began = Instant::now();
        let mut running = self.start_reading_into(requests)?;
        let mut bytes = 0;
        while let Some(done) = running.pop() {
            let Done::Request { index } = done? else {
                continue;
            };
            bytes += requests[index].into.len() as u64;
            if on_complete(index).is_break() {
                break;
            }
        }
        running.stop();
        let seconds = began.elapsed().as_secs_f64();
        Ok(Summary { bytes, seconds, ..Summary::of(&running) })
    }

    #[allow(unsafe_code)]
    fn start_reading_into(&self, requests: &mut [ReadRequest<'_>]) -> Result<Running> {
        let opener = self.opener.anew();
        let mut sources: Vec<Arc<dyn Source>> = Vec::new();
        let mut known: HashMap<Location, usize> = HashMap::new();
        let mut lent = Vec::with_capacity(requests.len());
        for request in requests.iter_mut() {
            let index = match known.get(&request.location) {
                Some(&index) => index,
                None => {
                    sources.push(opener.open(&request.location)?);
                    known.insert(request.location.clone(), sources.len() - 1);
                    sources.len() - 1
                }
            };
            check_range(request, &*sources[index])?;
            lent.push(Lent {
                source: index,
                offset: request.offset_bytes,
                into: NonNull::from(&mut *request.into),
            });
        }
        let total = lent.iter().map(|request| request.into.len() as u64).sum();
        let tuning = self.tuning(total, total, &sources)?;
        // SAFETY: the requests are borrowed exclusively by `read_into`, which does not touch their
        // memory before `Running` is dropped; `Running` is a local there, and its drop joins the
        // engines (also when the callback panics).
        let work = unsafe { IntoWork::new(lent, sources.clone(), tuning.chunk_bytes) };
        let mut job = self.job(sources, &tuning);
        if job.read_path == ReadPath::Mapped {
            job.read_path = ReadPath::Buffered; // the caller's memory cannot be a mapping
        }
        Running::start(job, Arc::new(work))
    }
}

fn check_range(request: &ReadRequest<'_>, source: &dyn Source) -> Result<()> {
    let len = request.into.len() as u64;
    let end = request.offset_bytes.checked_add(len);
    if end.is_some_and(|end| end <= source.len_bytes()) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidInput,
        format!(
            "cannot read {len} bytes from offset {} of {}: it has {} bytes",
            request.offset_bytes,
            source.location(),
            source.len_bytes()
        ),
    ))
}
