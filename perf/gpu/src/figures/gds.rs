//! GPUDirect Storage: loads with `--read-path gds` of a file that is not in the page cache, or why they
//! went through the ring.
//!
//! Without NVIDIA's kernel module cuFile reads in its compatibility mode, or refuses. In either case the
//! load has to bring the right bytes, and to say which path they took.

use super::{Large, Loaded, Part, each, load, loader, note, size};
use crate::record::Recorder;
use anyhow::{Result, ensure};
use ringload::internals::resident_bytes;
use ringload::{MemoryLimit, ReadPath};
use ringload_measure::page_cache::CacheState;
use ringload_measure::stats::ratios;

pub fn measure(part: &Part<'_>, recorder: &mut Recorder) -> Result<()> {
    let written = Large::open(part)?.disk.first(2);
    let gds = loader(part, MemoryLimit::Unlimited).read_path(ReadPath::Gds);
    let direct = gds.clone().read_path(ReadPath::Direct);
    let mut first = None;
    recorder.check("gds: the bytes, and the path or the reason", || {
        let loaded = load(part, &gds, &written, true)?;
        let notes = loaded.notes.join("; ");
        let by_gds = loaded.notes[0] == "read gds";
        ensure!(by_gds || loaded.notes.len() > 1, "it took another path without a reason: {notes}");
        first = Some(loaded);
        Ok(1)
    });
    let Some(first) = first else { return Ok(()) };
    note(recorder, "gds", &[first]);
    let what = size(written.bytes());
    let mut loads = [Vec::new(), Vec::new()];
    for _ in part.clock.take() {
        for (loader, loads) in std::iter::zip([&gds, &direct], &mut loads) {
            CacheState::Cold.prepare(&written.files, resident_bytes)?;
            loads.push(load(part, loader, &written, false)?);
        }
        let speeds = [0, 1].map(|index: usize| each(&loads[index], Loaded::speed));
        recorder.add(format!("{what} from the disk, gds"), "GB/s", &speeds[0], None);
        let cpu = each(&loads[0], Loaded::cpu);
        recorder.add(format!("{what} from the disk, gds: CPU time"), "CPU-s/GB", &cpu, None);
        let ratio = ratios(&speeds[0], &speeds[1]);
        recorder.add(format!("{what} from the disk, gds / direct"), "", &ratio, None);
    }
    Ok(())
}
