//! Decides whether a failed attempt is retried after a wait, or reported as an error.
//!
//! Waits double and have full jitter: each is a random part of the whole wait, so that ranks which
//! fail together do not retry together. `Retry-After` is a lower bound. The number of attempts
//! without progress, the total time, and the server's retry tokens (see [`ServerState`]) are limited.
//! A server that asks for fewer requests is not failing, so these retries take no tokens: requests to
//! it are spaced (see [`ConcurrencyLimit`](super::concurrency::ConcurrencyLimit)). As long as it accepts
//! others, or other connections to it are open and it was not tried with fewer, such a failure does not
//! count as an attempt, and only the total time is limited. The same holds where it closes a new
//! connection without an answer while it serves others.

use super::attempt_error::AttemptError;
use super::error_response::{ErrorAction, ErrorResponse};
use super::policy::RequestPolicy;
use super::server::ServerState;
use crate::error::{Error, ErrorKind, Result};
use crate::options::RetryLimits;
use crate::source::counters::LoadCounters;
use std::time::Duration;
use tokio::time::Instant;

/// The upper bound of the first wait, which is random.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(5);
/// By so many earlier failures at most is the wait of a request lengthened that was refused while the
/// server accepted others, or may have room for fewer connections.
const WAITS_MAX_THROTTLED: u32 = 2;
/// A wait that a user would take for a hang is logged.
const LONG_WAIT: Duration = Duration::from_secs(5);

/// The failed attempts of one request or range.
pub(crate) struct RetryState<'a> {
    doing: &'a str,
    limits: RetryLimits,
    counters: &'a LoadCounters,
    began: Instant,
    failures: Failures,
    /// The reasons for which a retry was granted, each of which is granted once.
    granted: Vec<&'static str>,
    /// How many requests the server had accepted when it last refused this one.
    accepted: Option<u64>,
}

/// The failed attempts since the last progress.
#[derive(Default)]
struct Failures {
    /// How many count, since another attempt was last likely to succeed.
    counted: u32,
    /// How many waits have doubled.
    waits: u32,
}

/// The failed attempts of a range while its answer waits for memory.
pub(crate) struct PausedRetry {
    began: Instant,
    failures: Failures,
    granted: Vec<&'static str>,
}

impl<'a> RetryState<'a> {
    /// The state before the first attempt. `doing` completes a sentence that begins with "cannot",
    /// such as `read s3://bucket/key`.
    pub fn new(doing: &'a str, limits: RetryLimits, counters: &'a LoadCounters) -> Self {
        let (began, granted) = (Instant::now(), Vec::new());
        let failures = Failures::default();
        Self { doing, limits, counters, began, failures, granted, accepted: None }
    }

    /// The state without its borrows, to be [resumed](Self::resume).
    pub fn pause(self) -> PausedRetry {
        PausedRetry { began: self.began, failures: self.failures, granted: self.granted }
    }

    /// The state that was paused. The time `waited` does not count.
    pub fn resume(
        doing: &'a str,
        limits: RetryLimits,
        counters: &'a LoadCounters,
        paused: PausedRetry,
        waited: Duration,
    ) -> Self {
        let PausedRetry { began, failures, granted } = paused;
        Self { doing, limits, counters, began: began + waited, failures, granted, accepted: None }
    }

    /// Records that the last attempt failed, but made progress.
    pub fn progressed(&mut self) {
        self.failures = Failures::default();
    }

    /// Decides whether a failed attempt is retried, and counts the retry. Returns how long to wait
    /// before the next attempt. Lowers the pace of requests if the server asked for that.
    ///
    /// # Errors
    /// The error of the request, if it is not retried.
    pub fn after(
        &mut self,
        failure: AttemptError,
        policy: &dyn RequestPolicy,
        server: &ServerState,
    ) -> Result<Duration> {
        tracing::debug!(doing = self.doing, failure = %failure, "an attempt failed");
        match failure {
            AttemptError::Final(error) => Err(error),
            AttemptError::Transport(error) if !error.retryable => Err(error.into_error(self.doing)),
            AttemptError::Transport(error) => {
                let attempts_max = error.attempts_max.unwrap_or(self.limits.attempts);
                // It has no room for another connection, if it goes on to serve others.
                let others = error.unanswered && self.accepts_others(server);
                self.forgive_if(others);
                let lowered = error.unanswered && server.concurrency.connection_refused();
                let tokens = (!others && !lowered).then_some(server);
                match self.wait(Duration::ZERO, attempts_max, tokens) {
                    Ok(wait) => {
                        self.counters.retry(error.reason);
                        Ok(wait)
                    }
                    Err(why) => Err(error.into_error(&format!("{} ({why})", self.doing))),
                }
            }
            AttemptError::Response(response) => self.after_response(&response, policy, server),
        }
    }

    fn after_response(
        &mut self,
        response: &ErrorResponse,
        policy: &dyn RequestPolicy,
        server: &ServerState,
    ) -> Result<Duration> {
        match policy.classify(response) {
            ErrorAction::Retry { throttled } => {
                let wait_min = response.retry_after(server.now()).unwrap_or_default();
                if wait_min >= self.time_left() {
                    let (asked, most) = (wait_min.as_secs(), self.limits.total.as_secs());
                    let why =
                        format!("it asks to wait {asked} s; retries end {most} s after the first");
                    return Err(self.gave_up(response, &why));
                }
                if wait_min >= LONG_WAIT {
                    let (doing, seconds) = (self.doing, wait_min.as_secs());
                    tracing::warn!("to {doing}, waiting {seconds} s as the server asks to");
                }
                let tokens = (!throttled).then_some(server);
                if throttled {
                    let with_fewer = server.concurrency.throttled(server.successes());
                    let others = self.accepts_others(server);
                    self.forgive_if(others || with_fewer);
                }
                let wait = self.wait(wait_min, self.limits.attempts, tokens);
                let wait = wait.map_err(|why| self.gave_up(response, why))?;
                self.counters.retry(if throttled { "throttled" } else { "server error" });
                return Ok(wait);
            }
            ErrorAction::RetryOnce(word) if self.grant(word) => {}
            ErrorAction::CorrectClock if self.grant("clock") => {
                if let Some(there) = response.date() {
                    server.set_clock(there);
                }
            }
            ErrorAction::RenewCredentials if self.grant("expired credentials") => {
                policy.renew_credentials();
            }
            ErrorAction::Fail(kind, sentence) => return Err(self.error(kind, &sentence)),
            ErrorAction::CorrectClock => {
                let sentence = "this machine's clock is wrong; set it";
                return Err(self.error(ErrorKind::PermissionDenied, sentence));
            }
            ErrorAction::RenewCredentials => {
                let sentence = "the credentials have expired or are not valid; renew them";
                return Err(self.error(ErrorKind::PermissionDenied, sentence));
            }
            ErrorAction::RetryOnce(word) => {
                return Err(self.gave_up(response, &format!("not even with its {word}")));
            }
        }
        Ok(Duration::ZERO)
    }

    /// Counts the earlier failed attempts no more where another one is `likely` to succeed.
    fn forgive_if(&mut self, likely: bool) {
        if likely {
            let waits = self.failures.waits.min(WAITS_MAX_THROTTLED);
            self.failures = Failures { counted: 0, waits };
        }
    }

    /// Whether the server has accepted others since it last refused this request.
    fn accepts_others(&mut self, server: &ServerState) -> bool {
        let accepted = self.accepted.replace(server.successes());
        accepted.is_some_and(|before| before < server.successes())
    }

    fn error(&self, kind: ErrorKind, sentence: &str) -> Error {
        Error::new(kind, format!("cannot {}: {sentence}", self.doing))
    }

    fn gave_up(&self, response: &ErrorResponse, why: &str) -> Error {
        let sentence = format!("{} ({why}); try again later", response.describe());
        self.error(ErrorKind::Io, &sentence)
    }

    /// Grants one retry for each `reason`, and counts it. Returns false for the second one.
    fn grant(&mut self, reason: &'static str) -> bool {
        let first = !self.granted.contains(&reason);
        if first {
            self.granted.push(reason);
            self.counters.retry(reason);
        }
        first
    }

    /// The time in which the next attempt has to begin.
    fn time_left(&self) -> Duration {
        self.limits.total.saturating_sub(self.began.elapsed())
    }

    /// How long to wait before the next attempt, which takes `tokens` of the server; `Err` holds the
    /// reason for giving up.
    fn wait(
        &mut self,
        wait_min: Duration,
        attempts_max: u32,
        tokens: Option<&ServerState>,
    ) -> std::result::Result<Duration, &'static str> {
        self.failures.counted += 1;
        if self.failures.counted >= attempts_max {
            return Err("attempts used up");
        }
        let whole = (FIRST_WAIT * 2_u32.pow(self.failures.waits.min(16))).min(WAIT_MAX);
        self.failures.waits += 1;
        let wait = whole.mul_f64(fastrand::f64()).max(wait_min);
        if wait >= self.time_left() {
            return Err("time used up");
        }
        if tokens.is_some_and(|server| !server.take_retry()) {
            return Err("it fails too often");
        }
        Ok(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::http::client::Client;
    use async_trait::async_trait;
    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};
    use std::sync::Arc;
    use std::time::SystemTime;

    struct Plain;

    #[async_trait]
    impl RequestPolicy for Plain {
        async fn authorize(
            &self,
            _: &Arc<Client>,
            _: &mut http::request::Parts,
            _: SystemTime,
        ) -> Result<()> {
            Ok(())
        }
    }

    fn refused() -> AttemptError {
        let (status, headers) = (StatusCode::SERVICE_UNAVAILABLE, HeaderMap::new());
        AttemptError::Response(Box::new(ErrorResponse { status, headers, body: Bytes::new() }))
    }

    /// How often a request is repeated that the server refuses with 503, when the server accepts this
    /// many others between the attempts.
    fn repeated(others: u64) -> usize {
        let (counters, server) = (LoadCounters::default(), ServerState::new(None));
        let limits = RetryLimits { total: Duration::from_secs(3600), ..RetryLimits::default() };
        let mut retry = RetryState::new("open it", limits, &counters);
        (0..100)
            .take_while(|_| {
                (0..others).for_each(|_| server.succeeded());
                retry.after(refused(), &Plain, &server).is_ok()
            })
            .count()
    }

    /// Of 100 shards that were opened at a store of 20 requests a second, one was refused often enough
    /// to use up its attempts, and the load failed.
    #[test]
    fn a_refused_request_goes_on_while_the_server_accepts_others() {
        assert_eq!(repeated(1), 100);
        assert_eq!(repeated(0), RetryLimits::default().attempts as usize - 1);
    }

    /// A server with room for one connection refused four that were open at once, and the attempts of
    /// one were used up before it was tried with fewer.
    #[tokio::test(start_paused = true)]
    async fn attempts_count_when_fewer_connections_were_tried() {
        let attempts = RetryLimits::default().attempts;
        for others in [false, true] {
            let (counters, server) = (LoadCounters::default(), ServerState::new(None));
            let limits = RetryLimits { total: Duration::from_secs(3600), ..RetryLimits::default() };
            let mut retry = RetryState::new("read it", limits, &counters);
            let permit = server.concurrency.acquire(false).await;
            let _held = others.then_some(permit);
            let mut repeated = 0;
            while retry.after(refused(), &Plain, &server).is_ok() {
                repeated += 1;
                tokio::time::advance(Duration::from_millis(300)).await;
            }
            assert_eq!(repeated > attempts - 1, others, "{repeated}");
            assert!(repeated < 30, "a server that accepts nothing is given up");
            assert!(!others || server.concurrency.limit() == 1);
        }
    }

    /// After the first refusals requests are spaced, so no other request was on the way when one was
    /// refused, but the other connections were open and idle. A server with room for one connection
    /// refused each of these requests, and one had used up its attempts before the idle connections
    /// were closed: one load in ten failed.
    #[tokio::test(start_paused = true)]
    async fn refusals_count_when_the_idle_connections_are_closed() {
        let (counters, server) = (LoadCounters::default(), ServerState::new(None));
        let limits = RetryLimits::default();
        let mut retry = RetryState::new("read it", limits, &counters);
        while server.concurrency.limit() > 1 {
            server.concurrency.sends_beside(3);
            assert!(retry.after(refused(), &Plain, &server).is_ok());
            tokio::time::advance(Duration::from_millis(20)).await;
        }
        let mut alone = 0;
        while retry.after(refused(), &Plain, &server).is_ok() {
            server.concurrency.sends_beside(0);
            alone += 1;
        }
        assert_eq!(alone, limits.attempts - 2, "the refusal that lowered the limit counts");
    }
}
