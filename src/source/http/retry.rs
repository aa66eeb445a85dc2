//! What a failed attempt leads to: asking again, after how long, or the end.
//!
//! Waits grow twofold with full jitter (a random part of the whole wait, so that the ranks of a
//! fleet that fail together do not come back together). `Retry-After` is a lower bound. Attempts
//! without progress, total time, and a bucket of tokens a server (see [`Host`]) bound it all.

use super::error_response::{ErrorAction, ErrorResponse};
use super::failure::Failure;
use super::host::Host;
use super::policy::RequestPolicy;
use crate::error::{Error, ErrorKind, Result};
use crate::options::RetryLimits;
use crate::source::counters::LoadCounters;
use std::time::Duration;
use tokio::time::Instant;

/// The first wait is a random part of this.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// As above, where the server asked for fewer requests.
const FIRST_WAIT_THROTTLED: Duration = Duration::from_millis(500);
const WAIT_MAX: Duration = Duration::from_secs(5);

/// The attempts of one request, or of one range.
pub(crate) struct Tries<'a> {
    doing: &'a str,
    limits: RetryLimits,
    counters: &'a LoadCounters,
    began: Instant,
    /// Failed ones since the last progress.
    failed: u32,
    granted: Vec<&'static str>,
}

/// What a failed attempt leads to.
#[derive(Debug)]
pub(crate) struct Again {
    /// How long to wait before.
    pub wait: Duration,
    /// Whether the server asked for fewer requests.
    pub throttled: bool,
}

impl<'a> Tries<'a> {
    /// Nothing tried yet. `doing` continues "cannot": `read s3://bucket/key`.
    pub fn new(doing: &'a str, limits: RetryLimits, counters: &'a LoadCounters) -> Self {
        Self { doing, limits, counters, began: Instant::now(), failed: 0, granted: Vec::new() }
    }

    /// Says that the last attempt brought something, though not all.
    pub fn progressed(&mut self) {
        self.failed = 0;
    }

    /// Decides what follows from a failed attempt.
    ///
    /// # Errors
    /// When it ends here, with everything there is to say.
    pub fn after(
        &mut self,
        failure: Failure,
        store: &dyn RequestPolicy,
        host: &Host,
    ) -> Result<Again> {
        tracing::debug!(doing = self.doing, failure = %failure, "an attempt failed");
        match failure {
            Failure::Stopped(error) => Err(error),
            Failure::Broken(broken) if !broken.again => Err(broken.into_error(self.doing)),
            Failure::Broken(broken) => {
                let most = broken.attempts_max.unwrap_or(self.limits.attempts);
                match self.wait(FIRST_WAIT, Duration::ZERO, most, host) {
                    Ok(wait) => {
                        self.counters.retry(broken.word);
                        Ok(Again { wait, throttled: false })
                    }
                    Err(why) => Err(broken.into_error(&format!("{} ({why})", self.doing))),
                }
            }
            Failure::Refused(refusal) => self.refused(&refusal, store, host),
        }
    }

    fn refused(
        &mut self,
        refusal: &ErrorResponse,
        store: &dyn RequestPolicy,
        host: &Host,
    ) -> Result<Again> {
        let at_once = Again { wait: Duration::ZERO, throttled: false };
        match store.classify(refusal) {
            ErrorAction::Retry { throttled } => {
                let first = if throttled { FIRST_WAIT_THROTTLED } else { FIRST_WAIT };
                let least = refusal.retry_after(host.now()).unwrap_or_default();
                let wait = self.wait(first, least, self.limits.attempts, host);
                let wait = wait.map_err(|why| self.gave_up(refusal, why))?;
                self.counters.retry(if throttled { "throttled" } else { "server error" });
                Ok(Again { wait, throttled })
            }
            ErrorAction::RetryOnce(word) if self.grant(word) => Ok(at_once),
            ErrorAction::CorrectClock if self.grant("clock") => {
                if let Some(there) = refusal.date() {
                    host.set_clock(there);
                }
                Ok(at_once)
            }
            ErrorAction::RenewCredentials if self.grant("expired credentials") => {
                store.renew_credentials();
                Ok(at_once)
            }
            ErrorAction::Fail(kind, sentence) => {
                Err(Error::new(kind, format!("cannot {}: {sentence}", self.doing)))
            }
            ErrorAction::CorrectClock => Err(self.denied("this machine's clock is wrong; set it")),
            ErrorAction::RenewCredentials => {
                Err(self.denied("the credentials have expired or are not valid; renew them"))
            }
            ErrorAction::RetryOnce(word) => {
                Err(self.gave_up(refusal, &format!("not even with its {word}")))
            }
        }
    }

    fn denied(&self, why: &str) -> Error {
        Error::new(ErrorKind::PermissionDenied, format!("cannot {}: {why}", self.doing))
    }

    fn gave_up(&self, refusal: &ErrorResponse, why: &str) -> Error {
        let sentence = format!(
            "cannot {}: the server answered {} ({why}); try again later",
            self.doing, refusal.status
        );
        Error::new(ErrorKind::Io, sentence)
    }

    /// Whether `word` was not granted before.
    fn grant(&mut self, word: &'static str) -> bool {
        let first = !self.granted.contains(&word);
        if first {
            self.granted.push(word);
            self.counters.retry(word);
        }
        first
    }

    /// How long to wait before asking again; else why not to.
    fn wait(
        &mut self,
        first: Duration,
        least: Duration,
        most: u32,
        host: &Host,
    ) -> std::result::Result<Duration, &'static str> {
        self.failed += 1;
        if self.failed >= most {
            return Err("attempts used up");
        }
        let whole = (first * 2_u32.pow((self.failed - 1).min(16))).min(WAIT_MAX);
        let wait = whole.mul_f64(fastrand::f64()).max(least);
        if self.began.elapsed() + wait >= self.limits.total {
            return Err("time used up");
        }
        if !host.take_retry() {
            return Err("it fails too often");
        }
        Ok(wait)
    }
}
