//! Reads a range of an object in two steps, so that no memory is bound while an answer is awaited.
//!
//! ```text
//! request_range: until there is an answer, with retries
//!   concurrency limit: a permit
//!     request_hedged
//!        |
//!     Answer: the head is read and checked; the body is on the socket. It may wait for memory as long
//!        |    as that takes, without a permit. Nothing is fetched twice unless the server gives up.
//!        v
//! read: until the range is complete, with retries
//!   receive: the body, into its window
//!   after a failure: request the rest, into the same window
//! ```
//!
//! Both steps share the limits of retries; the time for which an answer waited for memory does not
//! count. A server that closes a connection on which it waited has not failed: the rest is requested
//! again at once.

use super::body_writer::BodyWriter;
use super::receive::{Receiver, SocketReader};
use super::remote_object::{Object, ReadContext, RequestedRange, overslept};
use crate::error::Result;
use crate::source::http::{
    ArrivingBody, AttemptError, Attempted, PausedRetry, Permit, Repeat, RetryState, ServerResponse,
    ServerState, UsualPace,
};
use crate::source::progress::Arriving;
use crate::source::stop::Stop;
use crate::source::traits::RangeAnswer;
use std::any::Any;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// A failed attempt counts as progress if at least this many bytes arrived.
const PROGRESS_BYTES: usize = 256 << 10;

/// The reason for requesting the rest of a body that lags behind others.
const LAGGING: &str = "slow";
/// How often the rest of a range is requested because a body lags.
const LAGGED_MAX: u32 = 3;
/// How often a body is looked at before it is known what bodies usually deliver.
const UNKNOWN_PACE_INTERVAL: Duration = Duration::from_millis(100);

/// How a body is received.
#[derive(Clone, Copy)]
struct Reception<'a> {
    /// For how long its answer has waited for memory.
    waited: Duration,
    /// Whether it is given up when it lags behind others.
    may_lag: bool,
    /// Counts its bytes for those who watch the load.
    counted: &'a Arriving<'a>,
}

/// What has arrived of a body that did not fail.
enum Received {
    Whole,
    /// A part. The body lags behind others, so the rest is requested again.
    Lagging(Repeat),
}

/// The beginning of the response to a request of a range. Its body was not read yet.
pub(super) struct Answer {
    begun: Begun,
    range: RequestedRange,
    retry: PausedRetry,
    /// Since when it waits for memory.
    waits_since: Option<Instant>,
}

/// A response whose head was read, and the permit for its request.
struct Begun {
    answered: ServerResponse,
    /// How the request was repeated, if it was.
    repeat: Option<Repeat>,
    server: Arc<ServerState>,
    permit: Permit,
}

impl RangeAnswer for Answer {
    fn wait(&mut self) {
        self.waits_since.get_or_insert_with(Instant::now);
        self.begun.permit.pause();
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl Object {
    /// Requests a range, and reads the head of the response, with retries.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn request_range<S: SocketReader>(
        &self,
        context: &ReadContext<'_, S>,
        range: RequestedRange,
    ) -> Result<Answer> {
        let doing = self.doing();
        let mut retry = RetryState::new(&doing, self.client.options.retries, context.counters);
        let mut repeated = false;
        loop {
            match self.begin(context, range, repeated).await {
                Ok(begun) => {
                    return Ok(Answer { begun, range, retry: retry.pause(), waits_since: None });
                }
                Err(failure) => self.recover(context, &mut retry, failure).await?,
            }
            repeated = true;
        }
    }

    /// Fills `writer` with the bytes from `offset`, which lie within the object, with retries. The
    /// `answer`, if there is one, is that to a request of these bytes.
    ///
    /// # Errors
    /// [`Changed`](crate::ErrorKind::Changed) if the object was replaced; the last failure when retries
    /// are used up; [`Cancelled`](crate::ErrorKind::Cancelled) when the load is stopped.
    pub async fn read<S: SocketReader>(
        &self,
        context: &ReadContext<'_, S>,
        offset: u64,
        mut writer: BodyWriter,
        answer: Option<Answer>,
    ) -> (Result<()>, BodyWriter) {
        let doing = self.doing();
        let (limits, counters) = (self.client.options.retries, context.counters);
        let start = offset - writer.written() as u64;
        let wanted = RequestedRange { offset, len: writer.left() as u64 };
        let answer = answer.filter(|answer| answer.range == wanted);
        let (mut retry, mut begun, mut waited) = match answer {
            None => (RetryState::new(&doing, limits, counters), None, Duration::ZERO),
            Some(Answer { begun, retry, waits_since, .. }) => {
                let waited = waits_since.map_or(Duration::ZERO, |since| since.elapsed());
                let retry = RetryState::resume(&doing, limits, counters, retry, waited);
                (retry, Some(begun), waited)
            }
        };
        let (mut lagged, counted) = (0, counters.arriving());
        let mut rest_repeat = None;
        while writer.left() > 0 {
            let before = writer.written();
            let range = RequestedRange { offset: start + before as u64, len: writer.left() as u64 };
            let waited = std::mem::take(&mut waited);
            let has_waited = !waited.is_zero();
            let beginning = match begun.take() {
                Some(begun) => Ok(begun),
                None => self.begin(context, range, true).await,
            };
            let outcome = match beginning {
                Ok(mut begun) => {
                    begun.repeat = rest_repeat.take().or(begun.repeat);
                    let outcome;
                    let how = Reception { waited, may_lag: lagged < LAGGED_MAX, counted: &counted };
                    (outcome, writer) = self.receive(context, begun, writer, how).await;
                    outcome
                }
                Err(failure) => Err(failure),
            };
            let failure = match outcome {
                Ok(Received::Whole) => continue,
                Ok(Received::Lagging(repeat)) => {
                    rest_repeat = Some(repeat);
                    lagged += 1;
                    counters.retry(LAGGING);
                    continue;
                }
                Err(AttemptError::Transport(_)) if has_waited => {
                    counters.retry("closed while it waited");
                    continue;
                }
                Err(failure) => failure,
            };
            if writer.written() - before >= PROGRESS_BYTES {
                retry.progressed();
            }
            if let Err(error) = self.recover(context, &mut retry, failure).await {
                return (Err(error), writer);
            }
        }
        (Ok(()), writer)
    }

    fn doing(&self) -> String {
        format!("read {}", self.location)
    }

    /// Waits until the next attempt after `failure`.
    async fn recover<S>(
        &self,
        context: &ReadContext<'_, S>,
        retry: &mut RetryState<'_>,
        failure: AttemptError,
    ) -> Result<()> {
        let server = self.server()?;
        if failure.is_out_of_files()
            && let Some(limit) = server.concurrency.out_of_files()
        {
            context.counters.set_connections(limit);
            return Ok(());
        }
        let wait = retry.after(failure, &*self.store, &server)?;
        context.unless_stopped(sleep(wait)).await
    }

    /// Makes one attempt to request a range. A range that is `repeated`, or that has its memory, is
    /// requested before others.
    async fn begin<S>(
        &self,
        context: &ReadContext<'_, S>,
        range: RequestedRange,
        repeated: bool,
    ) -> Attempted<Begun> {
        let server = self.server()?;
        let requesting = async {
            let permit = server.concurrency.acquire(repeated).await;
            Ok((permit, self.request_hedged(context, &server, range).await?))
        };
        let answered = context.unless_stopped(requesting).await.map_err(AttemptError::from);
        let (permit, (answered, repeat)) = answered.flatten()?;
        Ok(Begun { answered, repeat, server, permit })
    }

    /// Receives the body of a response.
    async fn receive<S: SocketReader>(
        &self,
        context: &ReadContext<'_, S>,
        begun: Begun,
        writer: BodyWriter,
        how: Reception<'_>,
    ) -> (Attempted<Received>, BodyWriter) {
        let Begun { mut answered, repeat, server, mut permit } = begun;
        permit.resume();
        let (limits, origin) = (&self.client.options.retries, &answered.origin);
        // What arrived while the answer waited is received at once: that says nothing about the
        // network.
        let has_waited = !how.waited.is_zero();
        let arriving = (!has_waited).then(|| server.concurrency.arriving());
        let len = writer.left() as u64;
        let body = server.hedging.body(len);
        let progress = |bytes| {
            body.received(bytes);
            how.counted.arrive(bytes);
            let changed = arriving.as_ref().and_then(|arriving| arriving.received(bytes));
            if let Some(connections) = changed {
                context.counters.set_connections(connections);
            }
        };
        let (sockets, stop, progress) = (context.sockets, &Stop::default(), &progress);
        let receiver = Receiver { sockets, stop, limits, origin, progress };
        let (outcome, writer) = {
            let mut receiving = pin!(receiver.receive(answered.response.body_mut(), writer));
            let given_up = tokio::select! {
                biased;
                done = receiving.as_mut() => Err(done),
                repeat = lags(&server, &body), if how.may_lag => Ok(Some(repeat)),
                () = context.stop.stopped() => Ok(None),
            };
            match given_up {
                Err((outcome, writer)) => (outcome.map(|()| Received::Whole), writer),
                Ok(repeat) => {
                    stop.set();
                    let (outcome, writer) = receiving.await;
                    let outcome = match (outcome, repeat) {
                        (Ok(()), _) => Ok(Received::Whole),
                        (Err(_), Some(repeat)) => Ok(Received::Lagging(repeat)),
                        (Err(failure), None) => Err(failure),
                    };
                    (outcome, writer)
                }
            }
        };
        if matches!(outcome, Ok(Received::Whole)) {
            if let Some(arriving) = &arriving {
                if let Some(connections) = arriving.arrived() {
                    context.counters.set_connections(connections);
                }
                body.arrived();
            }
            if let Some(repeat) = repeat {
                server.hedging.finished(&repeat, len, how.waited);
            }
            server.succeeded();
            answered.keep_connection(&self.client);
        }
        (outcome, writer)
    }
}

/// Completes when the body lags behind others, and its rest may be requested again.
async fn lags(server: &ServerState, body: &ArrivingBody<'_>) -> Repeat {
    // How other bodies arrived when this one became silent.
    let mut silent_since = None;
    loop {
        let (before, pace) = (body.left(), server.hedging.usual_pace());
        if !period(pace, body).await {
            continue; // the client had no processor, and what arrived was not received yet
        }
        let (Some(pace), left, silence) = (pace, body.left(), body.silence()) else { continue };
        let is_silent = before == left || silence >= pace.long_pause();
        if !is_silent {
            silent_since = None;
        }
        if pace.lags(before - left, silence, left)
            && let Some(repeat) = server.hedging.try_repeat()
        {
            return if is_silent { repeat.after(silence) } else { repeat };
        }
        if is_silent {
            let others = *silent_since.get_or_insert(pace);
            let has_stopped = pace.is_silent(silence) && !others.is_pause(&pace);
            if has_stopped && server.take_retry() {
                return Repeat::of_silent(silence);
            }
        }
    }
}

/// Completes after the period in which a body is compared with others, or as soon as it pauses for
/// long. Returns false if that took longer because the client had no processor.
async fn period(pace: Option<UsualPace>, body: &ArrivingBody<'_>) -> bool {
    let in_time = async |time| overslept(time).await.is_zero();
    let Some(pace) = pace else { return in_time(UNKNOWN_PACE_INTERVAL).await };
    let end = Instant::now() + pace.period();
    let pause_left = || pace.long_pause().saturating_sub(body.silence());
    let mut left = pause_left();
    while !left.is_zero() && Instant::now() + left < end {
        if !in_time(left).await {
            return false;
        }
        left = pause_left();
        if left.is_zero() {
            return true;
        }
    }
    in_time(end.saturating_duration_since(Instant::now())).await
}
