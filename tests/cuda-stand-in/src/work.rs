//! The execution of operations on the worker thread of their stream.

use crate::event;
use crate::launch::Launch;
use crate::random::Random;
use crate::state::lock;
use crate::stream::Operation;
use crate::trace::HostSource;
use std::ptr;
use std::thread;
use std::time::Duration;

/// The smallest piece of a large copy; the largest one is 16 times as long.
const PIECE_BYTES: u64 = 64 << 10;
/// The most pauses of a large copy.
const MOST_SLEEPS: usize = 16;

#[derive(Debug)]
pub(crate) enum Work {
    Copy { source: Source, target: u64, bytes: u64, flip: bool },
    Fill { target: u64, bytes: u64, value: u8 },
    Launch(Launch),
    Record { event: usize },
    Wait { stream: usize, sequence: u64 },
}

/// The source of a copy.
#[derive(Debug)]
pub(crate) enum Source {
    /// Registered host memory, as it was when the copy was submitted.
    Host(HostSource),
    /// The bytes of host memory that is not registered, staged at the submission.
    Staged(Box<[u8]>),
    Device(u64),
}

impl Source {
    fn start(&self) -> u64 {
        match self {
            Source::Host(source) => source.start,
            Source::Staged(bytes) => bytes.as_ptr() as u64,
            Source::Device(start) => *start,
        }
    }
}

impl Work {
    /// The operation of another stream that this one waits for.
    pub(crate) fn after(&self) -> Option<(usize, u64)> {
        match self {
            Work::Wait { stream, sequence } => Some((*stream, *sequence)),
            _ => None,
        }
    }

    pub(crate) fn run(&self, operation: &Operation, context: usize, stream: usize) {
        let mut random = operation.random.clone();
        match self {
            Work::Copy { source, target, bytes, flip } => {
                if let Source::Host(source) = source {
                    source.check(operation.function, "between its copy's submission and its run");
                }
                copy(source.start(), *target, *bytes, context, &mut random);
                if *flip {
                    flip_bit(target + random.below(*bytes));
                }
            }
            Work::Fill { target, bytes, value } => fill(*target, *bytes, *value),
            Work::Launch(launch) => launch.run(operation, context, stream),
            Work::Record { event } => {
                event::reached(&mut lock(), *event, stream, operation.sequence);
            }
            Work::Wait { .. } => {}
        }
    }
}

/// Copies in pieces from the front or the back, with pauses. Stops when the context fails.
fn copy(source: u64, target: u64, bytes: u64, context: usize, random: &mut Random) {
    let piece_bytes = PIECE_BYTES << random.below(5);
    let pieces = bytes.div_ceil(piece_bytes);
    let backward = random.chance(50);
    let mut sleeps = 0;
    for index in 0..pieces {
        let place = if backward { pieces - 1 - index } else { index } * piece_bytes;
        let len = piece_bytes.min(bytes - place);
        // SAFETY: both ranges were checked at the submission, and stay until the end of the work
        // is known: whoever releases them before raises the alarm. They may overlap.
        unsafe {
            let (from, to) = ((source + place) as *const u8, (target + place) as *mut u8);
            ptr::copy(from, to, len as usize);
        }
        if pieces > 1 && lock().failed(context).is_some() {
            return;
        }
        if sleeps < MOST_SLEEPS && pieces > 1 && random.chance(6) {
            sleeps += 1;
            thread::sleep(random.up_to(Duration::from_micros(100)));
        }
        thread::yield_now();
    }
}

fn fill(target: u64, bytes: u64, value: u8) {
    // SAFETY: the range was checked at the submission, and stays until the work's end is known.
    unsafe { ptr::write_bytes(target as *mut u8, value, bytes as usize) };
}

/// Flips a bit of device memory that was just written.
pub(crate) fn flip_bit(place: u64) {
    // SAFETY: the byte is one of those just copied to.
    unsafe { *(place as *mut u8) ^= 1 };
}
