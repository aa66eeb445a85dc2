//! Every backend and read path of the fallback chains, under real refusals by the kernel: the bytes
//! must be right with each, and the summary must name the backend in use and the reason.
//!
//! Hazards: containers that forbid io_uring, memory registration, or single operations; file
//! systems without direct I/O; little lockable memory; kernels without cachestat, statx's
//! alignment or madvise's populate; all of these at once; a downgrade that is not reported; a doctor
//! that fails because of what it should diagnose.

use crate::common::command::{digest_lines, of_program, ringload, run};
use crate::common::seccomp::{self, NOBODY, Refuse, SYS_CACHESTAT, can_filter, is_root};
use crate::common::{Expected, directory, evict, has_direct_io, skip, warm, write};
use serde_json::Value;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A checkpoint on a disk, and the expected output of `--digest`.
struct Model {
    directory: tempfile::TempDir,
    path: PathBuf,
    digests: String,
}

impl Model {
    /// 12 MB of tensors in a file that ends in mid-sector; `None` where system calls cannot be refused.
    fn new() -> Option<Self> {
        can_filter().then(|| Self::in_directory(directory()))
    }

    fn in_directory(directory: tempfile::TempDir) -> Self {
        let tensors: Vec<_> = (0..12)
            .map(|i| Expected::of_bytes(format!("layer.{i}"), 1_000_000 + i as usize, i))
            .chain([Expected::of_bytes("empty", 0, 0)])
            .collect();
        let path = directory.path().join("a.safetensors");
        write(&path, &tensors, None);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        evict(&path);
        Model { directory, path, digests: digest_lines(&tensors) }
    }

    /// Loads the checkpoint under `refusals`, checks every byte, and returns the report.
    #[track_caller]
    fn load(&self, refusals: &[Refuse], arguments: &[&str]) -> Value {
        self.load_by(arguments, |command| {
            seccomp::refuse(command, refusals);
        })
    }

    #[track_caller]
    fn load_by(&self, arguments: &[&str], confine: impl FnOnce(&mut Command)) -> Value {
        let mut command = ringload();
        command.arg("load").arg(&self.path).args(["--json", "--digest"]).args(arguments);
        confine(&mut command);
        let report = run(&mut command).json();
        let digests = report["digests"].as_object().unwrap();
        let lines: String = digests
            .iter()
            .map(|(name, sum)| format!("{}  {name}\n", sum.as_str().unwrap()))
            .collect();
        assert_eq!(lines, self.digests);
        report
    }
}

/// The reason of the report's downgrade from `from` to `to`.
#[track_caller]
fn why(report: &Value, from: &str, to: &str) -> String {
    let downgrades = report["downgrades"].as_array().unwrap();
    let mut steps = downgrades.iter().filter(|step| step["from"] == from && step["to"] == to);
    let step = steps.next().unwrap_or_else(|| panic!("{from} -> {to} is not in {report:#}"));
    assert!(steps.next().is_none(), "{from} -> {to} is reported twice: {report:#}");
    step["why"].as_str().unwrap().to_owned()
}

#[track_caller]
fn assert_no_downgrades(report: &Value) {
    assert_eq!(report["downgrades"], Value::Array(Vec::new()), "{report:#}");
}

/// Whether this test can use io_uring.
fn has_io_uring() -> bool {
    let works = ringload::internals::probe_io_uring().is_ok();
    if !works {
        skip("io_uring is not permitted here");
    }
    works
}

#[test]
fn without_io_uring_reads_go_through_pread() {
    let Some(model) = Model::new() else { return };
    for (errno, reason) in [
        (libc::EPERM, "forbidden here (seccomp or kernel.io_uring_disabled)"),
        (libc::ENOSYS, "this kernel does not support it"),
        (libc::ENOMEM, "the locked-memory limit is too low (ulimit -l)"),
        (libc::EMFILE, "the kernel refused"),
    ] {
        for arguments in [
            &[][..],
            &["--memory-limit", "min"],
            &["--memory-limit", "3000000", "--engines", "3"],
            &["--read-path", "direct"],
            &["--read-path", "buffered"],
        ] {
            evict(&model.path);
            let report = model.load(&[Refuse::io_uring(errno)], arguments);
            assert_eq!(report["backend"], "pread", "{report:#}");
            let why = why(&report, "uring", "pread");
            assert!(why.starts_with(&format!("io_uring: {reason}: ")), "{why}");
        }
    }
}

#[test]
fn an_io_uring_that_cannot_be_entered_is_not_used() {
    let Some(model) = Model::new() else { return };
    if !has_io_uring() {
        return;
    }
    // Setting up works, entering does not: the profile permits only one of the calls.
    for errno in [libc::EPERM, libc::ENOSYS] {
        let refusals = [Refuse::call(libc::SYS_io_uring_enter, errno)];
        let report = model.load(&refusals, &[]);
        assert_eq!(report["backend"], "pread", "{report:#}");
        why(&report, "uring", "pread");
    }
}

#[test]
fn without_direct_io_reads_go_through_the_page_cache() {
    let Some(model) = Model::new() else { return };
    for arguments in [&[][..], &["--read-path", "direct"], &["--memory-limit", "min"]] {
        evict(&model.path);
        let report = model.load(&[Refuse::direct_io(libc::EINVAL)], arguments);
        assert_eq!(report["read_path"], "buffered", "{report:#}");
        let why = why(&report, "direct", "buffered");
        assert!(why.contains("Invalid argument"), "{why}");
    }
    // With buffered reads requested, missing direct reads are no downgrade.
    let asked = model.load(&[Refuse::direct_io(libc::EINVAL)], &["--read-path", "buffered"]);
    assert_eq!(asked["read_path"], "buffered");
    assert_no_downgrades(&asked);
}

#[test]
fn without_refusals_the_first_backend_is_used() {
    let Some(model) = Model::new() else { return };
    if !has_io_uring() {
        return;
    }
    let report = model.load(&[], &[]);
    assert_eq!(report["backend"], "uring", "{report:#}");
    assert_no_downgrades(&report);
    if has_direct_io(model.directory.path()) {
        assert_eq!(report["read_path"], "direct", "{report:#}");
    }
    if is_root() {
        let capped = model.load(&[], &["--memory-limit", "3000000"]);
        assert_eq!(capped["backend"], "uring+registered", "{capped:#}");
        assert_no_downgrades(&capped);
    }
}

#[test]
fn without_registration_plain_buffers_are_used() {
    let Some(model) = Model::new() else { return };
    if !has_io_uring() {
        return;
    }
    for errno in [libc::ENOMEM, libc::EPERM, libc::EOPNOTSUPP] {
        evict(&model.path);
        let report = model.load(&[Refuse::registration(errno)], &["--memory-limit", "3000000"]);
        assert_eq!(report["backend"], "uring", "{report:#}");
        let why = why(&report, "uring+registered", "uring");
        assert!(why.starts_with("registering the ring's memory: "), "{why}");
        assert_eq!(why.contains("ulimit -l"), errno == libc::ENOMEM, "{why}");
    }
    // Without a memory limit nothing is registered, so there is no downgrade.
    assert_no_downgrades(&model.load(&[Refuse::registration(libc::ENOMEM)], &[]));
}

#[test]
fn a_low_limit_of_locked_memory_costs_registration_at_most() {
    if !can_filter() || !has_io_uring() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("ringload-copy");
    if fs::hard_link(env!("CARGO_BIN_EXE_ringload"), &program).is_err() {
        fs::copy(env!("CARGO_BIN_EXE_ringload"), &program).unwrap();
    }
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    let model = Model::in_directory(directory);
    let load = |arguments: &[&str]| {
        model.load_by(arguments, |command| {
            let arguments: Vec<_> = command.get_args().map(|it| it.to_owned()).collect();
            *command = of_program(&program);
            command.args(arguments);
            seccomp::limit_locked_memory(command, 64 << 10);
            if is_root() {
                command.uid(NOBODY).gid(NOBODY);
            }
        })
    };
    let capped = load(&["--memory-limit", "3000000", "--read-path", "direct"]);
    if capped["backend"] == "uring" {
        let why = why(&capped, "uring+registered", "uring");
        assert!(why.contains("ulimit -l"), "{why}");
    } else {
        assert_eq!(capped["backend"], "pread", "64 KiB cannot hold 3 MB: {capped:#}");
    }
    load(&[]);
}

#[test]
fn without_cachestat_mincore_finds_cached_pages() {
    let Some(model) = Model::new() else { return };
    let refusals = [Refuse::call(SYS_CACHESTAT, libc::ENOSYS)];
    warm(&model.path);
    let report = model.load(&refusals, &[]);
    assert_eq!(report["read_path"], "buffered", "{report:#}");
    if has_direct_io(model.directory.path()) {
        evict(&model.path);
        let report = model.load(&refusals, &[]);
        assert_eq!(report["read_path"], "direct", "{report:#}");
        // Without both, direct reads are used, as for an uncached file.
        warm(&model.path);
        let neither = [refusals[0], Refuse::call(libc::SYS_mincore, libc::EPERM)];
        model.load(&neither, &[]);
    }
}

#[test]
fn unknown_madvise_advice_is_not_needed() {
    let Some(model) = Model::new() else { return };
    let no_populate = [libc::MADV_POPULATE_READ, libc::MADV_POPULATE_WRITE, libc::MADV_HUGEPAGE]
        .map(|advice| Refuse::advice(advice, libc::EINVAL));
    for read_path in ["auto", "direct", "buffered", "mapped"] {
        model.load(&no_populate, &["--read-path", read_path]);
        model.load(&[Refuse::call(libc::SYS_madvise, libc::EINVAL)], &["--read-path", read_path]);
    }
    model.load(&no_populate, &["--memory-limit", "min"]);
}

#[test]
fn statx_is_not_needed() {
    let Some(model) = Model::new() else { return };
    for errno in [libc::ENOSYS, libc::EPERM] {
        model.load(&[Refuse::call(libc::SYS_statx, errno)], &[]);
        model.load(&[Refuse::call(libc::SYS_statx, errno)], &["--read-path", "direct"]);
    }
}

/// All refusals together.
fn everything() -> Vec<Refuse> {
    vec![
        Refuse::io_uring(libc::EPERM),
        Refuse::registration(libc::EPERM),
        Refuse::direct_io(libc::EINVAL),
        Refuse::call(SYS_CACHESTAT, libc::ENOSYS),
        Refuse::call(libc::SYS_mincore, libc::EPERM),
        Refuse::call(libc::SYS_madvise, libc::EINVAL),
        Refuse::call(libc::SYS_statx, libc::EPERM),
        Refuse::call(libc::SYS_sched_setaffinity, libc::EPERM),
    ]
}

#[test]
fn a_kernel_that_refuses_everything_still_loads_right() {
    let Some(model) = Model::new() else { return };
    for arguments in [
        &[][..],
        &["--memory-limit", "min"],
        &["--memory-limit", "3000000", "--read-path", "direct", "--engines", "2"],
        &["--read-path", "mapped"],
    ] {
        let report = model.load(&everything(), arguments);
        if report["read_path"] != "mapped" {
            assert_eq!(report["backend"], "pread", "{report:#}");
            assert_eq!(report["read_path"], "buffered", "{report:#}");
            why(&report, "uring", "pread");
            why(&report, "direct", "buffered");
        }
    }
}

#[test]
fn the_printed_summary_names_each_downgrade() {
    let Some(model) = Model::new() else { return };
    let mut command = ringload();
    command.arg("load").arg(&model.path);
    let printed = run(seccomp::refuse(&mut command, &everything())).quiet_success();
    assert!(printed.contains(", buffered, 1 engine, pread\n"), "{printed}");
    assert!(printed.contains("\nuring -> pread: io_uring: forbidden here"), "{printed}");
    assert!(printed.contains("\ndirect -> buffered: Invalid argument"), "{printed}");
}

/// The doctor's findings for `directory` under `refusals`.
fn doctor(directory: &Path, refusals: &[Refuse]) -> Vec<Value> {
    let mut command = ringload();
    command.arg("doctor").arg(directory).arg("--json");
    let mut diagnosis = run(seccomp::refuse(&mut command, refusals)).json();
    let Value::Array(findings) = diagnosis["findings"].take() else { panic!("{diagnosis:#}") };
    findings
}

/// Checks that `findings` have a shortfall with this topic, fact and remedy.
#[track_caller]
fn assert_shortfall(findings: &[Value], topic: &str, fact: &str, remedy: &str) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let found = findings.iter().any(|finding| {
        let remedies = finding["remedies"].as_array().cloned().unwrap_or_default();
        finding["topic"] == topic
            && finding["level"] == "warn"
            && text(&finding["fact"]).contains(fact)
            && remedies.iter().any(|it| text(it).contains(remedy))
    });
    assert!(found, "no {topic:?} with {fact:?} and {remedy:?} in {findings:#?}");
}

#[test]
fn the_doctor_names_what_is_refused_and_the_remedy() {
    if !can_filter() {
        return;
    }
    let directory = directory();
    let examine = |refusals: &[Refuse]| doctor(directory.path(), refusals);
    let findings = examine(&[Refuse::io_uring(libc::EPERM)]);
    assert_shortfall(&findings, "io_uring", "files are read with pread", "seccomp");
    let findings = examine(&[Refuse::io_uring(libc::ENOSYS)]);
    assert_shortfall(&findings, "io_uring", "files are read with pread", "CONFIG_IO_URING");
    let findings = examine(&[Refuse::io_uring(libc::ENOMEM)]);
    assert_shortfall(&findings, "io_uring", "files are read with pread", "locked-memory limit");
    let findings = examine(&[Refuse::direct_io(libc::EINVAL)]);
    assert_shortfall(
        &findings,
        "direct I/O",
        "files are read through the page cache",
        "ext4 or xfs",
    );
    if has_io_uring() {
        let findings = examine(&[Refuse::registration(libc::ENOMEM)]);
        assert_shortfall(
            &findings,
            "registered buffers",
            "unregistered buffers",
            "locked-memory limit",
        );
        let findings = examine(&[Refuse::registration(libc::EPERM)]);
        assert_shortfall(&findings, "registered buffers", "unregistered buffers", "seccomp");
    }
    let findings = examine(&everything());
    assert_shortfall(&findings, "io_uring", "files are read with pread", "seccomp");
    assert_shortfall(
        &findings,
        "direct I/O",
        "files are read through the page cache",
        "ext4 or xfs",
    );

    let mut command = ringload();
    command.arg("doctor").arg(directory.path());
    let printed = run(seccomp::refuse(&mut command, &everything())).quiet_success();
    assert!(printed.contains("\nwarn  io_uring "), "{printed}");
    assert!(printed.contains("    remedy: a seccomp profile may forbid it"), "{printed}");
    assert!(printed.trim_end().ends_with(" to improve"), "{printed}");
}
