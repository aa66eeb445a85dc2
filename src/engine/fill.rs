//! Fills one window: the loop over read attempts, and the handling of their outcomes.

use super::shared::Shared;
use crate::error::errno::{ErrnoAction, action};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::Chunk;
use crate::ring::Window;
use crate::source::{RangeAnswer, Reader, Source, stopped};
use std::io;
use std::time::{Duration, Instant};

/// How often a read is retried without progress (EINTR, EAGAIN, ECANCELED) before it fails.
pub(super) const RETRIES_MAX: u32 = 16;

/// Reads until `window` holds `chunk`, beginning with the `answer` of its server, if there is one.
///
/// # Errors
/// [`ErrorKind::Changed`] when the source ends early, [`ErrorKind::Cancelled`] when the load was
/// stopped, else the error that the errno table assigns to the failure.
pub(super) async fn fill(
    shared: &Shared,
    source: &dyn Source,
    reader: &dyn Reader,
    chunk: Chunk,
    mut window: Window,
    mut answer: Option<Box<dyn RangeAnswer>>,
) -> Result<Window> {
    let (mut retries, mut last_via) = (0, None);
    while window.filled() < chunk.want_bytes {
        if shared.is_cancelled() {
            return Err(stopped());
        }
        let at = chunk.offset_bytes + window.filled() as u64;
        let began = Instant::now();
        let steps = reader.downgrade_count();
        let reading = match answer.take() {
            Some(answer) => reader.read_answer(answer, window, at),
            None => reader.read_at(window, at),
        };
        let (outcome, returned) = reading.await;
        window = returned;
        match outcome {
            Ok(attempt) if attempt.bytes == 0 => return Err(ended_early(source, at)),
            Ok(attempt) => {
                retries = 0;
                let gained = advance(&mut window, chunk, attempt.bytes, source.block_bytes());
                if last_via.replace(attempt.via) != Some(attempt.via) {
                    window.record_path(attempt.via.as_str());
                }
                shared.stats.read(attempt.via, gained);
                crate::metrics::read(source.kind(), attempt.via.as_str(), gained, began.elapsed());
            }
            // The reader was downgraded meanwhile, after another read failed in the same way.
            Err(failure)
                if action(&failure) == ErrnoAction::Downgrade
                    && reader.downgrade_count() > steps => {}
            Err(failure) => {
                recover(shared, source, reader, failure, &mut retries).await?;
            }
        }
    }
    Ok(window)
}

/// Counts `bytes` more of the window as filled. Returns by how many bytes the filled part grew.
///
/// A short direct read may end within a block, but the next direct read has to begin at the start of
/// a block. The filled part therefore shrinks to the last full block, and the rest of the block is
/// read again. If that would undo all progress, the filled part ends within the block: the reader
/// then sees an unaligned offset and reads through the page cache.
fn advance(window: &mut Window, chunk: Chunk, bytes: usize, block_bytes: usize) -> u64 {
    let before = window.filled();
    let mut filled = before + bytes;
    if filled < chunk.want_bytes {
        let into_block = ((chunk.offset_bytes + filled as u64) % block_bytes as u64) as usize;
        if filled.saturating_sub(into_block) > before {
            filled -= into_block;
        }
    }
    window.set_filled(filled);
    (filled.min(chunk.want_bytes) - before) as u64
}

/// Handles a failed attempt. `Ok` means that the read is to be attempted again.
async fn recover(
    shared: &Shared,
    source: &dyn Source,
    reader: &dyn Reader,
    failure: io::Error,
    retries: &mut u32,
) -> Result<()> {
    match action(&failure) {
        ErrnoAction::Retry if *retries < RETRIES_MAX => {
            *retries += 1;
            shared.stats.counters.retry("interrupted");
            if *retries > 1 {
                // 1, 2, 4 ... 64 ms: about half a second in all before the read fails.
                tokio::time::sleep(Duration::from_millis(1 << (*retries - 2).min(6))).await;
            }
            return Ok(());
        }
        ErrnoAction::Downgrade => {
            if let Some(downgrade) = reader.downgrade(&failure) {
                shared.stats.downgrade(downgrade);
                return Ok(());
            }
        }
        _ => {}
    }
    Err(Error::from_io(format_args!("read {}", source.location()), failure))
}

/// The error for a source that ended at offset `at`, before its length. If the source was changed,
/// the error describes the change.
pub(super) fn ended_early(source: &dyn Source, at: u64) -> Error {
    source.check_unchanged().err().unwrap_or_else(|| {
        let (location, len_bytes) = (source.location(), source.len_bytes());
        let sentence = format!(
            "{location} ended at byte {at} although it is {len_bytes} bytes long; load it again"
        );
        Error::new(ErrorKind::Changed, sentence)
    })
}
