//! The configuration from the environment: the seed, the machine, and the injected failures.
//!
//! The variables are read again whenever no primary context is alive, so that one process can try
//! many seeds. An invalid value raises the alarm, because with a misspelt failure a test would
//! pass.

use crate::random::Random;
use crate::result::by_name;
use std::env;
use std::fs::{File, OpenOptions};
use std::path::PathBuf;
use std::time::Duration;

/// The state of cuFile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gds {
    /// Its driver does not open.
    Off,
    /// It works in compatibility mode.
    Compatible,
    On,
}

#[derive(Debug)]
pub(crate) struct Orders {
    pub(crate) seed: u64,
    pub(crate) devices: i32,
    pub(crate) memory_bytes: usize,
    /// For devices that share the memory of the host: how much of it is page cache.
    pub(crate) page_cache_bytes: Option<usize>,
    /// How many bytes of host memory may be registered at once.
    pub(crate) pinned_bytes: Option<u64>,
    pub(crate) context_time: Duration,
    /// The file that has to exist before the creation of a context ends.
    pub(crate) context_after: Option<PathBuf>,
    pub(crate) failures: Vec<Failure>,
    /// The number of the copy to a device, counted from 1, in which a bit is flipped.
    pub(crate) flip: Option<u64>,
    pub(crate) log: Option<File>,
    pub(crate) gds: Gds,
}

/// A failure that is injected into the `nth` call of a function, or into every call without `nth`.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) function: String,
    pub(crate) nth: Option<u64>,
    pub(crate) result: u32,
    /// Whether the work fails when it runs instead of when it is submitted.
    pub(crate) at_run: bool,
}

impl Orders {
    pub(crate) fn read() -> Self {
        let seed = number("CUDA_STAND_IN_SEED").unwrap_or(0);
        let drawn = Random::new(seed, 0).below(21);
        let milliseconds = number("CUDA_STAND_IN_CONTEXT_MS").unwrap_or(drawn);
        Orders {
            seed,
            devices: number("CUDA_STAND_IN_DEVICES").unwrap_or(2).min(64) as i32,
            memory_bytes: number("CUDA_STAND_IN_MEMORY").unwrap_or(1 << 30) as usize,
            page_cache_bytes: number("CUDA_STAND_IN_PAGE_CACHE").map(|bytes| bytes as usize),
            pinned_bytes: number("CUDA_STAND_IN_PINNED"),
            context_time: Duration::from_millis(milliseconds),
            context_after: text("CUDA_STAND_IN_CONTEXT_AFTER").map(PathBuf::from),
            failures: text("CUDA_STAND_IN_FAIL").map(|list| failures(&list)).unwrap_or_default(),
            flip: number("CUDA_STAND_IN_FLIP"),
            log: text("CUDA_STAND_IN_LOG").map(|path| open(&path)),
            gds: gds(),
        }
    }

    /// The failure that is injected into the `count`-th call of `function`.
    pub(crate) fn failure(&self, function: &str, count: u64, at_run: bool) -> Option<u32> {
        let wanted = |failure: &&Failure| {
            failure.function == function
                && failure.at_run == at_run
                && failure.nth.is_none_or(|nth| nth == count)
        };
        self.failures.iter().find(wanted).map(|failure| failure.result)
    }
}

fn text(name: &str) -> Option<String> {
    env::var(name).ok().filter(|text| !text.is_empty())
}

fn number(name: &str) -> Option<u64> {
    let text = text(name)?;
    Some(text.parse().unwrap_or_else(|_| alarm!("{name}={text} is not a number")))
}

fn open(path: &str) -> File {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.unwrap_or_else(|error| alarm!("CUDA_STAND_IN_LOG={path}: {error}"))
}

fn gds() -> Gds {
    match text("CUDA_STAND_IN_GDS").as_deref() {
        None | Some("off") => Gds::Off,
        Some("compat") => Gds::Compatible,
        Some("on") => Gds::On,
        Some(other) => alarm!("CUDA_STAND_IN_GDS={other} is none of off, compat, on"),
    }
}

fn failures(list: &str) -> Vec<Failure> {
    list.split(',').map(str::trim).filter(|order| !order.is_empty()).map(failure).collect()
}

fn failure(order: &str) -> Failure {
    parse(order).unwrap_or_else(|| {
        alarm!("CUDA_STAND_IN_FAIL: {order:?} is not `function:nth:ERROR_NAME` of a known function")
    })
}

fn parse(order: &str) -> Option<Failure> {
    let [function, nth, result] = order.split(':').collect::<Vec<_>>().try_into().ok()?;
    let (function, at_run) = match function.strip_suffix("@run") {
        Some(function) => (function, true),
        None => (function, false),
    };
    if !FUNCTIONS.contains(&function) || (at_run && !ASYNCHRONOUS.contains(&function)) {
        return None;
    }
    // Callers convert the results of each library to an enum that lacks those of the other.
    if function.starts_with("cuFile") != result.starts_with("CU_FILE_") {
        return None;
    }
    let nth = if nth == "*" { None } else { Some(nth.parse().ok()?) };
    Some(Failure { function: function.to_owned(), nth, result: by_name(result)?, at_run })
}

/// The functions whose work may fail after they returned.
const ASYNCHRONOUS: &[&str] = &[
    "cuLaunchKernel",
    "cuMemcpyDtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemsetD8Async",
];

/// The functions into which failures can be injected: all except those that describe errors.
const FUNCTIONS: &[&str] = &[
    "cuCtxGetCurrent",
    "cuCtxPopCurrent_v2",
    "cuCtxPushCurrent_v2",
    "cuCtxSetCurrent",
    "cuCtxSynchronize",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDeviceGetPCIBusId",
    "cuDevicePrimaryCtxGetState",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDeviceTotalMem_v2",
    "cuDriverGetVersion",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventElapsedTime",
    "cuEventQuery",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuFileBufDeregister",
    "cuFileBufRegister",
    "cuFileDriverClose",
    "cuFileDriverClose_v2",
    "cuFileDriverGetProperties",
    "cuFileDriverOpen",
    "cuFileHandleRegister",
    "cuFileRead",
    "cuFuncSetAttribute",
    "cuInit",
    "cuLaunchKernel",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemGetInfo_v2",
    "cuMemHostRegister_v2",
    "cuMemHostUnregister",
    "cuMemcpyDtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyDtoH_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyHtoD_v2",
    "cuMemsetD8Async",
    "cuMemsetD8_v2",
    "cuModuleGetFunction",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuPointerGetAttribute",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamQuery",
    "cuStreamSynchronize",
    "cuStreamWaitEvent",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{CU_FILE_IO_NOT_SUPPORTED, CUDA_ERROR_ILLEGAL_ADDRESS};

    #[test]
    fn failures_are_read() {
        let order = parse("cuMemcpyHtoDAsync_v2@run:3:CUDA_ERROR_ILLEGAL_ADDRESS").unwrap();
        assert_eq!((order.nth, order.at_run), (Some(3), true));
        assert_eq!(order.result, CUDA_ERROR_ILLEGAL_ADDRESS);
        let order = parse("cuFileRead:*:CU_FILE_IO_NOT_SUPPORTED").unwrap();
        assert_eq!((order.nth, order.at_run), (None, false));
        assert_eq!(order.result, CU_FILE_IO_NOT_SUPPORTED);
    }

    #[test]
    fn failures_that_would_never_come_are_refused() {
        for order in [
            "cuMemAlloc:1:CUDA_ERROR_OUT_OF_MEMORY",
            "cuMemAlloc_v2:first:CUDA_ERROR_OUT_OF_MEMORY",
            "cuMemAlloc_v2:1:CUDA_ERROR_OUT_OF_MEMROY",
            "cuMemAlloc_v2:1:CUDA_SUCCESS",
            "cuMemAlloc_v2@run:1:CUDA_ERROR_OUT_OF_MEMORY",
            "cuMemAlloc_v2:1:CU_FILE_IO_NOT_SUPPORTED",
            "cuMemAlloc_v2:1",
        ] {
            assert!(parse(order).is_none(), "{order}");
        }
    }
}
