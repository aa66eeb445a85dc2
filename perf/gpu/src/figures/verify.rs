//! `--verify`, which makes the GPU compute a CRC of the bytes that it received, compared with the same
//! load without it; and whether it checks all bytes.

use super::{Large, Loaded, Part, each, load, loader, size};
use crate::record::Recorder;
use anyhow::{Result, ensure};
use ringload::MemoryLimit;
use ringload_measure::stats::ratios;

pub fn measure(part: &Part<'_>, recorder: &mut Recorder) -> Result<()> {
    let written = Large::open(part)?.tmpfs;
    let plain = loader(part, MemoryLimit::Unlimited);
    let verified = plain.clone().verify(true);
    recorder.check("--verify compares every byte", || {
        let loaded = verified.load(&written.files)?;
        let (bytes, wanted) = (loaded.summary().verified_device_bytes, written.bytes());
        ensure!(bytes == wanted, "{bytes} of {wanted} bytes were compared");
        Ok(loaded.len())
    });
    let what = size(written.bytes());
    let mut loads = [Vec::new(), Vec::new()];
    for turn in part.clock.take() {
        for (loader, loads) in std::iter::zip([&verified, &plain], &mut loads) {
            loads.push(load(part, loader, &written, turn == 0)?);
        }
        let speeds = [0, 1].map(|index: usize| each(&loads[index], Loaded::speed));
        recorder.add(format!("{what} from tmpfs, --verify"), "GB/s", &speeds[0], None);
        let cpu = each(&loads[0], Loaded::cpu);
        recorder.add(format!("{what} from tmpfs, --verify: CPU time"), "CPU-s/GB", &cpu, None);
        let ratio = ratios(&speeds[0], &speeds[1]);
        recorder.add(format!("{what} from tmpfs, --verify / without"), "", &ratio, None);
    }
    Ok(())
}
