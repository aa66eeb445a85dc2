//! Loads to GPUs with the crate, on the driver's stand-in: the owners and lifetimes of resources.
//!
//! Each test runs in its own child process, which finds the stand-in through its library path. The
//! stand-in aborts the process if a resource is used incorrectly or leaked.

use crate::common::child::passes_in_a_child;
use crate::common::{Expected, directory, write};
use ringload::{Allocation, Device, ErrorKind, Loader, MemoryLimit, ReadRequest, Tensor};
use std::env;
use std::fs;
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

/// Set in child processes: the directory that contains the checkpoint.
const DIRECTORY: &str = "RINGLOAD_TEST_CUDA_DIRECTORY";

/// Returns the checkpoint's directory in a child process. Otherwise runs `test` in a child process
/// and returns `None`.
fn in_a_child(test: &str, variables: &[(&str, &str)]) -> Option<PathBuf> {
    if let Some(directory) = env::var_os(DIRECTORY) {
        return Some(directory.into());
    }
    let directory = directory();
    write(&directory.path().join("a.safetensors"), &tensors(), None);
    let log = log(directory.path());
    let own = [
        (DIRECTORY, directory.path().to_str().unwrap()),
        ("CUDA_STAND_IN_LOG", log.to_str().unwrap()),
    ];
    passes_in_a_child(test, &[&own, variables].concat());
    None
}

fn tensors() -> Vec<Expected> {
    let sizes = [1_000_000, 4096, 300_000, 0, 77];
    let tensor = |(i, &size): (usize, &usize)| Expected::of_bytes(format!("t{i}"), size, i as u64);
    sizes.iter().enumerate().map(tensor).collect()
}

fn log(directory: &Path) -> PathBuf {
    directory.join("calls.log")
}

/// The number of calls of the driver's function so far.
fn calls(directory: &Path, function: &str) -> usize {
    let log = fs::read_to_string(log(directory)).unwrap_or_default(); // none before the first call
    log.lines().filter(|line| line.split_whitespace().any(|word| word == function)).count()
}

fn checkpoint(directory: &Path) -> PathBuf {
    directory.join("a.safetensors")
}

fn loader() -> Loader {
    Loader::new().memory_limit(MemoryLimit::Unlimited).device(Device::cuda(0))
}

fn is_right(tensor: &Tensor) -> bool {
    let expected = tensors().into_iter().find(|expected| expected.name == tensor.name());
    tensor.to_vec().unwrap() == expected.unwrap().bytes
}

#[test]
fn a_loader_keeps_its_pinned_ring_for_the_next_load_and_lets_it_go_with_itself() {
    let name =
        "cuda_crate::a_loader_keeps_its_pinned_ring_for_the_next_load_and_lets_it_go_with_itself";
    let Some(directory) = in_a_child(name, &[]) else { return };
    let loader = loader();
    for _ in 0..3 {
        assert!(loader.load(checkpoint(&directory)).unwrap().iter().all(is_right));
    }
    assert_eq!(calls(&directory, "cuMemHostRegister_v2"), 1);
    assert_eq!(calls(&directory, "cuMemHostUnregister"), 0);
    // A limit below the ring's size cannot use it.
    let capped = loader.clone().memory_limit(MemoryLimit::Bytes(200_000));
    assert!(capped.load(checkpoint(&directory)).unwrap().iter().all(is_right));
    assert_eq!(calls(&directory, "cuMemHostRegister_v2"), 2);
    assert_eq!(calls(&directory, "cuMemHostUnregister"), 1);
    drop((loader, capped));
    assert_eq!(calls(&directory, "cuMemHostUnregister"), 2);
    let (retained, released) = ("cuDevicePrimaryCtxRetain", "cuDevicePrimaryCtxRelease_v2");
    assert_eq!(calls(&directory, retained), calls(&directory, released));
}

#[test]
fn tensors_outlive_stream_and_loader_and_may_be_dropped_on_any_thread() {
    let name = "cuda_crate::tensors_outlive_stream_and_loader_and_may_be_dropped_on_any_thread";
    let Some(directory) = in_a_child(name, &[]) else { return };
    let kept: Vec<Tensor> = {
        let mut stream = loader().stream(checkpoint(&directory)).unwrap();
        stream.by_ref().map(Result::unwrap).collect()
    };
    assert!(kept.iter().all(is_right));
    for tensor in &kept {
        assert_eq!(tensor.device(), Device::cuda(0));
        assert!(tensor.host_bytes().is_none() || tensor.len_bytes() == 0);
        assert_eq!(tensor.address() % 256, 0);
    }
    let panic = std::panic::catch_unwind(AssertUnwindSafe(|| kept[0].bytes().len()));
    let text = *panic.unwrap_err().downcast::<String>().unwrap();
    assert!(text.contains("is on cuda:0, not in host memory"), "{text}");
    let threads = kept.into_iter().map(|tensor| std::thread::spawn(move || drop(tensor)));
    threads.for_each(|thread| thread.join().unwrap());
    assert_eq!(calls(&directory, "cuMemFree_v2"), calls(&directory, "cuMemAlloc_v2"));
}

#[test]
fn an_allocation_goes_with_its_last_tensor() {
    let name = "cuda_crate::an_allocation_goes_with_its_last_tensor";
    let Some(directory) = in_a_child(name, &[]) else { return };
    let freed = |allocation: Allocation| {
        let before = calls(&directory, "cuMemFree_v2");
        let loaded = loader().allocation(allocation).load(checkpoint(&directory)).unwrap();
        let mut tensors: Vec<_> = loaded.into_iter().filter(|t| t.len_bytes() > 0).collect();
        let last = tensors.pop().unwrap();
        drop(tensors);
        let while_one_is_left = calls(&directory, "cuMemFree_v2") - before;
        assert!(is_right(&last));
        drop(last);
        (while_one_is_left, calls(&directory, "cuMemFree_v2") - before)
    };
    assert_eq!(freed(Allocation::PerShard), (0, 1));
    assert_eq!(freed(Allocation::PerTensor), (3, 4));
}

/// 1,000,000 + 4096 + 300,000 + 77 bytes, each aligned to 256 bytes; nothing is staged.
#[test]
fn the_gpu_needs_no_more_memory_than_the_tensors() {
    const NEEDED: &str = "1304576";
    let name = "cuda_crate::the_gpu_needs_no_more_memory_than_the_tensors";
    let Some(directory) = in_a_child(name, &[("CUDA_STAND_IN_MEMORY", NEEDED)]) else { return };
    let loaded = loader().load(checkpoint(&directory)).unwrap();
    assert!(loaded.iter().all(is_right));
    let error = loader().load(checkpoint(&directory)).unwrap_err(); // while the first is there
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    let text = error.to_string();
    let expected = format!("need 1.24 MiB ({NEEDED} bytes) and 0 bytes of");
    assert!(text.contains(&expected), "{text}");
}

#[test]
fn lent_addresses_are_checked_before_they_are_written_to() {
    let name = "cuda_crate::lent_addresses_are_checked_before_they_are_written_to";
    let Some(directory) = in_a_child(name, &[]) else { return };
    let path = checkpoint(&directory);
    let loaded = loader().load(path.as_path()).unwrap();
    let target = loaded.get("t0").unwrap().clone();
    let mut host = vec![0_u8; 4096];
    let own = host.as_mut_ptr() as u64;
    let beyond = target.storage().address() + target.storage().len_bytes() as u64;
    let read = |ordinal: u32, offset: u64, address: u64, len: u64| {
        // SAFETY: the memory belongs to the tensor, which lives and is not accessed meanwhile; any
        // other memory has to be rejected.
        #[allow(unsafe_code)]
        let request =
            unsafe { ReadRequest::on_device(path.as_path(), offset, ordinal, address, len) };
        let mut completed = 0;
        let outcome = loader().read_into(&mut [request], |_| {
            completed += 1;
            ControlFlow::Continue(())
        });
        outcome.map(|summary| (completed, summary.bytes))
    };
    for (ordinal, offset, address, len) in [
        (0, 0, own, 4096),
        (1, 0, target.address(), 4096),
        (0, 0, beyond - 100, 4096),
        (0, 0, 0, 1),
        (0, 0, u64::MAX, 2),
        (0, u64::MAX, target.address(), 2),
        (0, 1 << 30, target.address(), 2),
    ] {
        let error = read(ordinal, offset, address, len).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
    assert!(read(7, 0, target.address(), 1).unwrap_err().to_string().contains("cuda:7"));
    assert!(host.iter().all(|&byte| byte == 0));
    assert!(is_right(&target), "written to although refused");
    assert_eq!(read(0, 0, target.address(), 0).unwrap(), (1, 0));
    assert_eq!(read(0, 3, target.address(), 5000).unwrap(), (1, 5000));
    let file = fs::read(&path).unwrap();
    assert_eq!(target.to_vec().unwrap()[..5000], file[3..5003]);
}
