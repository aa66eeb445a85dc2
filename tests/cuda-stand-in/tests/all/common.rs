//! What the stand-in's own tests share: every test runs in a process of its own, since an alarm
//! ends it and the state is one for all; and the driver's calls, as short as tests want them.

use cuda_stand_in::*;
use std::any::type_name;
use std::env;
use std::ffi::{CString, c_void};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};
use std::ptr::null_mut;

const CHILD: &str = "CUDA_STAND_IN_TEST_CHILD";
const SIGABRT: i32 = 6;

/// Runs the scenario in a process of its own, with these orders; gives what became of it, and in
/// that process nothing.
fn in_a_child<S: FnOnce()>(orders: &[(&str, &str)], scenario: S) -> Option<Output> {
    if env::var_os(CHILD).is_some() {
        scenario();
        return None;
    }
    // `crate::name_of_the_test::{{closure}}`
    let path = type_name::<S>().trim_end_matches("::{{closure}}");
    let (_, test) = path.split_once("::").unwrap();
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(CHILD, "1");
    for (name, value) in orders {
        command.env(format!("CUDA_STAND_IN_{name}"), value);
    }
    Some(command.output().unwrap())
}

/// The scenario has to end with this alarm.
#[track_caller]
pub fn rings(message: &str, scenario: impl FnOnce()) {
    rings_with(&[], message, scenario);
}

/// As [`rings`], with orders.
#[track_caller]
pub fn rings_with(orders: &[(&str, &str)], message: &str, scenario: impl FnOnce()) {
    let Some(output) = in_a_child(orders, scenario) else { return };
    let stderr = String::from_utf8_lossy(&output.stderr);
    let alarms: Vec<_> =
        stderr.lines().filter(|line| line.starts_with("cuda stand-in: ")).collect();
    assert_eq!(output.status.signal(), Some(SIGABRT), "{output:#?}");
    assert!(alarms.len() == 1 && alarms[0].contains(message), "wanted {message:?}: {stderr}");
}

/// The scenario has to end well.
#[track_caller]
pub fn passes(orders: &[(&str, &str)], scenario: impl FnOnce()) {
    let Some(output) = in_a_child(orders, scenario) else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("1 passed"), "{stdout}"); // a misspelt test would pass as well
}

/// Orders for the next context. Nothing else runs in a scenario's process when it says this.
pub fn order(name: &str, value: impl ToString) {
    unsafe { env::set_var(format!("CUDA_STAND_IN_{name}"), value.to_string()) };
}

#[track_caller]
pub fn ok(result: CUresult) {
    assert_eq!(result, CUDA_SUCCESS);
}

/// The value that a call answers.
#[track_caller]
pub fn got<T: Default>(call: impl FnOnce(*mut T) -> CUresult) -> T {
    let mut value = T::default();
    ok(call(&mut value));
    value
}

/// Retains the primary context of the device and makes it current.
#[track_caller]
pub fn retain(device: i32) -> usize {
    ok(cuInit(0));
    let context = got(|context| unsafe { cuDevicePrimaryCtxRetain(context, device) });
    ok(cuCtxSetCurrent(context));
    context
}

#[track_caller]
pub fn release(device: i32) {
    ok(cuDevicePrimaryCtxRelease_v2(device));
}

#[track_caller]
pub fn stream() -> usize {
    got(|stream| unsafe { cuStreamCreate(stream, CU_STREAM_NON_BLOCKING) })
}

#[track_caller]
pub fn event() -> usize {
    got(|event| unsafe { cuEventCreate(event, CU_EVENT_DISABLE_TIMING) })
}

#[track_caller]
pub fn allocate(bytes: usize) -> u64 {
    got(|pointer| unsafe { cuMemAlloc_v2(pointer, bytes) })
}

/// Host memory that is registered, for ever.
#[track_caller]
pub fn registered(bytes: usize) -> &'static mut [u8] {
    let memory = vec![0; bytes].leak();
    ok(register(memory, 0));
    memory
}

pub fn register(memory: &mut [u8], flags: u32) -> CUresult {
    cuMemHostRegister_v2(memory.as_mut_ptr().cast(), memory.len(), flags)
}

#[track_caller]
pub fn unregister(memory: &mut [u8]) {
    ok(cuMemHostUnregister(memory.as_mut_ptr().cast()));
}

pub fn copy_in(target: u64, source: &[u8], stream: usize) -> CUresult {
    cuMemcpyHtoDAsync_v2(target, source.as_ptr().cast(), source.len(), stream)
}

pub fn copy_in_now(target: u64, source: &[u8]) -> CUresult {
    unsafe { cuMemcpyHtoD_v2(target, source.as_ptr().cast(), source.len()) }
}

/// What device memory holds once everything is done.
#[track_caller]
pub fn read(source: u64, bytes: usize) -> Vec<u8> {
    ok(cuCtxSynchronize());
    let mut memory = vec![0; bytes];
    ok(unsafe { cuMemcpyDtoH_v2(memory.as_mut_ptr().cast(), source, bytes) });
    memory
}

/// A module with a kernel `ringload_unheard_of`, and the kernel.
#[track_caller]
pub fn module() -> (usize, usize) {
    let text = CString::new(
        ".version 8.0\n.target sm_70\n\
         .visible .entry ringload_unheard_of(.param .u64 a, .param .u32 b) { ret; }",
    );
    let text = text.unwrap();
    let module = got(|module| unsafe { cuModuleLoadData(module, text.as_ptr().cast()) });
    let name = c"ringload_unheard_of".as_ptr();
    (module, got(|kernel| unsafe { cuModuleGetFunction(kernel, module, name) }))
}

/// Launches a kernel on pieces in device memory.
pub fn launch(kernel: usize, pieces: u64, count: u32, stream: usize) -> CUresult {
    let (mut pieces, mut count) = (pieces, count);
    let mut arguments: [*mut c_void; 2] = [(&raw mut pieces).cast(), (&raw mut count).cast()];
    let arguments = arguments.as_mut_ptr();
    unsafe { cuLaunchKernel(kernel, 1, 1, 1, 32, 1, 1, 0, stream, arguments, null_mut()) }
}

/// Device memory with one piece in it.
#[track_caller]
pub fn piece(source: u64, target: u64, length: u64) -> u64 {
    let bytes: Vec<u8> = [source, target, length].into_iter().flat_map(u64::to_le_bytes).collect();
    let pieces = allocate(bytes.len());
    ok(copy_in_now(pieces, &bytes));
    ok(cuCtxSynchronize());
    pieces
}
