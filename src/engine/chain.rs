//! Two works as one: the first, then the second.

use super::{Completion, Next, Work};
use crate::error::Result;
use crate::ring::Window;

/// Does all of the first work's reads before those of the second, which may wait for memory; the
/// first may not.
pub(crate) struct ChainedWork<A, B>(pub A, pub B);

impl<A: Work, B: Work> Work for ChainedWork<A, B> {
    fn next(&self, engine: usize) -> Next {
        match self.0.next(engine) {
            Next::Finished => mark(self.1.next(engine), 1),
            next => mark(next, 0),
        }
    }

    fn complete(&self, ticket: usize, window: Window) -> Result<Option<Completion>> {
        match ticket % 2 {
            0 => self.0.complete(ticket / 2, window),
            _ => self.1.complete(ticket / 2, window),
        }
    }

    fn in_hand(&self) -> usize {
        self.0.in_hand() + self.1.in_hand()
    }
}

/// The ticket of a read says whose it is.
fn mark(next: Next, whose: usize) -> Next {
    match next {
        Next::Read(mut task) => {
            task.ticket = task.ticket * 2 + whose;
            Next::Read(task)
        }
        other => other,
    }
}
