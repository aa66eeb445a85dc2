//! A consumer that changes its tensors, and changes them back, while the cache still writes them.
//!
//! A byte that was changed for a moment got into a *complete* `data.safetensors` (39 pages of one run;
//! complete files that differ within 7 tries): the checksum was right and the bytes on disk were not,
//! or the other way round. Reading memory as a slice that another program writes to is also undefined
//! behaviour in Rust. Memory that is lent is now copied by atomic loads, and pages of the copy that do
//! not match the checksums of the bytes that arrived are left missing.

#![allow(unsafe_code)] // writes to tensors, as foreign code does

use crate::common::directory;
use crate::common::fault_server::FaultServer;
use crate::common::model::{Model, loader};
use ringload::dlpack::Exporting;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const PAGE_BYTES: usize = 4096;

/// Whether the cache in `directory` has the whole object; its bytes must be those of `file`.
fn is_complete_and_right(directory: &std::path::Path, file: &[u8]) -> bool {
    let pattern = directory.join("*/*/data.safetensors");
    let found: Vec<PathBuf> =
        glob::glob(pattern.to_str().unwrap()).unwrap().map(Result::unwrap).collect();
    for path in &found {
        let written = fs::read(path).unwrap();
        let pages = written.chunks(PAGE_BYTES).zip(file.chunks(PAGE_BYTES));
        let wrong = pages.filter(|(written, right)| written != right).count();
        assert_eq!((wrong, written.len()), (0, file.len()), "wrong pages in a complete file");
    }
    !found.is_empty()
}

/// Loads `url` into the cache, and changes and restores a word of each page of each tensor from its
/// arrival until everything is written.
fn attack(model: &Model, url: &str, directory: &std::path::Path) {
    let loader = loader().cache_dir(directory);
    let mut stream = loader.stream(url).unwrap();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mut held = Vec::new();
        for tensor in stream.by_ref() {
            let tensor = tensor.unwrap();
            assert!(tensor.bytes() == model.tensors[tensor.name()].bytes);
            // SAFETY: nobody takes a slice of the tensor's bytes any more, and the thread below
            // writes by atomic stores.
            let export = unsafe { tensor.export_writable(Exporting::default()) }.unwrap();
            let (start, len) = (tensor.address() as usize, tensor.len_bytes());
            let ended = &ended;
            scope.spawn(move || {
                let first = start.next_multiple_of(8);
                while !ended.load(Ordering::Relaxed) {
                    for at in (first..(start + len).saturating_sub(8)).step_by(PAGE_BYTES) {
                        // SAFETY: aligned, and within the tensor, whose export is held.
                        let word = unsafe { AtomicU64::from_ptr(at as *mut u64) };
                        let right = word.fetch_xor(1 << (at / PAGE_BYTES % 64), Ordering::Relaxed);
                        (0..20).for_each(|_| std::hint::spin_loop());
                        word.store(right, Ordering::Relaxed);
                    }
                }
            });
            held.push((tensor, export));
        }
        loader.flush(None);
        ended.store(true, Ordering::Relaxed);
        drop(held);
    });
}

#[test]
fn bytes_that_a_consumer_changes_and_restores_never_get_into_the_cache() {
    let model = Model::new(&[9_000_000, 9_000_000, 17, 9_000_000]);
    let server = FaultServer::start(model.file.clone(), |_, request| request.right());
    let mut partial = 0;
    // Whether the consumer changes bytes just while the cache copies them is a matter of luck.
    for round in 0..100 {
        if round >= 7 && partial > 0 {
            break;
        }
        let directory = directory();
        attack(&model, &server.url(), directory.path());
        partial += usize::from(!is_complete_and_right(directory.path(), &model.file));
        // What was left out, a load that changes nothing adds.
        let loader = loader().cache_dir(directory.path());
        model.load(&loader, &server.url()).unwrap();
        loader.flush(None);
        assert!(is_complete_and_right(directory.path(), &model.file), "still incomplete");
    }
    assert!(partial > 0, "no change was seen by the cache, so nothing is shown");
}
