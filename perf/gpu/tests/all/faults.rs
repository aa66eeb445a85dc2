//! Faults that are planted in one step each: a bit that is wrong on the GPU, or a call of the driver
//! that fails. Each has to be found by its step.

use super::pack::*;

/// A step, the variables that plant a fault in it, and the words by which it is reported.
struct Fault {
    step: &'static str,
    plant: &'static [(&'static str, &'static str)],
    words: &'static str,
}

const FLIPPED: &[(&str, &str)] = &[("CUDA_STAND_IN_FLIP", "1")];
const FLIPPED_AFTER_BARE_COPIES: &[(&str, &str)] = &[("CUDA_STAND_IN_FLIP", "3")];
const WRONG: &str = "bytes are wrong";

const fn fault(
    step: &'static str,
    plant: &'static [(&'static str, &'static str)],
    words: &'static str,
) -> Fault {
    Fault { step, plant, words }
}

const FAULTS: [Fault; 13] = [
    fault("machine", FLIPPED, "one small load: "),
    fault("right-kernels", FLIPPED, "crc64 against the reference: "),
    fault("right-loads", FLIPPED, "load, every read path: "),
    fault("cached", FLIPPED_AFTER_BARE_COPIES, WRONG),
    fault("disk", FLIPPED, WRONG),
    fault("adapter", FLIPPED, WRONG),
    fault("small", FLIPPED, WRONG),
    fault(
        "kernels",
        &[("CUDA_STAND_IN_FAIL", "cuLaunchKernel@run:1:CUDA_ERROR_ILLEGAL_ADDRESS")],
        "CUDA_ERROR_ILLEGAL_ADDRESS",
    ),
    fault(
        "copies",
        &[("CUDA_STAND_IN_FAIL", "cuMemcpyHtoDAsync_v2@run:1:CUDA_ERROR_ILLEGAL_ADDRESS")],
        "CUDA_ERROR_ILLEGAL_ADDRESS",
    ),
    fault("pages", FLIPPED, WRONG),
    fault("processes", FLIPPED, WRONG),
    fault("gds", &[("CUDA_STAND_IN_GDS", "on"), ("CUDA_STAND_IN_FLIP", "2")], WRONG),
    fault("verify", FLIPPED, "--verify compares every byte: "),
];

#[test]
fn a_fault_in_any_step_is_found() {
    assert_eq!(FAULTS.each_ref().map(|fault| fault.step), OWN);
    for Fault { step, plant, words } in FAULTS {
        let mut run = Run::new(plain_pack(), &[step]).with(plant);
        let ran = run.results();
        let faults = ran.faults();
        if step == "disk" && faults.contains("loads from the disk: ") {
            eprintln!("skipped: no direct reads here");
            continue;
        }
        assert!(faults.contains(words), "{step}: {faults:?}\n{}", ran.told);
        assert_eq!(ran.status.code(), Some(1), "{step}: {}", ran.told);
        assert!(is_empty(&run.directory.path().join("work")), "{step}: files stay behind");
    }
}

#[test]
fn a_bit_that_is_wrong_on_the_gpu_is_found() {
    // Two copies to the GPU are made for each time that a kernel is checked: 3 times for crc64, once
    // for scatter, twice for each of 12 casts. The next is a load's first.
    for (copy, row) in [("1", "crc64 against the reference"), ("57", "load, every read path")] {
        let directory = directory();
        let mut checking = command(std::path::Path::new(env!("CARGO_BIN_EXE_ringload-gpu")));
        checking.args(["check", "--check-bytes=1MiB", "--dir"]).arg(directory.path());
        checking.arg("--tmpfs").arg(directory.path());
        let checked = checking.env("CUDA_STAND_IN_FLIP", copy).output().unwrap();
        let (table, told) = texts(&checked);
        assert_eq!(checked.status.code(), Some(1), "copy {copy}: {table}\n{told}");
        let failed: Vec<_> = table.lines().filter(|line| line.contains("FAIL")).collect();
        let found = failed.len() == 1 && has_row(failed[0], &[row]);
        assert!(found && failed[0].contains("bytes are wrong"), "copy {copy}: {table}\n{told}");
        assert!(is_empty(directory.path()), "files stay behind");
    }
}

#[test]
fn a_machine_without_a_gpu_is_told_so() {
    let directory = directory();
    let mut running = command(&script());
    let ran = running.arg("run").env("CUDA_STAND_IN_DEVICES", "0").output().unwrap();
    // The script lies beside nothing that it could run.
    assert!(
        texts(&ran).1.contains("ringload-gpu does not run on this machine"),
        "{:?}",
        texts(&ran)
    );

    let mut checking = command(std::path::Path::new(env!("CARGO_BIN_EXE_ringload-gpu")));
    checking.args(["check", "--dir"]).arg(directory.path());
    let checked = checking.env("CUDA_STAND_IN_DEVICES", "0").output().unwrap();
    let (_, told) = texts(&checked);
    assert_eq!(checked.status.code(), Some(1), "{told}");
    assert!(told.contains("no CUDA driver") || told.contains("CUDA_ERROR_NO_DEVICE"), "{told}");
}
