//! The loader's options on what its caller holds under a memory limit.

use super::Loader;
use std::time::Duration;

impl Loader {
    /// Under a memory limit: how long a caller may wait for the next tensor without any memory
    /// coming back, while it holds all of it, before that is an error. Default 10 s.
    #[must_use]
    pub fn hold_timeout(mut self, timeout: Duration) -> Self {
        self.hold_timeout = timeout;
        self
    }

    /// Whether the caller still holds the last tensor while it waits for the next one: then the limit
    /// `min` is [`MinHoldingOne`](crate::MemoryLimit::MinHoldingOne), also where the environment sets it.
    #[must_use]
    pub fn consumer_holds_one(mut self, holds: bool) -> Self {
        self.consumer_holds_one = holds;
        self
    }

    /// Under a memory limit: whether the caller may keep more tensors in host memory than the limit
    /// allows. What it keeps is then its own and counts no more: once it holds all memory of the
    /// load, the load goes on in as much new memory. Default: that is an error.
    #[must_use]
    pub fn caller_may_retain_all(mut self, caller_may_retain_all: bool) -> Self {
        self.caller_may_retain_all = caller_may_retain_all;
        self
    }
}
