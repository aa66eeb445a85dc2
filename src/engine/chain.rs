//! Chains two works into one.

use super::queue::Completion;
use super::work::{ChunkRequest, NextStep, Work};
use crate::error::Result;
use crate::ring::Window;

/// Begins all reads of the first work before those of the second. Only the second may wait for
/// memory.
pub(crate) struct ChainedWork<A, B>(pub A, pub B);

impl<A: Work, B: Work> Work for ChainedWork<A, B> {
    fn next(&self, engine: usize) -> NextStep {
        match self.0.next(engine) {
            NextStep::Finished => with_owner(self.1.next(engine), 1),
            next => with_owner(next, 0),
        }
    }

    fn bind(&self, engine: usize, request: ChunkRequest) -> NextStep {
        with_owner(self.1.bind(engine, request), 1)
    }

    fn complete(&self, ticket: usize, window: Window) -> Result<Option<Completion>> {
        match ticket % 2 {
            0 => self.0.complete(ticket / 2, window),
            _ => self.1.complete(ticket / 2, window),
        }
    }

    fn in_transfer(&self) -> usize {
        self.0.in_transfer() + self.1.in_transfer()
    }
}

/// Encodes in the ticket of a read which work it belongs to.
fn with_owner(next: NextStep, owner: usize) -> NextStep {
    match next {
        NextStep::Read(mut read) => {
            read.ticket = read.ticket * 2 + owner;
            NextStep::Read(read)
        }
        other => other,
    }
}
