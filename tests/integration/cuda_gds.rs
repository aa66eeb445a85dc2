//! Loads through GPUDirect Storage, on the stand-in for cuFile: the tensors, when this path is
//! used, and the behaviour if cuFile fails. `cuda_seeds` has loads of every shape, and dropped and
//! failing ones.
//!
//! Hazards: a short read that is taken for a complete one; a failure during the load; a machine
//! where cuFile runs in compatibility mode; a file that changes; a load that silently takes another
//! path.

use crate::common::child::passes_in_a_child;
use crate::common::command::{digest_lines, ringload, run, sha256};
use crate::common::stand_in::stand_in;
use crate::common::{Expected, directory, evict, has_direct_io, skip, write};
use nix::sys::statfs::{EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, statfs};
use ringload::internals::resident_bytes;
use ringload::{Device, ErrorKind, Loader, ReadPath};
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::process::Command;

const GDS: [&str; 4] = ["--device", "cuda", "--read-path", "gds"];
const ON: [(&str, &str); 1] = [("CUDA_STAND_IN_GDS", "on")];

/// A checkpoint of two shards, mostly large tensors.
struct Model {
    directory: tempfile::TempDir,
    tensors: Vec<Expected>,
}

impl Model {
    /// `None` if the file system does not support direct I/O.
    fn new() -> Option<Self> {
        let directory = directory();
        if !has_direct_io(directory.path()) {
            skip("no direct I/O here");
            return None;
        }
        let sizes = [3_000_000, 4096, 256, 0, 77, 1_000_001, 9_000_000, 12];
        let tensors: Vec<_> = sizes
            .iter()
            .enumerate()
            .map(|(i, &size)| Expected::of_bytes(format!("layer.{i}"), size, i as u64))
            .collect();
        write(&directory.path().join("a.safetensors"), &tensors[..4], None);
        write(&directory.path().join("b.safetensors"), &tensors[4..], None);
        Some(Self { directory, tensors })
    }

    /// `ringload load` of the model, with a working cuFile.
    fn load(&self, arguments: &[&str]) -> Command {
        let mut command = ringload();
        command.env("LD_LIBRARY_PATH", stand_in()).envs(ON);
        command.arg("load").arg(self.directory.path()).args(arguments);
        command
    }

    /// The report of `command`, which has to load every byte.
    #[track_caller]
    fn report(&self, command: &mut Command) -> Value {
        let report = run(command.args(["--json", "--digest"])).json();
        for tensor in &self.tensors {
            let name = &tensor.name;
            assert_eq!(report["digests"][name], sha256(&tensor.bytes), "{name}: {command:?}");
        }
        report
    }

    /// The only downgrade of a load that loads every byte, as `from -> to: why`.
    #[track_caller]
    fn step(&self, command: &mut Command) -> String {
        let report = self.report(command);
        let steps = report["downgrades"].as_array().unwrap();
        assert_eq!(steps.len(), 1, "{steps:?}");
        let word = |name: &str| steps[0][name].as_str().unwrap().to_owned();
        format!("{} -> {}: {}", word("from"), word("to"), word("why"))
    }
}

#[test]
fn every_byte_arrives_straight_from_the_file() {
    let Some(model) = Model::new() else { return };
    let variants = [
        &[][..],
        &["--engines", "1"],
        &["--engines", "3", "--drop"],
        &["--memory-limit", "4MiB"],
        &["--device-map", "layer.[0-4]=cuda:1"],
    ];
    for seed in 0..30_usize {
        let mut command = model.load(&GDS);
        command.args(variants[seed % variants.len()]).env("CUDA_STAND_IN_SEED", seed.to_string());
        let report = model.report(&mut command);
        assert_eq!(report["read_path"], "gds", "{report}");
        assert_eq!(report["backend"], "none");
        assert_eq!(report["ring_bytes"], 0);
        assert_eq!(report["downgrades"].as_array().unwrap().len(), 0, "{report}");
    }
    let text = run(&mut model.load(&GDS)).quiet_success();
    assert!(text.contains(" to cuda:0 in ") && text.contains(", gds, "), "{text}");
    let digests = run(model.load(&GDS).arg("--digest")).quiet_success();
    assert_eq!(digests, digest_lines(&model.tensors));
}

#[test]
fn where_cufile_does_not_work_the_ring_is_used_and_the_reason_reported() {
    let Some(model) = Model::new() else { return };
    for (variable, value, why) in [
        ("CUDA_STAND_IN_GDS", "off", "cuFileDriverOpen failed with 5001"),
        ("CUDA_STAND_IN_GDS", "compat", "compatibility mode"),
        ("CUDA_STAND_IN_FAIL", "cuFileDriverOpen:1:CU_FILE_NVFS_DRIVER_ERROR", "5010"),
        (
            "CUDA_STAND_IN_FAIL",
            "cuFileHandleRegister:1:CU_FILE_IO_NOT_SUPPORTED",
            "this file system",
        ),
        (
            "CUDA_STAND_IN_FAIL",
            "cuFileRead:1:CU_FILE_IO_NOT_SUPPORTED",
            "cuFileRead failed with 5008",
        ),
    ] {
        let step = model.step(model.load(&GDS).env(variable, value));
        assert!(step.starts_with("gds -> ring: ") && step.contains(why), "{value}: {step}");
    }
    // The driver without cuFile's library.
    let folder = model.directory.path().join("driver");
    fs::create_dir(&folder).unwrap();
    symlink(stand_in().join("libcuda.so"), folder.join("libcuda.so")).unwrap();
    let step = model.step(model.load(&GDS).env("LD_LIBRARY_PATH", folder));
    assert!(step.contains("install NVIDIA's libcufile"), "{step}");
}

#[test]
fn loads_that_gds_does_not_support_use_the_ring() {
    let Some(model) = Model::new() else { return };
    for (arguments, why) in [
        (&["--read-path", "gds"][..], "no tensor goes to a GPU"),
        (
            &[&GDS[..], &["--device-map", "layer.1=cpu"]].concat(),
            "some tensors stay in host memory",
        ),
        (&[&GDS[..], &["--verify"]].concat(), "--verify compares"),
    ] {
        let step = model.step(&mut model.load(arguments));
        assert!(step.starts_with("gds -> ring: ") && step.contains(why), "{step}");
    }
    let tiny = directory();
    let tensors: Vec<_> = (0..300).map(|i| Expected::of_bytes(format!("t{i}"), 77, i)).collect();
    write(&tiny.path().join("a.safetensors"), &tensors, None);
    let load = |arguments: &[&str]| {
        let mut command = ringload();
        command.env("LD_LIBRARY_PATH", stand_in()).envs(ON);
        command.arg("load").arg(tiny.path()).args(GDS).args(arguments);
        run(&mut command).quiet_success()
    };
    let text = load(&[]);
    assert!(text.contains("gds -> ring: the tensors would come in 300 parts of 77 "), "{text}");
    assert_eq!(load(&["--digest"]), digest_lines(&tensors));
    let floats = [Expected::new("w", ringload::Dtype::F32, &[1 << 20], 1)];
    write(&tiny.path().join("a.safetensors"), &floats, None);
    let text = load(&["--dtype", "bf16"]);
    assert!(text.contains("gds -> ring: tensors are cast"), "{text}");
}

#[test]
fn reads_that_cufile_refuses_during_a_load_go_through_the_page_cache() {
    let Some(model) = Model::new() else { return };
    for (failure, why) in [
        // The first call of each function belongs to the probe.
        ("cuFileRead:2:CU_FILE_IO_NOT_SUPPORTED", "cuFileRead failed with 5008"),
        ("cuFileRead:5:CU_FILE_INTERNAL_ERROR", "cuFileRead failed with 5030"),
        (
            "cuFileHandleRegister:2:CU_FILE_PERMISSION_DENIED",
            "cuFileHandleRegister failed with 5025",
        ),
        (
            "cuFileHandleRegister:3:CU_FILE_PERMISSION_DENIED",
            "cuFileHandleRegister failed with 5025",
        ),
    ] {
        for limit in ["unlimited", "4MiB"] {
            let mut command = model.load(&GDS);
            command.args(["--memory-limit", limit]).env("CUDA_STAND_IN_FAIL", failure);
            let step = model.step(&mut command);
            assert!(step.starts_with("gds -> buffered: "), "{step}");
            assert!(step.contains(why) && step.contains(".safetensors: "), "{step}");
        }
    }
}

#[test]
fn too_little_memory_names_both_figures() {
    let Some(model) = Model::new() else { return };
    let mut command = model.load(&GDS);
    let error = run(command.env("CUDA_STAND_IN_MEMORY", "2000000")).failure().replace('\n', " ");
    assert!(
        error.contains("cuda:0: the tensors need 12.40 MiB (13") && error.contains("2000000"),
        "{error}"
    );
}

#[test]
fn a_file_that_shrinks_or_is_replaced_in_mid_load_is_an_error() {
    const NAME: &str = "cuda_gds::a_file_that_shrinks_or_is_replaced_in_mid_load_is_an_error";
    if !passes_in_a_child(NAME, &ON) {
        return;
    }
    let directory = directory();
    if !has_direct_io(directory.path()) {
        return skip("no direct I/O here");
    }
    let path = directory.path().join("a.safetensors");
    let tensors: Vec<_> =
        (0..8).map(|i| Expected::of_bytes(format!("t{i}"), 10_000_000, i)).collect();
    let cut = |len| File::options().write(true).open(&path).unwrap().set_len(len).unwrap();
    let loader = Loader::new().device(Device::cuda(0)).read_path(ReadPath::Gds).engines(1);
    for len in [9_000_000, 90_000_000] {
        // The load may end before the change.
        let changed = (0..20).any(|_| {
            write(&path, &tensors, None);
            let mut stream = loader.stream(path.as_path()).unwrap();
            drop(stream.next().unwrap().unwrap());
            cut(len);
            let error = stream.find_map(Result::err);
            assert!(error.as_ref().is_none_or(|e| e.kind() == ErrorKind::Changed), "{error:?}");
            error.is_some()
        });
        assert!(changed, "no load saw the change");
    }
    // Replaced after its header was read.
    write(&path, &tensors, None);
    let checkpoint = loader.open(path.as_path()).unwrap();
    let other = directory.path().join("other");
    fs::copy(&path, &other).unwrap();
    fs::rename(&other, &path).unwrap();
    let error = loader.load_checkpoint(checkpoint.into()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changed, "{error:?}");
}

#[test]
fn auto_takes_it_where_it_was_seen_working_and_is_worth_it() {
    const NAME: &str = "cuda_gds::auto_takes_it_where_it_was_seen_working_and_is_worth_it";
    if !passes_in_a_child(NAME, &ON) {
        return;
    }
    let directory = directory();
    let file_system = statfs(directory.path()).unwrap().filesystem_type();
    if ![EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC].contains(&file_system) {
        return skip("neither ext4 nor XFS here");
    }
    // A sparse file.
    let path = directory.path().join("a.safetensors");
    let len = 260 << 20;
    let header = format!(r#"{{"w":{{"dtype":"U8","shape":[{len}],"data_offsets":[0,{len}]}}}}"#);
    fs::write(&path, crate::common::raw_file(&header, b"front")).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len((8 + header.len() + len) as u64).unwrap();
    let machine = directory.path().join("machine");
    fs::create_dir_all(machine.join("proc/driver/nvidia-fs")).unwrap();
    let loader = Loader::new().device(Device::cuda(0)).system_root(&machine);
    let way = |loader: &Loader| {
        let loaded = loader.load(path.as_path()).unwrap();
        let bytes = loaded.get("w").unwrap().to_vec().unwrap();
        assert!(bytes.starts_with(b"front") && bytes[5..].iter().all(|&byte| byte == 0));
        assert_eq!(loaded.summary().downgrades, []);
        loaded.summary().read_path()
    };
    evict(&path);
    if resident_bytes(&file, 0, len as u64).unwrap() > 0 {
        return skip("the page cache keeps what it has");
    }
    assert_eq!(way(&loader), "gds");
    // A machine that is short of memory may have dropped some of what cuFile's stand-in read.
    drop(fs::read(&path).unwrap());
    assert_eq!(way(&loader), "buffered");
    evict(&path);
    assert_ne!(way(&loader.clone().system_root("/nowhere")), "gds");
}

#[test]
fn doctor_tells_whether_cufile_is_ready() {
    let doctor = |gds: &str| {
        let mut command = ringload();
        command.env("LD_LIBRARY_PATH", stand_in()).env("CUDA_STAND_IN_GDS", gds).arg("doctor");
        run(&mut command).quiet_success()
    };
    assert!(doctor("on").contains("cuFile is ready"));
    let compatible = doctor("compat");
    assert!(
        compatible.contains("loads to GPUs go through host memory: cuFile is in compat"),
        "{compatible}"
    );
}
