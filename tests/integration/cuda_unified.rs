//! GPUs that share the memory of the host (Jetson, GB10), on the driver's stand-in.
//!
//! On such a machine the driver counts the page cache as used memory. Users of DGX Spark read a model
//! once, so that it was in the page cache, and from then on every load was refused for too little GPU
//! memory, although the kernel drops the page cache when the memory is needed. The system is asked
//! instead; what it does not have is still refused before anything is copied.

use crate::common::child::passes_in_a_child;
use crate::common::{Expected, directory, write};
use ringload::{Device, ErrorKind, Loader};
use std::fs;
use std::path::Path;

/// 64 MiB of memory, and all but 1 MiB of it page cache.
const WARM: [(&str, &str); 2] =
    [("CUDA_STAND_IN_MEMORY", "67108864"), ("CUDA_STAND_IN_PAGE_CACHE", "66060288")];

/// A system with so many KiB available, and a control group with a limit of so many bytes.
fn system(root: &Path, available_kib: u64, limit_bytes: Option<u64>) {
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("proc/meminfo", &format!("MemTotal: 65536 kB\nMemAvailable: {available_kib} kB\n"));
    if let Some(limit) = limit_bytes {
        write("proc/self/cgroup", "0::/\n");
        write("sys/fs/cgroup/memory.max", &format!("{limit}\n"));
        write("sys/fs/cgroup/memory.current", "0\n");
    }
}

#[test]
fn a_warm_page_cache_is_no_reason_to_refuse_and_too_little_memory_is() {
    const NAME: &str =
        "cuda_unified::a_warm_page_cache_is_no_reason_to_refuse_and_too_little_memory_is";
    if !passes_in_a_child(NAME, &WARM) {
        return;
    }
    let directory = directory();
    let path = directory.path().join("a.safetensors");
    let tensor = Expected::of_bytes("a", 8_000_000, 1);
    write(&path, std::slice::from_ref(&tensor), None);
    let load = |available_kib, limit_bytes| {
        let root = tempfile::tempdir_in(directory.path()).unwrap();
        system(root.path(), available_kib, limit_bytes);
        // The ring for the GPU has to fit the control group, too.
        let loader = Loader::new().device(Device::cuda(0)).system_root(root.path());
        let loader = loader.set("memory_limit", "1MiB").unwrap();
        loader.load(path.as_path())
    };
    for (available_kib, limit) in [(60_000, None), (60_000, Some(32 << 20))] {
        let loaded = load(available_kib, limit).unwrap();
        assert!(loaded.get("a").unwrap().to_vec().unwrap() == tensor.bytes);
    }
    let error = load(4_000, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    let sentence = error.to_string();
    assert!(sentence.contains("cuda:0: the tensors need 7.63 MiB (8000000 bytes"), "{sentence}");
    assert!(sentence.contains("3.91 MiB"), "{sentence}");
    assert!(sentence.contains("64 MiB that it shares with the system are free"), "{sentence}");
    let error = load(60_000, Some(4 << 20)).unwrap_err().to_string();
    assert!(error.contains("and 4 MiB of the 4 MiB that it shares"), "{error}");
    let gpus = ringload::gpus().unwrap().0;
    assert!(gpus.iter().all(|gpu| gpu.is_integrated));
}
