//! Runs code under a kernel that refuses io_uring, as it does in many containers.

use std::thread;

/// Runs `body` on a thread whose calls of io_uring_setup(2), and those of all threads that it starts,
/// fail with EPERM by a seccomp filter. Returns the result of `body`.
pub fn without_io_uring<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let refused = scope.spawn(|| {
            refuse_io_uring();
            body()
        });
        refused.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[allow(unsafe_code)]
fn refuse_io_uring() {
    let refusal = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let number = libc::SYS_io_uring_setup as u32;
    let line = |code: u32, jf, k| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    let mut lines = [
        line(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0), // the number of the system call
        line(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, number),
        line(libc::BPF_RET | libc::BPF_K, 0, refusal),
        line(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: lines.len() as u16, filter: lines.as_mut_ptr() };
    // SAFETY: prctl(2) reads the program, which is alive, and changes this thread alone.
    let answers = unsafe {
        [
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program),
        ]
    };
    assert_eq!(answers, [0, 0], "{}", std::io::Error::last_os_error());
}
