//! The functions on objects of a scripted server: what fails, what is asked for how often, and ends
//! in mid-request. Files are tested from C, in `tests/integration/capi.rs`.

use super::*;
use crate::fault_server::{FaultServer, Request};
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::ptr;
use std::time::Instant;

/// More than is read without engines.
const LARGE_BYTES: usize = 17 << 20;

/// Bytes of which no two parts that are mixed up are the same.
fn object(seed: u64) -> Vec<u8> {
    let words = (0..LARGE_BYTES as u64 / 8).map(|word| word.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    words.flat_map(|word| (word ^ seed).to_le_bytes()).collect()
}

/// A streamer, and the memory of its requests.
struct Session {
    handle: *mut c_void,
    memory: Vec<Vec<u8>>,
}

impl Session {
    fn start() -> Self {
        let mut handle = ptr::null_mut();
        // SAFETY: a place for a pointer.
        assert_eq!(unsafe { runai_file_streamer_start(&raw mut handle) }, 0);
        Self { handle, memory: Vec::new() }
    }

    /// Asks for one range of each path.
    fn request(&mut self, ranges: &[(&str, usize, usize)]) {
        let paths: Vec<_> = ranges.iter().map(|(path, ..)| CString::new(*path).unwrap()).collect();
        let paths: Vec<_> = paths.iter().map(|path| path.as_ptr()).collect();
        let counts = vec![1; ranges.len()];
        let offsets: Vec<_> = ranges.iter().map(|&(_, offset, _)| offset).collect();
        let sizes: Vec<_> = ranges.iter().map(|&(.., size)| size).collect();
        self.memory = sizes.iter().map(|&size| vec![0; size]).collect();
        let places: Vec<*mut c_void> =
            self.memory.iter_mut().map(|memory| memory.as_mut_ptr().cast()).collect();
        let device = RunaiFileStreamerDevice { r#type: RUNAI_FILE_STREAMER_DEVICE_CPU, id: 0 };
        // SAFETY: arrays of as many items, and memory that `self` keeps until the streamer is
        // ended.
        let code = unsafe {
            runai_file_streamer_request(
                self.handle,
                ptr::null_mut(),
                ranges.len() as c_uint,
                paths.as_ptr(),
                counts.as_ptr(),
                offsets.as_ptr(),
                sizes.as_ptr(),
                places.as_ptr(),
                device,
            )
        };
        assert_eq!(code, 0);
    }

    /// Returns the code and text of the response of each range, by file.
    fn answers(&self) -> HashMap<u32, (c_int, String)> {
        let answer = |_| {
            let (mut file, mut index) = (0, 0);
            // SAFETY: the pointers are NULL or point to variables.
            let code = unsafe {
                let (file, index) = (&raw mut file, &raw mut index);
                runai_file_streamer_response(
                    self.handle,
                    ptr::null_mut(),
                    file,
                    index,
                    ptr::null_mut(),
                    60_000,
                )
            };
            // SAFETY: a text, which stays until the next call.
            let said = unsafe { CStr::from_ptr(runai_file_streamer_response_str(code)) };
            (file, (code, said.to_str().unwrap().to_owned()))
        };
        self.memory.iter().map(answer).collect()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        runai_file_streamer_end(self.handle);
    }
}

fn is_opening(request: &Request) -> bool {
    request.range() == Some((0, (64 << 10) - 1))
}

#[test]
fn an_object_that_fails_does_so_for_its_own_ranges() {
    let object = object(1);
    let server = FaultServer::start(object.clone(), |_, request| {
        match request.target.ends_with("bad") && !is_opening(request) {
            true => crate::fault_server::Reply::new(412), // another one by now
            false => request.right(),
        }
    });
    let (good, bad) = (format!("{}?good", server.url()), format!("{}?bad", server.url()));
    let mut session = Session::start();
    session.request(&[
        (&bad, 0, LARGE_BYTES),
        (&good, 0, LARGE_BYTES),
        ("/nonexistent", 0, 1),
        (&good, LARGE_BYTES, 1),
    ]);
    let answers = session.answers();
    assert_eq!(answers.len(), 4);
    assert_eq!(answers[&1].0, 0);
    assert!(session.memory[1] == object);
    let (code, said) = &answers[&0];
    assert_eq!(*code, Code::FileTruncatedError as c_int);
    assert!(said.contains("replaced"), "{said}");
    assert_eq!(answers[&2].0, Code::FileAccessError as c_int);
    assert_eq!(answers[&3].0, Code::EofError as c_int);
}

#[test]
fn an_object_is_opened_once_for_all_requests_and_headers_cost_nothing_more() {
    let object = object(2);
    let server = FaultServer::start(object.clone(), |_, request| request.right());
    let url = server.url();
    let mut session = Session::start();
    for range in [8..100, 0..8, 3000..60_000] {
        session.request(&[(&url, range.start, range.len())]);
        assert_eq!(session.answers()[&0].0, 0);
        assert!(session.memory[0] == object[range]);
    }
    assert_eq!(server.seen().len(), 1);
    session.request(&[(&url, 0, LARGE_BYTES)]);
    assert_eq!(session.answers()[&0].0, 0);
    assert!(session.memory[0] == object);
    let openings = server.seen().iter().filter(|request| is_opening(request)).count();
    assert_eq!(openings, 1);
}

#[test]
fn ending_waits_for_no_server() {
    let late = Duration::from_secs(1200);
    for late_to_open in [true, false] {
        for bytes in [100_000, LARGE_BYTES] {
            let server = FaultServer::start(object(3), move |_, request| {
                match is_opening(request) == late_to_open {
                    true => request.right().after(late),
                    false => request.right(),
                }
            });
            let mut session = Session::start();
            session.request(&[(&server.url(), 0, bytes)]);
            let began = Instant::now();
            while server.seen().len() < 1 + usize::from(!late_to_open) {
                assert!(began.elapsed() < late / 4, "nobody asks");
                std::thread::sleep(Duration::from_millis(5));
            }
            let began = Instant::now();
            drop(session);
            let took = began.elapsed();
            assert!(took < late / 20, "{late_to_open} {bytes}: {took:?}");
        }
    }
}

#[test]
fn devices_are_the_host_and_gpus() {
    let device = |kind, id| RunaiFileStreamerDevice { r#type: kind, id }.as_device();
    assert_eq!(device(RUNAI_FILE_STREAMER_DEVICE_CPU, 7), Ok(Device::Host));
    assert_eq!(device(RUNAI_FILE_STREAMER_DEVICE_CUDA, 7), Ok(Device::cuda(7)));
    assert_eq!(device(RUNAI_FILE_STREAMER_DEVICE_CUDA, -1), Err(Code::InvalidDevice));
    assert_eq!(device(2, 0), Err(Code::UnsupportedDeviceType));
}
