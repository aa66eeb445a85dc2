//! A streamer: submissions in, responses out, and the threads in between.
//!
//! ```text
//! request --> waiting --> reader thread (two at most) --> ready --> response
//!                             |  reading::run: opens, reads, answers each range once
//!                             \-> engines, for what is not small
//! ```
//!
//! Submissions are begun in their order. Two are read at once, so that the engines of one begin while
//! those of the other end; more would only take the disk from the ones that are waited for.
//!
//! A range's response is in `ready` as soon as its memory is filled. The last response of a submission
//! says so, and whoever has taken it may use the memory for something else: nothing of that submission
//! is in flight then.

use super::code::{Failure, RunaiFileStreamerResponse as Code};
use super::reading;
use super::sources::Sources;
use super::submission::{Range, Submission};
use crate::load::CancelHandle;
use crate::load::Loader;
use crate::options::{S3Credentials, cores, engines_from, environment, strategy};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How many submissions are read at once.
const READERS_MAX: usize = 2;

/// Keys and values of credentials.
pub type Credentials = BTreeMap<String, String>;

/// What one range came to.
#[derive(Debug)]
pub struct Response {
    pub outcome: Result<(), Failure>,
    pub submission: u64,
    pub file: u32,
    pub index: u32,
    /// Whether it is the submission's last.
    pub is_last: bool,
}

/// A streamer.
pub struct Streamer {
    pub sources: Sources,
    state: Mutex<State>,
    /// A response is ready, or none will come.
    answered: Condvar,
    /// A submission waits, or none will come.
    submitted: Condvar,
    /// Nobody writes any more.
    quiet: Condvar,
}

struct State {
    loader: Loader,
    credentials: Option<Credentials>,
    /// As it was set, without blanks.
    strategy: Option<String>,
    last_id: u64,
    /// Whether anything was asked for.
    is_used: bool,
    waiting: VecDeque<Submission>,
    ready: VecDeque<Response>,
    /// Responses that submissions still owe.
    owed: HashMap<u64, usize>,
    /// What stops the engines of a submission.
    running: Vec<(u64, CancelHandle)>,
    readers: Vec<JoinHandle<()>>,
    idle: usize,
    /// Threads that write to memory of requests, or have it written to.
    writing: usize,
    is_ending: bool,
}

impl Streamer {
    /// A streamer with the environment's options.
    ///
    /// # Errors
    /// When a variable cannot be read.
    pub fn new() -> Result<Self, Failure> {
        let invalid = |error| Failure::of(&error, false).under(Code::InvalidParameterError);
        engines_from(environment, cores()).map_err(invalid)?;
        let loader = Loader::new().runai_env().map_err(invalid)?;
        let state = State {
            loader,
            credentials: None,
            strategy: None,
            last_id: 0,
            is_used: false,
            waiting: VecDeque::new(),
            ready: VecDeque::new(),
            owed: HashMap::new(),
            running: Vec::new(),
            readers: Vec::new(),
            idle: 0,
            writing: 0,
            is_ending: false,
        };
        Ok(Self {
            sources: Sources::default(),
            state: Mutex::new(state),
            answered: Condvar::new(),
            submitted: Condvar::new(),
            quiet: Condvar::new(),
        })
    }

    /// The loader with all that was set.
    pub fn loader(&self) -> Loader {
        self.state().loader.clone()
    }

    /// Sets credentials, once.
    ///
    /// # Errors
    /// [`CredentialsAlreadySet`](Code::CredentialsAlreadySet) after others;
    /// [`InvalidParameterError`](Code::InvalidParameterError) for half of a pair of keys.
    pub fn set_credentials(&self, credentials: Credentials) -> Result<(), Code> {
        let mut state = self.state();
        if let Some(before) = &state.credentials {
            let same = *before == credentials;
            return if same { Ok(()) } else { Err(Code::CredentialsAlreadySet) };
        }
        let get = |key: &str| credentials.get(key).filter(|value| !value.is_empty()).cloned();
        let mut loader = state.loader.clone();
        match (get("access_key_id"), get("secret_access_key")) {
            (Some(access_key_id), Some(secret_access_key)) => {
                let session_token = get("session_token");
                let keys = S3Credentials { access_key_id, secret_access_key, session_token };
                loader = loader.s3_credentials(keys);
            }
            (None, None) => {}
            _ => return Err(Code::InvalidParameterError),
        }
        if let Some(region) = get("region") {
            loader = loader.region(region);
        }
        if let Some(endpoint) = get("endpoint") {
            loader = loader.endpoint(endpoint);
        }
        state.loader = loader;
        state.credentials = Some(credentials);
        drop(state);
        self.sources.forget_all();
        Ok(())
    }

    /// Sets how files are read, once and before anything is.
    ///
    /// # Errors
    /// [`FsStrategyConflict`](Code::FsStrategyConflict) after another one or a request.
    pub fn set_strategy(&self, list: &str) -> Result<(), Failure> {
        let path = strategy(list)
            .map_err(|error| Failure::of(&error, false).under(Code::InvalidParameterError))?;
        let list = list.replace(' ', "");
        let mut state = self.state();
        match &state.strategy {
            Some(before) if *before == list => return Ok(()),
            Some(_) => return Err(Code::FsStrategyConflict.into()),
            None if state.is_used => return Err(Code::FsStrategyConflict.into()),
            None => {}
        }
        state.strategy = Some(list);
        state.loader = state.loader.clone().read_path(path);
        Ok(())
    }

    /// The number of the next submission.
    pub fn next_id(&self) -> u64 {
        let mut state = self.state();
        state.last_id += 1;
        state.last_id
    }

    /// Has `submission` read, and returns at once.
    ///
    /// # Errors
    /// [`FinishedError`](Code::FinishedError) where the streamer is being ended, or no thread can be
    /// had; nothing is owed then.
    pub fn submit(self: &Arc<Self>, submission: Submission) -> Result<(), Code> {
        let mut state = self.state();
        if state.is_ending {
            return Err(Code::FinishedError);
        }
        state.is_used = true;
        if submission.ranges.is_empty() {
            return Ok(());
        }
        state.readers.retain(|reader| !reader.is_finished());
        if state.idle <= state.waiting.len() && state.readers.len() < READERS_MAX {
            let streamer = Arc::clone(self);
            let reader = thread::Builder::new().name("ringload-reader".into());
            match reader.spawn(move || streamer.read_on()) {
                Ok(reader) => state.readers.push(reader),
                Err(_) if state.readers.is_empty() => return Err(Code::UnknownError),
                Err(_) => {} // those that there are will do
            }
        }
        state.owed.insert(submission.id, submission.ranges.len());
        state.waiting.push_back(submission);
        drop(state);
        self.submitted.notify_one();
        Ok(())
    }

    /// The next response; waits for it, up to `patience` if that is given.
    ///
    /// # Errors
    /// [`TimedOut`](Code::TimedOut); [`FinishedError`](Code::FinishedError) when the streamer is ended.
    pub fn response(&self, patience: Option<Duration>) -> Result<Response, Code> {
        let deadline = patience.and_then(|patience| Instant::now().checked_add(patience));
        let mut state = self.state();
        loop {
            if state.is_ending {
                return Err(Code::FinishedError);
            }
            if let Some(response) = state.ready.pop_front() {
                return Ok(response);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            state = match left {
                Some(Duration::ZERO) => return Err(Code::TimedOut),
                Some(left) => {
                    let woken = self.answered.wait_timeout(state, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.answered.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Ends it: wakes those who wait for responses, stops what is read, and returns when nobody writes to
    /// memory of requests any more. Threads that wait for a server to open an object end when it answers.
    pub fn end(&self) {
        let mut state = self.state();
        state.is_ending = true;
        state.waiting.clear();
        let running: Vec<_> = state.running.drain(..).map(|(_, load)| load).collect();
        drop(state);
        self.answered.notify_all();
        self.submitted.notify_all();
        running.iter().for_each(CancelHandle::cancel);
        let mut state = self.state();
        while state.writing > 0 {
            state = self.quiet.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Runs `body`, which writes to memory of requests; not any more when the streamer is being ended.
    pub fn writing<T>(&self, body: impl FnOnce() -> T) -> Option<T> {
        let mut state = self.state();
        if state.is_ending {
            return None;
        }
        state.writing += 1;
        drop(state);
        let written = Writing(self);
        let outcome = body();
        drop(written);
        Some(outcome)
    }

    /// Whether it is being ended.
    pub fn is_ending(&self) -> bool {
        self.state().is_ending
    }

    /// Says what `ranges` of `submission` came to: once for each.
    pub fn answer<'a>(
        &self,
        submission: &Submission,
        ranges: impl IntoIterator<Item = &'a Range>,
        outcome: Result<(), Failure>,
    ) {
        let mut state = self.state();
        for range in ranges.into_iter().filter(|range| submission.answer(range)) {
            let Some(owed) = state.owed.get_mut(&submission.id) else { break };
            *owed -= 1;
            let is_last = *owed == 0;
            if is_last {
                state.owed.remove(&submission.id);
            }
            state.ready.push_back(Response {
                outcome: outcome.clone(),
                submission: submission.id,
                file: range.file,
                index: range.index,
                is_last,
            });
        }
        drop(state);
        self.answered.notify_all();
    }

    /// Keeps `load`, the load of `submission`, so that ending the streamer cancels it.
    pub fn started(&self, submission: &Submission, load: CancelHandle) {
        let mut state = self.state();
        state.running.retain(|(id, _)| *id != submission.id);
        match state.is_ending {
            true => load.cancel(),
            false => state.running.push((submission.id, load)),
        }
    }

    /// A reader's thread: reads submissions until the streamer is ended.
    fn read_on(self: Arc<Self>) {
        while let Some((submission, loader)) = self.take() {
            reading::run(&self, &submission, &loader);
            self.state().running.retain(|(id, _)| *id != submission.id);
        }
    }

    fn take(&self) -> Option<(Submission, Loader)> {
        let mut state = self.state();
        loop {
            if state.is_ending {
                return None;
            }
            if let Some(submission) = state.waiting.pop_front() {
                return Some((submission, state.loader.clone()));
            }
            state.idle += 1;
            state = self.submitted.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody writes to memory of requests, until this is dropped.
struct Writing<'a>(&'a Streamer);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.writing -= 1;
        if state.writing == 0 {
            self.0.quiet.notify_all();
        }
    }
}
