//! The speed of the GPU's copies, which limits loads and kernels.

use super::{Memory, Pinned, Stream, driver, timed};
use anyhow::Result;
use cudarc::driver::result;
use std::time::Instant;

/// The number of streams that copies alternate between, as in loads.
const STREAMS: usize = 2;

/// The time to copy `total` bytes from `from` to `to` in copies of `chunk` bytes. Both are reused
/// repeatedly.
///
/// # Errors
/// If the driver fails.
pub fn host_to_device_seconds(
    from: &mut Pinned<'_>,
    to: &Memory<'_>,
    chunk: usize,
    total: usize,
) -> Result<f64> {
    let gpu = from.gpu;
    let bytes = &*from.bytes_mut();
    let chunk = chunk.min(bytes.len()).min(to.len());
    let (sources, targets) = (bytes.len() / chunk, to.len() / chunk);
    // Declared after the objects that they use, because dropping them waits for their work.
    let streams = (0..STREAMS).map(|_| Stream::new(gpu)).collect::<Result<Vec<_>>>()?;
    let began = Instant::now();
    for (i, stream) in (0..(total / chunk).max(1)).zip(streams.iter().cycle()) {
        let source = &bytes[i % sources * chunk..][..chunk];
        let target = i % targets * chunk;
        let target = to.address_of(&(target..target + chunk));
        // SAFETY: registered memory of `from`, and a range of `to`; the streams, which are
        // dropped first, wait for the copy.
        let answer = unsafe { result::memcpy_htod_async(target, source, stream.raw) };
        driver("copy registered bytes in", answer)?;
    }
    for stream in &streams {
        stream.wait()?;
    }
    Ok(began.elapsed().as_secs_f64())
}

/// The time of each of `repeats` copies of `len` bytes from `from` to `to`, one after the other.
///
/// # Errors
/// If the driver fails.
pub fn device_to_device_seconds(
    from: &Memory<'_>,
    to: &Memory<'_>,
    len: usize,
    repeats: u32,
) -> Result<f64> {
    let (source, target) = (from.address_of(&(0..len)), to.address_of(&(0..len)));
    let seconds = timed(from.gpu, |stream| {
        for _ in 0..repeats {
            // SAFETY: both ranges were checked, and `timed` waits for the stream.
            let answer = unsafe { result::memcpy_dtod_async(target, source, len, stream.raw) };
            driver("copy within itself", answer)?;
        }
        Ok(())
    })?;
    Ok(seconds / f64::from(repeats))
}
