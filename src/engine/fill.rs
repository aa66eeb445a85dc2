//! Filling one window: the loop over attempts, with every decision about what an attempt brought.

use super::Shared;
use crate::error::errno::{ErrnoAction, action};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::Chunk;
use crate::ring::Window;
use crate::source::{Reader, Source, stopped};
use std::io;
use std::time::{Duration, Instant};

/// How often a read is asked again without progress (EINTR, EAGAIN, ECANCELED) before it fails.
const RETRIES_MAX: u32 = 16;

/// Reads until `chunk` is in `window`.
///
/// # Errors
/// [`ErrorKind::Changed`] when the source ends early, [`ErrorKind::Cancelled`] when the load was
/// stopped, else what the errno table makes of the failure.
pub(super) async fn fill(
    shared: &Shared,
    source: &dyn Source,
    reader: &dyn Reader,
    chunk: Chunk,
    mut window: Window,
) -> Result<Window> {
    let (mut retries, mut way) = (0, None);
    while window.filled() < chunk.want_bytes {
        if shared.is_cancelled() {
            return Err(stopped());
        }
        let at = chunk.offset_bytes + window.filled() as u64;
        let began = Instant::now();
        let steps = reader.steps_down();
        let (outcome, returned) = reader.read_at(window, at).await;
        window = returned;
        match outcome {
            Ok(attempt) if attempt.bytes == 0 => return Err(ended_early(source, at)),
            Ok(attempt) => {
                retries = 0;
                let gained = advance(&mut window, chunk, attempt.bytes, source.block_bytes());
                if way.replace(attempt.via) != Some(attempt.via) {
                    window.came_by(attempt.via.as_str());
                }
                shared.stats.read(attempt.via, gained);
                crate::metrics::read(source.kind(), attempt.via.as_str(), gained, began.elapsed());
            }
            // Refused, but another read of this reader was too and has seen to it.
            Err(failure)
                if action(&failure) == ErrnoAction::Downgrade && reader.steps_down() > steps => {}
            Err(failure) => {
                recover(shared, source, reader, failure, &mut retries).await?;
            }
        }
    }
    Ok(window)
}

/// Moves the window's mark over `bytes` more; gives by how many it moved.
///
/// A short direct read may end within a block, but the next one has to begin at a block's start. So
/// the mark goes back to there and the part of the block is read again. If that would mean no
/// progress at all, the mark stays in mid-block: the reader then sees an unaligned offset and reads
/// through the page cache.
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

/// Decides what follows from a failed attempt: `Ok` means try again.
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
                // 1, 2, 4 ... 64 ms: half a second in all before it counts as a failure.
                tokio::time::sleep(Duration::from_millis(1 << (*retries - 2).min(6))).await;
            }
            Ok(())
        }
        ErrnoAction::Downgrade => match reader.downgrade(&failure) {
            Some(downgrade) => {
                shared.stats.downgrade(downgrade);
                Ok(())
            }
            None => Err(failed(source, failure)),
        },
        _ => Err(failed(source, failure)),
    }
}

fn failed(source: &dyn Source, failure: io::Error) -> Error {
    Error::from_io(format_args!("read {}", source.location()), failure)
}

/// A source that ends before its length: the reason is asked of the source, which knows best.
pub(super) fn ended_early(source: &dyn Source, at: u64) -> Error {
    source.check_unchanged().err().unwrap_or_else(|| {
        Error::new(
            ErrorKind::Changed,
            format!(
                "{} ended at byte {at} although it is {} bytes long; load it again",
                source.location(),
                source.len_bytes()
            ),
        )
    })
}
