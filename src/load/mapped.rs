//! The start of a load whose tensors are the files' own pages, mapped.

use super::{Loader, Started};
use crate::engine::{EngineWork, Job, LoadHandle, MappedWork};
use crate::error::{Error, ErrorKind, Result};
use crate::plan::Plan;
use crate::timeline::Recorder;
use std::sync::Arc;

impl Loader {
    /// Starts a load that goes this way.
    ///
    /// # Errors
    /// For what a mapped load cannot do; when threads cannot be started.
    pub(super) fn start_mapped(
        &self,
        plan: &Arc<Plan>,
        recorder: Option<Arc<Recorder>>,
    ) -> Result<Started> {
        let refuse = |sentence| Err(Error::new(ErrorKind::InvalidInput, sentence));
        if plan.limit_bytes().is_some() {
            return refuse(
                "the mapped read path uses the page cache and cannot keep a memory limit; \
                 use another read path or no limit",
            );
        }
        if plan.has_gpus() {
            return refuse(
                "the mapped read path leaves tensors in the page cache and cannot bring them to a \
                 GPU; use another read path, or load to cpu",
            );
        }
        if plan.dtype().is_some() {
            return refuse(
                "the mapped read path hands out the file's own pages and cannot cast them; use \
                 another read path, or no dtype",
            );
        }
        let work = MappedWork::new(Arc::clone(plan));
        let tuning = self.tuning(0, plan.total_bytes(), &[])?;
        let job = Job { recorder, ..self.job(Vec::new(), &tuning) };
        let running = LoadHandle::start(job, EngineWork::Mapped(work))?;
        Ok(Started { running, ring_bytes: 0, _lease: None })
    }
}
