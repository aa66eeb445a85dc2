//! A shortage of files: a connection could not be opened because the process has too many of them
//! (EMFILE). `ulimit -n` was looked at before, but a program opens files meanwhile, too.

use super::ConcurrencyLimit;

impl ConcurrencyLimit {
    /// Lowers the limit for good after a request found no file for its connection, and has released
    /// its permit: to the number of the other requests, which have connections. Returns the new
    /// limit, or `None` if there are no others, as nothing would then be released.
    pub fn out_of_files(&self) -> Option<usize> {
        let mut state = self.state.lock();
        let others = state.permits;
        if others == 0 {
            return None;
        }
        let is_first = !std::mem::replace(&mut state.short_of_files, true);
        state.adaptive.allow(others);
        let limit = state.adaptive.limit();
        drop(state);
        if is_first {
            tracing::warn!(
                "this process has too many open files for more than about {limit} connections, so \
                 fewer are used; raise ulimit -n"
            );
        }
        Some(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_connection_is_never_given_up() {
        let limit = ConcurrencyLimit::new(Some(4));
        let mut permits = Vec::new();
        for _ in 0..4 {
            permits.push(limit.acquire(false).await);
        }
        for expected in [Some(3), Some(2), Some(1), None] {
            permits.pop();
            assert_eq!(limit.out_of_files(), expected);
        }
        assert_eq!(limit.limit(), 1);
        limit.acquire(false).await;
    }
}
