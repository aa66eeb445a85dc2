//! A program that embeds ringload and chooses a version of cudarc's bindings itself.
//!
//! ringload once depended on cudarc with the feature `cuda-12020`. A program built for CUDA 13 got the
//! bindings of 12.2 by that, and with `CUDARC_CUDA_VERSION=13000` it did not compile. Here the
//! bindings have to be those that the program chose, which `EXPECTED_CUDA_VERSION` names, and the
//! functions that ringload declares have to be those of these bindings.
#![allow(dead_code)]

const fn number(text: &str) -> u32 {
    let (mut number, mut at) = (0, 0);
    while at < text.len() {
        number = 10 * number + (text.as_bytes()[at] - b'0') as u32;
        at += 1;
    }
    number
}

const _: () = assert!(
    cudarc::driver::sys::CUDA_VERSION == number(env!("EXPECTED_CUDA_VERSION")),
    "ringload has changed the version of cudarc's bindings"
);

#[path = "../../src/device/cuda/result_codes.rs"]
mod result_codes;
#[path = "../../src/device/cuda/shared_library.rs"]
mod shared_library;
// With its tests, which compare it with cudarc.
#[path = "../../src/device/cuda/sys.rs"]
mod sys;

/// The program uses ringload, with support for GPUs.
pub fn gpus() -> Option<usize> {
    ringload::gpus().ok().map(|(gpus, _)| gpus.len())
}
