//! A streamer: its settings, its open sources, its queue, and the threads that read.
//!
//! ```text
//! request --> Queue::push --> reader threads (at most two) --> Queue::response
//!                                |  reading::run: opens, reads, responds to each range once
//!                                \-> engines, for submissions that are not small
//! ```
//!
//! Submissions are started in order. Two are read at once, so that the engines of one start while
//! those of the other finish. More would only compete for the disk with the submissions that are
//! waited for.

use super::code::{Failure, RunaiFileStreamerResponse as Code};
use super::queue::Queue;
use super::reading;
use super::sources::SourceCache;
use super::submission::Submission;
use crate::load::Loader;
use crate::options::{S3Credentials, cores, engines_from, environment, strategy};
use crate::sync::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;

/// The keys and values that credentials are set with.
pub type Credentials = BTreeMap<String, String>;

/// A streamer.
pub struct Streamer {
    pub queue: Queue,
    sources: SourceCache,
    settings: Mutex<Settings>,
}

struct Settings {
    loader: Loader,
    credentials: Option<Credentials>,
    /// The list of strategies as it was set, without spaces.
    strategy: Option<String>,
    last_id: u64,
    /// Whether anything was requested.
    is_used: bool,
}

impl Streamer {
    /// Returns a streamer with the options of the environment.
    ///
    /// # Errors
    /// [`InvalidParameterError`](Code::InvalidParameterError) if a variable does not parse.
    pub fn new() -> Result<Self, Failure> {
        let invalid = |error| Failure::of(&error, false).with_code(Code::InvalidParameterError);
        engines_from(environment, cores()).map_err(invalid)?;
        let loader = Loader::from_env().runai_env().map_err(invalid)?;
        let queue = Queue::default();
        let loader = loader.cancellation(&queue.cancellation);
        let settings =
            Settings { loader, credentials: None, strategy: None, last_id: 0, is_used: false };
        Ok(Self { queue, sources: SourceCache::default(), settings: Mutex::new(settings) })
    }

    /// Returns a loader with the streamer's settings.
    pub fn loader(&self) -> Loader {
        self.settings.lock().loader.clone()
    }

    /// Sets credentials, once.
    ///
    /// # Errors
    /// [`CredentialsAlreadySet`](Code::CredentialsAlreadySet) if others were set before, and
    /// [`InvalidParameterError`](Code::InvalidParameterError) if only one of id and secret is
    /// given.
    pub fn set_credentials(&self, credentials: Credentials) -> Result<(), Code> {
        let mut settings = self.settings.lock();
        if let Some(before) = &settings.credentials {
            let same = *before == credentials;
            return if same { Ok(()) } else { Err(Code::CredentialsAlreadySet) };
        }
        let get = |key: &str| credentials.get(key).filter(|value| !value.is_empty()).cloned();
        let mut loader = settings.loader.clone();
        match (get("access_key_id"), get("secret_access_key")) {
            (Some(id), Some(secret)) => {
                let mut keys = S3Credentials::new(id, secret);
                keys.session_token = get("session_token");
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
        settings.loader = loader;
        settings.credentials = Some(credentials);
        drop(settings);
        self.sources.forget_all();
        Ok(())
    }

    /// Sets how files are read, once and before the first request.
    ///
    /// # Errors
    /// [`FsStrategyConflict`](Code::FsStrategyConflict) after another strategy or a request, and
    /// [`InvalidParameterError`](Code::InvalidParameterError) if `list` is not a list of
    /// strategies.
    pub fn set_strategy(&self, list: &str) -> Result<(), Failure> {
        let path = strategy(list)
            .map_err(|error| Failure::of(&error, false).with_code(Code::InvalidParameterError))?;
        let list = list.replace(' ', "");
        let mut settings = self.settings.lock();
        match &settings.strategy {
            Some(before) if *before == list => return Ok(()),
            None if !settings.is_used => {}
            _ => return Err(Code::FsStrategyConflict.into()),
        }
        settings.strategy = Some(list);
        settings.loader = settings.loader.clone().read_path(path);
        Ok(())
    }

    /// Returns the number of the next submission.
    pub fn next_id(&self) -> u64 {
        let mut settings = self.settings.lock();
        settings.last_id += 1;
        settings.last_id
    }

    /// Queues `submission` for the reader threads.
    ///
    /// # Errors
    /// The errors of [`Queue::push`].
    pub fn submit(self: &Arc<Self>, submission: Submission) -> Result<(), Code> {
        self.settings.lock().is_used = true;
        self.queue.push(submission, || {
            let streamer = Arc::clone(self);
            let reader = thread::Builder::new().name("ringload-reader".into());
            reader.spawn(move || streamer.read_submissions())
        })
    }

    /// Reads submissions until the queue ends. The body of a reader thread.
    fn read_submissions(&self) {
        while let Some(submission) = self.queue.take() {
            reading::run(&self.queue, &self.sources, &submission, &self.loader());
        }
    }
}
