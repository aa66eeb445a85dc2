//! Where a range lands, and how far it has come.

use super::verify::Part;
use crate::ring::Window;

/// The unfilled part of a window, of which the first `want` bytes are to come.
pub(super) struct Landing {
    /// Its mark says how far the range has come.
    pub window: Window,
    start: usize,
    want: usize,
    part: Part,
}

/// A place to come back to.
pub(super) struct TraceSpan(usize, Part);

impl Landing {
    /// Nothing there yet of `want` bytes, which `part` is to see.
    pub fn new(window: Window, want: usize, part: Part) -> Self {
        Self { start: window.filled(), window, want, part }
    }

    /// How many bytes are there.
    pub fn got(&self) -> usize {
        self.window.filled() - self.start
    }

    /// How many bytes are to come.
    pub fn left(&self) -> usize {
        self.want - self.got()
    }

    /// Where the next bytes go: at most `most` of them.
    pub fn next(&mut self, most: usize) -> &mut [u8] {
        let len = self.left().min(most);
        &mut self.window.unfilled_mut()[..len]
    }

    /// Says that the next `bytes` bytes are there.
    pub fn came(&mut self, bytes: usize) {
        self.part.update(&self.window.unfilled_mut()[..bytes]);
        self.window.set_filled(self.window.filled() + bytes);
    }

    /// The place that it has come to.
    pub fn mark(&self) -> TraceSpan {
        TraceSpan(self.window.filled(), self.part.clone())
    }

    /// Goes back to `mark`: what came since is not to be trusted.
    pub fn go_back(&mut self, mark: TraceSpan) {
        self.window.set_filled(mark.0);
        self.part = mark.1;
    }

    /// The window as it was at first (its mark, that is), and what has seen the bytes.
    pub fn into_parts(mut self) -> (Window, Part) {
        self.window.set_filled(self.start);
        (self.window, self.part)
    }
}
