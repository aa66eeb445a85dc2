//! Refusals by the real kernel: children that run under a seccomp filter, a resource limit, or
//! another user.
//!
//! A filter makes the system calls that a test names fail with an errno and permits all others, as
//! a container's profile does. It is installed in the child between fork and exec; its program is
//! made before the fork.

use libc::{
    BPF_ABS, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter,
};
use std::ffi::c_long;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// cachestat(2), which `libc` does not define on every target.
pub const SYS_CACHESTAT: c_long = 451;

/// One refusal: calls of `call` for which `when` holds fail with `errno`.
#[derive(Debug, Clone, Copy)]
pub struct Refuse {
    call: c_long,
    when: When,
    errno: i32,
}

/// Selects calls by the lower 32 bits of an argument.
#[derive(Debug, Clone, Copy)]
enum When {
    Always,
    /// The argument at this position has one of these bits.
    HasBits(u32, u32),
    /// The argument at this position is at least this.
    IsAtLeast(u32, u32),
    /// The argument at this position is this.
    Is(u32, u32),
}

impl Refuse {
    /// All calls of `call`.
    pub fn call(call: c_long, errno: i32) -> Self {
        Refuse { call, when: When::Always, errno }
    }

    /// io_uring as a whole.
    pub fn io_uring(errno: i32) -> Self {
        Self::call(libc::SYS_io_uring_setup, errno)
    }

    /// Registering memory with io_uring.
    pub fn registration(errno: i32) -> Self {
        Self::call(libc::SYS_io_uring_register, errno)
    }

    /// Opening files with O_DIRECT.
    pub fn direct_io(errno: i32) -> Self {
        let when = When::HasBits(2, libc::O_DIRECT as u32);
        Refuse { call: libc::SYS_openat, when, errno }
    }

    /// `pread(2)` of `bytes` and more: those of tensors, and not the small ones of headers.
    pub fn large_preads(bytes: u32, errno: i32) -> Self {
        Refuse { call: libc::SYS_pread64, when: When::IsAtLeast(2, bytes), errno }
    }

    /// `preadv2(2)`, by which data in the page cache is read.
    pub fn preadv2(errno: i32) -> Self {
        Refuse { call: libc::SYS_preadv2, when: When::Always, errno }
    }

    /// `pread(2)` of exactly `bytes` bytes.
    pub fn preads_of(bytes: u32, errno: i32) -> Self {
        Refuse { call: libc::SYS_pread64, when: When::Is(2, bytes), errno }
    }

    /// madvise(2) with one advice.
    pub fn advice(advice: i32, errno: i32) -> Self {
        Refuse { call: libc::SYS_madvise, when: When::Is(2, advice as u32), errno }
    }

    fn program(self) -> Vec<sock_filter> {
        let refuse = statement(BPF_RET | BPF_K, libc::SECCOMP_RET_ERRNO | self.errno as u32);
        let (test, argument, value) = match self.when {
            When::Always => {
                return vec![jump(BPF_JEQ, self.call as u32, 0, 1), refuse];
            }
            When::HasBits(argument, bits) => (BPF_JSET, argument, bits),
            When::IsAtLeast(argument, least) => (BPF_JGE, argument, least),
            When::Is(argument, value) => (BPF_JEQ, argument, value),
        };
        vec![
            jump(BPF_JEQ, self.call as u32, 0, 4),
            load(ARGUMENTS + 8 * argument),
            jump(test, value, 0, 1),
            refuse,
            load(NUMBER),
        ]
    }
}

/// The offsets in `struct seccomp_data` that a filter reads; the lower half of an argument comes
/// first on the (little-endian) machines that this runs on.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xC000_00B7;

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn load(offset: u32) -> sock_filter {
    statement(BPF_LD | BPF_W | BPF_ABS, offset)
}

fn jump(test: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: (BPF_JMP | test | BPF_K) as u16, jt, jf, k }
}

/// Makes `command` run with `refusals`.
pub fn refuse<'a>(command: &'a mut Command, refusals: &[Refuse]) -> &'a mut Command {
    let allow = statement(BPF_RET | BPF_K, libc::SECCOMP_RET_ALLOW);
    let mut program = vec![load(ARCHITECTURE), jump(BPF_JEQ, NATIVE, 1, 0), allow, load(NUMBER)];
    program.extend(refusals.iter().flat_map(|refusal| refusal.program()));
    program.push(allow);
    // SAFETY: between fork and exec only two system calls are made, with memory from before.
    unsafe { command.pre_exec(move || install(&mut program)) }
}

fn install(program: &mut [sock_filter]) -> io::Result<()> {
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: this only sets a flag of the calling process.
    let no_new_privileges = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    if no_new_privileges != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `filter` points to `len` instructions, which the kernel copies.
    let answer =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether this kernel permits an unprivileged process to install a filter; else tests skip.
pub fn can_filter() -> bool {
    let mut command = Command::new("true");
    let works = refuse(&mut command, &[]).status().is_ok_and(|status| status.success());
    if !works {
        super::skip("this kernel installs no seccomp filters");
    }
    works
}

/// Limits the memory that `command` may lock, in bytes.
pub fn limit_locked_memory(command: &mut Command, bytes: u64) -> &mut Command {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    let set = move || {
        // SAFETY: `limit` lives across the call.
        match unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec only one system call is made, with memory from before.
    unsafe { command.pre_exec(set) }
}

/// Whether this process is root, to whom neither permissions nor limits apply.
pub fn is_root() -> bool {
    // SAFETY: the call has no arguments and only returns an id.
    unsafe { libc::geteuid() == 0 }
}

/// Makes this thread, and no other one, that of a user without privileges. In Linux credentials belong
/// to threads; only the C library sets those of all threads.
pub fn become_nobody() {
    let no_groups = std::ptr::null::<libc::gid_t>();
    // SAFETY: the calls take numbers, and a list of no groups.
    let refused = unsafe {
        libc::syscall(libc::SYS_setgroups, 0, no_groups)
            | libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY)
            | libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY)
    };
    assert_eq!(refused, 0, "{}", io::Error::last_os_error());
}

/// A user without privileges.
pub const NOBODY: u32 = 65534;
