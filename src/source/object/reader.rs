//! One engine's reader of one object.

use super::fetch::Object;
use super::verify::Check;
use crate::error::{Error, ErrorKind, Result};
use crate::ring::Window;
use crate::source::{Access, Attempt, Downgrade, LocalFuture, Reader, Via};
use std::io;
use std::sync::Arc;

pub(super) struct ObjectReader {
    object: Arc<Object>,
    access: Access,
}

impl ObjectReader {
    pub fn new(object: Arc<Object>, access: &Access) -> Self {
        Self { object, access: access.clone() }
    }

    /// Fills the window, with retries; ends early when the load is stopped.
    ///
    /// Only this task's sockets write to the window, never the kernel behind its back: a future
    /// that is dropped here leaves nothing in flight.
    async fn fill(&self, window: &mut Window, offset: u64) -> Result<usize> {
        let left = self.object.identity.len_bytes.saturating_sub(offset);
        let want = left.min(window.unfilled_len() as u64) as usize;
        let Access { pool, tally, stop, .. } = &self.access;
        let into = &mut window.unfilled_mut()[..want];
        let check = self.access.check.as_deref();
        let reading = async {
            let mut part = check.map(Check::part).unwrap_or_default();
            self.object.read(pool, tally, offset, into, &mut part).await?;
            match check {
                // May wait for other ranges: whatever they need was given back before.
                Some(check) => check.saw_range(offset, into, &part).await,
                None => Ok(()),
            }
        };
        tokio::select! {
            biased;
            outcome = reading => outcome.map(|()| want),
            () = stop.stopped() => Err(Error::new(ErrorKind::Cancelled, "the load was stopped")),
        }
    }
}

impl Reader for ObjectReader {
    fn read_at<'a>(
        &'a self,
        mut window: Window,
        offset: u64,
    ) -> LocalFuture<'a, (io::Result<Attempt>, Window)> {
        Box::pin(async move {
            let outcome = self.fill(&mut window, offset).await;
            let outcome = outcome.map(|bytes| Attempt { bytes, via: Via::Http });
            (outcome.map_err(io::Error::other), window)
        })
    }

    fn steps_down(&self) -> usize {
        0
    }

    fn downgrade(&self, _: &io::Error) -> Option<Downgrade> {
        None
    }
}
