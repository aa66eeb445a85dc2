//! Loads to GPUs with the command, on the driver's stand-in: the tensors, the messages, and the
//! behaviour if the GPU fails or is out of memory.
//!
//! Hazards: corrupt bytes that go unnoticed; a GPU whose memory fills up during the load; a machine
//! without a driver, without GPUs or without pinned memory; a limit below the largest tensor; an
//! option that has no effect.

use crate::common::command::{Finished, digest_lines, finish, ringload, run, start};
use crate::common::stand_in::stand_in;
use crate::common::{Expected, directory, until, write};
use ringload::Dtype;
use std::path::PathBuf;
use std::process::Command;

/// A checkpoint of two shards.
struct Model {
    directory: tempfile::TempDir,
    tensors: Vec<Expected>,
}

impl Model {
    fn new() -> Self {
        let directory = directory();
        let first: Vec<_> = [3_000_000, 4096, 256, 0, 77, 1_000_001]
            .iter()
            .enumerate()
            .map(|(i, &size)| Expected::of_bytes(format!("layer.{i}"), size, i as u64))
            .collect();
        // Many small tensors, whose lengths give each another alignment than the next.
        let second: Vec<_> = (0..300_u64)
            .map(|i| Expected::new(format!("bias.{i}"), Dtype::F16, &[i as usize % 50], i))
            .collect();
        write(&directory.path().join("a.safetensors"), &first, None);
        write(&directory.path().join("b.safetensors"), &second, None);
        Self { directory, tensors: first.into_iter().chain(second).collect() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    fn bytes(&self) -> u64 {
        self.tensors.iter().map(|tensor| tensor.bytes.len() as u64).sum()
    }

    /// `ringload load` of the model, with a driver.
    fn load(&self, arguments: &[&str]) -> Command {
        let mut command = on_the_stand_in();
        command.arg("load").arg(self.path()).args(arguments);
        command
    }

    /// Loads the model and compares every byte.
    #[track_caller]
    fn comes_out_right(&self, arguments: &[&str]) {
        let output = run(self.load(arguments).arg("--digest")).quiet_success();
        assert_eq!(output, digest_lines(&self.tensors), "{arguments:?}");
    }
}

fn on_the_stand_in() -> Command {
    let mut command = ringload();
    command.env("LD_LIBRARY_PATH", stand_in());
    command
}

/// The error as one line.
fn one_line(finished: Finished) -> String {
    finished.failure().replace('\n', " ")
}

#[test]
fn every_byte_arrives_whatever_the_options() {
    let model = Model::new();
    for arguments in [
        &["--device", "cuda"][..],
        &["--device", "cuda:1", "--memory-limit", "min"],
        &["--device", "cuda:0", "--memory-limit", "147456"],
        &["--device", "cuda:0", "--drop"],
        &["--device", "cuda:0", "--verify"],
        &["--device", "cuda:0", "--engines", "3", "--read-path", "direct"],
        &["--device", "cuda:0", "--device-map", "layer.*=cuda:1"],
        &["--device", "cuda:0", "--device-map", "layer.[01]=cpu", "--device-map", "bias.*=cuda:1"],
        &["--device-map", "bias.*=cuda", "--memory-limit", "4MiB"],
    ] {
        model.comes_out_right(arguments);
    }
}

/// Casts on the GPU give the same bits as casts on the host, wherever extents split the tensors.
#[test]
fn a_gpu_casts_as_the_host_does() {
    let directory = directory();
    let types = [Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::F8_E4M3, Dtype::F8_E5M2, Dtype::I32];
    let sizes = [0, 1, 3, 1000, 70_001, 300_000];
    let tensors: Vec<_> = (0..36)
        .map(|i| {
            let (dtype, size) = (types[i % 6], sizes[i / 6]);
            Expected::new(format!("{dtype:?}.{size}"), dtype, &[size], i as u64)
        })
        .collect();
    write(&directory.path().join("a.safetensors"), &tensors, None);
    for dtype in ["f32", "f16", "bf16"] {
        let load = |arguments: &[&str]| {
            let mut command = on_the_stand_in();
            command.arg("load").arg(directory.path()).args(["--digest", "--dtype", dtype]);
            run(command.args(arguments)).quiet_success()
        };
        let on_host = load(&[]);
        assert_ne!(on_host, digest_lines(&tensors));
        for limit in ["unlimited", "min", "147456"] {
            let on_device = load(&["--device", "cuda", "--memory-limit", limit]);
            assert_eq!(on_device, on_host, "{dtype} {limit}");
        }
        assert_eq!(load(&["--device", "cuda", "--verify"]), on_host);
        assert_eq!(load(&["--device", "cuda", "--device-map", "F16*=cpu"]), on_host);
    }
}

#[test]
fn the_report_says_where_the_bytes_went() {
    let model = Model::new();
    let report = run(&mut model.load(&["--device", "cuda:1", "--json"])).json();
    assert_eq!(report["device_bytes"]["cuda:1"], model.bytes());
    assert_eq!(report["tensors"], 306);
    let text = run(&mut model.load(&["--device", "cuda:1", "--verify"])).quiet_success();
    assert!(text.contains(" to cuda:1 in "), "{text}");
    assert!(
        text.contains("3.83 MiB verified to be the same on the GPUs as in host memory"),
        "{text}"
    );
    let map = ["--device", "cuda", "--device-map", "bias.*=cpu", "--json"];
    let report = run(&mut model.load(&map)).json();
    let bias: u64 = (0..300).map(|i| i % 50 * 2).sum();
    assert_eq!(report["device_bytes"]["cpu"], bias);
    assert_eq!(report["device_bytes"]["cuda:0"], model.bytes() - bias);
    assert_eq!(report["verified_device_bytes"], 0);
}

/// The first copy goes wrong. (A flipped bit in a list of pieces, which is copied too, would raise
/// the stand-in's alarm instead.)
#[test]
fn a_bit_that_flips_on_the_way_is_found_by_verifying() {
    let model = Model::new();
    let arguments = ["--device", "cuda", "--verify", "--tensors", "layer.*"];
    let refused = run(&mut model.load(&arguments)).failure();
    assert!(refused.contains("--verify needs all tensors"), "{refused}");
    let mut first = on_the_stand_in();
    first.arg("load").arg(model.path().join("a.safetensors")).args(["--device", "cuda"]);
    first.env("CUDA_STAND_IN_FLIP", "1");
    run(&mut first).quiet_success(); // unnoticed without --verify
    let error = one_line(run(first.arg("--verify")));
    assert!(
        error.contains("checksum of bytes ") && error.contains("a.safetensors on the GPU"),
        "{error}"
    );
    assert!(error.contains("nvidia-smi"), "{error}");
}

#[test]
fn too_little_memory_names_both_figures_before_anything_is_copied() {
    let model = Model::new();
    let log = model.directory.path().join("calls");
    let mut command = model.load(&["--device", "cuda:0"]);
    command.env("CUDA_STAND_IN_MEMORY", "2000000").env("CUDA_STAND_IN_LOG", &log);
    let error = one_line(run(&mut command));
    assert!(
        error.contains("cuda:0: the tensors need 3.89 MiB (4") && error.contains("2000000 "),
        "{error}"
    );
    assert!(error.contains("for staging") && error.contains("device map"), "{error}");
    let calls = std::fs::read_to_string(log).unwrap();
    assert!(calls.contains("cuMemGetInfo") && !calls.contains("cuMemcpy"), "{calls}");
}

#[test]
fn memory_that_is_taken_in_between_is_an_error_too() {
    let model = Model::new();
    let mut command = model.load(&["--device", "cuda:0"]);
    command.env("CUDA_STAND_IN_FAIL", "cuMemAlloc_v2:*:CUDA_ERROR_OUT_OF_MEMORY");
    let error = one_line(run(&mut command));
    assert!(error.contains("cuda:0: cannot allocate"), "{error}");
    assert!(error.contains("too little free memory (CUDA_ERROR_OUT_OF_MEMORY)"), "{error}");
}

#[test]
fn where_memory_cannot_be_pinned_it_is_copied_all_the_same_and_said() {
    let model = Model::new();
    for verify in [&["--verify"][..], &[]] {
        let mut command = model.load(&["--device", "cuda:0", "--json", "--digest"]);
        command.args(verify);
        command.env("CUDA_STAND_IN_FAIL", "cuMemHostRegister_v2:*:CUDA_ERROR_NOT_PERMITTED");
        let report = run(&mut command).json();
        let step = &report["downgrades"][0];
        assert_eq!((&step["from"], &step["to"]), (&"pinned".into(), &"pageable".into()));
        assert!(step["why"].as_str().unwrap().contains("CUDA_ERROR_NOT_PERMITTED"), "{step}");
        for tensor in &model.tensors {
            let sum = crate::common::command::sha256(&tensor.bytes);
            assert_eq!(report["digests"][&tensor.name], sum, "{}", tensor.name);
        }
    }
}

/// Each call that a load makes fails in turn. The load must neither hang nor panic, and its error
/// must name the GPU and the call.
#[test]
fn any_call_of_the_driver_that_fails_ends_the_load() {
    let model = Model::new();
    for (call, error) in [
        ("cuInit", "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"),
        ("cuDeviceGet", "CUDA_ERROR_DEVICE_UNAVAILABLE"),
        ("cuDevicePrimaryCtxRetain", "CUDA_ERROR_OUT_OF_MEMORY"),
        ("cuCtxPushCurrent_v2", "CUDA_ERROR_INVALID_CONTEXT"),
        ("cuMemGetInfo_v2", "CUDA_ERROR_INVALID_CONTEXT"),
        ("cuModuleLoadData", "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"),
        ("cuModuleGetFunction", "CUDA_ERROR_NOT_FOUND"),
        ("cuStreamCreate", "CUDA_ERROR_OUT_OF_MEMORY"),
        ("cuMemcpyHtoDAsync_v2", "CUDA_ERROR_INVALID_VALUE"),
        ("cuMemcpyHtoDAsync_v2@run", "CUDA_ERROR_ILLEGAL_ADDRESS"),
        ("cuLaunchKernel", "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"),
        ("cuLaunchKernel@run", "CUDA_ERROR_LAUNCH_FAILED"),
        ("cuEventCreate", "CUDA_ERROR_OUT_OF_MEMORY"),
        ("cuEventRecord", "CUDA_ERROR_ECC_UNCORRECTABLE"),
        ("cuEventSynchronize", "CUDA_ERROR_ECC_UNCORRECTABLE"),
    ] {
        let mut command = model.load(&["--device", "cuda:0"]);
        command.env("CUDA_STAND_IN_FAIL", format!("{call}:1:{error}"));
        let finished = run(&mut command);
        finished.assert_no_panic();
        let report = one_line(finished);
        assert!(report.starts_with("error: cuda:0: cannot "), "{call}: {report}");
        assert!(report.contains(error), "{call}: {report}");
    }
}

#[test]
fn without_a_driver_or_a_gpu_the_error_says_what_to_do() {
    let model = Model::new();
    let mut command = ringload();
    command.arg("load").arg(model.path()).args(["--device", "cuda:1"]);
    let empty = model.directory.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    if !has_driver() {
        let error = one_line(run(command.env("LD_LIBRARY_PATH", &empty)));
        assert!(error.contains("cuda:1: no CUDA driver (libcuda.so.1)"), "{error}");
        assert!(error.contains("load to cpu"), "{error}");
    }
    let mut command = model.load(&["--device", "cuda"]);
    let error = one_line(run(command.env("CUDA_STAND_IN_DEVICES", "0")));
    assert!(error.contains("CUDA_ERROR_NO_DEVICE") && error.contains("CUDA_VISIBLE"), "{error}");
    let error = one_line(run(&mut model.load(&["--device", "cuda:9"])));
    assert!(error.contains("cuda:9: ") && error.contains("no GPU has this number"), "{error}");
}

/// Whether this machine has NVIDIA's own driver.
fn has_driver() -> bool {
    std::path::Path::new("/proc/driver/nvidia/version").exists()
}

#[test]
fn wrong_devices_and_limits_are_refused() {
    let model = Model::new();
    let wrong = run(&mut model.load(&["--device", "gpu"])).wrong_usage();
    assert!(wrong.contains("\"gpu\" is not a device; use cpu, cuda or cuda:N"), "{wrong}");
    let wrong = run(&mut model.load(&["--device-map", "layer"])).wrong_usage();
    assert!(wrong.contains("use GLOB=DEVICE"), "{wrong}");
    let glob = run(&mut model.load(&["--device-map", "[=cuda"])).wrong_usage();
    assert!(glob.contains("\"[\" is not a valid glob"), "{glob}");
    let limit = run(&mut model.load(&["--device", "cuda", "--memory-limit", "100000"])).failure();
    assert!(limit.contains("100000 bytes") && limit.contains("at least 144 KiB"), "{limit}");
    let mapped = ["--device", "cuda", "--read-path", "mapped"];
    let mapped = run(&mut model.load(&mapped)).failure();
    assert!(mapped.contains("cannot load them to a GPU"), "{mapped}");
}

/// Whether the process has a thread of this name.
fn has_thread(process: u32, name: &str) -> bool {
    let names = glob::glob(&format!("/proc/{process}/task/*/comm")).unwrap();
    let mut names = names.flatten().flat_map(std::fs::read_to_string);
    names.any(|found| found.trim_end() == name)
}

#[test]
fn a_file_that_shrinks_while_its_tensors_go_to_a_gpu_is_an_error() {
    let directory = directory();
    let path = directory.path().join("a.safetensors");
    write(&path, &[Expected::of_bytes("w", 30_000_000, 1)], None);
    let whole = std::fs::read(&path).unwrap();
    let mut command = on_the_stand_in();
    command.arg("load").arg(&path).args(["--device", "cuda", "--memory-limit", "min"]);
    // Until there is a context, the ring is full and most of the file is not read yet.
    let shrunk = directory.path().join("shrunk");
    command.env("CUDA_STAND_IN_CONTEXT_AFTER", &shrunk);
    let child = start(&mut command);
    until("the load begins", || has_thread(child.id(), "ringload-0"));
    std::fs::write(&path, &whole[..20_000_000]).unwrap();
    std::fs::write(shrunk, "").unwrap();
    let error = finish(child).failure();
    assert!(error.contains("a.safetensors") && error.contains("load it again"), "{error}");
}

#[test]
fn doctor_lists_the_gpus() {
    let output = run(on_the_stand_in().arg("doctor")).quiet_success();
    assert!(output.contains("CUDA 12.2, 2 GPUs"), "{output}");
    assert!(output.contains("cuda:1: CUDA stand-in, 1.00 GiB, at "), "{output}");
}
