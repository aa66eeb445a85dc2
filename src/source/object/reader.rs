//! One engine's reader of one object.

use super::fetch::{Object, With};
use super::landing::Landing;
use super::verify::Check;
use crate::error::Result;
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
    async fn fill(&self, window: Window, offset: u64) -> (Result<usize>, Window) {
        let left = self.object.identity.len_bytes.saturating_sub(offset);
        let want = left.min(window.unfilled_len() as u64) as usize;
        let Access { backend: kernel, pool, counters, stop, check, .. } = &self.access;
        let with = With { kernel, pool, counters, stop };
        let part = check.as_deref().map(Check::part).unwrap_or_default();
        let landing = Landing::new(window, want, part);
        let (outcome, landing) = self.object.read(&with, offset, landing).await;
        let (mut window, part) = landing.into_parts();
        let outcome = match (outcome, check) {
            (Ok(()), Some(check)) => {
                let bytes = &window.unfilled_mut()[..want];
                // May wait for other ranges: whatever they need was given back before.
                with.unless_stopped(check.saw_range(offset, bytes, &part)).await.flatten()
            }
            (outcome, _) => outcome,
        };
        (outcome.map(|()| want), window)
    }
}

impl Reader for ObjectReader {
    fn read_at<'a>(
        &'a self,
        window: Window,
        offset: u64,
    ) -> LocalFuture<'a, (io::Result<Attempt>, Window)> {
        Box::pin(async move {
            let (outcome, window) = self.fill(window, offset).await;
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
