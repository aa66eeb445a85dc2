//! Examines whether io_uring can be used, and if not, what forbids it.

use super::finding::Finding;
use io_uring::{IoUring, Probe, opcode};
use ringload::internals::{probe_io_uring, probe_registration};
use ringload_measure::system::read_text;
use std::error::Error;
use std::io;

/// The size of the buffer that is registered to see whether registration works. `memory.rs`
/// examines how much may be locked.
const PROBE_BYTES: usize = 64 << 10;

const SECCOMP: &str = "a seccomp profile may forbid it: docker run --security-opt seccomp=unconfined, \
     or a profile that allows io_uring_setup, io_uring_enter and io_uring_register";
const SYSCTL: &str = "sysctl -w kernel.io_uring_disabled=0";
const SYSCTL_PRIVILEGED: &str =
    "sysctl -w kernel.io_uring_disabled=0, or run in the group of kernel.io_uring_group";
const LOCKED_MEMORY: &str = "raise the locked-memory limit (see 'locked memory')";

/// Sets up an io_uring, lists its operations, and registers a buffer.
pub fn examine() -> Vec<Finding> {
    if let Err(error) = probe_io_uring() {
        let sysctl = read_text("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
        return vec![refused(&error, &sysctl)];
    }
    vec![operations(supported()), registration(probe_registration(PROBE_BYTES))]
}

/// The finding for an io_uring that cannot be set up, with the likely remedy.
fn refused(error: &ringload::Error, sysctl: &str) -> Finding {
    let fact = format!("not usable, files are read with pread ({})", with_cause(error));
    let remedy = match (errno(error), sysctl) {
        (Some(nix::libc::ENOSYS), _) => "run kernel 5.10 or later, built with CONFIG_IO_URING",
        (Some(nix::libc::ENOMEM), _) => LOCKED_MEMORY,
        (_, "2") => SYSCTL,
        (_, "1") => SYSCTL_PRIVILEGED,
        _ => SECCOMP,
    };
    Finding::warn("io_uring", fact, [remedy])
}

/// Whether a new io_uring supports READ and READ_FIXED.
fn supported() -> io::Result<(bool, bool)> {
    let ring = IoUring::new(2)?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let supports = |operation| probe.is_supported(operation);
    Ok((supports(opcode::Read::CODE), supports(opcode::ReadFixed::CODE)))
}

fn operations(supported: io::Result<(bool, bool)>) -> Finding {
    const TOPIC: &str = "io_uring";
    const NEWER: &str = "run kernel 5.10 or later";
    match supported {
        Ok((true, true)) => Finding::ok(TOPIC, "usable, with READ and READ_FIXED"),
        Ok((true, false)) => Finding::warn(TOPIC, "usable, without READ_FIXED", [NEWER]),
        Ok((false, _)) => Finding::warn(TOPIC, "can be set up, but READ is missing", [NEWER]),
        Err(error) => Finding::info(
            TOPIC,
            format!("usable, but its operations could not be listed ({error})"),
        ),
    }
}

fn registration(probed: ringload::Result<()>) -> Finding {
    const TOPIC: &str = "registered buffers";
    match probed {
        Ok(()) => Finding::ok(TOPIC, "accepted by the kernel"),
        Err(error) => {
            let fact = format!("refused, reads use unregistered buffers ({})", with_cause(&error));
            let remedy =
                if errno(&error) == Some(nix::libc::EPERM) { SECCOMP } else { LOCKED_MEMORY };
            Finding::warn(TOPIC, fact, [remedy])
        }
    }
}

/// The errno that caused an error of the library.
fn errno(error: &ringload::Error) -> Option<i32> {
    error.source()?.downcast_ref::<io::Error>()?.raw_os_error()
}

fn with_cause(error: &ringload::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn refusal(errno: i32, sysctl: &str) -> String {
        let cause = io::Error::from_raw_os_error(errno);
        let finding = refused(&ringload::Error::from_io("set up io_uring", cause), sysctl);
        assert_eq!(finding.level, Level::Warn);
        finding.remedies.concat()
    }

    #[test]
    fn each_refusal_has_its_remedy() {
        use nix::libc::{ENOMEM, ENOSYS, EPERM};
        assert!(refusal(EPERM, "0").contains("seccomp"));
        assert!(refusal(EPERM, "").contains("seccomp"));
        assert!(refusal(EPERM, "1").contains("io_uring_group"));
        assert_eq!(refusal(EPERM, "2"), SYSCTL);
        assert!(refusal(ENOSYS, "").contains("CONFIG_IO_URING"));
        assert_eq!(refusal(ENOMEM, "0"), LOCKED_MEMORY);
    }

    #[test]
    fn missing_operations_are_a_shortfall() {
        let level = |read, read_fixed| operations(Ok((read, read_fixed))).level;
        assert_eq!(level(true, true), Level::Ok);
        assert_eq!(level(true, false), Level::Warn);
        assert_eq!(level(false, true), Level::Warn);
        assert_eq!(operations(Err(io::Error::other("no"))).level, Level::Info);
    }
}
